//! The log: segments that records are appended to, a group at a time.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use lamppost_disk::{Disk, DiskFile};
use tracing::{error, warn};

use crate::record::{Draft, Record};
use crate::segment::{SEGMENT_HEADER, SegmentHeader, SegmentId};
use crate::spares::{Spare, Spares};
use crate::{Durability, Settings, StartError};

/// Groups are filled up with zeros to whole pages: a page that is written whole need not be read
/// from the disk first.
const PAGE: usize = 4096;

/// Where the log goes on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Next {
    /// The number of the segment to begin.
    pub(crate) segment: u64,
    /// The sequence number of the next record.
    pub(crate) sequence: u64,
    /// The segments that are there, with their bytes.
    pub(crate) segments: BTreeMap<u64, u64>,
    /// Records of theirs that never happened, to be voided before anything else is written.
    pub(crate) voids: Vec<Record>,
}

/// What a group is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Changes of state alone: they may use the reserve.
    State,
    /// New mail too.
    Mail,
}

/// The log, as its one writer has it.
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    settings: Settings,
    next: Next,
    current: Option<Current>,
    spares: Spares,
    /// What failed and must be voided in the next segment.
    voids: Vec<Record>,
    /// Whether something was written that no sync covers.
    dirty: bool,
    /// Bytes of the segment before.
    last_capacity: u64,
    /// The last write failed for lack of space, whatever the file system says is free: a quota is not
    /// seen beforehand.
    is_full: bool,
}

/// The segment that is written now.
struct Current {
    id: SegmentId,
    file: Box<dyn DiskFile>,
    size: u64,
    capacity: u64,
    /// Whether all its bytes were written once.
    is_filled: bool,
}

/// Where a group was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// The segment.
    pub(crate) segment: u64,
    /// Where each record begins.
    pub(crate) places: Vec<u64>,
}

impl Log {
    /// Begins a new segment; what was there before is never written to again.
    pub(crate) fn begin(
        disk: Arc<dyn Disk>,
        settings: Settings,
        mut next: Next,
    ) -> Result<Self, StartError> {
        let failed = |step, path| move |source| StartError::Disk { step, path, source };
        let spares = Spares::adopt(disk.clone(), &settings);
        let spares = spares.map_err(failed("look into", settings.log()))?;
        let segment = settings.segment(next.segment);
        let last_capacity = next.segments.values().next_back().copied().unwrap_or(0);
        let voids = std::mem::take(&mut next.voids);
        let mut log = Self {
            disk,
            settings,
            next,
            current: None,
            spares,
            voids,
            dirty: false,
            last_capacity,
            is_full: false,
        };
        // Once another record is written, nobody could tell that they never happened.
        let begun = log.rotate(0, Purpose::State).and_then(|()| log.sync());
        begun.map_err(failed("begin the segment", segment))?;
        log.refill_reserve();
        Ok(log)
    }

    /// Bytes that fit into the segment that is written now.
    pub(crate) fn room(&self) -> usize {
        let left = self
            .current
            .as_ref()
            .map_or(0, |current| current.capacity.saturating_sub(current.size));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Appends a group and, if asked to, makes it and all before it durable.
    ///
    /// After a failed write or sync the segment is closed for good: what was left behind is unknown,
    /// and a second sync may succeed without having written it. The group is voided in the next
    /// segment, before anybody hears of the failure if the disk allows.
    pub(crate) fn append(
        &mut self,
        drafts: &[&Draft],
        purpose: Purpose,
        sync: bool,
    ) -> io::Result<Written> {
        if purpose == Purpose::Mail && !self.spares.has_reserve() {
            // Mail must not use up the segment that the reserve has become.
            self.refill_reserve();
            if !self.spares.has_reserve() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let length: usize = drafts.iter().map(|draft| draft.len()).sum();
        if length > self.room() {
            self.rotate(length as u64, purpose)?;
        }
        let first = self.next.sequence;
        let segment = self.current.as_ref().map(|current| current.id.number);
        let appended = self.write(drafts).and_then(|written| {
            if sync {
                self.sync()?;
            }
            Ok(written)
        });
        if let Err(error) = &appended {
            self.is_full = is_full(error);
            self.current = None;
            let last = self.next.sequence.saturating_sub(1);
            self.voids.extend(segment.map(|segment| Record::Void { segment, first, last }));
            // When that fails too, the next group tries again.
            if let Err(error) = self.rotate(0, Purpose::State).and_then(|()| self.sync()) {
                error!(reason = %error, "what failed could not be voided yet");
            }
        }
        if appended.is_ok() && purpose == Purpose::Mail {
            self.is_full = false;
        }
        self.stock();
        appended
    }

    fn write(&mut self, drafts: &[&Draft]) -> io::Result<Written> {
        const ZEROS: [u8; PAGE] = [0; PAGE];
        let Some(current) = &mut self.current else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let (begin, group) = (current.size, self.next.sequence);
        let mut headers = Vec::with_capacity(drafts.len());
        let mut places = Vec::with_capacity(drafts.len());
        for draft in drafts {
            headers.push(draft.header(current.id, self.next.sequence, group));
            places.push(current.size);
            current.size += draft.len() as u64;
            self.next.sequence += 1;
        }
        let padded = current.size.next_multiple_of(PAGE as u64).min(current.capacity);
        let padding = usize::try_from(padded.saturating_sub(current.size)).unwrap_or(0);
        let mut slices: Vec<_> = drafts
            .iter()
            .zip(&headers)
            .flat_map(|(draft, header)| [&header[..], &draft.text, &draft.content])
            .chain([&ZEROS[..padding]])
            .filter(|slice| !slice.is_empty())
            .map(IoSlice::new)
            .collect();
        self.dirty = true;
        current.file.write_at(begin, &mut slices)?;
        Ok(Written { segment: current.id.number, places })
    }

    /// Makes everything durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.dirty
            && let Some(current) = &mut self.current
        {
            if let Err(error) = current.file.sync() {
                self.current = None;
                return Err(error);
            }
            self.dirty = false;
            self.voids.clear();
        }
        Ok(())
    }

    /// Whether something was written that no sync covers.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty && self.current.is_some()
    }

