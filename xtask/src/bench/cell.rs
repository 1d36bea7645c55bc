//! One cell of the matrix: every server takes the same kind of load, in turn, several times.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::disk::{Disk, settle};
use super::load::{Connections, Load};
use super::peer::Peer;
use super::process::Usage;
use super::sink::Sink;
use super::syncs::Trace;
use super::table::median_of;
use super::{Server, syncs};

/// Bytes of all messages of a run at most, so that a run of large messages fits onto the disk.
const RUN_BYTES_MAX: u32 = 512 << 20;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) size: u32,
    pub(crate) sessions: u32,
    pub(crate) connections: Connections,
}

/// How a cell is measured.
pub(crate) struct Plan {
    pub(crate) peers: Vec<Peer>,
    /// The most messages of a run.
    pub(crate) messages_max: u32,
    /// How long a run shall take: a slow server gets fewer messages.
    pub(crate) run: Duration,
    pub(crate) runs: u32,
    pub(crate) folder: PathBuf,
}

/// What was measured of one server in one cell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Messages of a run.
    pub(crate) messages: u32,
    pub(crate) per_second: f64,
    pub(crate) cpu_ms: f64,
    pub(crate) memory_mib: f64,
    /// Sync calls a message.
    pub(crate) syncs: f64,
    /// Flushes of the device a message, where the device counts.
    pub(crate) flushes: Option<f64>,
    /// KiB that the device wrote for a message, what followed until all was written included.
    pub(crate) written_kib: Option<f64>,
}

/// All servers in one cell; those that could not take the load have no figures.
pub(crate) struct Measured {
    pub(crate) cell: Cell,
    /// Messages per second of the same load to a program that keeps nothing: what the load and the
    /// network leave to a server on this machine.
    pub(crate) sink: f64,
    pub(crate) figures: Vec<(Peer, Figures)>,
}

impl Measured {
    pub(crate) fn of(&self, peer: Peer) -> Option<&Figures> {
        self.figures.iter().find(|(one, _)| *one == peer).map(|(_, figures)| figures)
    }
}

impl Cell {
    /// For people.
    pub(crate) fn name(&self) -> String {
        let plural = if self.sessions == 1 { "" } else { "s" };
        format!(
            "{}, {} session{plural}, {}",
            self.size_name(),
            self.sessions,
            self.connections_name()
        )
    }

    pub(crate) fn size_name(&self) -> String {
        if self.size.is_multiple_of(1024) {
            format!("{} KiB", self.size / 1024)
        } else {
            format!("{} B", self.size)
        }
    }

    pub(crate) fn connections_name(&self) -> &'static str {
        match self.connections {
            Connections::Fresh => "fresh connections",
            Connections::Kept => "kept connections",
        }
    }

    fn load(&self, messages: u32) -> Load {
        let Self { size, sessions, connections } = *self;
        Load { messages, size, sessions, connections }
    }

    /// Measures all servers; one that fails is told and left out.
    pub(crate) fn measure(self, plan: &Plan) -> Result<Measured> {
        let folder = plan.folder.join("cell");
        drop(std::fs::remove_dir_all(&folder));
        let disk = Disk::under(&plan.folder)?;
        let mut contenders = Vec::new();
        for &peer in plan.peers.iter().filter(|peer| self.sessions <= peer.sessions_max()) {
            let begun = Contender::start(self, peer, &folder.join(peer.name()), plan);
            contenders.extend(told(peer, "starting", begun));
        }
        let mut sinks = Vec::new();
        for run in 1..=plan.runs {
            sinks.push(Sink::measure(self.load(plan.messages_max.min(RUN_BYTES_MAX / self.size)))?);
            contenders.retain_mut(|contender| {
                let done = contender.run(self, &disk, &plan.folder);
                let word = format!("run {run} of {}", plan.runs);
                told(contender.peer, &word, done).is_some()
            });
        }
        let measured: Vec<_> =
            contenders.into_iter().map(|one| (one.peer, one.load.messages, one.runs)).collect();
        let mut figures = Vec::new();
        for (peer, messages, runs) in measured {
            let mut medians = median(&runs);
            medians.messages = messages;
            let folder = folder.join(format!("{}-syncs", peer.name()));
            let counted = count_syncs(self, peer, messages, &folder);
            if let Some((syncs, memory_mib)) = told(peer, "counting syncs", counted) {
                medians.syncs = syncs;
                medians.memory_mib = medians.memory_mib.max(memory_mib);
            } else {
                medians.syncs = f64::NAN;
            }
            figures.push((peer, medians));
        }
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
        Ok(Measured { cell: self, sink: median_of(&mut sinks).unwrap_or(f64::NAN), figures })
    }
}

/// A server that runs as long as its cell is measured.
struct Contender {
    peer: Peer,
    server: Box<dyn Server>,
    load: Load,
    runs: Vec<Figures>,
}

