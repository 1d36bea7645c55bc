//! What is in the queue, in memory: rebuilt from the checkpoint and the log at the start.

mod counts;
mod lines;
mod message;
mod placing;
mod table;

use std::collections::BTreeMap;

use lamppost_roles::{Attempt, QueueId, Reason, Route, Timestamp};
use lamppost_smtp::ReversePath;
use serde::{Deserialize, Serialize};

use self::counts::Counts;
use self::lines::Lines;
use self::message::Standing;
use self::table::Table;
use crate::record::{Item, MessageRecord, Progress, RecipientRecord, Settles};
use crate::segment::SegmentId;

pub(crate) use lines::{Batch as ItemBatch, Bounds, Work};
pub(crate) use message::{Fresh, Message, Place, Recipient};
pub(crate) use table::Handle;

/// All messages, by id and by when they are due.
#[derive(Debug, Default)]
pub(crate) struct Index {
    messages: BTreeMap<QueueId, Message>,
    destinations: Table<Route>,
    senders: Table<ReversePath>,
    reasons: Table<Reason>,
    lines: Lines,
    segments: BTreeMap<u64, Segment>,
    fresh_bytes: usize,
    counts: Counts,
}

/// What the index knows of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    /// Messages whose record is in it.
    pub(crate) messages: u64,
    /// Bytes of their records.
    pub(crate) bytes: u64,
}

/// A message as a checkpoint holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: QueueId,
    pub(crate) place: Place,
    size: u64,
    aside: bool,
    held: bool,
    delay_told: bool,
    sender: ReversePath,
    recipients: Vec<(Route, RecipientRecord)>,
}

/// A message that left the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) id: QueueId,
    /// Whether its content is a file of its own.
    pub(crate) aside: bool,
}

impl Index {
    /// How many messages there are.
    pub(crate) fn messages(&self) -> usize {
        self.messages.len()
    }

    /// How many there are of what.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
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

    /// The way to a recipient.
    pub(crate) fn route(&self, recipient: &Recipient) -> Route {
        self.destinations.get(recipient.destination).map_or(Route::Undecided, |at| (**at).clone())
    }

    /// The sender of a message.
    pub(crate) fn sender(&self, message: &Message) -> ReversePath {
        self.senders.get(message.sender).map_or(ReversePath::Null, |at| (**at).clone())
    }

    /// A recipient's last try that did not succeed.
    pub(crate) fn last(&self, recipient: &Recipient) -> Option<Attempt> {
        let (at, reason) = recipient.last?;
        Some(Attempt { at, reason: (**self.reasons.get(reason)?).clone() })
    }

    /// A message's present state, over what its record says.
    pub(crate) fn refresh(&self, message: &Message, record: &mut MessageRecord) {
        record.held = message.held;
        record.delay_told = message.delay_told;
        record.recipients = message.recipients.iter().map(|one| self.record_of(one)).collect();
        for (recipient, known) in record.envelope.recipients.iter_mut().zip(&message.recipients) {
            recipient.route = self.route(known);
        }
    }

    fn record_of(&self, recipient: &Recipient) -> RecipientRecord {
        RecipientRecord {
            progress: recipient.progress,
            attempts: recipient.attempts,
            last: self.last(recipient),
        }
    }

    /// A segment that records may be in from now on.
    pub(crate) fn add_segment(&mut self, id: SegmentId) {
        self.segments.insert(id.number, Segment { id, messages: 0, bytes: 0 });
    }

    /// What is known of a segment.
    pub(crate) fn segment(&self, number: u64) -> Option<&Segment> {
        self.segments.get(&number)
    }

    /// A segment that is gone.
    pub(crate) fn remove_segment(&mut self, number: u64) {
        self.segments.remove(&number);
    }

    /// The messages whose record is in a segment, as many as `max`.
    pub(crate) fn of_segment(&self, segment: u64, max: usize) -> Vec<QueueId> {
        let of_it = self.messages.iter().filter(|(_, message)| message.place.segment == segment);
        of_it.map(|(&id, _)| id).take(max).collect()
    }

    /// Adds a message as its record says, or replaces what was known of it.
    pub(crate) fn put(&mut self, record: &MessageRecord, place: Place) {
        self.take(record.id);
        let recipients = record.envelope.recipients.iter().zip(&record.recipients);
        let recipients = recipients.map(|(one, state)| (one.route.clone(), state.clone()));
        self.restore(Entry {
            id: record.id,
            place,
            size: record.size,
            aside: record.aside,
            held: record.held,
            delay_told: record.delay_told,
            sender: record.envelope.sender.clone(),
            recipients: recipients.collect(),
        });
    }

