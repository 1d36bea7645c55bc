//! Taking into the index what the checkpoint and the log say.

use std::collections::BTreeSet;

use lamppost_roles::QueueId;

use super::Segment;
use crate::index::{Entry, Index, Place};
use crate::log::Next;
use crate::record::Record;
use crate::segment::{Found, SegmentId};

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
    let (mut next, mut newest) = (0, QueueId(0));
    for Segment { id, found, .. } in segments {
        for found in found {
            let Found::Record { record, sequence, at, text } = found else { continue };
            next = next.max(sequence + 1);
            if void.contains(&(id.number, *sequence)) {
                continue;
            }
            let place = Place { segment: id.number, at: *at, text: *text };
            newest = newest.max(apply(index, record, place).unwrap_or(QueueId(0)));
        }
    }
    (next, newest)
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
pub(super) fn apply(index: &mut Index, record: &Record, place: Place) -> Option<QueueId> {
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
