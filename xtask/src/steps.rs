//! Steps that are run one after another, all of them, with a summary at the end.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What was run so far.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(&'static str, Duration, bool)>,
}

impl Steps {
    /// Runs a step; a failure is remembered and the next steps are run all the same.
    pub(crate) fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) {
        println!("\n== {name}");
        let begun = Instant::now();
        let result = step();
        if let Err(error) = &result {
            println!("error: {error:#}");
        }
        self.done.push((name, begun.elapsed(), result.is_ok()));
    }

    /// Prints the summary.
    ///
    /// # Errors
    /// When a step failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n== summary");
        for (name, took, passed) in &self.done {
            let word = if *passed { "ok" } else { "FAILED" };
            println!("{word:6} {:6.1} s  {name}", took.as_secs_f64());
        }
        let failed: Vec<_> =
            self.done.iter().filter(|(.., passed)| !passed).map(|(name, ..)| *name).collect();
        if failed.is_empty() {
            return Ok(());
        }
        bail!("failed: {}", failed.join(", "))
    }
}
