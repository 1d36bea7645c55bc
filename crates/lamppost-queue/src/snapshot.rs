//! The whole queue at one moment, for a backup, while the queue goes on.
//!
//! The committer says which files that is, between two groups: the newest checkpoint, the segments that
//! it or a message needs, the one that is written now as far as it is written, and the contents
//! aside. What is written is never written over, so it is enough that nothing of it is removed, used
//! again or replaced until the backup has read it: meanwhile nothing is tidied up and no checkpoint is
//! begun.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lamppost_roles::{ControlAnswer, Snapshot, SnapshotFile};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::committer::Order;
use crate::log::Log;
use crate::spool::Spool;

/// A snapshot of which nothing is read for so long is given up.
const PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// Snapshots at once.
const AT_ONCE_MAX: usize = 4;

/// What the committer answers.
pub(crate) type Answer = Result<Snapshot, String>;

/// The snapshots that are being read.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    kept: Mutex<Kept>,
    /// One was given up for lack of space, and the log says so once.
    is_told: AtomicBool,
}

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    snapshots: BTreeMap<u64, Held>,
}

/// A snapshot that is being read.
#[derive(Debug)]
struct Held {
    files: Arc<[(PathBuf, u64)]>,
    touched: Duration,
}

impl Snapshots {
    /// Whether files must stay as they are.
    pub(crate) fn are_there(&self) -> bool {
        !self.kept.lock().snapshots.is_empty()
    }

    /// Gives all of them up.
    pub(crate) fn give_up(&self) {
        self.kept.lock().snapshots.clear();
    }

    /// Gives those up that nobody reads any more.
    fn sweep(&self, now: Duration) {
        self.kept.lock().snapshots.retain(|_, held| now < held.touched + PAUSE_MAX);
    }

    fn file(&self, snapshot: u64, file: u32, now: Duration) -> Option<(PathBuf, u64)> {
        let mut kept = self.kept.lock();
        let held = kept.snapshots.get_mut(&snapshot)?;
        held.touched = now;
        held.files.get(file as usize).cloned()
    }
}

impl Spool {
    /// Whether a backup needs files that could be removed else. It must not be what mail is refused for:
    /// when that is all that is lacking, it is given up.
    pub(crate) fn is_pinned(&self, could_free: impl FnOnce() -> bool) -> bool {
        self.snapshots.sweep(self.clock.now());
        if !self.snapshots.are_there() {
            self.snapshots.is_told.store(false, Ordering::Relaxed);
            return false;
        }
        // In time: what comes before the next look must find its place still.
        let ahead = self.settings.free_space_min.saturating_add(self.settings.segment_size);
        if self.is_free(ahead) || !could_free() {
            return true;
        }
        if !self.snapshots.is_told.swap(true, Ordering::Relaxed) {
            warn!("the disk is full: a backup that is being read is given up");
        }
        self.snapshots.give_up();
        false
    }

    /// Asks the committer for a snapshot.
    pub(crate) async fn take_snapshot(&self) -> ControlAnswer {
        let (to, answer) = oneshot::channel();
        // A committer that has ended drops the question, which is an answer.
        drop(self.orders.send(Order::Snapshot(to)));
        match answer.await {
            Ok(Ok(snapshot)) => ControlAnswer::Snapshot(snapshot),
            Ok(Err(reason)) => ControlAnswer::Failed(reason),
            Err(_) => ControlAnswer::Failed("the program is ending".into()),
        }
    }

    /// Takes a snapshot, on the committer's thread, after everything was made durable.
    pub(crate) fn snapshot(&self, log: &Log) -> Answer {
        let Some(current) = log
            .written()
            .filter(|_| !log.is_dirty() && !log.has_voids() && !self.upkeep.has_unsaid())
        else {
            return Err("the queue could not be made durable; `lamppost status` tells why".into());
        };
        self.keep_snapshot(log.closed(), Some(current))
    }

