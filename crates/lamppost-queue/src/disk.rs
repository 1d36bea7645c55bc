//! The file operations of the spool, behind a trait so that tests can lose, tear and refuse writes.

use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the spool does with files.
pub trait Disk: Send + Sync + 'static {
    /// Makes a folder that only its owner may enter; one that is there is no error.
    ///
    /// # Errors
    /// What the system says.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes a new file, or empties one.
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Reads at most `length_max` bytes from `offset` on.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, path: &Path, offset: u64, length_max: usize) -> io::Result<Vec<u8>>;

    /// The files in a folder, sorted by name.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

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

    /// Bytes that this user may still write in a folder's file system.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// A file that is being written.
pub trait DiskFile: Send {
    /// Appends all of the slices.
    ///
    /// # Errors
    /// What the system says; how much was written is unknown then.
    fn append(&mut self, slices: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Makes all that was appended durable.
    ///
    /// # Errors
    /// What the system says; what was not durable before may never be (never try again).
    fn sync(&mut self) -> io::Result<()>;
}

/// The machine's file system.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = File::options();
        options.create(true).truncate(true).write(true).mode(0o600);
        Ok(Box::new(options.open(path)?))
    }

    fn read(&self, path: &Path, offset: u64, length_max: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length_max as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
        let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl DiskFile for File {
    fn append(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        // An empty slice would look like a file that takes no more.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match self.write_vectored(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
