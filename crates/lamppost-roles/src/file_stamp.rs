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
    /// Seconds and nanoseconds since 1970. Only the system sets it, at every change: what a program says of its
    /// file's content, such as `tar` or `rsync`, may be any time.
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of a file.
    pub fn of(file: &Metadata) -> Self {
        Self {
            identity: (file.dev(), file.ino()),
            size: file.size(),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// Whether the file changed after this time since 1970.
    pub fn is_after(&self, time: Duration) -> bool {
        let time = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.changed.0 > time
    }
}
