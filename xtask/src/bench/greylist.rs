//! `cargo xtask bench greylist`: decisions per second through Postfix's policy protocol, and what a
//! triplet costs in memory.

mod cell;
mod memory;
mod report;
mod subject;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::cell::{Asked, Cell, Contender, Measured};
use self::memory::Memory;
use self::report::Report;
use self::subject::Subject;
use super::cell::timed;
use super::disk::Disk;
use super::image::{self, Image, System};
use super::{facts, lamppost, resolver, write};
use crate::machine::{cargo, must, root};
use crate::setup;

/// MiB of an image: what a million triplets need in the most wasteful of the stores, and the journals.
const IMAGE_MIB: u32 = 4 << 10;

/// Triplets that are known in a quick run: the peers learn some hundred a second.
const QUICK_KNOWN: u64 = 1000;

#[derive(Args)]
pub(crate) struct Greylist {
    /// Who answers; Lamppost is always among them
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Subject::USUAL)]
    subjects: Vec<Subject>,
    /// How many connections at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 50])]
    connections: Vec<usize>,
    /// Triplets that are known
    #[arg(long, default_value_t = 5000)]
    known: u64,
    /// Seconds of a run
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often each is measured, in turn
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Triplets by which memory is measured; 0 leaves it out
    #[arg(long, default_value_t = 1_000_000)]
    triplets: u64,
    /// A thousand known triplets at 50 connections alone, 1 s, and no memory
    #[arg(long)]
    quick: bool,
    /// Where the stores are kept: the file system that is measured
    #[arg(long, default_value = "target/bench-greylist")]
    folder: PathBuf,
    /// Measure on a freshly made file system on a loop device instead
    #[arg(long, value_enum, conflicts_with = "folder")]
    image: Option<System>,
    /// Write docs/bench/greylist.md
    #[arg(long)]
    save: bool,
}

impl Greylist {
    pub(crate) fn run(mut self) -> Result<()> {
        if self.image.is_some() {
            image::own_mounts()?;
        }
        if self.quick {
            (self.connections, self.seconds, self.triplets) = (vec![50], 1.0, 0);
            self.known = self.known.min(QUICK_KNOWN);
        }
        self.subjects.retain(|subject| *subject != Subject::Lamppost);
        self.subjects.insert(0, Subject::Lamppost);
        let run = Duration::try_from_secs_f64(self.seconds).context("--seconds")?;
        ensure!(self.known > 0 && self.runs > 0 && !run.is_zero(), "nothing would be measured");
        ensure!(self.connections.iter().all(|some| *some > 0), "--connections: at least 1");
        setup::greylist_peers()?;
        lamppost::build()?;
        must(&mut cargo(&["build", "--release", "-p", "lamppost-load", "--example", "dunno"]))?;
        resolver::start()?;
        let image = self.image.map(|system| Image::make(system, IMAGE_MIB)).transpose()?;
        let folder = match &image {
            Some(image) => image.folder().join("bench"),
            None => std::path::absolute(&self.folder)?,
        };
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir_all(&folder)?;
        let report = self.measure(&folder, run);
        drop(std::fs::remove_dir_all(&folder));
        let report = report?;
        println!("{}", report.text());
        if self.save {
            write(&root().join("docs/bench/greylist.md"), &report.markdown())?;
            println!("wrote docs/bench/greylist.md");
        }
        Ok(())
    }

    fn cells(&self) -> Vec<Cell> {
        let kinds = if self.quick { &[Asked::Known][..] } else { &Asked::ALL };
        let cells = kinds.iter().flat_map(|&asked| {
            self.connections.iter().map(move |&connections| Cell { asked, connections })
        });
        cells.collect()
    }

    fn measure(&self, folder: &Path, run: Duration) -> Result<Report> {
        let disk = Disk::under(folder)?;
        println!("file system: {}", disk.described);
        let load = facts::load();
        let mut contenders = Vec::new();
        for &subject in &self.subjects {
            let title = format!("{} learns {} triplets", subject.name(), self.known);
            let folder = folder.join(subject.folder());
            match timed(&title, || Contender::start(subject, &folder, self.known)) {
                Ok(contender) => contenders.push(contender),
                Err(error) => println!("  left out: {error:#}"),
            }
        }
        let (mut cells, wanted) = (Vec::new(), self.cells());
        for (place, &cell) in wanted.iter().enumerate() {
            let title = format!("cell {} of {}: {}", place + 1, wanted.len(), cell.name());
            let measured =
                timed(&title, || Ok(Measured::of(cell, &mut contenders, run, self.runs)))?;
            println!("\n{}", measured.table().text());
            cells.push(measured);
        }
        drop(contenders);
        let memory = if self.triplets > 0 {
            let title = format!("the memory of {} triplets", self.triplets);
            let folder = folder.join("memory");
            Some(timed(&title, || Memory::measure(&folder, self.triplets))?)
        } else {
            None
        };
        let versions: Vec<_> = self.subjects.iter().filter_map(|one| one.version()).collect();
        let mut facts = facts::gather(&disk, &versions);
        facts.push(load);
        facts.push(format!(
            "medians of {} runs of {} s, all in turn; {} triplets are known before",
            self.runs, self.seconds, self.known
        ));
        Ok(Report { facts, subjects: self.subjects.clone(), cells, memory })
    }
}
