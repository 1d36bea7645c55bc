//! Comparisons with peers: the same work by both in one run, as ratios (bench/README.md).

mod lamppost;
mod postfix;
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};

use crate::machine::{must, output, unpacked};
use crate::setup;
use process::Usage;

/// How long a server may take until all messages lie in Maildirs.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Lamppost and Postfix take the same messages until all lie in Maildirs
    Mail(Mail),
}

#[derive(Args)]
pub(crate) struct Mail {
    /// How many messages
    #[arg(long, default_value_t = 2000)]
    messages: u32,
    /// How many sessions at once
    #[arg(long, default_value_t = 20)]
    sessions: u32,
    /// Bytes of a message
    #[arg(long, default_value_t = 4096)]
    size: u32,
    /// How often each server is measured, in turn
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Where the servers keep their files: the file system that is measured
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
}

/// A server that is measured.
pub(crate) trait Server {
    /// Its address.
    fn address(&self) -> String;
    /// Its process; children count too.
    fn pid(&self) -> u32;
    /// Where its messages arrive.
    fn new_folder(&self) -> PathBuf;
}

/// What was measured in one run.
struct Figures {
    per_second: f64,
    cpu_ms: f64,
    memory_mib: f64,
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Mail(mail) => mail.run(),
        }
    }
}

impl Mail {
    fn run(&self) -> Result<()> {
        setup::run()?;
        let folder = std::path::absolute(&self.folder)?;
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder)?;
        lamppost::build()?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for run in 1..=self.runs {
            println!("run {run} of {}", self.runs);
            ours.push(
                self.measure(&lamppost::Lamppost::start(&folder.join(format!("lamppost-{run}")))?)?,
            );
            theirs.push(
                self.measure(&postfix::Postfix::start(&folder.join(format!("postfix-{run}")))?)?,
            );
        }
        self.tell(&folder, &median(&ours), &median(&theirs))
    }

    /// Sends all messages and waits until the last lies in the Maildir.
    fn measure(&self, server: &dyn Server) -> Result<Figures> {
        let before = Usage::of(server.pid());
        let begun = Instant::now();
        must(
            smtp_source()
                .args(["-s", &self.sessions.to_string(), "-m", &self.messages.to_string()])
                .args(["-l", &self.size.to_string(), "-f", "sender@elsewhere.test"])
                .args(["-t", "demo@lamppost.test", &server.address()]),
        )?;
        let wanted = self.messages as usize;
        while count(&server.new_folder()) < wanted {
            ensure!(
                begun.elapsed() < PATIENCE,
                "only {} of {wanted} messages arrived",
                count(&server.new_folder())
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let took = begun.elapsed().as_secs_f64();
        let after = Usage::of(server.pid());
        let messages = f64::from(self.messages);
        Ok(Figures {
            per_second: messages / took,
            cpu_ms: (after.cpu_s - before.cpu_s) * 1000.0 / messages,
            memory_mib: after.memory_kib / 1024.0,
        })
    }

    fn tell(&self, folder: &Path, ours: &Figures, theirs: &Figures) -> Result<()> {
        let Self { messages, sessions, size, runs, .. } = self;
        let system =
            output(Command::new("findmnt").args(["-n", "-o", "FSTYPE,OPTIONS", "-T"]).arg(folder))?;
        println!(
            "\n{messages} messages of {size} bytes, {sessions} sessions, median of {runs} runs"
        );
        println!("file system: {}\n", system.trim());
        println!("{:24}{:>12}{:>12}{:>10}", "", "Lamppost", "Postfix", "ratio");
        for (name, ours, theirs) in [
            ("messages per second", ours.per_second, theirs.per_second),
            ("CPU ms per message", ours.cpu_ms, theirs.cpu_ms),
            ("memory MiB (PSS)", ours.memory_mib, theirs.memory_mib),
        ] {
            println!("{name:24}{ours:12.2}{theirs:12.2}{:10.2}", ours / theirs);
        }
        Ok(())
    }
}

fn smtp_source() -> Command {
    let root = setup::postfix();
    let mut command = Command::new(root.join("usr/sbin/smtp-source"));
    command.env("LD_LIBRARY_PATH", postfix_libraries());
    command
}

/// Where the unpacked Postfix finds its libraries.
fn postfix_libraries() -> String {
    let root = unpacked().join("postfix");
    let triplet = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    format!("{}:{}", root.join("usr/lib/postfix").display(), root.join(triplet).display())
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Each figure's median.
fn median(runs: &[Figures]) -> Figures {
    let middle = |figure: fn(&Figures) -> f64| {
        let mut figures: Vec<_> = runs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Figures {
        per_second: middle(|run| run.per_second),
        cpu_ms: middle(|run| run.cpu_ms),
        memory_mib: middle(|run| run.memory_mib),
    }
}

/// Waits until something accepts connections.
fn await_port(address: &str) -> Result<()> {
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        ensure!(begun.elapsed() < Duration::from_secs(30), "nothing listens on {address}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
