//! How far a long command is, on standard error, for people who wait at a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use lamppost_console::Phase;

use super::out;

/// What is over sooner needs no words.
const QUIET: Duration = Duration::from_millis(700);
/// Between two lines.
const EVERY: Duration = Duration::from_millis(200);

/// A count that goes up.
pub(crate) struct Progress {
    noun: &'static str,
    done: u64,
    next: Instant,
    is_shown: bool,
    is_wanted: bool,
}

impl Progress {
    /// Nothing is done yet of what the noun names, such as `messages deleted`.
    pub(crate) fn new(noun: &'static str) -> Self {
        let is_wanted = io::stderr().is_terminal();
        Self { noun, done: 0, next: Instant::now() + QUIET, is_shown: false, is_wanted }
    }

    /// So many more are done.
    pub(crate) fn add(&mut self, more: u64) {
        self.done += more;
        if self.is_wanted && Instant::now() >= self.next {
            self.next = Instant::now() + EVERY;
            self.is_shown = true;
            // A terminal that is gone needs no progress.
            drop(write!(io::stderr(), "\r{} {} …\x1b[K", self.done, self.noun));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_shown {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}

/// What a command waits for that has no count: told anew at a terminal, and once elsewhere.
#[derive(Default)]
pub(crate) struct Waiting {
    told: Option<Phase>,
    is_shown: bool,
}

impl Waiting {
    /// It waits for this, which the program is at.
    pub(crate) fn tell(&mut self, phase: Phase, text: &str) {
        if io::stderr().is_terminal() {
            self.is_shown = true;
            // A terminal that is gone needs no progress.
            drop(write!(io::stderr(), "\r{text} …\x1b[K"));
        } else if self.told != Some(phase) {
            out::complain(&format!("{text}\n"));
        }
        self.told = Some(phase);
    }

    /// What it waited for is over.
    pub(crate) fn forget(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.forget();
    }
}
