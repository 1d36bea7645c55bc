//! What was done to a disk, in the order in which it was done.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Something that changed files or folders, or made changes durable. What only looks is not recorded.
#[derive(Clone, PartialEq, Eq)]
pub enum Operation {
    /// A folder was made, above it all is there.
    CreateFolder {
        /// The folder.
        path: PathBuf,
    },
    /// An empty file was made, or a file emptied.
    Create {
        /// The file.
        path: PathBuf,
    },
    /// A file was written to, perhaps by a write that failed in the middle.
    Write {
        /// The file; names come and go while it is written.
        file: u64,
        /// Where.
        offset: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// A file was synced.
    SyncFile {
        /// The file.
        file: u64,
        /// Whether the sync succeeded.
        good: bool,
    },
    /// A file got another name.
    Rename {
        /// Its name before.
        from: PathBuf,
        /// Its name from now on.
        to: PathBuf,
    },
    /// A name was removed.
    Remove {
        /// The name.
        path: PathBuf,
    },
    /// The names in a folder were synced; a sync that failed did nothing.
    SyncFolder {
        /// The folder.
        path: PathBuf,
        /// Whether the sync succeeded.
        good: bool,
    },
    /// Everything on a file system was synced.
    SyncFileSystem {
        /// Something on it.
        path: PathBuf,
        /// Whether the sync succeeded.
        good: bool,
    },
}

/// Bytes are told by their number: segments of the log hold numbers drawn by lot, which differ in
/// every run.
impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateFolder { path } => write!(f, "create folder {}", path.display()),
            Self::Create { path } => write!(f, "create {}", path.display()),
            Self::Write { file, offset, bytes } => {
                write!(f, "write file {file} at {offset}: {} bytes", bytes.len())
            }
            Self::SyncFile { file, good } => write!(f, "sync file {file}{}", failed(*good)),
            Self::Rename { from, to } => write!(f, "rename {} to {}", from.display(), to.display()),
            Self::Remove { path } => write!(f, "remove {}", path.display()),
            Self::SyncFolder { path, good } => {
                write!(f, "sync folder {}{}", path.display(), failed(*good))
            }
            Self::SyncFileSystem { path, good } => {
                write!(f, "sync file system of {}{}", path.display(), failed(*good))
            }
        }
    }
}

fn failed(good: bool) -> &'static str {
    if good { "" } else { " (failed)" }
}