    /// Whether something that was refused is not voided durably yet.
    pub(crate) fn has_voids(&self) -> bool {
        !self.voids.is_empty()
    }

    /// Begins the next segment, with room for a group. Its header is durable before its name is,
    /// and its name before any of its records.
    fn rotate(&mut self, length: u64, purpose: Purpose) -> io::Result<()> {
        // Where nobody waits for syncs, a new segment is no reason for one.
        if self.settings.durability != Durability::None {
            self.sync()?;
        }
        let found = self.find(length + SEGMENT_HEADER as u64, purpose);
        let fresh = found.inspect_err(|error| self.is_full |= is_full(error))?;
        let generation = getrandom::u64().map_err(io::Error::other)?;
        let id = SegmentId { number: self.next.segment, generation };
        let header = SegmentHeader { id, sequence: self.next.sequence };
        let begun = self.name(&fresh.spare, &header);
        let file = match begun {
            Ok(file) => file,
            Err(error) => {
                warn_unless_removed(&*self.disk, &fresh.spare);
                self.is_full |= is_full(&error);
                return Err(error);
            }
        };
        self.next.segment += 1;
        if let Some(current) = self.current.take()
            && !current.is_filled
        {
            self.next.segments.insert(current.id.number, current.size);
        }
        let (capacity, is_filled) = (fresh.spare.capacity, fresh.is_filled);
        self.next.segments.insert(id.number, capacity);
        self.last_capacity = capacity;
        self.current = Some(Current { id, file, size: SEGMENT_HEADER as u64, capacity, is_filled });
        self.dirty = false;
        if self.voids.is_empty() {
            return Ok(());
        }
        let drafts: Vec<_> =
            self.voids.iter().map(|void| Draft::new(void, bytes::Bytes::new())).collect();
        let drafts: Vec<_> = drafts.iter().collect();
        self.write(&drafts).map(drop).inspect_err(|_| self.current = None)
    }

    /// A file for the next segment: a spare, or a new one, or the reserve.
    fn find(&self, needed: u64, purpose: Purpose) -> io::Result<Fresh> {
        let wanted = self.capacity().max(needed);
        if let Some(spare) = self.spares.take(wanted).or_else(|| self.spares.take(needed)) {
            return Ok(Fresh { spare, is_filled: true });
        }
        // A file that is not written whole fails later, in the middle of a change.
        let free = self.disk.free_bytes(&self.settings.directory);
        if purpose == Purpose::State
            && (self.is_full || free.is_ok_and(|free| free < wanted))
            && let Some(spare) = self.spares.take_reserve(needed)
        {
            warn!("the disk is full: the queue goes on in its reserve");
            return Ok(Fresh { spare, is_filled: true });
        }
        let made = if wanted <= self.settings.first_capacity() {
            // So small that making it whole takes no time.
            self.spares.make(wanted).map(|spare| Fresh { spare, is_filled: true })
        } else {
            let path = self.spares.name();
            let created = self.disk.create(&path);
            created.map(|_| Fresh { spare: Spare { path, capacity: wanted }, is_filled: false })
        };
        match (made, purpose) {
            (Err(_), Purpose::State) => match self.spares.take_reserve(needed) {
                Some(spare) => {
                    warn!("the disk is full: the queue goes on in its reserve");
                    Ok(Fresh { spare, is_filled: true })
                }
                None => Err(io::ErrorKind::StorageFull.into()),
            },
            (made, _) => made,
        }
    }

