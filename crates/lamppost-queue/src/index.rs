//! What is in the queue, in memory: rebuilt from the log at the start.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use lamppost_roles::{Envelope, QueueId, Route, Timestamp};
use lamppost_smtp::Address;

use crate::record::{MessageRecord, Progress, RecipientRecord};

/// Where a content lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a file of its own.
    Aside,
    /// In its record, from this byte of the segment on.
    Log { offset: u64 },
}

/// A message in the queue.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) envelope: Envelope,
    pub(crate) recipients: Vec<RecipientRecord>,
    pub(crate) held: bool,
    pub(crate) size: u64,
    /// The segment of its record.
    pub(crate) segment: u64,
    pub(crate) place: Place,
    /// The content, while it is kept for the first delivery.
    pub(crate) content: Option<Bytes>,
    /// Recipients whose delivery is under way.
    pub(crate) busy: BTreeSet<u32>,
}

impl Message {
    pub(crate) fn record(&self, id: QueueId) -> MessageRecord {
        MessageRecord {
            id,
            envelope: self.envelope.clone(),
            recipients: self.recipients.clone(),
            held: self.held,
            size: self.size,
            aside: self.place == Place::Aside,
        }
    }

    fn is_done(&self) -> bool {
        self.recipients.iter().all(|recipient| recipient.progress == Progress::Delivered)
    }
}

/// A recipient of a message.
pub(crate) type Item = (QueueId, u32);

/// What waits for one mailbox.
#[derive(Debug, Default)]
struct Line {
    due: BTreeSet<(Timestamp, Item)>,
    /// Whether a batch for it is under way.
    busy: bool,
}

/// All messages, by id and by when they are due.
#[derive(Debug, Default)]
pub(crate) struct Index {
    messages: BTreeMap<QueueId, Message>,
    lines: HashMap<Address, Line>,
    /// The mailboxes that no batch is under way for, by their earliest recipient.
    ready: BTreeSet<(Timestamp, Address)>,
    /// Messages whose record is in a segment.
    live: BTreeMap<u64, u64>,
    /// Bytes of contents that are kept in memory.
    memory: usize,
}

impl Index {
    /// How many messages there are.
    pub(crate) fn messages(&self) -> usize {
        self.messages.len()
    }

    /// A message.
    pub(crate) fn message(&self, id: QueueId) -> Option<&Message> {
        self.messages.get(&id)
    }

    /// All messages after an id, oldest first.
    pub(crate) fn after(&self, id: Option<QueueId>) -> impl Iterator<Item = (QueueId, &Message)> {
        let from = id.map_or(QueueId(0), |id| QueueId(id.0.saturating_add(1)));
        self.messages.range(from..).map(|(&id, message)| (id, message))
    }

    /// How many messages have their record in a segment.
    pub(crate) fn live(&self, segment: u64) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    /// The messages whose record is in a segment.
    pub(crate) fn of_segment(&self, segment: u64) -> Vec<QueueId> {
        let of_it = self.messages.iter().filter(|(_, message)| message.segment == segment);
        of_it.map(|(&id, _)| id).collect()
    }

    /// Adds a message, or moves one to another record; `content` is kept while there is room.
    pub(crate) fn put(
        &mut self,
        message: MessageRecord,
        segment: u64,
        place: Place,
        content: Option<Bytes>,
        memory_max: usize,
    ) {
        let before = self.take(message.id);
        let content = content.filter(|content| self.memory + content.len() <= memory_max);
        self.memory += content.as_ref().map_or(0, Bytes::len);
        let MessageRecord { id, envelope, recipients, held, size, .. } = message;
        let busy = before.map(|before| before.busy).unwrap_or_default();
        let message = Message { envelope, recipients, held, size, segment, place, content, busy };
        if message.is_done() {
            return;
        }
        *self.live.entry(segment).or_default() += 1;
        self.messages.insert(id, message);
        self.queue(id);
    }

    /// Moves recipients on; returns the message when that was its end. An intent is no end of a
    /// delivery: its recipients stay busy.
    pub(crate) fn progress(
        &mut self,
        id: QueueId,
        recipients: Vec<(u32, RecipientRecord)>,
        is_intent: bool,
    ) -> Option<Message> {
        self.unqueue(id);
        let message = self.messages.get_mut(&id)?;
        for (index, record) in recipients {
            if !is_intent {
                message.busy.remove(&index);
            }
            if let Some(recipient) = message.recipients.get_mut(index as usize) {
                *recipient = record;
            }
        }
        let done = message.is_done();
        if done {
            return self.take(id);
        }
        self.queue(id);
        None
    }

