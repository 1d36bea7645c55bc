//! The spool as all parts of the queue share it: the index, the way to the committer, and figures.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use lamppost_net::Clock;
use lamppost_roles::{QueueId, QueueStatus, Timestamp};
use lamppost_telemetry::Metrics;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tracing::error;

use crate::Settings;
use crate::committer::{CommitFailed, Committed, Order, Then, Work};
use crate::disk::Disk;
use crate::index::{Index, Message, Place};
use crate::log::Log;
use crate::record::{Draft, MessageRecord, RecipientRecord, Record};
use crate::replay::Replayed;

/// What the parts of the queue share.
pub(crate) struct Spool {
    pub(crate) settings: Settings,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) index: Mutex<Index>,
    /// Something may be due.
    pub(crate) due: Notify,
    orders: Mutex<Sender<Order>>,
    last_id: Mutex<QueueId>,
    /// Large contents whose message is gone; removed once that is durable.
    doomed: Mutex<Vec<PathBuf>>,
    fault: Mutex<Option<String>>,
    bytes: AtomicU64,
    delivered: AtomicU64,
}

impl Spool {
    pub(crate) fn new(
        settings: Settings,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        replayed: Replayed,
        orders: Sender<Order>,
    ) -> Arc<Self> {
        let last_id = Mutex::new(replayed.last_id);
        let spool = Self {
            settings,
            disk,
            clock,
            metrics,
            index: Mutex::new(replayed.index),
            due: Notify::new(),
            orders: Mutex::new(orders),
            last_id,
            doomed: Mutex::default(),
            fault: Mutex::default(),
            bytes: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
        };
        spool.count_messages();
        Arc::new(spool)
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
        let free = self.disk.free_bytes(&self.settings.directory);
        // A disk that does not tell is found out by the write itself.
        free.map_or(true, |free| free >= self.settings.free_space_min.saturating_add(size))
    }

    /// Hands a record to the committer; `then` runs on its thread.
    pub(crate) fn commit(&self, draft: Draft, sync: bool, then: Then) {
        let sent = self.orders.lock().send(Order::Commit(Work { draft, sync, then }));
        if let Err(std::sync::mpsc::SendError(Order::Commit(work))) = sent {
            (work.then)(Err(CommitFailed));
        }
    }

    /// Adds a message to the log and, once it is durable, to the index.
    pub(crate) fn add(
        self: &Arc<Self>,
        message: MessageRecord,
        content: Bytes,
        then: impl FnOnce(Result<(), CommitFailed>) + Send + 'static,
    ) {
        let spool = self.clone();
        let record = Record::Message(message.clone());
        let inline = if message.aside { Bytes::new() } else { content.clone() };
        let done = move |committed: Result<Committed, CommitFailed>| {
            let added = committed.map(|Committed { segment, content: offset }| {
                let place = if message.aside { Place::Aside } else { Place::Log { offset } };
                let kept = (!message.aside).then_some(content);
                let max = spool.settings.memory_max;
                spool.index.lock().put(message, segment, place, kept, max);
                spool.count_messages();
                spool.due.notify_one();
            });
            then(added);
        };
        self.commit(Draft::new(&record, inline), true, Box::new(done));
    }

    /// Commits recipients' new states and takes them into the index.
    ///
    /// # Errors
    /// When they are not durable; nothing has changed then.
    pub(crate) async fn progress(
        self: &Arc<Self>,
        id: QueueId,
        recipients: Vec<(u32, RecipientRecord)>,
    ) -> Result<(), CommitFailed> {
        let record = Record::Progress { id, recipients: recipients.clone() };
        let apply = move |spool: &Self| drop(spool.index.lock().progress(id, recipients, false));
        self.change(&record, apply).await
    }

    /// Commits that a recipient's file is to be published; its delivery is still under way.
    ///
    /// # Errors
    /// When it is not durable; nothing has changed then.
    pub(crate) async fn intend(
        self: &Arc<Self>,
        id: QueueId,
        index: u32,
        recipient: RecipientRecord,
    ) -> Result<(), CommitFailed> {
        let recipients = vec![(index, recipient)];
        let record = Record::Progress { id, recipients: recipients.clone() };
        let apply = move |spool: &Self| drop(spool.index.lock().progress(id, recipients, true));
        self.change(&record, apply).await
    }

    /// Notes the outcome of a delivery. Nobody waits for it: it is durable with the next sync, and a
    /// crash before that, or a log that fails, only repeats the delivery to the same end.
    pub(crate) fn note(self: Arc<Self>, id: QueueId, index: u32, recipient: RecipientRecord) {
        let recipients = vec![(index, recipient)];
        let draft =
            Draft::new(&Record::Progress { id, recipients: recipients.clone() }, Bytes::new());
        let spool = self.clone();
        let then = move |_| {
            let ended = spool.index.lock().progress(id, recipients, false);
            spool.ended(id, ended);
            spool.due.notify_one();
        };
        self.commit(draft, false, Box::new(then));
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
        let (to, done) = oneshot::channel();
        let spool = self.clone();
        let then = move |committed: Result<Committed, CommitFailed>| {
            if committed.is_ok() {
                apply(&spool);
                spool.due.notify_one();
            }
            let _gone = to.send(committed.map(|_| ()));
        };
        self.commit(Draft::new(record, Bytes::new()), true, Box::new(then));
        done.await.unwrap_or(Err(CommitFailed))
    }