    /// Makes a segment of a file.
    fn name(&self, spare: &Spare, header: &SegmentHeader) -> io::Result<Box<dyn DiskFile>> {
        let mut file = self.disk.open(&spare.path)?;
        file.write_at(0, &mut [IoSlice::new(&header.encode())])?;
        file.sync()?;
        self.disk.rename(&spare.path, &self.settings.segment(header.id.number))?;
        self.disk.sync_folder(&self.settings.log())?;
        Ok(file)
    }

    /// Bytes of the next segment.
    fn capacity(&self) -> u64 {
        (self.last_capacity * 2).max(self.settings.first_capacity()).min(self.settings.segment_size)
    }

    /// Has the next segment made once this one is half full.
    fn stock(&self) {
        let half = self.current.as_ref().is_some_and(|one| one.size > one.capacity / 2);
        if half
            && !self.spares.is_stocked()
            && self.settings.segment_size > self.settings.first_capacity()
        {
            // Not with the space that mail is refused for.
            let needed = self.settings.free_space_min.saturating_add(self.capacity());
            if self.disk.free_bytes(&self.settings.directory).is_ok_and(|free| free >= needed) {
                self.spares.order(self.capacity());
            }
        }
    }

    /// Makes the reserve again, when there is space for it.
    pub(crate) fn refill_reserve(&mut self) {
        let had_one = self.spares.has_reserve();
        match self.spares.make_reserve(&self.settings) {
            Ok(()) if had_one => {}
            Ok(()) => self.is_full = false,
            Err(error) => {
                warn!(reason = %error, "no space is reserved for changes of state: the disk is full");
            }
        }
    }

    /// Gives a spare segment back to the file system; false when there is none.
    pub(crate) fn shed(&self) -> io::Result<bool> {
        self.spares.shed()
    }

    /// Whether space is reserved for changes of state.
    pub(crate) fn has_reserve(&self) -> bool {
        self.spares.has_reserve()
    }

    /// The segment that is written now.
    pub(crate) fn current(&self) -> Option<SegmentId> {
        self.current.as_ref().map(|current| current.id)
    }

    /// The segment that is written now, and how far.
    pub(crate) fn written(&self) -> Option<(u64, u64)> {
        self.current.as_ref().map(|current| (current.id.number, current.size))
    }

    /// The number of the segment that would be begun next.
    pub(crate) fn next_segment(&self) -> u64 {
        self.next.segment
    }

    /// The sequence number of the next record.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next.sequence
    }

    /// The segments that are not written any more.
    pub(crate) fn closed(&self) -> impl Iterator<Item = u64> {
        let current = self.current().map(|id| id.number);
        self.next.segments.keys().copied().filter(move |&number| Some(number) != current)
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.next.segments.values().sum()
    }

    /// Bytes of a segment.
    pub(crate) fn bytes_of(&self, number: u64) -> u64 {
        self.next.segments.get(&number).copied().unwrap_or(0)
    }

    /// Bytes of the segment that was begun last.
    pub(crate) fn last_capacity(&self) -> u64 {
        self.last_capacity
    }

    /// Gives up a segment that nothing needs any more: it becomes a spare, or is removed.
    pub(crate) fn release(&mut self, number: u64) -> io::Result<()> {
        let path = self.settings.segment(number);
        let capacity = self.next.segments.get(&number).copied().unwrap_or(0);
        // What was never filled, or is smaller than segments are now, is of no use.
        let is_whole = capacity >= self.last_capacity.min(self.settings.segment_size)
            && capacity > self.settings.first_capacity()
            && self.disk.look(&path)?.is_some_and(|look| look.length == capacity);
        if !(is_whole && self.spares.keep(&path, capacity)?) {
            self.disk.remove(&path)?;
        }
        self.next.segments.remove(&number);
        Ok(())
    }
}

/// A file that is to become a segment.
struct Fresh {
    spare: Spare,
    /// Whether all its bytes were written once.
    is_filled: bool,
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn warn_unless_removed(disk: &dyn Disk, spare: &Spare) {
    if let Err(error) = disk.remove(&spare.path) {
        warn!(path = %spare.path.display(), reason = %error, "a spare segment cannot be removed");
    }
}