    /// Adds a message that is complete, its values kept in the tables already.
    fn insert(&mut self, id: QueueId, message: Message) {
        if message.is_done() {
            self.dismiss(&message);
            return;
        }
        if let Some(segment) = self.segments.get_mut(&message.place.segment) {
            segment.messages += 1;
            segment.bytes += message.log_bytes();
        }
        self.count(&message, true);
        self.messages.insert(id, message);
        self.place_all(id);
    }

    /// Messages after an id as a checkpoint holds them.
    pub(crate) fn entries(&self, after: Option<QueueId>, max: usize) -> Vec<Entry> {
        let entries = self.after(after).take(max).map(|(id, message)| Entry {
            id,
            place: message.place,
            size: message.size,
            aside: message.aside,
            held: message.held,
            delay_told: message.delay_told,
            sender: self.sender(message),
            recipients: message
                .recipients
                .iter()
                .map(|recipient| (self.route(recipient), self.record_of(recipient)))
                .collect(),
        });
        entries.collect()
    }

    /// Adds a message, from a checkpoint or a record.
    pub(crate) fn restore(&mut self, entry: Entry) {
        let sender = self.senders.keep(entry.sender.clone());
        let recipients = entry.recipients.into_iter().map(|(route, state)| Recipient {
            destination: self.destinations.keep(route),
            progress: state.progress,
            attempts: state.attempts,
            last: state.last.map(|last| (last.at, self.reasons.keep(last.reason))),
            standing: Standing::Aside,
            is_lined_up: false,
        });
        let message = Message {
            place: entry.place,
            size: entry.size,
            aside: entry.aside,
            held: entry.held,
            delay_told: entry.delay_told,
            sender,
            is_null_sender: entry.sender == ReversePath::Null,
            recipients: recipients.collect(),
            fresh: None,
        };
        self.insert(entry.id, message);
    }

    /// Keeps what came in just now for its first delivery, while there is room.
    pub(crate) fn keep_fresh(&mut self, id: QueueId, fresh: Fresh, memory_max: usize) {
        let length = fresh.len();
        if let Some(message) = self.messages.get_mut(&id)
            && self.fresh_bytes + length <= memory_max
        {
            message.fresh = Some(Box::new(fresh));
            self.fresh_bytes += length;
        }
    }

    /// What came in just now; the last recipient that is tried takes it along.
    pub(crate) fn fresh(&mut self, id: QueueId) -> Option<Fresh> {
        let message = self.messages.get_mut(&id)?;
        if message
            .recipients
            .iter()
            .any(|one| matches!(one.standing, Standing::Planned(_) | Standing::InLine))
        {
            return message.fresh.as_deref().cloned();
        }
        let fresh = message.fresh.take()?;
        self.fresh_bytes -= fresh.len();
        Some(*fresh)
    }

    /// A message's record was written again elsewhere, in its present state.
    pub(crate) fn relocate(&mut self, id: QueueId, from: Place, to: Place) {
        let Some(message) = self.messages.get_mut(&id).filter(|message| message.place == from)
        else {
            return;
        };
        let before = message.log_bytes();
        message.place = to;
        let after = message.log_bytes();
        if let Some(segment) = self.segments.get_mut(&from.segment) {
            segment.messages -= 1;
            segment.bytes -= before;
        }
        if let Some(segment) = self.segments.get_mut(&to.segment) {
            segment.messages += 1;
            segment.bytes += after;
        }
    }

    /// The files of these recipients are to be published. Those whose delivery is under way stay so.
    pub(crate) fn intended(&mut self, items: &[Item], at: Timestamp) {
        for &(id, index) in items {
            self.change(id, index, |recipient| {
                recipient.progress = Progress::Intended { due: at };
            });
        }
    }

    /// These recipients have their mail; returns the messages that end with it.
    pub(crate) fn delivered(&mut self, items: &[Item]) -> Vec<Ended> {
        for &(id, index) in items {
            self.unplace(id, index);
            self.change(id, index, |recipient| {
                recipient.progress = Progress::Delivered;
                recipient.standing = Standing::Aside;
            });
        }
        items.iter().filter_map(|&(id, _)| self.end_if_done(id)).collect()
    }

