//! Taking into the index what the checkpoint and the log say.

use std::collections::BTreeSet;

use lamppost_roles::QueueId;

use crate::index::{Entry, Index, Place};
use crate::log::Next;
use crate::record::Record;
use crate::segment::{Found, Head, SegmentId, read_head, scan};

/// A segment whose records are replayed.
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    /// The sequence number of the first record that may be in it.
    pub(crate) first: u64,
    pub(crate) found: Vec<Found>,
}

/// Takes the messages of a checkpoint into the index.
///
/// One whose segment is gone was done, or moved, after the checkpoint was written. One whose segment was
/// set aside is lost, and must be told: what later records say of it outlives its segment.
pub(crate) fn restore(
    index: &mut Index,
    next: &Next,
    (entries, lost): (Vec<Entry>, &BTreeSet<u64>),
) {
    for &number in lost.iter().filter(|number| !next.segments.contains_key(number)) {
        index.add_segment(SegmentId { number, generation: 0 });
    }
    for entry in entries {
        let segment = entry.place.segment;
        if lost.contains(&segment) || next.segments.contains_key(&segment) {
            index.restore(entry);
        }
    }
}

/// Takes the records into the index, in the order of the log and without those that were voided.
/// Returns the number of the record after them, and the newest message that they are about.
pub(crate) fn take_in(index: &mut Index, segments: &[Segment]) -> (u64, QueueId) {
    let void = voided(segments);
    let ended = ended(segments);
    let (mut next, mut newest) = (0, QueueId(0));
    for Segment { id, found, .. } in segments {
        for found in found {
            let Found::Record { record, sequence, at, text, is_whole, .. } = found else {
                continue;
            };
            next = next.max(sequence + 1);
            if void.contains(&(id.number, *sequence)) {
                continue;
            }
            // The sender of what a damaged notice is about is told anew.
            if !is_whole
                && let Record::Notice { message, .. } = &**record
                && !ended.contains(&message.id)
            {
                newest = newest.max(message.id);
                continue;
            }
            let place = Place { segment: id.number, at: *at, text: *text };
            newest = newest.max(apply(index, record, place).unwrap_or(QueueId(0)));
        }
    }
    (next, newest)
}

/// The messages that were delivered or deleted, each at least to one recipient.
fn ended(segments: &[Segment]) -> BTreeSet<QueueId> {
    let is_damaged = |found: &Found| matches!(found, Found::Record { is_whole: false, .. });
    let found = || segments.iter().flat_map(|segment| &segment.found);
    let mut ended = BTreeSet::new();
    // All are looked at only where something depends on it.
    if !found().any(is_damaged) {
        return ended;
    }
    for found in found() {
        let Found::Record { record, .. } = found else { continue };
        match &**record {
            Record::Delivered { items } => ended.extend(items.iter().map(|(id, _)| *id)),
            Record::Deleted { ids } => ended.extend(ids),
            _ => {}
        }
    }
    ended
}

/// Segments at whose end records are missing, with their number: the next segment goes on behind them.
/// A torn end misses none, since its numbers are given again.
pub(super) fn missing(segments: &[Segment]) -> Vec<(u64, u64)> {
    let void = voided(segments);
    let missing = segments.windows(2).filter_map(|pair| {
        let [segment, next] = pair else { return None };
        let last = segment.found.iter().rev().find_map(|found| match found {
            Found::Record { sequence, .. } => Some(*sequence),
            Found::Hole { .. } => None,
        });
        let behind = last.map_or(segment.first, |last| last + 1);
        let number = segment.id.number;
        let lost = (behind..next.first).take(1 << 20).filter(|&n| !void.contains(&(number, n)));
        let lost = lost.count() as u64;
        (lost > 0 && next.id.number == number + 1).then_some((number, lost))
    });
    missing.collect()
}

/// The records that never happened.
pub(crate) fn voided(segments: &[Segment]) -> BTreeSet<(u64, u64)> {
    let mut void = BTreeSet::new();
    for found in segments.iter().flat_map(|segment| &segment.found) {
        if let Found::Record { record, .. } = found
            && let Record::Void { segment, first, last } = **record
        {
            // A group has a bounded number of records, and so has what it voids.
            void.extend((first..=last).take(1 << 20).map(|sequence| (segment, sequence)));
        }
    }
    void
}

/// Takes a record into the index; returns the newest message that it is about.
fn apply(index: &mut Index, record: &Record, place: Place) -> Option<QueueId> {
    match record {
        Record::Message(message) => {
            index.put(message, place);
            Some(message.id)
        }
        Record::Intended { items, at } => {
            index.intended(items, *at);
            items.iter().map(|(id, _)| *id).max()
        }
        Record::Delivered { items } => {
            index.delivered(items);
            items.iter().map(|(id, _)| *id).max()
        }
        Record::Progress { id, recipients } => {
            index.progress(*id, recipients);
            Some(*id)
        }
        Record::Held { ids, held } => {
            for &id in ids {
                index.hold(id, *held);
            }
            ids.iter().max().copied()
        }
        Record::Deleted { ids } => {
            for &id in ids {
                index.take(id);
            }
            ids.iter().max().copied()
        }
        Record::Routed { item, route } => {
            index.routed(*item, route.clone());
            Some(item.0)
        }
        Record::Notice { of, settles, message } => {
            index.put(message, place);
            index.settled(*of, settles);
            Some(message.id)
        }
        Record::Void { .. } => None,
    }
}

/// Reads the bytes of a segment as a replay does; returns how many records and damaged parts there
/// are. For fuzzing: any bytes are read, and none are believed.
pub fn scan_segment(bytes: &[u8]) -> (usize, usize) {
    let Head::Ours(header) = read_head(bytes) else {
        return (0, 0);
    };
    let found = scan(header.id, bytes);
    let holes = found.iter().filter(|found| matches!(found, Found::Hole { .. })).count();
    let mut index = Index::default();
    index.add_segment(header.id);
    for found in &found {
        if let Found::Record { record, at, text, .. } = found {
            apply(&mut index, record, Place { segment: header.id.number, at: *at, text: *text });
        }
    }
    (found.len() - holes, holes)
}

/// What a record is about, for people.
pub(crate) fn named(record: &Record) -> String {
    let message = match record {
        Record::Message(message) => message,
        Record::Notice { of, .. } => return format!("a notice about message {of}"),
        _ => return "a change of state".into(),
    };
    let to = message.envelope.recipients.iter().map(|one| one.address.to_string());
    let to = to.collect::<Vec<_>>().join(", ");
    format!("message {} from <{}> to {to}", message.id, message.envelope.sender)
}

/// The messages in the queue whose contents are damaged in the log.
pub(super) fn damaged(index: &Index, segments: &[Segment]) -> Vec<(QueueId, String)> {
    let found = segments
        .iter()
        .flat_map(|segment| segment.found.iter().map(move |found| (segment.id.number, found)));
    let damaged = found.filter_map(|(segment, found)| {
        let Found::Record { record, at, is_whole: false, .. } = found else { return None };
        let (Record::Message(message) | Record::Notice { message, .. }) = &**record else {
            return None;
        };
        // It may have been written again, or have left the queue.
        let known = index.message(message.id)?;
        let is_this = known.place.segment == segment && known.place.at == *at && !known.aside;
        let why = format!("its content in segment {segment} at {at} is damaged");
        is_this.then_some((message.id, why))
    });
    damaged.collect()
}