    /// Keeps the files that are the queue now: the closed segments of these, and the one that is written.
    pub(crate) fn keep_snapshot(
        &self,
        closed: impl Iterator<Item = u64>,
        current: Option<(u64, u64)>,
    ) -> Answer {
        let now = self.clock.now();
        self.snapshots.sweep(now);
        if self.snapshots.kept.lock().snapshots.len() >= AT_ONCE_MAX {
            return Err(format!("{AT_ONCE_MAX} backups are being made already"));
        }
        let (files, messages) = self
            .files_now(closed, current)
            .map_err(|error| format!("the spool cannot be looked at: {error}"))?;
        let mut kept = self.snapshots.kept.lock();
        kept.last += 1;
        let snapshot = kept.last;
        let shown = files.iter().map(|(path, length)| SnapshotFile {
            name: name_in(&self.settings.directory, path),
            length: *length,
        });
        let shown = Snapshot { snapshot, messages, files: shown.collect() };
        kept.snapshots.insert(snapshot, Held { files: files.into(), touched: now });
        info!(messages, files = shown.files.len(), "a backup of the queue is begun");
        Ok(shown)
    }

    /// The files that are the queue now, with their bytes, and its messages.
    fn files_now(
        &self,
        closed: impl Iterator<Item = u64>,
        current: Option<(u64, u64)>,
    ) -> io::Result<(Vec<(PathBuf, u64)>, u64)> {
        let mut files = Vec::new();
        let begin = match self.upkeep.newest_checkpoint() {
            Some((newest, name)) => {
                files.push(self.settings.checkpoints()[name].clone());
                newest.begin
            }
            None => 0,
        };
        let messages = {
            let index = self.index.lock();
            let is_needed = |number: &u64| {
                *number >= begin || index.segment(*number).is_some_and(|one| one.messages > 0)
            };
            files.extend(closed.filter(is_needed).map(|n| self.settings.segment(n)));
            let aside = index.after(None).filter(|(_, message)| message.aside);
            files.extend(aside.map(|(id, _)| self.settings.body(id)));
            index.messages() as u64
        };
        match self.disk.list(&self.settings.quarantine()) {
            // A spool on which no program ran since there is such a folder has none.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            listed => files.extend(listed?),
        }
        let current = current.map(|(number, written)| (self.settings.segment(number), written));
        let mut with_lengths: Vec<_> = current.into_iter().collect();
        for path in files {
            let look = self.disk.look(&path)?.ok_or(io::ErrorKind::NotFound)?;
            with_lengths.push((path, look.length));
        }
        with_lengths.sort();
        Ok((with_lengths, messages))
    }

    /// Answers `ReadSnapshot`.
    pub(crate) fn read_snapshot(
        &self,
        (snapshot, file): (u64, u32),
        offset: u64,
        length_max: u32,
    ) -> ControlAnswer {
        const GIVEN_UP: &str = "the backup was given up: the disk became full, it paused for too \
                                long, or the program is ending";
        let given_up = || ControlAnswer::Failed(GIVEN_UP.into());
        let now = self.clock.now();
        let Some((path, length)) = self.snapshots.file(snapshot, file, now) else {
            return given_up();
        };
        let wanted = length.saturating_sub(offset).min(u64::from(length_max));
        let read = self.disk.read(&path, offset, usize::try_from(wanted).unwrap_or(usize::MAX));
        // Whatever was read is as it was only if nothing was let go meanwhile.
        if self.snapshots.file(snapshot, file, now).is_none() {
            return given_up();
        }
        match read {
            Ok(piece) if piece.len() as u64 == wanted => ControlAnswer::Piece(piece.into()),
            Ok(_) => ControlAnswer::Failed(format!("{} became shorter", path.display())),
            Err(error) => {
                ControlAnswer::Failed(format!("{} cannot be read: {error}", path.display()))
            }
        }
    }

    /// Answers `EndSnapshot`.
    pub(crate) fn end_snapshot(&self, snapshot: u64) -> ControlAnswer {
        self.snapshots.kept.lock().snapshots.remove(&snapshot);
        self.order_tidy();
        ControlAnswer::Ended
    }
}

/// A file's path in the spool.
pub(crate) fn name_in(spool: &Path, path: &Path) -> String {
    // Both of a newest checkpoint's names are as good; a backup has one alone.
    let name = path.strip_prefix(spool).unwrap_or(path).to_string_lossy();
    if name == "checkpoint.2" { "checkpoint".into() } else { name.into_owned() }
}
