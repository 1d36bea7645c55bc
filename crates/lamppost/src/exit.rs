//! How the program ends when something fails: the codes of sysexits.h and sentences for people.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// A failure to be told before the program ends.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    what: String,
    cure: Option<String>,
}

/// Exit codes (sysexits.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The command line is wrong.
    Usage = 64,
    /// What was given, or asked for, is not there or not right.
    Data = 65,
    /// The running program does not answer.
    Unavailable = 69,
    /// Something that should not fail did.
    Software = 70,
    /// The system lacks something.
    System = 71,
    /// Reading or writing failed.
    Io = 74,
    /// Who asks may not.
    Permission = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl Code {
    const ALL: [Self; 8] = [
        Self::Usage,
        Self::Data,
        Self::Unavailable,
        Self::Software,
        Self::System,
        Self::Io,
        Self::Permission,
        Self::Config,
    ];
}

impl Failure {
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), cure: None }
    }

    /// A failure with an error and its causes.
    pub(crate) fn of(code: Code, error: &dyn Error) -> Self {
        Self::new(code, chain(error))
    }

    /// A failure at a step, with its causes.
    pub(crate) fn at(code: Code, step: &str, error: &dyn Error) -> Self {
        Self::new(code, format!("{step}: {}", chain(error)))
    }

    /// Says what to do about it.
    pub(crate) fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// The exit code, what failed and what to do about it, for another process.
    pub(crate) fn into_parts(self) -> (u8, String, Option<String>) {
        (self.code as u8, self.what, self.cure)
    }

    /// A failure of another process.
    pub(crate) fn from_parts(code: u8, what: String, cure: Option<String>) -> Self {
        let code = Code::ALL.into_iter().find(|one| *one as u8 == code);
        Self { code: code.unwrap_or(Code::Software), what, cure }
    }

    /// Says what to do about it, unless that is said already.
    pub(crate) fn or_cure(mut self, cure: impl Into<String>) -> Self {
        self.cure.get_or_insert_with(|| cure.into());
        self
    }

    /// What failed, for a place that tells it otherwise.
    pub(crate) fn text(&self) -> &str {
        &self.what
    }

    /// The code that the program would end with.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// What failed and what to do about it.
    pub(crate) fn whole(&self) -> String {
        match &self.cure {
            Some(cure) => format!("{}\n  help: {cure}", self.what),
            None => self.what.clone(),
        }
    }

    /// Tells the failure and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let mut text = self.whole();
        // Problems of a file come rendered, each with its own head.
        if !text.starts_with("error") {
            text.insert_str(0, "error: ");
        }
        // With standard error closed there is nobody to tell.
        drop(writeln!(io::stderr(), "{text}"));
        ExitCode::from(self.code as u8)
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _infallible = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// Tells what clap found wrong, or the help that was asked for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    drop(error.print());
    if error.use_stderr() { ExitCode::from(Code::Usage as u8) } else { ExitCode::SUCCESS }
}
