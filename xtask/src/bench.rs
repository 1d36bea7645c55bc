//! Comparisons with peers: the same work by all in one run, as ratios (bench/README.md).

mod account;
mod admission;
mod cell;
mod disk;
mod exim;
mod facts;
mod greylist;
mod image;
mod lamppost;
mod latency;
mod load;
mod mail;
mod opensmtpd;
mod peer;
mod plot;
mod postfix;
mod probe;
mod process;
mod report;
mod resolver;
mod sink;
mod start;
mod syncs;
mod table;
mod view;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use process::Usage;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Lamppost and its peers take messages until all lie in Maildirs; the disk itself beside them
    Mail(mail::Mail),
    /// Lamppost, tcpserver with rblsmtpd, and Postfix let clients in by rules and four lists in the DNS
    Admission(admission::Admission),
    /// Lamppost, postgrey and sqlgrey decide who must come back later, asked as Postfix asks
    Greylist(greylist::Greylist),
    /// How long Lamppost takes to be ready, with an empty and with a long queue
    Start(start::Start),
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Mail(mail) => mail.run(),
            Self::Admission(admission) => admission.run(),
            Self::Greylist(greylist) => greylist.run(),
            Self::Start(start) => start.run(),
        }
    }
}

/// A server that is measured. It ends when it is dropped.
pub(crate) trait Server {
    /// Its process; children count too.
    fn pid(&self) -> u32;
    /// Where its messages arrive.
    fn new_folder(&self) -> PathBuf;
    /// Seconds of CPU time so far.
    fn cpu_s(&self) -> f64 {
        Usage::of(self.pid()).cpu_s
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
