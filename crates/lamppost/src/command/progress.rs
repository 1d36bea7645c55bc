//! How far a long command is, on standard error, for people who wait at a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

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
