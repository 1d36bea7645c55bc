//! What keeps the spool small and its start short: checkpoints, freeing segments, and writing again
//! what stays long. All of it runs between two groups of the committer, or beside it.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use lamppost_roles::QueueId;
use parking_lot::Mutex;
use tracing::{debug, error, warn};

use crate::checkpoint::{self, Position, Standing};
use crate::index::Place;
use crate::log::{Log, Purpose};
use crate::record::{Draft, Record};
use crate::replay::Replayed;
use crate::spool::Spool;

/// A checkpoint is due when the log has grown by so many times its bytes.
const CHECKPOINT_GROWTH: u64 = 4;
/// Segments before anything is written again.
const SEGMENTS_MIN: usize = 4;
/// Messages, and bytes, that are written again between two groups.
const SLICE: (usize, u64) = (32, 512 * 1024);

/// The state of the upkeep.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// The checkpoints on disk.
    standing: Mutex<Standing>,
    /// Whether one was found damaged at the start, so that another is wanted.
    is_wanted: AtomicBool,
    /// Bytes of the checkpoint on disk.
    checkpoint_bytes: AtomicU64,
    /// Bytes of the log that were begun since.
    grown: AtomicU64,
    is_writing: AtomicBool,
    /// The checkpoint that was due while a backup read the one before.
    put_off: Mutex<Option<Position>>,
    /// Where the checkpoint began that was written once more to make room.
    relieved_at: AtomicU64,
    /// Messages whose large contents are to be removed once it is durable that they are gone.
    doomed: Mutex<Vec<QueueId>>,
    /// Records that nobody waits for, and that no sync covers yet.
    unsynced: Mutex<Vec<Draft>>,
    /// Those that may never be durable, since the log failed. The index goes by them, and so must every
    /// record that follows: they are said again before it.
    unsaid: Mutex<Vec<Draft>>,
    /// Messages that are to be written again.
    moving: Mutex<VecDeque<QueueId>>,
    /// Messages that were, with their old and new places. The new ones count once they are durable:
    /// until then a checkpoint must not name them, nor an old segment go.
    moved: Mutex<Vec<(QueueId, Place, Place)>>,
    /// Segments with messages that could not be written again: others get their turn.
    stuck: Mutex<BTreeSet<u64>>,
}

impl Upkeep {
    pub(crate) fn new(replayed: &Replayed) -> Self {
        Self {
            standing: Mutex::new(replayed.standing.clone()),
            is_wanted: AtomicBool::new(replayed.wants_checkpoint),
            checkpoint_bytes: AtomicU64::new(0),
            grown: AtomicU64::new(0),
            is_writing: AtomicBool::new(false),
            put_off: Mutex::default(),
            relieved_at: AtomicU64::new(0),
            doomed: Mutex::default(),
            unsynced: Mutex::default(),
            unsaid: Mutex::default(),
            moving: Mutex::default(),
            moved: Mutex::default(),
            stuck: Mutex::default(),
        }
    }

    /// A message with a large content that is gone, or never was.
    pub(crate) fn doom(&self, id: QueueId) {
        self.doomed.lock().push(id);
    }

    /// A record that nobody waits for was written.
    pub(crate) fn wrote(&self, draft: Draft) {
        self.unsynced.lock().push(draft);
    }

    /// A record that nobody waits for could not be written.
    pub(crate) fn failed(&self, draft: Draft) {
        self.unsaid.lock().push(draft);
    }

    fn has_doomed(&self) -> bool {
        !self.doomed.lock().is_empty()
    }

    /// The newest checkpoint on disk, and which of the two names it has.
    pub(crate) fn newest_checkpoint(&self) -> Option<(Position, usize)> {
        let standing = self.standing.lock();
        standing.newest.map(|newest| (newest, 1 - standing.next))
    }

    /// Whether there are records that must be said again.
    pub(crate) fn has_unsaid(&self) -> bool {
        !self.unsaid.lock().is_empty()
    }

    /// The records that must be said again, in their order.
    pub(crate) fn take_unsaid(&self) -> Vec<Draft> {
        std::mem::take(&mut *self.unsaid.lock())
    }
}

impl Spool {
    /// Removes, after a sync, what nothing in the index needs any more.
    ///
    /// A segment that both checkpoints cover goes when no message has its record in it: what else it
    /// says is in them.
    pub(crate) fn tidy(self: &Arc<Self>, log: &mut Log) {
        let (needed_from, newest) = {
            let standing = self.upkeep.standing.lock();
            (standing.needed_from, standing.newest)
        };
        let could_free = || self.upkeep.has_doomed() || !self.unused(log, 0..u64::MAX).is_empty();
        let is_pinned = self.is_pinned(could_free);
        if !is_pinned {
            self.free_unneeded(log, needed_from);
            if let Some(position) = self.upkeep.put_off.lock().take() {
                self.write_in_time(Position { last_id: *self.last_id.lock(), ..position });
            }
        }
        // Space that is kept ready must not be what mail is refused for.
        while !self.is_free(self.settings.free_space_min) && log.shed().unwrap_or(false) {}
        if !log.has_reserve()
            && self.is_free(self.settings.free_space_min + self.settings.reserve())
        {
            log.refill_reserve();
        }
        if let Some(newest) = newest
            && !is_pinned
            && !self.is_free(self.settings.free_space_min)
            && !self.unused(log, needed_from..newest.begin).is_empty()
            && self.upkeep.relieved_at.swap(newest.begin, Ordering::Relaxed) != newest.begin
        {
            // Written once more under the other name it needs no more of the log than the newest.
            self.write_in_time(Position { last_id: *self.last_id.lock(), ..newest });
        }
    }

