//! What the disk itself can do, without any server: the measure of a server's figures.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Bytes of a message.
const BLOCK: usize = 4096;
/// Bytes of the log, which is written once before it is measured, so that a sync has no size and no
/// extents to make durable.
const LOG: usize = 64 << 20;
/// Messages that share a sync.
pub(crate) const GROUPS: [usize; 4] = [1, 4, 20, 100];
/// Bytes of the sequential write at most.
const SEQUENTIAL: u64 = 1 << 30;

/// One way to make messages durable.
pub(crate) struct Way {
    pub(crate) name: String,
    pub(crate) per_second: f64,
    pub(crate) sync_p99_ms: f64,
}

/// What was found.
pub(crate) struct Probe {
    /// Messages of 4 KiB, each a file of its own, by one writer and by twenty.
    pub(crate) files: Vec<Way>,
    /// Messages of 4 KiB in a log, as many as `GROUPS` says for each sync.
    pub(crate) logs: Vec<Way>,
    /// Messages of 4 KiB that as many sessions as `GROUPS` says hand to one writer of the log, each
    /// waiting for the sync that covers it: a server's queue without a server around it.
    pub(crate) sessions: Vec<Way>,
    /// One file written from end to end and synced, as by `dd conv=fdatasync`.
    pub(crate) sequential_mb_s: f64,
}

impl Probe {
    /// Measures in a folder, each way for some time.
    pub(crate) fn run(folder: &Path, each: Duration) -> Result<Self> {
        let folder = folder.join("probe");
        std::fs::create_dir_all(&folder)?;
        let files = [1, 20].map(|writers| files(&folder, writers, each));
        let log = prepare(&folder.join("log"))?;
        let logs = GROUPS.map(|group| grouped(&log, group, each));
        let sessions = GROUPS.map(|sessions| shared(&log, sessions, each));
        let sequential_mb_s = sequential(&folder.join("sequential"), each)?;
        std::fs::remove_dir_all(&folder)?;
        Ok(Self {
            files: files.into_iter().collect::<Result<_>>()?,
            logs: logs.into_iter().collect::<Result<_>>()?,
            sessions: sessions.into_iter().collect::<Result<_>>()?,
            sequential_mb_s,
        })
    }

    /// Of two probes, the faster figure of each kind: what the disk can do, not what it did once.
    pub(crate) fn faster(self, other: Self) -> Self {
        let faster = |ours: Vec<Way>, theirs: Vec<Way>| {
            ours.into_iter()
                .zip(theirs)
                .map(|(one, two)| if one.per_second >= two.per_second { one } else { two })
                .collect()
        };
        Self {
            files: faster(self.files, other.files),
            logs: faster(self.logs, other.logs),
            sessions: faster(self.sessions, other.sessions),
            sequential_mb_s: self.sequential_mb_s.max(other.sequential_mb_s),
        }
    }

    /// The log that so many sessions share.
    pub(crate) fn shared(&self, sessions: u32) -> Option<&Way> {
        let place = GROUPS.iter().position(|&group| group == sessions as usize)?;
        self.sessions.get(place)
    }
}

/// A file for each message, synced before the next.
fn files(folder: &Path, writers: usize, each: Duration) -> Result<Way> {
    let begun = Instant::now();
    let syncs = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..writers)
            .map(|writer| {
                let folder = folder.join(format!("files-{writers}-{writer}"));
                scope.spawn(move || write_files(&folder, begun, each))
            })
            .collect();
        let mut syncs = Vec::new();
        for writer in writers {
            syncs.extend(writer.join().unwrap_or_else(|_| Ok(Vec::new()))?);
        }
        Ok::<_, anyhow::Error>(syncs)
    })?;
    let took = begun.elapsed();
    Ok(way(format!("a file each, {}", plural(writers, "writer")), 1, took, syncs))
}

fn write_files(folder: &Path, begun: Instant, each: Duration) -> Result<Vec<Duration>> {
    std::fs::create_dir_all(folder)?;
    let block = [b'x'; BLOCK];
    let mut syncs = Vec::new();
    while begun.elapsed() < each {
        let path = folder.join(syncs.len().to_string());
        let mut file = create(&path)?;
        file.write_all(&block)?;
        let syncing = Instant::now();
        file.sync_all()?;
        syncs.push(syncing.elapsed());
    }
    Ok(syncs)
}

