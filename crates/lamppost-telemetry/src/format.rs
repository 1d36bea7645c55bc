//! Where log lines go and how they look.

use std::io::{self, IsTerminal, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

use crate::count;
use crate::lines::{Lines, Writer};
use crate::outcomes::{Kept, Outcomes, keep, open, pass_on};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Journal fields when standard error is the journal, otherwise text.
    Auto,
    /// JSON lines on standard error.
    Json,
    /// Fields of the systemd journal.
    Journal,
    /// Text on standard error; coloured on a terminal.
    Text,
}

/// Where lines go. It is reached before a process gives up the right to make sockets.
pub struct LinesTo(Way);

enum Way {
    Text,
    Json,
    Journal(tracing_journald::Layer),
}

impl LinesTo {
    /// Finds the way for a format, and tries it.
    ///
    /// # Errors
    /// When lines are for the journal and it cannot be reached.
    pub fn reach(format: Format) -> Result<Self, StartError> {
        let journal = || {
            let layer = tracing_journald::layer().map_err(StartError::Journal)?;
            Ok(Way::Journal(layer.with_field_prefix(None)))
        };
        Ok(Self(match format {
            Format::Auto if stderr_is_journal() => journal()?,
            Format::Auto | Format::Text => Way::Text,
            Format::Journal => journal()?,
            Format::Json => Way::Json,
        }))
    }
}

/// What the log is told.
pub struct Settings {
    /// Where lines go and how they look.
    pub lines: LinesTo,
    /// The least important level that is logged.
    pub level: Level,
    /// Where outcomes go.
    pub outcomes: OutcomesTo,
}

/// Where this process' outcomes go.
#[derive(Debug)]
pub enum OutcomesTo {
    /// Into the outcome log in this folder, which `lamppost log` reads; the folder must exist, and
    /// one process writes there.
    Folder(PathBuf, Kept),
    /// To the process that writes it, which [`Guard::keep`]s what comes.
    Keeper(UnixStream),
    /// Nowhere: this process has none.
    Nobody,
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no journal to write to.
    #[error("cannot reach the systemd journal (log.format = \"text\" does without it)")]
    Journal(#[source] io::Error),
    /// The outcome log cannot be written.
    #[error("cannot open the outcome log in {path}")]
    Outcomes {
        /// Its folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no thread to write the log.
    #[error("cannot begin a thread that writes the log")]
    Thread(#[source] io::Error),
    /// Another part of the process logs already.
    #[error("logging has begun already")]
    Again(#[source] TryInitError),
}

/// Keeps the logs going; writes out what waits when it is dropped.
#[derive(Debug)]
pub struct Guard {
    outcomes: Option<Lines>,
    /// In this order: the outcome log may complain on standard error.
    _writers: (Option<Writer>, Writer),
}

impl Guard {
    /// Writes down the outcomes of another process, until it is gone.
    ///
    /// # Errors
    /// When no thread can be begun for it.
    pub fn keep(&self, from: UnixStream) -> io::Result<()> {
        let Some(lines) = self.outcomes.clone() else { return Ok(()) };
        let thread = std::thread::Builder::new().name("outcomes of".into());
        thread.spawn(move || keep(from, &lines)).map(drop)
    }
}

/// Begins logging for the whole process.
///
/// # Errors
/// When the outcome log cannot be opened.
pub fn start(settings: Settings) -> Result<Guard, StartError> {
    let (to_outcomes, writer) = match settings.outcomes {
        OutcomesTo::Folder(path, kept) => {
            let opened = open(&path, kept);
            Some(opened.map_err(|source| StartError::Outcomes { path, source })?)
        }
        OutcomesTo::Keeper(to) => Some(pass_on(to).map_err(StartError::Thread)?),
        OutcomesTo::Nobody => None,
    }
    .unzip();
    let outcomes = to_outcomes.clone().map(Outcomes::new);
    let (to_stderr, stderr) = stderr().map_err(StartError::Thread)?;
    let lines =
        lines(settings.lines, to_stderr).with_filter(LevelFilter::from_level(settings.level));
    Registry::default()
        .with(lines)
        .with(outcomes.map(|outcomes| outcomes.with_filter(LevelFilter::INFO)))
        .try_init()
        .map_err(StartError::Again)?;
    Ok(Guard { outcomes: to_outcomes, _writers: (writer, stderr) })
}

/// Standard error, which may be a pipe that nobody empties.
fn stderr() -> io::Result<(Lines, Writer)> {
    Lines::begin("log", |lines, dropped| {
        // Nobody is left to be told when standard error itself fails.
        drop(io::stderr().write_all(lines));
        if dropped > 0 {
            let lines = count(dropped, "line");
            drop(writeln!(io::stderr(), "dropped here: {lines} of the log"));
        }
    })
}

fn lines(to: LinesTo, to_stderr: Lines) -> Box<dyn Layer<Registry> + Send + Sync> {
    match to.0 {
        Way::Text => tracing_subscriber::fmt::layer()
            .with_writer(to_stderr)
            .with_target(false)
            .with_ansi(io::stderr().is_terminal())
            .boxed(),
        Way::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_target(false)
            .with_writer(to_stderr)
            .boxed(),
        Way::Journal(layer) => layer.boxed(),
    }
}

/// Whether systemd connected standard error to its journal (systemd.exec(5), `$JOURNAL_STREAM`).
fn stderr_is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else {
        return false;
    };
    named == format!("{}:{}", stat.st_dev, stat.st_ino)
}
