//! How the programs of ucspi-tcp speak: their exit codes, and their words for what the system says.

use std::io::{self, Write as _};
use std::process::ExitCode;

/// The command line, or what was to be read, is wrong.
const WRONG: u8 = 100;
/// The system does not let it be done now.
const TEMPORARY: u8 = 111;

/// Ends with what is wrong.
pub(crate) fn wrong(text: impl AsRef<[u8]>) -> ExitCode {
    tell(text.as_ref());
    ExitCode::from(WRONG)
}

/// Ends with what cannot be done now.
pub(crate) fn temporary(text: impl AsRef<[u8]>) -> ExitCode {
    tell(text.as_ref());
    ExitCode::from(TEMPORARY)
}

/// Writes a line to standard error.
pub(crate) fn tell(text: &[u8]) {
    // With standard error closed there is nobody to tell; the code tells enough.
    drop(io::stderr().write_all(&[text, b"\n"].concat()));
}

/// An error of the system in the words of `error_str.c`, which others may look for.
pub(crate) fn of(error: &io::Error) -> String {
    let known = error.raw_os_error().and_then(|code| {
        WORDS.iter().find(|(known, _)| *known == code).map(|(_, words)| (*words).to_owned())
    });
    known.unwrap_or_else(|| error.to_string())
}

/// What is read is not what it should be.
pub(crate) const PROTOCOL: &str = "protocol error";

const WORDS: [(i32, &str); 28] = [
    (libc::EACCES, "access denied"),
    (libc::EADDRINUSE, "address already used"),
    (libc::EADDRNOTAVAIL, "address not available"),
    (libc::EAGAIN, "temporary failure"),
    (libc::EBADF, "file descriptor not open"),
    (libc::EBUSY, "device busy"),
    (libc::EEXIST, "file already exists"),
    (libc::EFBIG, "file too big"),
    (libc::EINTR, "interrupted system call"),
    (libc::EINVAL, "invalid argument"),
    (libc::EIO, "input/output error"),
    (libc::EISDIR, "is a directory"),
    (libc::ELOOP, "symbolic link loop"),
    (libc::EMFILE, "process cannot open more files"),
    (libc::ENAMETOOLONG, "file name too long"),
    (libc::ENFILE, "system cannot open more files"),
    (libc::ENODEV, "device does not support operation"),
    (libc::ENOENT, "file does not exist"),
    (libc::ENOMEM, "out of memory"),
    (libc::ENOSPC, "out of disk space"),
    (libc::ENOTDIR, "not a directory"),
    (libc::ENOTEMPTY, "directory not empty"),
    (libc::EPERM, "permission denied"),
    (libc::EPIPE, "broken pipe"),
    (libc::EPROTO, PROTOCOL),
    (libc::EROFS, "read-only file system"),
    (libc::ETXTBSY, "text busy"),
    (libc::EXDEV, "cross-device link"),
];