    /// Holds a message or holds it no more.
    pub(crate) fn hold(&mut self, id: QueueId, held: bool) {
        self.unqueue(id);
        if let Some(message) = self.messages.get_mut(&id) {
            message.held = held;
        }
        self.queue(id);
    }

    /// Takes a message out.
    pub(crate) fn take(&mut self, id: QueueId) -> Option<Message> {
        self.unqueue(id);
        let message = self.messages.remove(&id)?;
        self.memory -= message.content.as_ref().map_or(0, Bytes::len);
        if let Some(live) = self.live.get_mut(&message.segment) {
            *live -= 1;
            if *live == 0 {
                self.live.remove(&message.segment);
            }
        }
        Some(message)
    }

    /// The content that is kept in memory; it is kept no longer.
    pub(crate) fn take_content(&mut self, id: QueueId) -> Option<Bytes> {
        let content = self.messages.get_mut(&id)?.content.take()?;
        self.memory -= content.len();
        Some(content)
    }

    /// The mailbox that has waited longest and its due recipients; it is busy from now on.
    pub(crate) fn next_batch(
        &mut self,
        now: Timestamp,
        max: usize,
    ) -> Option<(Address, Vec<Item>)> {
        let (due, _) = self.ready.first()?;
        if *due > now {
            return None;
        }
        let (_, mailbox) = self.ready.pop_first()?;
        let line = self.lines.get_mut(&mailbox)?;
        line.busy = true;
        let items: Vec<_> = line
            .due
            .iter()
            .take_while(|(due, _)| *due <= now)
            .take(max)
            .map(|&(_, item)| item)
            .collect();
        for &(id, index) in &items {
            self.set_busy(id, index);
        }
        Some((mailbox, items))
    }

    /// The batch for a mailbox is over; its recipients stop being busy as their outcomes arrive.
    pub(crate) fn batch_over(&mut self, mailbox: &Address) {
        if let Some(line) = self.lines.get_mut(mailbox) {
            line.busy = false;
            match line.due.first() {
                Some(&(due, _)) => drop(self.ready.insert((due, mailbox.clone()))),
                None => drop(self.lines.remove(mailbox)),
            }
        }
    }

    /// When the next recipient is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.ready.first().map(|&(due, _)| due)
    }

    fn set_busy(&mut self, id: QueueId, index: u32) {
        self.unqueue(id);
        if let Some(message) = self.messages.get_mut(&id) {
            message.busy.insert(index);
        }
        self.queue(id);
    }

    /// Lines up the recipients of a message that wait for a delivery.
    fn queue(&mut self, id: QueueId) {
        for (mailbox, due, item) in self.waiting(id) {
            let line = self.lines.entry(mailbox.clone()).or_default();
            let before = line.due.first().map(|&(due, _)| due);
            line.due.insert((due, item));
            if !line.busy && before.is_none_or(|before| due < before) {
                if let Some(before) = before {
                    self.ready.remove(&(before, mailbox.clone()));
                }
                self.ready.insert((due, mailbox));
            }
        }
    }

    /// Undoes [`Index::queue`], before the message changes.
    fn unqueue(&mut self, id: QueueId) {
        for (mailbox, due, item) in self.waiting(id) {
            let Some(line) = self.lines.get_mut(&mailbox) else {
                continue;
            };
            let before = line.due.first().map(|&(due, _)| due);
            line.due.remove(&(due, item));
            let after = line.due.first().map(|&(due, _)| due);
            if line.busy {
                continue;
            }
            if after.is_none() {
                self.lines.remove(&mailbox);
            }
            if before != after {
                if let Some(before) = before {
                    self.ready.remove(&(before, mailbox.clone()));
                }
                if let Some(after) = after {
                    self.ready.insert((after, mailbox));
                }
            }
        }
    }

    fn waiting(&self, id: QueueId) -> Vec<(Address, Timestamp, Item)> {
        let Some(message) = self.messages.get(&id).filter(|message| !message.held) else {
            return Vec::new();
        };
        let recipients = message.envelope.recipients.iter().zip(&message.recipients);
        let waiting = (0_u32..).zip(recipients).filter_map(|(index, (recipient, record))| {
            let Route::Mailbox(mailbox) = &recipient.route else {
                return None;
            };
            match record.progress {
                Progress::Waiting { due } | Progress::Intended { due }
                    if !message.busy.contains(&index) =>
                {
                    Some((mailbox.clone(), due, (id, index)))
                }
                _ => None,
            }
        });
        waiting.collect()
    }
}
