//! `cargo xtask bench mail`: the matrix of sizes, sessions and connections, and the disk beside it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::cell::{Cell, Plan, timed};
use super::disk::Disk;
use super::image::{self, Image, System};
use super::lamppost::{self, Lamppost};
use super::latency::Answers;
use super::load::Connections;
use super::peer::Peer;
use super::probe::Probe;
use super::report::Report;
use super::{facts, resolver, write};
use crate::machine::root;
use crate::setup;

/// MiB of an image: what a cell of the whole matrix needs at most, four times over.
const IMAGE_MIB: u32 = 16 << 10;

/// Which cells are measured.
#[derive(Args)]
struct Matrix {
    /// Bytes of a message
    #[arg(long, value_delimiter = ',', default_values_t = [4096, 102_400])]
    sizes: Vec<u32>,
    /// How many sessions at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 20, 100])]
    sessions: Vec<u32>,
    /// Only with connections that are kept for many messages
    #[arg(long, conflicts_with = "fresh")]
    kept: bool,
    /// Only with a fresh connection for each message
    #[arg(long)]
    fresh: bool,
}

#[derive(Args)]
pub(crate) struct Mail {
    #[command(flatten)]
    matrix: Matrix,
    /// The servers; Lamppost is always among them
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::ALL)]
    peers: Vec<Peer>,
    /// The most messages of a run; a slow server gets as many as it can take in the time
    #[arg(long, default_value_t = 10_000)]
    messages: u32,
    /// Seconds that a run shall take
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often each server is measured, in turn
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// One cell: 20 sessions, 4 KiB, fresh connections, Lamppost and Postfix
    #[arg(long)]
    quick: bool,
    /// Where the servers keep their files: the file system that is measured
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// Measure on a freshly made file system on a loop device instead
    #[arg(long, value_enum, conflicts_with = "folder")]
    image: Option<System>,
    /// Write docs/bench/mail.md and docs/bench/mail.svg
    #[arg(long)]
    save: bool,
}

impl Matrix {
    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &size in &self.sizes {
            for (left_out, connections) in
                [(self.kept, Connections::Fresh), (self.fresh, Connections::Kept)]
            {
                if !left_out {
                    let cell = |&sessions| Cell { size, sessions, connections };
                    cells.extend(self.sessions.iter().map(cell));
                }
            }
        }
        cells
    }
}

impl Mail {
    pub(crate) fn run(mut self) -> Result<()> {
        if self.image.is_some() {
            image::own_mounts()?;
        }
        self.narrow();
        let longest = Duration::try_from_secs_f64(self.seconds).context("--seconds")?;
        ensure!(
            self.matrix.sizes.iter().all(|size| *size > 0),
            "--sizes: a message has some bytes"
        );
        ensure!(
            self.matrix.sessions.iter().all(|&sessions| sessions > 0),
            "--sessions: at least 1"
        );
        ensure!(self.messages > 0 && self.runs > 0, "nothing would be measured");
        setup::peers()?;
        lamppost::build()?;
        resolver::start()?;
        let image = self.image.map(|system| Image::make(system, IMAGE_MIB)).transpose()?;
        let folder = match &image {
            Some(image) => image.folder().join("bench"),
            None => std::path::absolute(&self.folder)?,
        };
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder)?;
        let report = self.measure(&folder, longest);
        drop(std::fs::remove_dir_all(&folder));
        let report = report?;
        println!("{}", report.text());
        if self.save { save(&report) } else { Ok(()) }
    }

    /// Applies --quick, and puts Lamppost first.
    fn narrow(&mut self) {
        if self.quick {
            (self.matrix.sizes, self.matrix.sessions) = (vec![4096], vec![20]);
            (self.matrix.kept, self.matrix.fresh) = (false, true);
            self.peers = vec![Peer::Postfix];
        }
        self.peers.retain(|peer| *peer != Peer::Lamppost);
        self.peers.insert(0, Peer::Lamppost);
    }

    fn measure(&self, folder: &Path, run: Duration) -> Result<Report> {
        let disk = Disk::under(folder)?;
        println!("file system: {}", disk.described);
        let each = run / 2;
        let before = timed("the disk itself", || Probe::run(folder, each))?;
        let plan = Plan {
            peers: self.peers.clone(),
            messages_max: self.messages,
            run,
            runs: self.runs,
            folder: folder.to_owned(),
        };
        let (mut measured, cells) = (Vec::new(), self.matrix.cells());
        for (place, cell) in cells.iter().enumerate() {
            let title = format!("cell {} of {}: {}", place + 1, cells.len(), cell.name());
            let cell = timed(&title, || cell.measure(&plan))?;
            println!("\n{}", cell.table(&self.peers).text());
            measured.push(cell);
        }
        let answers = if self.matrix.sessions.contains(&20) {
            Some(timed("the answer to DATA", || answers(&folder.join("latency"), run))?)
        } else {
            None
        };
        let after = timed("the disk itself, once more", || Probe::run(folder, each))?;
        let versions: Vec<_> = self.peers.iter().map(|peer| peer.version()).collect();
        let mut facts = facts::gather(&disk, &versions);
        facts.push(format!(
            "medians of {} runs of about {} s, at most {} messages each; the servers take turns",
            self.runs, self.seconds, self.messages
        ));
        Ok(Report {
            facts,
            peers: self.peers.clone(),
            cells: measured,
            probe: before.faster(after),
            answers,
        })
    }
}

fn answers(folder: &Path, run: Duration) -> Result<Answers> {
    let server = Lamppost::start(folder, None)?;
    let address = Peer::Lamppost.address().parse().context("no address")?;
    let answers = Answers::measure(address, run);
    drop(server);
    std::fs::remove_dir_all(folder)?;
    answers
}

fn save(report: &Report) -> Result<()> {
    let folder = root().join("docs/bench");
    std::fs::create_dir_all(&folder)?;
    write(&folder.join("mail.md"), &report.markdown())?;
    write(&folder.join("mail.svg"), &report.svg())?;
    println!("wrote docs/bench/mail.md and docs/bench/mail.svg");
    Ok(())
}
