//! What was acknowledged, on disk before the next message goes.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// A file of acknowledged tokens, one in a line.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::options().create(true).append(true).open(path)? })
    }

    /// Appends a line and makes it durable. Sessions do so side by side: a line is one write, and
    /// each waits for a sync of its own, which the file system may share.
    pub(crate) fn note(&self, token: impl Display) -> io::Result<()> {
        (&self.file).write_all(format!("{token}\n").as_bytes())?;
        self.file.sync_data()
    }
}
