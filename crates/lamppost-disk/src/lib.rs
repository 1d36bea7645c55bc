//! The file operations of everything durable, behind a trait: simulations lose, tear, reorder and
//! refuse writes, and see exactly what the program believes to be safe.
//!
//! All operations block. [`Blocking`] says where that is done.

mod beneath;
mod blocking;
mod kind;
mod real;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

pub use beneath::Beneath;
pub use blocking::{Blocking, Cut};
pub use kind::{FileSystem, file_system};
pub use real::RealDisk;

/// What is done with files and folders.
pub trait Disk: Send + Sync + 'static {
    /// Makes a folder, and those above it, that only their owner may enter; one that is there is no
    /// error. Its name is durable by [`Disk::sync_folder`] of the one above.
    ///
    /// # Errors
    /// What the system says.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes an empty file that only its owner may read, or empties one. No symbolic link is
    /// followed.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that is there, to write over what is in it.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Reads at most `length_max` bytes from `offset` on.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, path: &Path, offset: u64, length_max: usize) -> io::Result<Vec<u8>>;

    /// What is in a folder, sorted by name.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// What is known of a file or folder; nothing when it is not there.
    ///
    /// # Errors
    /// What the system says.
    fn look(&self, path: &Path) -> io::Result<Option<Look>>;

    /// Gives a file another name, replacing a file that has it.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes what happened to the names in a folder durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes everything durable that was done so far on the file system that holds a path: contents
    /// and names (syncfs(2)).
    ///
    /// # Errors
    /// What the system says; also when anything else on that file system could not be written.
    fn sync_file_system(&self, path: &Path) -> io::Result<()>;

    /// Bytes that this user may still write in a folder's file system.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// A file that is being written.
pub trait DiskFile: Send {
    /// Writes all of the slices, one behind the other, from `offset` on.
    ///
    /// # Errors
    /// What the system says; how much was written is unknown then.
    fn write_at(&mut self, offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Makes all that was written durable, and the file's length.
    ///
    /// # Errors
    /// What the system says; what was not durable before may never be (never try again).
    fn sync(&mut self) -> io::Result<()>;
}

/// What is known of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Bytes of a file.
    pub length: u64,
    /// Names that the file has.
    pub names: u64,
    /// Tells its file system from others.
    pub device: u64,
    /// Whether it is a folder.
    pub is_folder: bool,
}
