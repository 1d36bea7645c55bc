//! The spool as all parts of the queue share it: the index, the way to the committer, and figures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lamppost_disk::Disk;
use lamppost_net::Clock;
use lamppost_roles::{Attempt, QueueId, Reason, Timestamp};
use lamppost_smtp::Status;
use lamppost_telemetry::Metrics;
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, oneshot};
use tracing::warn;

use crate::Settings;
use crate::committer::{CommitFailed, Committed, Order, Then, Work};
use crate::index::{Ended, Fresh, Index, Place};
use crate::log::Purpose;
use crate::record::{Draft, Item, MessageRecord, Progress, RecipientRecord, Record};
use crate::replay::Replayed;
use crate::segment::SegmentId;
use crate::snapshot::Snapshots;
use crate::upkeep::Upkeep;

/// How long free space that was seen is taken for granted while there is plenty.
const ROOM_LASTS: Duration = Duration::from_millis(50);
/// Bytes above what is needed that are plenty.
const ROOM_PLENTY: u64 = 256 * 1024 * 1024;

/// What the parts of the queue share.
pub(crate) struct Spool {
    pub(crate) settings: Settings,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) index: Mutex<Index>,
    /// Something may be due.
    pub(crate) due: Notify,
    /// Something may be told to a sender.
    pub(crate) notices: Notify,
    /// Messages with recipients that failed for good, whose senders are to be told.
    pub(crate) failures: Mutex<BTreeSet<QueueId>>,
    /// Messages with recipients that failed for good and without a sender to tell.
    pub(crate) undeliverable: Mutex<BTreeSet<QueueId>>,
    /// Recipients that an administrator retried while their delivery was under way: when it fails, they
    /// are tried again at once.
    pub(crate) again: Mutex<BTreeSet<Item>>,
    pub(crate) upkeep: Upkeep,
    pub(crate) snapshots: Snapshots,
    pub(crate) last_id: Mutex<QueueId>,
    pub(crate) orders: UnboundedSender<Order>,
    pub(crate) fault: Mutex<Option<String>>,
    pub(crate) damage: Mutex<Vec<String>>,
    /// Messages that were found damaged and lie in the quarantine, and why.
    pub(crate) quarantined: Mutex<BTreeMap<QueueId, String>>,
    /// Bytes that were not free when a message was refused for that; 0 since one was not.
    pub(crate) lacking: AtomicU64,
    /// When the disk was asked for its free bytes, and what it said.
    room: Mutex<Option<(Duration, u64)>>,
    pub(crate) bytes: AtomicU64,
    pub(crate) accepted: AtomicU64,
    pub(crate) delivered: AtomicU64,
}

/// The work of others that the spool is given.
pub(crate) struct Means {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Spool {
    pub(crate) fn new(
        settings: Settings,
        means: Means,
        replayed: Replayed,
        orders: UnboundedSender<Order>,
    ) -> Arc<Self> {
        let Means { disk, clock, metrics } = means;
        let upkeep = Upkeep::new(&replayed);
        let spool = Self {
            settings,
            disk,
            clock,
            metrics,
            index: Mutex::new(replayed.index),
            due: Notify::new(),
            notices: Notify::new(),
            failures: Mutex::new(replayed.failures),
            undeliverable: Mutex::default(),
            again: Mutex::default(),
            upkeep,
            snapshots: Snapshots::default(),
            last_id: Mutex::new(replayed.last_id),
            orders,
            fault: Mutex::default(),
            damage: Mutex::new(replayed.damage),
            quarantined: Mutex::new(replayed.quarantined),
            lacking: AtomicU64::new(0),
            room: Mutex::default(),
            bytes: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
        };
        spool.hold_doubtful(&replayed.doubtful);
        spool.tell_quarantined();
        spool.count_messages();
        let damage = i64::try_from(spool.damage.lock().len()).unwrap_or(i64::MAX);
        spool.metrics.spool_damage.set(damage);
        Arc::new(spool)
    }

    /// Holds messages that may have been delivered long ago, and says why at each recipient: nobody
    /// gets a message, or a bounce of it, twice without an administrator's word.
    fn hold_doubtful(&self, ids: &[QueueId]) {
        let now = self.now();
        let reason = Reason::own(
            Status::POLICY,
            "held at a start of the mail server, since it may have been delivered long ago",
        );
        let mut index = self.index.lock();
        for &id in ids {
            index.hold(id, true);
            let Some(message) = index.message(id) else { continue };
            let again = (0_u32..).zip(&message.recipients).filter_map(|(place, one)| {
                let progress = match one.progress {
                    Progress::Waiting { .. } | Progress::Failed => Progress::Waiting { due: now },
                    Progress::Intended { .. } => one.progress,
                    Progress::Delivered | Progress::Bounced => return None,
                };
                let last = Some(Attempt { at: now, reason: reason.clone() });
                Some((place, RecipientRecord { progress, attempts: one.attempts, last }))
            });
            let again: Vec<_> = again.collect();
            index.progress(id, &again);
            self.failures.lock().remove(&id);
        }
    }

