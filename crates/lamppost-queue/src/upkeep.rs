//! What keeps the spool small and its start short: checkpoints, freeing segments, and writing again
//! what stays long. All of it runs between two groups of the committer, or beside it.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use lamppost_roles::QueueId;
use parking_lot::Mutex;
use tracing::{debug, warn};

use crate::checkpoint::{self, Position};
use crate::index::Place;
use crate::log::{Log, Purpose};
use crate::record::{Draft, Record};
use crate::spool::{Doomed, Spool, warn_unless_removed};

/// A checkpoint is due when the log has grown by so many times its bytes.
const CHECKPOINT_GROWTH: u64 = 4;
/// Segments before anything is written again.
const SEGMENTS_MIN: usize = 4;
/// Messages, and bytes, that are written again between two groups.
const SLICE: (usize, u64) = (32, 512 * 1024);

/// The state of the upkeep.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// The first segment that the checkpoint on disk does not cover.
    covered_below: AtomicU64,
    /// Bytes of the checkpoint on disk.
    checkpoint_bytes: AtomicU64,
    /// Bytes of the log that were begun since.
    grown: AtomicU64,
    is_writing: AtomicBool,
    /// Large contents whose message is gone; removed once that is durable.
    doomed: Mutex<Doomed>,
    /// Messages that are to be written again.
    moving: Mutex<VecDeque<QueueId>>,
    /// Messages that were, with their old and new places. The new ones count once they are durable:
    /// until then a checkpoint must not name them, nor an old segment go.
    moved: Mutex<Vec<(QueueId, Place, Place)>>,
}

impl Upkeep {
    pub(crate) fn new(covered_below: u64) -> Self {
        Self {
            covered_below: AtomicU64::new(covered_below),
            checkpoint_bytes: AtomicU64::new(0),
            grown: AtomicU64::new(0),
            is_writing: AtomicBool::new(false),
            doomed: Mutex::default(),
            moving: Mutex::default(),
            moved: Mutex::default(),
        }
    }

    /// A large content whose message is gone.
    pub(crate) fn doom(&self, path: PathBuf) {
        self.doomed.lock().push(path);
    }

    fn wrote(&self, position: Position, bytes: u64) {
        self.checkpoint_bytes.store(bytes, Ordering::Relaxed);
        self.covered_below.fetch_max(position.begin, Ordering::Relaxed);
    }
}

impl Spool {
    /// Removes, after a sync, what nothing in the index needs any more.
    ///
    /// A segment that the checkpoint covers goes when no message has its record in it: what else it
    /// says is in the checkpoint.
    pub(crate) fn tidy(&self, log: &mut Log) {
        for path in std::mem::take(&mut *self.upkeep.doomed.lock()) {
            warn_unless_removed(&path, &self.disk.remove(&path));
        }
        let covered_below = self.upkeep.covered_below.load(Ordering::Relaxed);
        let free: Vec<_> = {
            let index = self.index.lock();
            let is_free = |number: &u64| {
                *number < covered_below
                    && index.segment(*number).is_none_or(|segment| segment.messages == 0)
            };
            log.closed().filter(is_free).collect()
        };
        for number in free {
            if warn_unless_removed(&self.settings.segment(number), &log.release(number)) {
                self.index.lock().remove_segment(number);
            }
        }
        // Space that is kept ready must not be what mail is refused for.
        while !self.is_free(self.settings.free_space_min) && log.shed().unwrap_or(false) {}
        if !log.has_reserve()
            && self.is_free(self.settings.free_space_min + self.settings.reserve())
        {
            log.refill_reserve();
        }
    }

    /// Another segment was begun: writes a checkpoint when enough has come since the last, and looks
    /// for what is to be written again.
    pub(crate) fn rotated(self: &Arc<Self>, log: &Log) {
        let Some(current) = log.current() else { return };
        let grown = log.last_capacity();
        let grown = self.upkeep.grown.fetch_add(grown, Ordering::Relaxed) + grown;
        let wanted =
            self.upkeep.checkpoint_bytes.load(Ordering::Relaxed).saturating_mul(CHECKPOINT_GROWTH);
        self.choose_moving(log);
        if grown >= wanted {
            self.write_in_time(self.position(current.number, log.next_sequence()));
        }
    }

    /// Writes a checkpoint after a start that had much to replay, at once where that takes no time: a
    /// program that is killed again and again must not leave more and more behind.
    pub(crate) fn checkpoint_replayed(&self, log: &mut Log) {
        /// Messages of a queue whose checkpoint takes no time.
        const SHORT: usize = 10_000;
        let is_short = self.index.lock().messages() <= SHORT;
        if let Some(position) = self.replayed(log).filter(|_| is_short) {
            self.write_checkpoint(position);
            self.tidy(log);
        }
    }

    /// As [`Spool::checkpoint_replayed`] for long queues, while others go on.
    pub(crate) fn checkpoint_soon(self: &Arc<Self>, log: &Log) {
        if let Some(position) = self.replayed(log) {
            self.write_in_time(position);
        }
    }

    /// The position after a replay, when it was of many segments.
    fn replayed(&self, log: &Log) -> Option<Position> {
        let covered_below = self.upkeep.covered_below.load(Ordering::Relaxed);
        let replayed = log.closed().filter(|&number| number >= covered_below).count();
        let current = log.current().filter(|_| replayed >= SEGMENTS_MIN)?;
        Some(self.position(current.number, log.next_sequence()))
    }

