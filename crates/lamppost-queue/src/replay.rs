//! Rebuilding the index from the checkpoint and the log.

mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lamppost_disk::Disk;
use lamppost_roles::QueueId;
use lamppost_telemetry::count;
use tracing::{error, warn};

use crate::checkpoint::{self, Position, Standing};
use crate::index::{Entry, Index, Message};
use crate::log::Next;
use crate::quarantine::{self, keep};
use crate::record::{Progress, Record};
use crate::replay::records::{damaged, missing};
use crate::salvage::{self, Salvaged};
use crate::segment::{
    Behind, Found, Head, SEGMENT_HEADER, SegmentHeader, Unproved, read_head, scan, take_unproved,
};
use crate::{Settings, StartError};

pub use records::scan_segment;
pub(crate) use records::{Segment, named, restore, take_in, voided};

/// What the spool says.
pub(crate) struct Replayed {
    pub(crate) index: Index,
    pub(crate) last_id: QueueId,
    pub(crate) next: Next,
    /// The checkpoints on disk.
    pub(crate) standing: Standing,
    /// Whether a checkpoint is damaged, so that another is wanted soon.
    pub(crate) wants_checkpoint: bool,
    /// What is damaged, for people.
    pub(crate) damage: Vec<String>,
    /// Messages that the log alone tells of, though parts of it are gone: they may have been delivered,
    /// or deleted, long ago.
    pub(crate) doubtful: Vec<QueueId>,
    /// Messages whose contents are damaged in the log, and why.
    pub(crate) damaged: Vec<(QueueId, String)>,
    /// Messages that were found damaged in earlier lives and lie in the quarantine, and why.
    pub(crate) quarantined: BTreeMap<QueueId, String>,
    /// Messages with recipients that failed for good.
    pub(crate) failures: BTreeSet<QueueId>,
}

/// Reads the checkpoint, then the segments that it does not cover, and takes what they say into an
/// index.
///
/// Damaged parts are copied to the quarantine and skipped, and so is what the disk does not give. When
/// there is no good checkpoint, every segment is read.
pub(crate) fn replay(disk: &dyn Disk, settings: &Settings) -> Result<Replayed, StartError> {
    let mut replay = Replay::begin(disk, settings)?;
    let position = replay.checkpoint()?;
    let begin = position.map_or(0, |position| position.begin);
    let mut segments = Vec::new();
    settings.reading.begin(replay.paths.len());
    for (number, path) in replay.paths.clone() {
        let wanted = number >= begin;
        if let Some(segment) = replay.segment(number, &path, wanted)?
            && wanted
        {
            segments.push(segment);
        }
        settings.reading.step();
    }
    replay.tell_damaged(&segments);
    let entries = std::mem::take(&mut replay.entries);
    let lost = quarantine::segments(disk, settings)?;
    restore(&mut replay.index, &replay.next, (entries, &lost));
    for (number, lost) in missing(&segments) {
        warn!(segment = number, lost, "records at the end of a segment of the spool are missing");
        let records = count(lost, "record");
        replay.damage.push(format!("missing at the end of segment {number}: {records}"));
    }
    let (sequence, newest) = take_in(&mut replay.index, &segments);
    replay.next.sequence = replay.next.sequence.max(sequence);
    replay.last_id = replay.last_id.max(newest);
    replay.tell_lost(&lost);
    let doubtful = match position {
        Some(_) => Vec::new(),
        None => replay.doubtful(),
    };
    replay.remove_orphans()?;
    let Replay { index, last_id, next, damage, standing, wants_checkpoint, .. } = replay;
    let failures = failures(&index);
    let damaged = damaged(&index, &segments);
    Ok(Replayed {
        index,
        last_id,
        next,
        standing,
        wants_checkpoint,
        damage,
        doubtful,
        damaged,
        quarantined: quarantine::known(disk, settings)?,
        failures,
    })
}

/// The messages whose record lies before a gap in the log: without a checkpoint nobody knows whether
/// they ended in a segment that is gone.
pub(crate) fn before_gap(index: &Index, next: &Next) -> Vec<QueueId> {
    // Segments are numbered from 1 on, and one that is not needed any more leaves a gap.
    let numbers = || next.segments.keys().copied();
    let expected = std::iter::once(1).chain(numbers().map(|number| number + 1));
    let behind = numbers().zip(expected).filter(|(number, expected)| number != expected);
    let Some((behind, _)) = behind.last() else { return Vec::new() };
    let before = index.after(None).filter(|(_, message)| message.place.segment < behind);
    before.map(|(id, _)| id).collect()
}

