//! A backup's file: a tar archive that can prove that it is whole (docs/reference/backup-format.md).
//!
//! It is a plain `ustar` archive, so that any tar shows what is in it. What is read back is held to
//! more: every byte is as [`Writer`] writes it, or the archive is refused. So nothing that was torn
//! off or turned over goes unnoticed, and no name leads out of a folder.

mod header;
mod manifest;
mod reader;
mod writer;

pub use header::{FILE_LENGTH_MAX, is_name};
pub use manifest::{FileSum, Manifest};
pub use reader::{ArchiveError, Nowhere, Sink, read};
pub use writer::Writer;

/// The format that is written, and the newest that is read.
pub const FORMAT: u64 = 1;

/// The first file of each archive; its content names the format.
pub(crate) const FORMAT_NAME: &str = "format";
/// What stands in it before the number.
pub(crate) const FORMAT_WORDS: &str = "lamppost backup ";
/// The last file but one: names, lengths and checksums of all before it.
pub(crate) const MANIFEST_NAME: &str = "manifest.json";
/// The last file: the manifest's own checksum, as sha256sum(1) writes it.
pub(crate) const SUM_NAME: &str = "manifest.sha256";

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
        text
    })
}
