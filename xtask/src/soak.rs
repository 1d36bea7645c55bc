//! The long proof: kills by the hundred, power cuts, and properties with many more cases, with a log.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::check::runner;
use crate::machine::{cargo, output, root};

/// What is tried, and for how long.
#[derive(Args)]
pub(crate) struct Soak {
    /// For how long the tests with random cases are repeated
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// How often the program is killed under load
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// How often the power is cut on each file system
    #[arg(long, default_value_t = 10)]
    cuts: u64,
    /// Where everything that is printed goes as well
    #[arg(long)]
    log: Option<PathBuf>,
}

impl Soak {
    pub(crate) fn run(&self) -> Result<()> {
        let mut log = Log::open(self.log.as_ref())?;
        log.line(&format!("== {}", machine()))?;
        let end = Instant::now() + Duration::from_secs(60 * self.minutes);
        log.line(&format!("\n== {} kills", self.kills))?;
        let mut kills = one_test(&["crash", "every_acknowledged"]);
        let told = log.must(kills.env("LAMPPOST_KILLS", self.kills.to_string()))?;
        log.line(&summary(&told, self.kills)?)?;
        for round in 1..=self.cuts {
            log.line(&format!("\n== power cuts, round {round} of {}", self.cuts))?;
            log.must(&mut one_test(&["file_systems", "acknowledged_mail"]))?;
        }
        let mut round = 0;
        while Instant::now() < end {
            round += 1;
            log.line(&format!(
                "\n== random cases, round {round}; a property that fails prints its smallest case \
                 and keeps its seed"
            ))?;
            let mut command = runner(&["--features", "lamppost/peers"]);
            log.must(command.env("PROPTEST_CASES", "20000"))?;
        }
        log.line(&format!(
            "\n{} kills, {} power cuts on each file system and {round} rounds of random cases passed",
            self.kills, self.cuts
        ))
    }
}

/// One test of the program, told to print what it does.
fn one_test(test_and_filter: &[&str; 2]) -> Command {
    let [test, filter] = test_and_filter;
    let mut command = cargo(&["test", "--quiet", "-p", "lamppost", "--features", "peers"]);
    command.args(["--test", test, "--", filter, "--nocapture", "--test-threads", "1"]);
    command
}

/// What this runs on, as far as it matters for the result.
fn machine() -> String {
    let told = |program: &str, arguments: &[&str]| {
        output(Command::new(program).args(arguments)).unwrap_or_default().trim().to_owned()
    };
    format!(
        "{}; kernel {}; temporary files on {}; commit {}",
        told("date", &["--utc", "+%F %R UTC"]),
        told("uname", &["-r"]),
        told("findmnt", &["-n", "-o", "FSTYPE", "-T", "/tmp"]),
        told("git", &["-C", &root().to_string_lossy(), "describe", "--always", "--dirty"]),
    )
}

/// Adds up the rounds, whose lines begin `seed …: N kills, N starts cut short`.
fn summary(told: &str, wanted: u64) -> Result<String> {
    let figure = |line: &str, what: &str| {
        let words = line.split(what).next().filter(|before| before.len() < line.len());
        words.and_then(|before| before.split_whitespace().next_back()?.parse::<u64>().ok())
    };
    let rounds: Vec<_> = told.lines().filter(|line| line.starts_with("seed ")).collect();
    let [kills, starts, acknowledged, unanswered, arrivals] =
        [" kills", " starts cut", " messages acknowledged", " not answered", " arrivals"]
            .map(|what| rounds.iter().filter_map(|line| figure(line, what)).sum::<u64>());
    if kills < wanted {
        bail!("{kills} of {wanted} kills were made");
    }
    Ok(format!(
        "in {} rounds: {kills} kills under load and {starts} during a start; {acknowledged} messages \
         acknowledged, {unanswered} not answered, {arrivals} arrivals; 0 lost, 0 doubled, 0 changed",
        rounds.len()
    ))
}

/// What is printed, and kept where that is asked for.
struct Log {
    file: Option<File>,
}

impl Log {
    fn open(path: Option<&PathBuf>) -> Result<Self> {
        let open = |path: &PathBuf| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        Ok(Self { file: path.map(open).transpose()? })
    }

    fn line(&mut self, line: &str) -> Result<()> {
        println!("{line}");
        if let Some(file) = &mut self.file {
            writeln!(file, "{line}").context("cannot write the log")?;
        }
        Ok(())
    }

    /// Runs a command that must succeed; returns what it printed.
    fn must(&mut self, command: &mut Command) -> Result<String> {
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        let errors = writer.try_clone().context("cannot make a pipe")?;
        command.stdin(Stdio::null()).stdout(writer).stderr(errors);
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        // The command holds the pipe's other end, and its end would never be seen.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut told = String::new();
        for line in BufReader::new(reader).lines() {
            let line = line.context("cannot read what a command prints")?;
            self.line(&line)?;
            told.push_str(&line);
            told.push('\n');
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("{command:?} failed: {status}");
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_added_up() {
        let told = "running 1 test\n\
            seed 7: 10 kills, 2 starts cut short, in 1.0 s; 100 messages acknowledged, 3 not answered, \
            1 cut, 0 refused; 200 arrivals, of which\n\
            seed 8: 5 kills, 1 starts cut short, in 1.0 s; 50 messages acknowledged, 1 not answered, \
            1 cut, 0 refused; 90 arrivals, of which\n";
        let summary = summary(told, 15).unwrap();
        assert!(summary.starts_with(
            "in 2 rounds: 15 kills under load and 3 during a start; 150 messages acknowledged, \
             4 not answered, 290 arrivals"
        ));
        assert!(super::summary(told, 16).is_err());
    }
}