struct Replay<'a> {
    disk: &'a dyn Disk,
    settings: &'a Settings,
    paths: Vec<(u64, PathBuf)>,
    index: Index,
    entries: Vec<Entry>,
    last_id: QueueId,
    next: Next,
    damage: Vec<String>,
    standing: Standing,
    wants_checkpoint: bool,
}

impl<'a> Replay<'a> {
    fn begin(disk: &'a dyn Disk, settings: &'a Settings) -> Result<Self, StartError> {
        let number = |path: PathBuf| {
            let is_segment = path.extension().is_some_and(|end| end == "seg");
            let number = path.file_stem()?.to_str()?.parse().ok()?;
            is_segment.then_some((number, path))
        };
        let paths: Vec<_> = list(disk, &settings.log())?.into_iter().filter_map(number).collect();
        let segment = paths.last().map_or(1, |(number, _)| number + 1);
        Ok(Self {
            disk,
            settings,
            paths,
            index: Index::default(),
            entries: Vec::new(),
            last_id: QueueId(0),
            next: Next { segment, sequence: 1, ..Next::default() },
            damage: Vec::new(),
            standing: Standing::default(),
            wants_checkpoint: false,
        })
    }

    fn checkpoint(&mut self) -> Result<Option<Position>, StartError> {
        let choice = checkpoint::choose(self.disk, self.settings, false)?;
        let position = choice.standing.newest;
        for path in &choice.damaged {
            let instead = match position {
                Some(_) => "the one before it was read, and the log since",
                None => "the whole log was read instead",
            };
            warn!(path = %path.display(), instead, "a checkpoint of the spool is damaged");
            self.damage.push(format!("{} is damaged; {instead}", path.display()));
        }
        if let Some(position) = position {
            self.next.segment = self.next.segment.max(position.begin);
            self.next.sequence = position.sequence;
            self.last_id = position.last_id;
        }
        self.wants_checkpoint = !choice.damaged.is_empty();
        self.entries = choice.entries;
        self.standing = choice.standing;
        Ok(position)
    }

    /// What comes back without a checkpoint, and may have been delivered long ago.
    fn doubtful(&mut self) -> Vec<QueueId> {
        let doubtful = before_gap(&self.index, &self.next);
        if !doubtful.is_empty() {
            let messages = doubtful.len();
            error!(messages, spool = %self.settings.directory.display(), "the spool has no whole checkpoint: messages that may have been delivered long ago are held");
            self.damage.push(format!(
                "there is no whole checkpoint, so what may have been delivered long ago is held: {}; look at \
                 each, and release or delete it",
                count(messages as u64, "message")
            ));
            self.wants_checkpoint = true;
        }
        doubtful
    }

    /// Reads a segment, its records only where they are wanted.
    fn segment(
        &mut self,
        number: u64,
        path: &Path,
        with_records: bool,
    ) -> Result<Option<Segment>, StartError> {
        let disk = self.disk;
        let failed = |source| StartError::Disk { step: "read", path: path.to_owned(), source };
        let length_max = if with_records { usize::MAX } else { SEGMENT_HEADER };
        let read = salvage::read(disk, path, 0, length_max).map_err(failed)?;
        self.unread(number, path, &read);
        let bytes = read.bytes;
        let header = match read_head(&bytes) {
            Head::Ours(header) if header.id.number == number => header,
            Head::Newer => return Err(StartError::Format { path: path.to_owned() }),
            Head::Older => return Err(StartError::Older { path: path.to_owned() }),
            // The name is that of another life of the file, which has a new one.
            Head::Ours(_) => {
                disk.remove(path).map_err(failed)?;
                return Ok(None);
            }
            Head::Broken => {
                self.set_aside(number, path);
                return Ok(None);
            }
        };
        let length = disk.look(path).map_err(failed)?.map_or(0, |look| look.length);
        self.next.segments.insert(number, length);
        self.next.sequence = self.next.sequence.max(header.sequence);
        self.index.add_segment(header.id);
        let mut found = if with_records { scan(header.id, &bytes) } else { Vec::new() };
        let is_whole = |one: &Found| matches!(one, Found::Record { is_whole: true, .. });
        // What is behind is of no interest while nothing is damaged.
        let behind = if found.iter().all(is_whole) {
            Behind::default()
        } else {
            behind(disk, &self.paths, number, self.standing.newest)
        };
        let unproved = take_unproved(&mut found, bytes.len() as u64, behind);
        self.tell_unproved(number, &unproved);
        self.quarantine(header, (&bytes, behind.next), &found, &unproved);
        Ok(Some(Segment { id: header.id, first: header.sequence, found }))
    }

