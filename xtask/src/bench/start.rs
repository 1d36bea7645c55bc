//! `cargo xtask bench start`: from the start of the program until it is ready.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::cell::timed;
use super::disk::Disk;
use super::facts;
use super::image::{self, Image, System};
use super::lamppost::{self, Place};
use super::load::{Connections, Load};
use super::peer::Peer;
use super::process::{Usage, end};
use super::table::{Table, figure, median_of};
use crate::machine::output;
use crate::setup;

/// Messages after which progress is told while the queue is filled.
const BATCH: u32 = 50_000;
/// Expected from start to ready with an empty queue, and its memory then.
const EMPTY_READY_MS: f64 = 100.0;
const EMPTY_MEMORY_MIB: f64 = 40.0;
/// Expected from start to ready with 1,000,000 messages.
const LONG_READY_MS: f64 = 5000.0;
/// How long the program may take to try all messages once.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Args)]
pub(crate) struct Start {
    /// Messages in the long queue; 0 leaves it out
    #[arg(long, default_value_t = 1_000_000)]
    queued: u32,
    /// Bytes of a queued message
    #[arg(long, default_value_t = 1024)]
    size: u32,
    /// How often each start is measured
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Forget what the page cache holds before each start
    #[arg(long)]
    cold: bool,
    /// Where the state is kept: the file system that is measured
    #[arg(long, default_value = "target/bench-start")]
    folder: PathBuf,
    /// Measure on a freshly made file system on a loop device instead
    #[arg(long, value_enum, conflicts_with = "folder")]
    image: Option<System>,
}

/// How the program ended before a start.
#[derive(Clone, Copy)]
enum Ended {
    Stopped,
    Killed,
}

impl Start {
    pub(crate) fn run(self) -> Result<()> {
        if self.image.is_some() {
            image::own_mounts()?;
        }
        ensure!(self.runs > 0, "--runs: at least 1");
        setup::peers()?;
        lamppost::build()?;
        let mib = (self.queued / 1024).saturating_mul(self.size * 4 / 1024 + 4) + 4096;
        let image = self.image.map(|system| Image::make(system, mib)).transpose()?;
        let folder = match &image {
            Some(image) => image.folder().join("bench"),
            None => std::path::absolute(&self.folder)?,
        };
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder)?;
        let measured = self.measure(&folder);
        drop(std::fs::remove_dir_all(&folder));
        measured
    }

    fn measure(&self, folder: &Path) -> Result<()> {
        let mut table =
            Table::new(["start to ready", "ms", "wanted", "slowest", "MiB (PSS)", "wanted"]);
        let empty = Place::make(&folder.join("empty"), "")?;
        for (ended, word) in [(Ended::Stopped, "a clean stop"), (Ended::Killed, "kill -9")] {
            let name = format!("empty queue, after {word}");
            let wanted = Wanted { ready_ms: EMPTY_READY_MS, memory_mib: Some(EMPTY_MEMORY_MIB) };
            let starts = timed(&name, || self.starts(&empty, ended))?;
            table.row(starts.row(&name, &wanted));
        }
        if self.queued > 0 {
            let long = blocked(&folder.join("long"))?;
            timed(&format!("filling a queue with {} messages", self.queued), || self.fill(&long))?;
            for (ended, word) in [(Ended::Stopped, "a clean stop"), (Ended::Killed, "kill -9")] {
                let name = format!("{} messages queued, after {word}", self.queued);
                let wanted = Wanted { ready_ms: LONG_READY_MS, memory_mib: None };
                let starts = timed(&name, || self.starts(&long, ended))?;
                table.row(starts.row(&name, &wanted));
            }
        }
        println!(
            "\n{}\n",
            facts::gather(&Disk::under(folder)?, &[Peer::Lamppost.version()]).join("\n")
        );
        println!("medians of {} starts{}\n", self.runs, if self.cold { ", cold" } else { "" });
        print!("{}", table.text());
        Ok(())
    }

    /// Starts the program, ends it in the given way, and starts it again as often as is wanted.
    fn starts(&self, place: &Place, ended: Ended) -> Result<Starts> {
        let (mut took, mut memory) = (Vec::new(), Vec::new());
        for run in 0..=self.runs {
            if self.cold {
                forget()?;
            }
            let (mut child, ready) = place.start(place.command())?;
            // The first start follows something else; it only brings the program into its state.
            if run > 0 {
                println!("  {:.1} ms", ready.as_secs_f64() * 1e3);
                took.push(ready.as_secs_f64() * 1e3);
                memory.push(Usage::of(child.id()).memory_mib);
            }
            match ended {
                Ended::Stopped => stop(&mut child)?,
                Ended::Killed => end(&mut child),
            }
        }
        Ok(Starts { took_ms: took, memory_mib: memory })
    }

    /// Sends messages that cannot be delivered yet, as a client would, until so many are queued.
    fn fill(&self, place: &Place) -> Result<()> {
        let (mut child, _) = place.start(place.command())?;
        let filled = self.send_all(place);
        stop(&mut child)?;
        filled
    }

    fn send_all(&self, place: &Place) -> Result<()> {
        let begun = Instant::now();
        let mut sent = 0;
        while sent < self.queued {
            let messages = BATCH.min(self.queued - sent);
            let load =
                Load { messages, size: self.size, sessions: 100, connections: Connections::Kept };
            load.send(&Peer::Lamppost.address())?;
            sent += messages;
            println!("  {sent} sent after {:.0} s", begun.elapsed().as_secs_f64());
        }
        // A message that was not tried yet would be tried in the middle of a measured start.
        let begun = Instant::now();
        loop {
            let queue = queue(place)?;
            if queue.messages >= u64::from(self.queued) && queue.waiting >= queue.messages {
                println!("  {} MiB on disk", queue.spool_bytes >> 20);
                return Ok(());
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "{} messages in the queue, {} of them wait for their next try; {} are wanted",
                queue.messages,
                queue.waiting,
                self.queued
            );
            std::thread::park_timeout(Duration::from_millis(200));
        }
    }
}