    /// Cleans up after a message that left the index.
    pub(crate) fn ended(&self, id: QueueId, message: Option<Message>) {
        if message.is_some_and(|message| message.place == Place::Aside) {
            self.doomed.lock().push(self.settings.body(id));
        }
        self.count_messages();
    }

    fn count_messages(&self) {
        let messages = self.index.lock().messages();
        self.metrics.queue_messages.set(i64::try_from(messages).unwrap_or(i64::MAX));
    }

    /// Counts a recipient that has its mail.
    pub(crate) fn count_delivered(&self) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes, after a sync, what nothing in the index needs any more.
    ///
    /// Segments go in order from the oldest: a record of progress must outlive the record of its
    /// message, or the message would come back.
    pub(crate) fn tidy(&self, log: &mut Log) {
        for path in std::mem::take(&mut *self.doomed.lock()) {
            warn_unless_removed(&path, self.disk.remove(&path));
        }
        while let Some(oldest) = log.oldest().filter(|&oldest| self.index.lock().live(oldest) == 0)
        {
            let path = self.settings.segment(oldest);
            let removed = log.remove(oldest);
            let failed = removed.is_err();
            warn_unless_removed(&path, removed);
            if failed {
                return;
            }
        }
    }

    /// Writes the messages of the oldest segment again when few are left in it, so that a message
    /// that stays long does not keep the whole log.
    pub(crate) fn forward(&self, log: &mut Log) {
        /// Segments before anything is written again.
        const SEGMENTS_MIN: usize = 4;
        let Some(oldest) = log.oldest().filter(|_| log.segments() >= SEGMENTS_MIN) else {
            return;
        };
        let mut drafts = Vec::new();
        let mut moved = Vec::new();
        let mut bytes = 0;
        let ids = self.index.lock().of_segment(oldest);
        for id in ids {
            let Some((record, place)) =
                self.index.lock().message(id).map(|m| (m.record(id), m.place))
            else {
                continue;
            };
            let content = match place {
                Place::Aside => Ok(Bytes::new()),
                Place::Log { offset } => self.read_log(oldest, offset, record.size),
            };
            let Ok(content) = content else { return };
            let draft = Draft::new(&Record::Message(record.clone()), content);
            bytes += draft.len() as u64;
            if bytes > self.settings.segment_size / 4 {
                return;
            }
            drafts.push(draft);
            moved.push((record, place));
        }
        let Ok(written) = log.append(&drafts, true) else {
            return;
        };
        let mut index = self.index.lock();
        for ((record, place), offset) in moved.into_iter().zip(written.contents) {
            let place = if place == Place::Aside { place } else { Place::Log { offset } };
            index.put(record, written.segment, place, None, 0);
        }
        drop(index);
        self.tidy(log);
    }

    /// Reads a content from the log.
    pub(crate) fn read_log(&self, segment: u64, offset: u64, size: u64) -> std::io::Result<Bytes> {
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let bytes = self.disk.read(&self.settings.segment(segment), offset, length)?;
        if bytes.len() < length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes.into())
    }

    /// Reads a piece of a message's content; nothing when there is no such message.
    pub(crate) fn read(
        &self,
        id: QueueId,
        offset: u64,
        length_max: u32,
    ) -> Option<std::io::Result<Bytes>> {
        let (place, segment, size) = {
            let index = self.index.lock();
            let message = index.message(id)?;
            (message.place, message.segment, message.size)
        };
        let length = size.saturating_sub(offset).min(u64::from(length_max));
        Some(match place {
            Place::Log { offset: begin } => self.read_log(segment, begin + offset, length),
            Place::Aside => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                self.disk.read(&self.settings.body(id), offset, length).map(Bytes::from)
            }
        })
    }

    /// The log works.
    pub(crate) fn well(&self) {
        *self.fault.lock() = None;
    }

    /// The log does not work.
    pub(crate) fn ill(&self, fault: String) {
        *self.fault.lock() = Some(fault);
    }

    /// A sync took so long.
    pub(crate) fn synced(&self, took: Duration) {
        self.metrics.spool_syncs.inc();
        self.metrics.spool_sync_seconds.observe(took.as_secs_f64());
    }

    /// The log has so many bytes.
    pub(crate) fn measured(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.metrics.spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Figures of the whole queue.
    pub(crate) fn status(&self) -> QueueStatus {
        use crate::record::Progress;
        let mut status = QueueStatus {
            spool_bytes: self.bytes.load(Ordering::Relaxed),
            accepted: self.metrics.messages_accepted.get(),
            delivered: self.delivered.load(Ordering::Relaxed),
            syncs: self.metrics.spool_syncs.get(),
            fault: self.fault.lock().clone(),
            ..QueueStatus::default()
        };
        let index = self.index.lock();
        for (_, message) in index.after(None) {
            status.messages += 1;
            status.held += u64::from(message.held);
            for recipient in &message.recipients {
                match recipient.progress {
                    Progress::Waiting { .. } | Progress::Intended { .. } => status.waiting += 1,
                    Progress::Failed => status.failed += 1,
                    Progress::Delivered => {}
                }
            }
        }
        status
    }
}

fn warn_unless_removed(path: &std::path::Path, removed: std::io::Result<()>) {
    if let Err(error) = removed {
        error!(path = %path.display(), reason = %error, "a file of the spool cannot be removed");
    }
}