    /// Tells what the disk did not give; what was in there is missing from now on.
    fn unread(&mut self, number: u64, path: &Path, read: &Salvaged) {
        let Some(fault) = &read.fault else { return };
        for &(at, length) in &read.holes {
            warn!(
                segment = number,
                at,
                length,
                reason = fault,
                "a part of the spool cannot be read and was skipped"
            );
            self.damage.push(format!(
                "{} cannot be read, {} from {at} on: {fault}",
                path.display(),
                count(length, "byte")
            ));
        }
        if read.holes.is_empty() {
            warn!(segment = number, reason = fault, "a segment of the spool cannot be read");
            self.damage.push(format!("{} cannot be read: {fault}", path.display()));
        }
    }

    /// Moves a segment without a header out of the way; the queue goes on without it.
    fn set_aside(&mut self, number: u64, path: &Path) {
        let target = self.settings.quarantine().join(format!("{number:010}.seg"));
        let moved = self.disk.rename(path, &target);
        // Its name there is what tells its messages from those that were done.
        let moved = moved.and_then(|()| self.disk.sync_folder(&self.settings.quarantine()));
        if let Err(error) = moved {
            warn!(segment = number, reason = %error, "a segment of the spool has no header and cannot be set aside");
        } else {
            warn!(segment = number, moved_to = %target.display(), "a segment of the spool has no header and was set aside");
        }
        self.damage.push(format!(
            "{} has no header and was moved to {}",
            path.display(),
            target.display()
        ));
    }

    /// Says how many messages were in segments that were set aside: they fail when their turn comes.
    fn tell_lost(&mut self, lost: &BTreeSet<u64>) {
        for number in lost {
            let messages = self.index.segment(*number).map_or(0, |segment| segment.messages);
            if messages > 0 {
                error!(segment = number, messages, "messages are lost with a segment of the spool");
                self.damage.push(format!(
                    "messages lost with segment {number}: {messages}; each fails when its turn comes, \
                     and its sender is told"
                ));
            }
        }
    }

    /// Copies damaged parts aside, for people to look at; the queue goes on without them.
    fn quarantine(
        &mut self,
        header: SegmentHeader,
        (bytes, next): (&[u8], Option<u64>),
        found: &[Found],
        unproved: &[Unproved],
    ) {
        let id = header.id;
        for (place, hole) in found.iter().enumerate() {
            let &Found::Hole { at, length } = hole else { continue };
            let is_torn = place + 1 == found.len() && is_torn_end(header, found, next);
            // Of what cannot be a message nothing need be kept.
            if is_torn && !unproved.iter().any(|one| one.is_torn) {
                continue;
            }
            let path = self.settings.quarantine().join(format!("{:010}-{at}.damaged", id.number));
            let from = usize::try_from(at).unwrap_or(usize::MAX);
            let to = from.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
            let copied = keep(self.disk, &path, bytes.get(from..to).unwrap_or_default());
            if let Err(error) = copied {
                warn!(segment = id.number, at, length, reason = %error, "a part of the spool is damaged and was skipped; it could not be copied");
            } else {
                warn!(segment = id.number, at, length, copy = %path.display(), "a part of the spool is damaged and was skipped");
            }
            if is_torn {
                continue;
            }
            self.damage.push(format!(
                "segment {} is damaged, {} from {at} on; a copy is {}",
                id.number,
                count(length, "byte"),
                path.display()
            ));
        }
    }