    /// Removes contents and segments that nothing needs any more.
    fn free_unneeded(&self, log: &mut Log, needed_from: u64) {
        self.remove_doomed(log);
        for number in self.unused(log, 0..needed_from) {
            if warn_unless_removed(&self.settings.segment(number), &log.release(number)) {
                self.index.lock().remove_segment(number);
            }
        }
    }

    /// The segments among these that no message has its record in.
    fn unused(&self, log: &Log, numbers: Range<u64>) -> Vec<u64> {
        let index = self.index.lock();
        let is_unused = |number: &u64| {
            numbers.contains(number)
                && index.segment(*number).is_none_or(|segment| segment.messages == 0)
        };
        log.closed().filter(is_unused).collect()
    }

    /// Removes large contents whose messages are durably gone: not while the records that say so are to
    /// be said again, or those that void what was refused.
    fn remove_doomed(&self, log: &Log) {
        if log.has_voids() || self.upkeep.has_unsaid() {
            return;
        }
        for id in std::mem::take(&mut *self.upkeep.doomed.lock()) {
            let path = self.settings.body(id);
            warn_unless_removed(&path, &self.disk.remove(&path));
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
    pub(crate) fn checkpoint_replayed(self: &Arc<Self>, log: &mut Log) {
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

    /// The position after a replay, when it was of many segments or a checkpoint was damaged.
    fn replayed(&self, log: &Log) -> Option<Position> {
        let covered_below = self.upkeep.standing.lock().covered_below();
        let replayed = log.closed().filter(|&number| number >= covered_below).count();
        let is_wanted = self.upkeep.is_wanted.load(Ordering::Relaxed);
        let current = log.current().filter(|_| is_wanted || replayed >= SEGMENTS_MIN)?;
        Some(self.position(current.number, log.next_sequence()))
    }

    /// Has a checkpoint written while others go on, unless one is.
    fn write_in_time(self: &Arc<Self>, position: Position) {
        // A backup reads the newest, which the one after the next would replace.
        if self.snapshots.are_there() {
            *self.upkeep.put_off.lock() = Some(position);
            return;
        }
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
        self.snapshots.give_up();
        // One that is under way would be replaced by an older state.
        if !self.upkeep.is_writing.swap(true, Ordering::Relaxed) && !log.is_dirty() {
            self.write_checkpoint(self.position(log.next_segment(), log.next_sequence()));
        }
    }

    fn position(&self, begin: u64, sequence: u64) -> Position {
        Position { begin, sequence, last_id: *self.last_id.lock() }
    }

    fn write_checkpoint(&self, position: Position) {
        let next = self.upkeep.standing.lock().next;
        match checkpoint::write(&*self.disk, &self.settings, &self.index, (position, next)) {
            Ok(bytes) => {
                debug!(bytes, begin = position.begin, "checkpoint written");
                self.upkeep.checkpoint_bytes.store(bytes, Ordering::Relaxed);
                self.upkeep.is_wanted.store(false, Ordering::Relaxed);
                self.upkeep.standing.lock().wrote(position);
            }
            // The ones before stay in force: the next start takes longer, and nothing is lost.
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
        let stuck = self.upkeep.stuck.lock();
        let index = self.index.lock();
        let needed: u64 = closed.iter().filter_map(|&n| Some(index.segment(n)?.bytes)).sum();
        if needed > log.bytes() / 2 {
            return;
        }
        let least = closed
            .into_iter()
            .filter(|number| !stuck.contains(number))
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
                Err(error) => self.cannot_move(id, &error),
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
            self.settle(false);
            return;
        };
        let mut upkeep = self.upkeep.moved.lock();
        for (((id, from), at), draft) in moved.into_iter().zip(written.places).zip(&drafts) {
            let text = u32::try_from(draft.text.len()).unwrap_or(u32::MAX);
            upkeep.push((id, from, Place { segment: written.segment, at, text }));
        }
    }

    /// A message cannot be written again: its segment stays as long as it does, and others get their
    /// turn until the next start.
    fn cannot_move(&self, id: QueueId, error: &io::Error) {
        let place = self.index.lock().message(id).map(|message| message.place);
        let Some(Place { segment, .. }) = place else { return };
        warn!(queue_id = %id, segment, reason = %error, "a message cannot be written again");
        self.damaged(format!(
            "segment {segment} stays: message {id} in it cannot be read: {error}"
        ));
        self.upkeep.stuck.lock().insert(segment);
    }

    /// What was written is durable, or may never be. Then the old records of what was written again go
    /// on to count, and what nobody waited for is to be said again.
    pub(crate) fn settle(&self, is_durable: bool) {
        let moved = std::mem::take(&mut *self.upkeep.moved.lock());
        if is_durable {
            self.upkeep.unsynced.lock().clear();
            let mut index = self.index.lock();
            for (id, from, to) in moved {
                index.relocate(id, from, to);
            }
        } else {
            self.upkeep.unsaid.lock().append(&mut self.upkeep.unsynced.lock());
        }
    }

    /// A message's record in its present state, with its content; nothing when it is gone.
    pub(crate) fn written_again(&self, id: QueueId) -> io::Result<Option<(Place, Draft)>> {
        let Some(place) = self.index.lock().message(id).map(|message| message.place) else {
            return Ok(None);
        };
        let Some(loaded) = self.load(id)? else { return Ok(None) };
        let content = loaded.content.unwrap_or_else(Bytes::new);
        Ok(Some((place, Draft::new(&Record::Message(loaded.record), content))))
    }
}

/// Tells that a file could not be removed; it is tried again at the next start.
fn warn_unless_removed(path: &Path, removed: &io::Result<()>) -> bool {
    if let Err(error) = removed {
        error!(path = %path.display(), reason = %error, "a file of the spool cannot be removed");
    }
    removed.is_ok()
}