impl Contender {
    /// Starts a server, warms it up, and finds how much it can take.
    fn start(cell: Cell, peer: Peer, folder: &Path, plan: &Plan) -> Result<Self> {
        let server = peer.start(folder, None)?;
        let affordable = |messages: u32, took: Duration, time: Duration| {
            let messages = f64::from(messages) * time.as_secs_f64() / took.as_secs_f64();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates"
            )]
            let messages = messages as u32;
            messages
                .max(cell.sessions * 2)
                .min(RUN_BYTES_MAX / cell.size)
                .clamp(1, plan.messages_max)
        };
        // The first messages are slow, because they make folders and start processes.
        let mut messages = (cell.sessions * 2).max(20).min(plan.messages_max);
        for part in [4, 1] {
            let took = cell.load(messages).deliver(&peer.address(), &server.new_folder())?;
            messages = affordable(messages, took, plan.run / part);
        }
        Ok(Self { peer, server, load: cell.load(messages), runs: Vec::new() })
    }

    fn run(&mut self, cell: Cell, disk: &Disk, folder: &Path) -> Result<()> {
        settle(folder)?;
        let before = (self.server.cpu_s(), disk.counters());
        let took = self.load.deliver(&self.peer.address(), &self.server.new_folder())?;
        let after = (self.server.cpu_s(), disk.counters());
        settle(folder)?;
        let settled = disk.counters();
        let messages = f64::from(self.load.messages);
        let figures = Figures {
            messages: self.load.messages,
            per_second: messages / took.as_secs_f64(),
            cpu_ms: (after.0 - before.0) * 1000.0 / messages,
            memory_mib: Usage::of(self.server.pid()).memory_mib,
            syncs: f64::NAN,
            flushes: before.1.zip(after.1).map(|(one, two)| (two.flushes - one.flushes) / messages),
            written_kib: before
                .1
                .zip(settled)
                .map(|(one, two)| (two.written_bytes - one.written_bytes) / 1024.0 / messages),
        };
        println!(
            "  {:10} {:>9.0} messages a second ({} in {:.1} s, {})",
            self.peer.name(),
            figures.per_second,
            self.load.messages,
            took.as_secs_f64(),
            cell.connections_name(),
        );
        self.runs.push(figures);
        Ok(())
    }
}

/// Sync calls a message and the most memory, in a run that is not timed.
fn count_syncs(cell: Cell, peer: Peer, affordable: u32, folder: &Path) -> Result<(f64, f64)> {
    let trace = Trace::open();
    let log = folder.join("syncs.log");
    let server = peer.start(folder, trace.is_none().then_some(log.as_path()))?;
    let load = cell.load((cell.sessions * 100).clamp(400, 4000).min(affordable));
    // The first messages make folders and open connections between processes.
    cell.load(cell.sessions.min(load.messages)).deliver(&peer.address(), &server.new_folder())?;
    let before = if let Some(trace) = &trace {
        trace.begin(server.pid())?;
        0
    } else {
        syncs::count(&log)
    };
    let done = AtomicBool::new(false);
    let (delivered, memory_mib) = std::thread::scope(|scope| {
        let (pid, done) = (server.pid(), &done);
        let sampler = scope.spawn(move || memory_most(pid, done));
        let delivered = load.deliver(&peer.address(), &server.new_folder());
        done.store(true, Ordering::Relaxed);
        (delivered, sampler.join().unwrap_or(0.0))
    });
    delivered?;
    let after = trace.as_ref().map_or_else(|| Ok(syncs::count(&log)), Trace::end)?;
    ensure!(after > before, "no sync was seen");
    let calls = u32::try_from(after - before)?;
    Ok((f64::from(calls) / f64::from(load.messages), memory_mib))
}

/// The most memory of a process and its descendants until something is done.
fn memory_most(pid: u32, done: &AtomicBool) -> f64 {
    let mut most = 0.0_f64;
    while !done.load(Ordering::Relaxed) {
        most = most.max(Usage::of(pid).memory_mib);
        std::thread::park_timeout(Duration::from_millis(50));
    }
    most
}

/// Tells a failure and goes on without it.
fn told<T>(peer: Peer, doing: &str, result: Result<T>) -> Option<T> {
    result.inspect_err(|error| println!("  {:10} left out, {doing}: {error:#}", peer.name())).ok()
}

/// Each figure's median.
fn median(runs: &[Figures]) -> Figures {
    let middle = |figure: &dyn Fn(&Figures) -> Option<f64>| {
        median_of(&mut runs.iter().filter_map(figure).collect::<Vec<_>>())
    };
    let known =
        |figure: &dyn Fn(&Figures) -> f64| middle(&|run| Some(figure(run))).unwrap_or(f64::NAN);
    Figures {
        messages: runs.first().map_or(0, |run| run.messages),
        per_second: known(&|run| run.per_second),
        cpu_ms: known(&|run| run.cpu_ms),
        memory_mib: known(&|run| run.memory_mib),
        syncs: f64::NAN,
        flushes: middle(&|run| run.flushes),
        written_kib: middle(&|run| run.written_kib),
    }
}

/// Prints what begins and, later, how long it took.
pub(crate) fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("\n== {what}");
    let begun = Instant::now();
    let result = work();
    println!("  ({:.0} s)", begun.elapsed().as_secs_f64());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_each_figure() {
        let run = |per_second, flushes| Figures { per_second, flushes, ..Figures::default() };
        let figures = median(&[run(3.0, None), run(1.0, Some(2.0)), run(2.0, None)]);
        assert!((figures.per_second - 2.0).abs() < 1e-9);
        assert_eq!(figures.flushes, Some(2.0));
        let figures = median(&[run(3.0, None), run(1.0, None)]);
        assert!((figures.per_second - 2.0).abs() < 1e-9);
        assert_eq!(figures.written_kib, None);
    }

    #[test]
    fn names_of_cells() {
        let cell = Cell { size: 102_400, sessions: 1, connections: Connections::Kept };
        assert_eq!(cell.name(), "100 KiB, 1 session, kept connections");
    }
}