    /// The time in milliseconds since 1970.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.clock.now().as_millis()).unwrap_or(u64::MAX))
    }

    /// An identity that no message had before.
    pub(crate) fn new_id(&self) -> QueueId {
        let now_us = u64::try_from(self.clock.now().as_micros()).unwrap_or(u64::MAX);
        let mut last = self.last_id.lock();
        *last = last.next(now_us);
        *last
    }

    /// Whether the disk has room for a new message of this size.
    pub(crate) fn has_room(&self, size: u64) -> bool {
        let needed = self.settings.free_space_min.saturating_add(size);
        let has_room = self.is_free(needed);
        let before = self.lacking.swap(if has_room { 0 } else { needed }, Ordering::Relaxed);
        if (before == 0) != has_room {
            self.tell_fault();
        }
        if before == 0 && !has_room {
            warn!(spool = %self.settings.directory.display(), needed, "the disk is full: mail is refused");
        }
        if !has_room {
            // Spares that are kept ready may be what is lacking.
            self.order_tidy();
        }
        has_room
    }

    /// Whether so many bytes are free.
    ///
    /// While there is plenty, the disk is asked every [`ROOM_LASTS`] only: no disk takes
    /// [`ROOM_PLENTY`] within that time.
    pub(crate) fn is_free(&self, needed: u64) -> bool {
        let now = self.clock.now();
        if self.plenty_lasts(needed).is_some() {
            return true;
        }
        let free = self.disk.free_bytes(&self.settings.directory).ok();
        *self.room.lock() = free.map(|free| (now, free));
        // A disk that does not tell is found out by the write itself.
        free.is_none_or(|free| free >= needed)
    }

    /// How long there will be room for so many bytes and whatever else comes meanwhile, if there is plenty.
    fn plenty_lasts(&self, needed: u64) -> Option<Duration> {
        let (seen, free) = (*self.room.lock())?;
        let age = self.clock.now().checked_sub(seen)?;
        let left = ROOM_LASTS.checked_sub(age).filter(|left| !left.is_zero())?;
        (free >= needed.saturating_add(ROOM_PLENTY)).then_some(left)
    }

    /// How long nobody needs to ask whether there is room, in milliseconds, if there is plenty.
    pub(crate) fn plenty_lasts_ms(&self) -> Option<u32> {
        let left = self.plenty_lasts(self.settings.free_space_min)?;
        u32::try_from(left.as_millis()).ok().filter(|&left| left > 0)
    }

    /// Why mail is refused for lack of space, as long as it is.
    pub(crate) fn shortage(&self) -> Option<String> {
        let needed = self.lacking.load(Ordering::Relaxed);
        (needed > 0 && !self.is_free(needed)).then(|| {
            format!(
                "the disk is full: mail is refused until {} MiB of {} are free (free-space-min)",
                needed.div_ceil(1024 * 1024),
                self.settings.directory.display()
            )
        })
    }

    /// Hands a record to the committer; `then` runs on its thread.
    pub(crate) fn commit(&self, draft: Draft, purpose: Purpose, sync: bool, then: Then) {
        let sent = self.orders.send(Order::Commit(Work { draft, purpose, sync, then }));
        if let Err(tokio::sync::mpsc::error::SendError(Order::Commit(work))) = sent {
            (work.then)(Err(CommitFailed::Failed));
        }
    }

    /// Lets the committer look for what has become free.
    pub(crate) fn order_tidy(&self) {
        // A committer that has ended leaves it to the next start.
        drop(self.orders.send(Order::Tidy));
    }

    /// Adds a message to the log and, once it is durable, to the index.
    pub(crate) fn add(
        self: &Arc<Self>,
        message: MessageRecord,
        content: Bytes,
        then: impl FnOnce(Result<(), CommitFailed>) + Send + 'static,
    ) {
        let spool = self.clone();
        let record = Record::Message(message);
        let inline = if aside(&record) { Bytes::new() } else { content.clone() };
        let draft = Draft::new(&record, inline);
        let Record::Message(record) = record else { return };
        let done = move |committed: Result<Committed, CommitFailed>| {
            let added = committed.map(|committed| {
                let content = (!record.aside).then_some(content);
                let id = record.id;
                {
                    let mut index = spool.index.lock();
                    index.put(&record, place(committed));
                    index.keep_fresh(id, Fresh { record, content }, spool.settings.memory_max);
                }
                spool.accepted.fetch_add(1, Ordering::Relaxed);
                spool.count_messages();
                spool.due.notify_one();
            });
            then(added);
        };
        self.commit(draft, Purpose::Mail, true, Box::new(done));
    }

