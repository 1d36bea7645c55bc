//! What a backup says of itself.

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::hex;

/// What a backup says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Manifest {
    /// The version of the program that wrote it.
    pub program: String,
    /// The name by which the host greets.
    pub host: String,
    /// When it was begun, in seconds since 1970.
    pub created_s: u64,
    /// Messages in the queue at that moment.
    pub messages: u64,
    /// All files in their order, without the manifest and what frames it.
    pub files: Vec<FileSum>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileSum {
    /// Its name in the archive.
    pub name: String,
    /// Its bytes.
    pub length: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.length).fold(0, u64::saturating_add)
    }
}

/// A file whose bytes come one after the other.
pub(crate) struct Counted {
    pub(crate) name: String,
    pub(crate) left: u64,
    length: u64,
    sum: Context,
}

impl Counted {
    pub(crate) fn new(name: &str, length: u64) -> Self {
        Self { name: name.to_owned(), left: length, length, sum: Context::new(&SHA256) }
    }

    /// So many bytes more; never more than are left.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.sum.update(bytes);
    }

    pub(crate) fn finish(self) -> FileSum {
        let sha256 = hex(self.sum.finish().as_ref());
        FileSum { name: self.name, length: self.length, sha256 }
    }
}

/// The text of [`crate::SUM_NAME`].
pub(crate) fn sum_line(manifest: &[u8]) -> String {
    let sum = ring::digest::digest(&SHA256, manifest);
    format!("{}  {}\n", hex(sum.as_ref()), crate::MANIFEST_NAME)
}