    /// Has a checkpoint written while others go on, unless one is.
    fn write_in_time(self: &Arc<Self>, position: Position) {
        if self.upkeep.is_writing.swap(true, Ordering::Relaxed) {
            return;
        }
        self.upkeep.grown.store(0, Ordering::Relaxed);
        let (spool, blocking) = (self.clone(), self.settings.blocking);
        drop(tokio::spawn(async move {
            let writer = spool.clone();
            let _cut = blocking.run(move || writer.write_checkpoint(position)).await;
            spool.upkeep.is_writing.store(false, Ordering::Relaxed);
            spool.order_tidy();
        }));
    }

    /// Writes a checkpoint that covers everything, at the end.
    pub(crate) fn checkpoint_now(&self, log: &Log) {
        // One that is under way would be replaced by an older state.
        if !self.upkeep.is_writing.swap(true, Ordering::Relaxed) && !log.is_dirty() {
            self.write_checkpoint(self.position(log.next_segment(), log.next_sequence()));
        }
    }

    fn position(&self, begin: u64, sequence: u64) -> Position {
        Position { begin, sequence, last_id: *self.last_id.lock() }
    }

    fn write_checkpoint(&self, position: Position) {
        match checkpoint::write(&*self.disk, &self.settings, &self.index, position) {
            Ok(bytes) => {
                debug!(bytes, begin = position.begin, "checkpoint written");
                self.upkeep.wrote(position, bytes);
            }
            // The one before stays in force: the next start takes longer, and nothing is lost.
            Err(error) => warn!(reason = %error, "no checkpoint of the spool could be written"),
        }
    }

    /// Chooses the segment with the least that is still needed, when most of the log is not.
    fn choose_moving(&self, log: &Log) {
        let mut moving = self.upkeep.moving.lock();
        let closed: Vec<_> = log.closed().collect();
        if !moving.is_empty() || closed.len() < SEGMENTS_MIN {
            return;
        }
        let index = self.index.lock();
        let needed: u64 = closed.iter().filter_map(|&n| Some(index.segment(n)?.bytes)).sum();
        if needed > log.bytes() / 2 {
            return;
        }
        let least = closed
            .into_iter()
            .filter_map(|number| Some((index.segment(number)?.bytes, number)))
            .filter(|&(bytes, number)| bytes > 0 && bytes < log.bytes_of(number) / 2)
            .min();
        if let Some((_, number)) = least {
            moving.extend(index.of_segment(number, usize::MAX));
        }
    }

    /// Writes some of the chosen messages again at the end of the log, so that those that stay long
    /// do not keep the whole of it.
    pub(crate) fn forward(&self, log: &mut Log) {
        let mut drafts = Vec::new();
        let mut moved = Vec::new();
        let mut bytes = 0;
        while drafts.len() < SLICE.0 && bytes < SLICE.1 {
            let Some(id) = self.upkeep.moving.lock().pop_front() else { break };
            match self.written_again(id) {
                Ok(Some((place, draft))) => {
                    bytes += draft.len() as u64;
                    drafts.push(draft);
                    moved.push((id, place));
                }
                Ok(None) => {}
                Err(error) => {
                    warn!(queue_id = %id, reason = %error, "a message cannot be written again");
                }
            }
        }
        // Only what is left of the segment is used: a full disk must not lose its reserve to this.
        if drafts.is_empty() || bytes > log.room() as u64 {
            let mut moving = self.upkeep.moving.lock();
            for (id, _) in moved.into_iter().rev() {
                moving.push_front(id);
            }
            return;
        }
        let all: Vec<_> = drafts.iter().collect();
        // A failure is told when the next group fails too; the old records are still there.
        let Ok(written) = log.append(&all, Purpose::State, false) else {
            self.has_segment(log.current());
            self.settle_moved(false);
            return;
        };
        let mut upkeep = self.upkeep.moved.lock();
        for (((id, from), at), draft) in moved.into_iter().zip(written.places).zip(&drafts) {
            let text = u32::try_from(draft.text.len()).unwrap_or(u32::MAX);
            upkeep.push((id, from, Place { segment: written.segment, at, text }));
        }
    }

    /// What was written again is durable, or may never be; then the old records go on to count.
    pub(crate) fn settle_moved(&self, is_durable: bool) {
        let moved = std::mem::take(&mut *self.upkeep.moved.lock());
        if is_durable {
            let mut index = self.index.lock();
            for (id, from, to) in moved {
                index.relocate(id, from, to);
            }
        } else {
            // The records that ended their messages may be lost too: the contents stay until the next
            // start knows.
            self.upkeep.doomed.lock().clear();
        }
    }

    /// A message's record in its present state, with its content; nothing when it is gone.
    fn written_again(&self, id: QueueId) -> io::Result<Option<(Place, Draft)>> {
        let Some(place) = self.index.lock().message(id).map(|message| message.place) else {
            return Ok(None);
        };
        let Some(loaded) = self.load(id)? else { return Ok(None) };
        let content = loaded.content.unwrap_or_else(Bytes::new);
        Ok(Some((place, Draft::new(&Record::Message(loaded.record), content))))
    }
}