/// How long each start took, and how much memory the program had after it.
struct Starts {
    took_ms: Vec<f64>,
    memory_mib: Vec<f64>,
}

/// What is expected.
struct Wanted {
    ready_ms: f64,
    memory_mib: Option<f64>,
}

impl Starts {
    /// Medians beside what is expected.
    fn row(mut self, name: &str, wanted: &Wanted) -> [String; 6] {
        let ready = median_of(&mut self.took_ms).unwrap_or(f64::NAN);
        let slowest = self.took_ms.iter().copied().fold(f64::NAN, f64::max);
        let memory = median_of(&mut self.memory_mib).unwrap_or(f64::NAN);
        let verdict = |measured: f64, limit: f64| {
            let word = if measured <= limit { "reached" } else { "MISSED" };
            format!("≤ {limit} {word}")
        };
        [
            name.to_owned(),
            figure(ready),
            verdict(ready, wanted.ready_ms),
            figure(slowest),
            figure(memory),
            wanted.memory_mib.map_or_else(String::new, |limit| verdict(memory, limit)),
        ]
    }
}

/// A place whose mailbox cannot be delivered to: a plain file stands where its folder belongs.
fn blocked(folder: &Path) -> Result<Place> {
    let place = Place::make(folder, "[mail.queue]\nretry-first = \"12h\"\nretry-max = \"12h\"\n")?;
    let mail = place.state().join("mail");
    std::fs::write(&mail, "")?;
    std::fs::set_permissions(&mail, std::fs::Permissions::from_mode(0o600))?;
    Ok(place)
}

/// What `lamppost status` says of the queue.
struct Queue {
    messages: u64,
    waiting: u64,
    spool_bytes: u64,
}

fn queue(place: &Place) -> Result<Queue> {
    let json = output(place.command().args(["status", "--json"]))?;
    let queue = json.split("\"queue\"").nth(1).context("no queue in the status")?;
    let number = |key: &str| {
        let rest = queue.split(&format!("\"{key}\"")).nth(1)?.trim_start_matches([':', ' ']);
        let end = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        rest.get(..end)?.parse().ok()
    };
    Ok(Queue {
        messages: number("messages").context("no messages in the status")?,
        waiting: number("waiting").context("no waiting in the status")?,
        spool_bytes: number("spool-bytes").unwrap_or(0),
    })
}

/// Asks the program to end and waits until it has.
fn stop(child: &mut Child) -> Result<()> {
    output(Command::new("kill").arg(child.id().to_string()))?;
    let status = child.wait()?;
    ensure!(status.success(), "Lamppost did not stop cleanly: {status}");
    Ok(())
}

/// Writes what waits and drops what the page cache holds of it.
fn forget() -> Result<()> {
    output(&mut Command::new("sync"))?;
    std::fs::write("/proc/sys/vm/drop_caches", "3\n").context("only root can forget the page cache")
}