    /// Tells of records without their whole contents that were perhaps never acknowledged, and has those
    /// voided whose numbers are not given again: behind what is written next they would look like
    /// messages that once were whole.
    fn tell_unproved(&mut self, segment: u64, unproved: &[Unproved]) {
        for Unproved { record, sequence, at, is_torn } in unproved {
            let what = named(record);
            warn!(segment, at, %what, "a record at the end of the spool is not whole: unless it was damaged later, nobody was told that it is stored");
            if *is_torn {
                continue;
            }
            self.damage.push(format!(
                "{what}, in segment {segment} at {at}, is not whole; unless it was damaged later, \
                 nobody was told that it is stored"
            ));
            let (first, last) = (*sequence, *sequence);
            self.next.voids.push(Record::Void { segment, first, last });
        }
    }

    /// Tells of records whose contents are damaged. What is left of a message that waits is copied.
    fn tell_damaged(&mut self, segments: &[Segment]) {
        let void = voided(segments);
        for Segment { id, found, .. } in segments {
            for found in found {
                let Found::Record { record, sequence, at, is_whole: false, .. } = found else {
                    continue;
                };
                let segment = id.number;
                if void.contains(&(segment, *sequence)) {
                    continue;
                }
                let what = named(record);
                warn!(segment, at, %what, "the content of a record of the spool is damaged");
                self.damage.push(format!(
                    "the content of {what}, in segment {segment} at {at}, is damaged"
                ));
            }
        }
    }

    /// Removes large contents that no message names: they were never acknowledged, or are delivered.
    fn remove_orphans(&self) -> Result<(), StartError> {
        for path in list(self.disk, &self.settings.bodies())? {
            let id =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let named = id.and_then(|id| self.index.message(id)).is_some_and(|one| one.aside);
            if named {
                continue;
            }
            let failed = |source| StartError::Disk { step: "remove", path: path.clone(), source };
            if self.damage.is_empty() {
                self.disk.remove(&path).map_err(failed)?;
                continue;
            }
            // The record that named it may be what is damaged.
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let kept = self.settings.quarantine().join(format!("{name}.eml"));
            warn!(path = %kept.display(), "a large content that no message names was kept, since the spool is damaged");
            self.disk.rename(&path, &kept).map_err(failed)?;
        }
        Ok(())
    }
}

/// What is behind a segment.
pub(crate) fn behind(
    disk: &dyn Disk,
    paths: &[(u64, PathBuf)],
    segment: u64,
    newest: Option<Position>,
) -> Behind {
    // The checkpoint of a program that was stopped properly is behind the last segment.
    if let Some(position) = newest.filter(|position| position.begin == segment + 1) {
        return Behind { next: Some(position.sequence), is_written: true };
    }
    let mut next = None;
    for (number, path) in paths.iter().filter(|(number, _)| *number > segment) {
        let read = salvage::read(disk, path, 0, usize::MAX);
        let bytes = read.map_or_else(|_| Vec::new(), |read| read.bytes);
        let header = match read_head(&bytes) {
            Head::Ours(header) if header.id.number == *number => header,
            Head::Ours(_) => continue,
            // Whatever is in this one may have been acknowledged.
            _ => return Behind { next: next.or(Some(u64::MAX)), is_written: true },
        };
        next = next.or(Some(header.sequence));
        let is_record = |one: &Found| matches!(one, Found::Record { is_whole: true, .. });
        if scan(header.id, &bytes).iter().any(is_record) {
            return Behind { next, is_written: true };
        }
    }
    Behind { next, is_written: false }
}

/// Whether what ends a segment was written when the power went, and acknowledged to nobody: then the
/// next segment, if there is one, goes on with the numbers of its records.
fn is_torn_end(header: SegmentHeader, found: &[Found], next: Option<u64>) -> bool {
    let last = found.iter().rev().find_map(|found| match found {
        Found::Record { sequence, .. } => Some(*sequence),
        Found::Hole { .. } => None,
    });
    next.is_none_or(|next| last.map_or(header.sequence, |last| last + 1) == next)
}

fn list(disk: &dyn Disk, folder: &Path) -> Result<Vec<PathBuf>, StartError> {
    disk.list(folder).map_err(|source| StartError::Disk {
        step: "list",
        path: folder.to_owned(),
        source,
    })
}

/// Messages with recipients that failed for good.
pub(crate) fn failures(index: &Index) -> BTreeSet<QueueId> {
    let has_failed = |message: &Message| {
        message.recipients.iter().any(|recipient| recipient.progress == Progress::Failed)
    };
    index.after(None).filter(|(_, message)| has_failed(message)).map(|(id, _)| id).collect()
}