    /// Recipients have moved on; returns the message when that was its end.
    pub(crate) fn progress(
        &mut self,
        id: QueueId,
        recipients: &[(u32, RecipientRecord)],
    ) -> Option<Ended> {
        for (index, record) in recipients {
            let last = record.last.as_ref();
            let last = last.map(|last| (last.at, self.reasons.keep(last.reason.clone())));
            let mut before = last;
            self.unplace(id, *index);
            let known = self.change(id, *index, |recipient| {
                before = recipient.last;
                recipient.progress = record.progress;
                recipient.attempts = record.attempts;
                recipient.last = last;
                recipient.standing = Standing::Aside;
            });
            // What is replaced, or has nobody to belong to, has one user less.
            let loose = if known { before } else { last };
            if let Some((_, reason)) = loose {
                self.reasons.let_go(reason);
            }
            self.place_one(id, *index);
        }
        self.end_if_done(id)
    }

    /// A notice was written: what it settles is settled.
    pub(crate) fn settled(&mut self, of: QueueId, settles: &Settles) -> Option<Ended> {
        match settles {
            Settles::Delay => {
                if let Some(message) = self.messages.get_mut(&of) {
                    message.delay_told = true;
                }
            }
            Settles::Failures(indices) => {
                for &index in indices {
                    self.unplace(of, index);
                    self.change(of, index, |recipient| {
                        // Whatever a crash left of the record that says that it failed.
                        if !recipient.progress.is_final() {
                            recipient.progress = Progress::Bounced;
                        }
                        recipient.standing = Standing::Aside;
                    });
                }
            }
        }
        self.end_if_done(of)
    }

    /// Policy chose the way to a recipient.
    pub(crate) fn routed(&mut self, (id, index): Item, route: Route) {
        let destination = self.destinations.keep(route);
        let mut before = destination;
        self.unplace(id, index);
        self.change(id, index, |recipient| {
            before = std::mem::replace(&mut recipient.destination, destination);
            recipient.standing = Standing::Aside;
        });
        self.let_destination_go(before);
        self.place_one(id, index);
    }

    /// Holds a message or holds it no more.
    pub(crate) fn hold(&mut self, id: QueueId, held: bool) {
        let Some(message) = self.messages.get_mut(&id).filter(|message| message.held != held)
        else {
            return;
        };
        message.held = held;
        self.counts.hold(held);
        self.place_all(id);
    }

    /// Takes a message out.
    pub(crate) fn take(&mut self, id: QueueId) -> Option<Ended> {
        let recipients = self.messages.get(&id)?.recipients.len();
        for index in 0..u32::try_from(recipients).unwrap_or(u32::MAX) {
            self.unplace(id, index);
        }
        let message = self.messages.remove(&id)?;
        self.fresh_bytes -= message.fresh.as_ref().map_or(0, |fresh| fresh.len());
        if let Some(segment) = self.segments.get_mut(&message.place.segment) {
            segment.messages -= 1;
            segment.bytes -= message.log_bytes();
        }
        self.count(&message, false);
        self.dismiss(&message);
        Some(Ended { id, aside: message.aside })
    }

    fn end_if_done(&mut self, id: QueueId) -> Option<Ended> {
        self.messages.get(&id)?.is_done().then(|| self.take(id))?
    }

    /// The values of a message have one user less.
    fn dismiss(&mut self, message: &Message) {
        self.senders.let_go(message.sender);
        for recipient in &message.recipients {
            self.let_destination_go(recipient.destination);
            if let Some((_, reason)) = recipient.last {
                self.reasons.let_go(reason);
            }
        }
    }

    fn let_destination_go(&mut self, destination: Handle) {
        if self.destinations.let_go(destination) {
            self.lines.forget(destination);
        }
    }

    /// Changes a recipient and keeps the counts; false when it is not there.
    fn change(&mut self, id: QueueId, index: u32, change: impl FnOnce(&mut Recipient)) -> bool {
        let Some(message) = self.messages.get_mut(&id) else { return false };
        let Some(recipient) = message.recipients.get_mut(index as usize) else { return false };
        let destinations = &self.destinations;
        let is_relayed = |recipient: &Recipient| is_relay(destinations, recipient.destination);
        self.counts.note(recipient.progress, is_relayed(recipient), false);
        change(recipient);
        self.counts.note(recipient.progress, is_relayed(recipient), true);
        true
    }

    fn count(&mut self, message: &Message, more: bool) {
        for recipient in &message.recipients {
            let is_relayed = is_relay(&self.destinations, recipient.destination);
            self.counts.note(recipient.progress, is_relayed, more);
        }
        if message.held {
            self.counts.hold(more);
        }
    }
}

fn is_relay(destinations: &Table<Route>, destination: Handle) -> bool {
    destinations.get(destination).is_some_and(|route| **route == Route::Relay)
}