    /// Commits that recipients' files are to be published; their deliveries are still under way.
    ///
    /// # Errors
    /// When it is not durable; nothing has changed then.
    pub(crate) async fn intend(
        self: &Arc<Self>,
        items: Vec<Item>,
        at: Timestamp,
    ) -> Result<(), CommitFailed> {
        let record = Record::Intended { items: items.clone(), at };
        self.change(&record, move |spool| spool.index.lock().intended(&items, at)).await
    }

    /// Notes recipients that have their mail. Nobody waits for it: it is durable with the next sync,
    /// and a crash before that, or a log that fails, only repeats the delivery to the same end.
    pub(crate) fn note_delivered(self: &Arc<Self>, items: Vec<Item>) {
        self.delivered.fetch_add(items.len() as u64, Ordering::Relaxed);
        self.index.lock().concluded(&items);
        let record = Record::Delivered { items: items.clone() };
        self.note(&record, move |spool| spool.index.lock().delivered(&items));
    }

    /// Notes a recipient that was tried in vain; as [`Spool::note_delivered`].
    pub(crate) fn note_progress(self: &Arc<Self>, (id, index): Item, recipient: RecipientRecord) {
        self.index.lock().concluded(&[(id, index)]);
        let recipients = vec![(index, recipient)];
        let record = Record::Progress { id, recipients: recipients.clone() };
        self.note(&record, move |spool| {
            let ended = spool.index.lock().progress(id, &recipients);
            // Not before: who looks for failures forgets a message that has none yet.
            if recipients.iter().any(|(_, one)| one.progress == Progress::Failed) {
                spool.failures.lock().insert(id);
            }
            ended.into_iter().collect()
        });
    }

    fn note(
        self: &Arc<Self>,
        record: &Record,
        apply: impl FnOnce(&Self) -> Vec<Ended> + Send + 'static,
    ) {
        let spool = self.clone();
        // What the log does not take is said again.
        let then = move |_| {
            spool.ended(apply(&spool));
            spool.due.notify_one();
            spool.notices.notify_one();
        };
        self.commit(Draft::new(record, Bytes::new()), Purpose::State, false, Box::new(then));
    }

    /// Commits a change and takes it into the index.
    ///
    /// # Errors
    /// When it is not durable; nothing has changed then.
    pub(crate) async fn change(
        self: &Arc<Self>,
        record: &Record,
        apply: impl FnOnce(&Self) + Send + 'static,
    ) -> Result<(), CommitFailed> {
        self.change_with(Draft::new(record, Bytes::new()), Purpose::State, |spool, _| apply(spool))
            .await
    }

    /// As [`Spool::change`], with content; `apply` learns where the record is.
    ///
    /// # Errors
    /// When it is not durable; nothing has changed then.
    pub(crate) async fn change_with(
        self: &Arc<Self>,
        draft: Draft,
        purpose: Purpose,
        apply: impl FnOnce(&Self, Place) + Send + 'static,
    ) -> Result<(), CommitFailed> {
        let (to, done) = oneshot::channel();
        let spool = self.clone();
        let then = move |committed: Result<Committed, CommitFailed>| {
            if let Ok(committed) = committed {
                apply(&spool, place(committed));
                spool.count_messages();
                spool.due.notify_one();
                spool.notices.notify_one();
            }
            let _gone = to.send(committed.map(|_| ()));
        };
        self.commit(draft, purpose, true, Box::new(then));
        done.await.unwrap_or(Err(CommitFailed::Failed))
    }

    /// Cleans up after messages that left the index.
    pub(crate) fn ended(&self, messages: impl IntoIterator<Item = Ended>) {
        for message in messages {
            if message.aside {
                self.upkeep.doom(message.id);
            }
        }
        self.count_messages();
    }

    /// The log goes on in a segment that the index may not know yet.
    pub(crate) fn has_segment(&self, segment: Option<SegmentId>) {
        if let Some(id) = segment {
            let mut index = self.index.lock();
            if index.segment(id.number).is_none() {
                index.add_segment(id);
            }
        }
    }
}

fn aside(record: &Record) -> bool {
    matches!(record, Record::Message(message) if message.aside)
}

/// Where a record's message is.
pub(crate) fn place(committed: Committed) -> Place {
    Place { segment: committed.segment, at: committed.at, text: committed.text }
}
