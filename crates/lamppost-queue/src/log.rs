//! The log: segments that records are appended to, a group at a time.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::record::{Draft, RECORD_HEADER, Record, SEGMENT_HEADER, SegmentId, segment_header};
use crate::{Settings, StartError};

/// Where the log goes on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Next {
    /// The number of the segment to begin.
    pub(crate) segment: u64,
    /// Tells this life of the segment's file from another.
    pub(crate) generation: u64,
    /// The sequence number of the next record.
    pub(crate) sequence: u64,
    /// The segments that are there, with their bytes.
    pub(crate) segments: BTreeMap<u64, u64>,
}

/// The log, as its one writer has it.
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    settings: Settings,
    next: Next,
    current: Option<Current>,
    /// What failed and must be voided in the next segment.
    voids: Vec<Record>,
    /// Whether something was written that no sync covers.
    dirty: bool,
}

/// The segment that is written now.
struct Current {
    id: SegmentId,
    file: Box<dyn DiskFile>,
    size: u64,
}

/// Where a group was written.
#[derive(Debug)]
pub(crate) struct Written {
    /// The segment.
    pub(crate) segment: u64,
    /// Where the content of each draft begins.
    pub(crate) contents: Vec<u64>,
}

impl Log {
    /// Begins a new segment; what was there before is never written to again.
    pub(crate) fn begin(
        disk: Arc<dyn Disk>,
        settings: Settings,
        next: Next,
    ) -> Result<Self, StartError> {
        let mut log = Self { disk, settings, next, current: None, voids: Vec::new(), dirty: false };
        let path = log.settings.segment(log.next.segment);
        log.rotate().map_err(|source| StartError::Disk {
            step: "begin the segment",
            path,
            source,
        })?;
        Ok(log)
    }

    /// Appends a group and, if asked to, makes it and all before it durable.
    ///
    /// After a failure the segment is closed for good: what a failed sync left behind is unknown,
    /// and a second sync may succeed without having written it.
    pub(crate) fn append(&mut self, drafts: &[Draft], sync: bool) -> io::Result<Written> {
        let full =
            self.current.as_ref().is_none_or(|current| current.size >= self.settings.segment_size);
        if full {
            self.rotate()?;
        }
        let first = self.next.sequence;
        let segment = self.current.as_ref().map(|current| current.id.number);
        let appended = self.write(drafts).and_then(|written| {
            if sync {
                self.sync()?;
            }
            Ok(written)
        });
        if appended.is_err() {
            self.current = None;
            let last = self.next.sequence.saturating_sub(1);
            self.voids.extend(segment.map(|segment| Record::Void { segment, first, last }));
        }
        appended
    }

    fn write(&mut self, drafts: &[Draft]) -> io::Result<Written> {
        let Some(current) = &mut self.current else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut headers = Vec::with_capacity(drafts.len());
        let mut contents = Vec::with_capacity(drafts.len());
        for draft in drafts {
            headers.push(draft.header(current.id, self.next.sequence));
            contents.push(current.size + (RECORD_HEADER + draft.text.len()) as u64);
            current.size += draft.len() as u64;
            self.next.sequence += 1;
        }
        let mut slices: Vec<_> = drafts
            .iter()
            .zip(&headers)
            .flat_map(|(draft, header)| [&header[..], &draft.text, &draft.content])
            .filter(|slice| !slice.is_empty())
            .map(IoSlice::new)
            .collect();
        self.dirty = true;
        current.file.append(&mut slices)?;
        self.next.segments.insert(current.id.number, current.size);
        Ok(Written { segment: current.id.number, contents })
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
        }
        Ok(())
    }

    /// Whether something was written that no sync covers.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty && self.current.is_some()
    }

    /// Begins the next segment. Its name is durable before any of its records is.
    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        self.current = None;
        let id = SegmentId { number: self.next.segment, generation: self.next.generation };
        self.next.segment += 1;
        let mut file = self.disk.create(&self.settings.segment(id.number))?;
        file.append(&mut [IoSlice::new(&segment_header(id))])?;
        self.disk.sync_folder(&self.settings.log())?;
        self.next.segments.insert(id.number, SEGMENT_HEADER as u64);
        self.current = Some(Current { id, file, size: SEGMENT_HEADER as u64 });
        let voids = std::mem::take(&mut self.voids);
        let drafts: Vec<_> =
            voids.iter().map(|void| Draft::new(void, bytes::Bytes::new())).collect();
        if let Err(error) = self.write(&drafts) {
            self.voids = voids;
            self.current = None;
            return Err(error);
        }
        Ok(())
    }

    /// The oldest segment, unless it is the one that is written.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let (&oldest, _) = self.next.segments.first_key_value()?;
        let current = self.current.as_ref().map(|current| current.id.number);
        (current != Some(oldest)).then_some(oldest)
    }

    /// How many segments there are.
    pub(crate) fn segments(&self) -> usize {
        self.next.segments.len()
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.next.segments.values().sum()
    }

    /// Removes the oldest segment.
    pub(crate) fn remove(&mut self, segment: u64) -> io::Result<()> {
        self.disk.remove(&self.settings.segment(segment))?;
        self.next.segments.remove(&segment);
        Ok(())
    }
}
