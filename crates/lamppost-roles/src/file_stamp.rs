//! What tells that a file is another, or has changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A file as it was at some time: another file, or another content, has another stamp, unless it changed
/// twice within a tick of the file system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    identity: (u64, u64),
    size: u64,
    /// Seconds and nanoseconds since 1970, of the content and of the file.
    changed: [(i64, i64); 2],
}

impl FileStamp {
    /// The stamp of a file.
    pub fn of(file: &Metadata) -> Self {
        Self {
            identity: (file.dev(), file.ino()),
            size: file.size(),
            changed: [(file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec())],
        }
    }

    /// Whether the file changed after this time since 1970.
    pub fn is_after(&self, time: Duration) -> bool {
        let time = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.changed.iter().any(|(seconds, _)| *seconds > time)
    }
}