/// A log whose blocks were all written.
fn prepare(path: &Path) -> Result<File> {
    let file = create(path)?;
    let chunk = vec![0; 1 << 20];
    for place in (0..LOG).step_by(chunk.len()) {
        file.write_all_at(&chunk, place as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Messages one behind another in the log, with a sync behind each group.
fn grouped(log: &File, group: usize, each: Duration) -> Result<Way> {
    let chunk = vec![b'x'; group * BLOCK];
    let begun = Instant::now();
    let mut syncs = Vec::new();
    let mut place = 0;
    while begun.elapsed() < each {
        log.write_all_at(&chunk, place as u64)?;
        let syncing = Instant::now();
        log.sync_data()?;
        syncs.push(syncing.elapsed());
        place += chunk.len();
        if place + chunk.len() > LOG {
            place = 0;
        }
    }
    let name = if group == 1 {
        "a log, a sync each".to_owned()
    } else {
        format!("a log, a sync for {group}")
    };
    Ok(way(name, group, begun.elapsed(), syncs))
}

/// Sessions hand messages to one writer, which writes all that wait, syncs, and answers them.
fn shared(log: &File, sessions: usize, each: Duration) -> Result<Way> {
    let begun = Instant::now();
    let (hand_in, waiting) = channel::<Sender<()>>();
    let (messages, syncs) = std::thread::scope(|scope| {
        for _ in 0..sessions {
            let hand_in = hand_in.clone();
            scope.spawn(move || {
                let (answer, answered) = channel();
                while begun.elapsed() < each
                    && hand_in.send(answer.clone()).is_ok()
                    && answered.recv().is_ok()
                {}
            });
        }
        drop(hand_in);
        commit(log, &waiting, sessions)
    })?;
    let mut way = way(name_of(sessions), 1, begun.elapsed(), syncs);
    way.per_second = f64::from(messages) / begun.elapsed().as_secs_f64();
    Ok(way)
}

fn name_of(sessions: usize) -> String {
    format!(
        "a log that {} share{}",
        plural(sessions, "session"),
        if sessions == 1 { "s" } else { "" }
    )
}

/// The writer: groups are what arrived during the last sync.
fn commit(
    log: &File,
    waiting: &Receiver<Sender<()>>,
    sessions: usize,
) -> Result<(u32, Vec<Duration>)> {
    let chunk = vec![b'x'; sessions * BLOCK];
    let (mut messages, mut syncs, mut place) = (0, Vec::new(), 0);
    while let Ok(first) = waiting.recv() {
        let group: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
        let bytes = chunk.get(..group.len() * BLOCK).context("more messages than sessions")?;
        if place + bytes.len() > LOG {
            place = 0;
        }
        log.write_all_at(bytes, place as u64)?;
        place += bytes.len();
        let syncing = Instant::now();
        log.sync_data()?;
        syncs.push(syncing.elapsed());
        messages += u32::try_from(group.len())?;
        for session in group {
            // A session that does not wait has ended.
            let _ended = session.send(());
        }
    }
    Ok((messages, syncs))
}

/// Megabytes a second, the final sync included.
fn sequential(path: &Path, each: Duration) -> Result<f64> {
    let mut file = create(path)?;
    let chunk = vec![b'x'; 1 << 20];
    let begun = Instant::now();
    let mut written = 0;
    // Enough to outlast the caches on the way, and no more than some seconds of a slow disk.
    while written < SEQUENTIAL && (written < (128 << 20) || begun.elapsed() < each * 3) {
        file.write_all(&chunk)?;
        written += chunk.len() as u64;
    }
    file.sync_data()?;
    let megabytes = u32::try_from(written >> 10).map(f64::from)? * 1024.0 / 1e6;
    Ok(megabytes / begun.elapsed().as_secs_f64())
}

fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

fn way(name: String, group: usize, took: Duration, mut syncs: Vec<Duration>) -> Way {
    syncs.sort_unstable();
    let messages = u32::try_from(syncs.len() * group).map_or(f64::NAN, f64::from);
    Way {
        name,
        per_second: messages / took.as_secs_f64(),
        sync_p99_ms: percentile(&syncs, 99).as_secs_f64() * 1e3,
    }
}

/// A percentile of sorted times.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default()
}

/// A number with its noun.
pub(crate) fn plural(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
