//! Rebuilding the index from the log.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lamppost_roles::QueueId;
use tracing::warn;

use crate::disk::Disk;
use crate::index::{Index, Place};
use crate::log::Next;
use crate::record::{Found, Record, SegmentId, read_segment_header, scan};
use crate::{Settings, StartError};

/// What the log says.
pub(crate) struct Replayed {
    pub(crate) index: Index,
    pub(crate) last_id: QueueId,
    pub(crate) next: Next,
}

/// A segment as it was read.
struct Segment {
    id: SegmentId,
    found: Vec<Found>,
}

/// Reads all segments and takes what they say into an index.
///
/// Damaged parts are copied to the quarantine and skipped; only the last segment may end in a torn
/// record, which nobody was told was stored.
pub(crate) fn replay(disk: &dyn Disk, settings: &Settings) -> Result<Replayed, StartError> {
    let mut next = Next { segment: 1, generation: 1, ..Next::default() };
    let mut segments = Vec::new();
    for path in list(disk, &settings.log())? {
        let bytes = disk.read(&path, 0, usize::MAX).map_err(|source| StartError::Disk {
            step: "read",
            path: path.clone(),
            source,
        })?;
        let named =
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        let Some(number) = named else { continue };
        next.segment = next.segment.max(number + 1);
        next.segments.insert(number, bytes.len() as u64);
        let Some(id) = read_segment_header(&bytes).filter(|id| id.number == number) else {
            // A segment that was begun when the power went has no header yet, and no records.
            if bytes.iter().all(|&byte| byte == 0) || bytes.len() < crate::record::SEGMENT_HEADER {
                continue;
            }
            return Err(StartError::Format { path });
        };
        next.generation = next.generation.max(id.generation + 1);
        let found = scan(id, &bytes);
        quarantine(disk, settings, id, (&bytes, &found));
        segments.push(Segment { id, found });
    }
    let (index, last_id) = take_in(&segments, &mut next);
    remove_orphans(disk, settings, &index)?;
    Ok(Replayed { index, last_id, next })
}

fn list(disk: &dyn Disk, folder: &Path) -> Result<Vec<PathBuf>, StartError> {
    disk.list(folder).map_err(|source| StartError::Disk {
        step: "list",
        path: folder.to_owned(),
        source,
    })
}

/// Takes the records into an index, in the order of the log and without those that were voided.
fn take_in(segments: &[Segment], next: &mut Next) -> (Index, QueueId) {
    let mut void = BTreeSet::new();
    for found in segments.iter().flat_map(|segment| &segment.found) {
        if let Found::Record { record, .. } = found
            && let Record::Void { segment, first, last } = **record
        {
            // A group has a bounded number of records, and so has what it voids.
            void.extend((first..=last).take(1 << 20).map(|sequence| (segment, sequence)));
        }
    }
    let mut index = Index::default();
    let mut last_id = QueueId(0);
    for Segment { id, found } in segments {
        for found in found {
            let Found::Record { record, sequence, content_at } = found else {
                continue;
            };
            next.sequence = next.sequence.max(sequence + 1);
            if void.contains(&(id.number, *sequence)) {
                continue;
            }
            if let Some(id) = apply(&mut index, record, (id.number, *content_at as u64)) {
                last_id = last_id.max(id);
            }
        }
    }
    (index, last_id)
}

/// Takes a record into the index; returns the message that it is about.
fn apply(index: &mut Index, record: &Record, (segment, content): (u64, u64)) -> Option<QueueId> {
    match record {
        Record::Message(message) => {
            let place = if message.aside { Place::Aside } else { Place::Log { offset: content } };
            index.put(message.clone(), segment, place, None, 0);
            Some(message.id)
        }
        Record::Progress { id, recipients } => {
            index.progress(*id, recipients.clone(), false);
            Some(*id)
        }
        Record::Held { id, held } => {
            index.hold(*id, *held);
            Some(*id)
        }
        Record::Deleted { id } => {
            index.take(*id);
            Some(*id)
        }
        Record::Void { .. } => None,
    }
}

/// Copies damaged parts aside, for people to look at; the queue goes on without them.
fn quarantine(
    disk: &dyn Disk,
    settings: &Settings,
    id: SegmentId,
    (bytes, found): (&[u8], &[Found]),
) {
    for hole in found {
        let &Found::Hole { at, length } = hole else {
            continue;
        };
        if at + length == bytes.len() {
            // A torn end: written when the power went, and acknowledged to nobody.
            continue;
        }
        let path = settings.quarantine().join(format!("{:010}-{at}.damaged", id.number));
        let copied = disk.create(&path).and_then(|mut file| {
            file.append(&mut [std::io::IoSlice::new(&bytes[at..at + length])])
        });
        let reason = copied.err().map(|error| error.to_string()).unwrap_or_default();
        warn!(segment = id.number, at, length, copy = %path.display(), reason, "a part of the spool is damaged and was skipped");
    }
}

/// Removes large contents that no message names: they were never acknowledged, or are delivered.
fn remove_orphans(disk: &dyn Disk, settings: &Settings, index: &Index) -> Result<(), StartError> {
    for path in list(disk, &settings.bodies())? {
        let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        let named = id.and_then(|id| index.message(id)).is_some_and(|m| m.place == Place::Aside);
        if !named {
            disk.remove(&path).map_err(|source| StartError::Disk {
                step: "remove",
                path,
                source,
            })?;
        }
    }
    Ok(())
}

/// Reads the bytes of a segment as a replay does; returns how many records and damaged parts there
/// are. For fuzzing: any bytes are read, and none are believed.
pub fn scan_segment(bytes: &[u8]) -> (usize, usize) {
    let Some(id) = read_segment_header(bytes) else {
        return (0, 0);
    };
    let segment = Segment { id, found: scan(id, bytes) };
    let holes = segment.found.iter().filter(|found| matches!(found, Found::Hole { .. })).count();
    let records = segment.found.len() - holes;
    drop(take_in(&[segment], &mut Next::default()));
    (records, holes)
}
