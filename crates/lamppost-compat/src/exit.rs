//! How our small programs end: the codes of sysexits.h, which callers of sendmail look at.

use std::io::{self, Write as _};
use std::process::ExitCode;

/// An exit code (sysexits.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Usage = 64,
    Data = 65,
    NoUser = 67,
    Unavailable = 69,
    Software = 70,
    Io = 74,
    TemporaryFailure = 75,
    NoPermission = 77,
}

/// Why a program ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Tells the failure and gives the exit code.
    pub(crate) fn report(&self, name: &str) -> ExitCode {
        // With standard error closed there is nobody to tell; the code tells enough.
        drop(writeln!(io::stderr(), "{name}: {}", self.text));
        ExitCode::from(self.code as u8)
    }
}
