//! Reading messages back from the spool.

use std::io;
use std::path::Path;

use bytes::Bytes;
use lamppost_disk::Disk;
use lamppost_roles::QueueId;

use crate::index::Place;
use crate::record::{MessageRecord, RECORD_HEADER, Record, RecordHeader};
use crate::salvage::is_unreadable;
use crate::segment::SegmentId;
use crate::spool::Spool;

/// A message as it was read, in its present state.
pub(crate) struct Loaded {
    pub(crate) record: MessageRecord,
    /// The content, unless it is aside or was not asked for.
    pub(crate) content: Option<Bytes>,
}

/// Where a message is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Source {
    place: Place,
    segment: SegmentId,
    /// Bytes of content in the log.
    content: u64,
}

impl Spool {
    /// Reads a message; nothing when there is none.
    ///
    /// # Errors
    /// What the system says, or that the record is damaged.
    pub(crate) fn load(&self, id: QueueId) -> io::Result<Option<Loaded>> {
        self.load_parts(id, true)
    }

    /// Reads a message without its content.
    ///
    /// # Errors
    /// What the system says, or that the record is damaged.
    pub(crate) fn load_record(&self, id: QueueId) -> io::Result<Option<MessageRecord>> {
        Ok(self.load_parts(id, false)?.map(|loaded| loaded.record))
    }

    fn load_parts(&self, id: QueueId, with_content: bool) -> io::Result<Option<Loaded>> {
        loop {
            let Some(source) = self.source(id) else { return Ok(None) };
            let read = self.read_record(source, with_content);
            match read {
                Ok((mut record, content)) => {
                    let index = self.index.lock();
                    let Some(message) = index.message(id) else { return Ok(None) };
                    index.refresh(message, &mut record);
                    return Ok(Some(Loaded { record, content }));
                }
                // It was written again elsewhere meanwhile, and its segment has another life.
                Err(_) if self.source(id) != Some(source) => {}
                Err(error) => {
                    if error.kind() == io::ErrorKind::InvalidData || is_unreadable(&error) {
                        self.damaged(format!("message {id}: {error}"));
                    }
                    return Err(error);
                }
            }
        }
    }

    fn source(&self, id: QueueId) -> Option<Source> {
        let index = self.index.lock();
        let message = index.message(id)?;
        let segment = index.segment(message.place.segment)?.id;
        let content = if message.aside { 0 } else { message.size };
        Some(Source { place: message.place, segment, content })
    }

    fn read_record(
        &self,
        source: Source,
        with_content: bool,
    ) -> io::Result<(MessageRecord, Option<Bytes>)> {
        let Source { place, segment, content } = source;
        let head = RECORD_HEADER + place.text as usize;
        let length = if with_content { head + to_usize(content) } else { head };
        let path = self.settings.segment(place.segment);
        let read = self.disk.read(&path, place.at, length).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(error.kind(), format!("its segment {} is lost", segment.number))
            }
            _ => error,
        });
        let bytes = Bytes::from(read?);
        let damaged = || {
            let text =
                format!("its record in segment {} at {} is damaged", segment.number, place.at);
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let header = RecordHeader::read(segment, &bytes).ok_or_else(damaged)?;
        let record = header.record(&bytes).ok_or_else(damaged)?;
        let (Record::Message(record) | Record::Notice { message: record, .. }) = record else {
            return Err(damaged());
        };
        if !with_content || record.aside {
            return Ok((record, None));
        }
        let content = bytes.slice(head.min(bytes.len())..);
        if header.is_content(&content) { Ok((record, Some(content))) } else { Err(damaged()) }
    }

    /// Proves a message's content when it is aside; another is proved each time it is read. Where the
    /// record is damaged that holds its sum, nothing is known against it.
    ///
    /// # Errors
    /// What the system says, or that it is damaged.
    pub(crate) fn prove(&self, id: QueueId) -> io::Result<()> {
        match self.load_record(id) {
            Ok(Some(record)) if record.aside => self.prove_aside(&record),
            _ => Ok(()),
        }
    }

    /// Proves that a content aside is what came in.
    ///
    /// # Errors
    /// What the system says, or that it is damaged.
    pub(crate) fn prove_aside(&self, record: &MessageRecord) -> io::Result<()> {
        if aside_sum(&*self.disk, &self.settings.body(record.id))?
            == (record.size, record.aside_sum)
        {
            return Ok(());
        }
        let text = format!("message {}: its content in bodies/ is damaged", record.id);
        self.damaged(text.clone());
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    /// Reads a piece of a message's content, empty at its end; nothing when there is no such message.
    ///
    /// # Errors
    /// What the system says, or that the record is damaged.
    pub(crate) fn read(
        &self,
        id: QueueId,
        offset: u64,
        length_max: u32,
    ) -> io::Result<Option<Bytes>> {
        let Some((aside, size)) =
            self.index.lock().message(id).map(|message| (message.aside, message.size))
        else {
            return Ok(None);
        };
        let length = to_usize(size.saturating_sub(offset)).min(length_max as usize);
        if aside {
            return self.disk.read(&self.settings.body(id), offset, length).map(|b| Some(b.into()));
        }
        let Some(content) = self.load(id)?.and_then(|loaded| loaded.content) else {
            return Ok(None);
        };
        let from = to_usize(offset).min(content.len());
        Ok(Some(content.slice(from..from.saturating_add(length).min(content.len()))))
    }
}

/// Whether a message that was read with this error is lost, or at least a part of it.
pub(crate) fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound)
}

/// Length and CRC-32C of a content aside.
///
/// # Errors
/// What the system says.
pub(crate) fn aside_sum(disk: &dyn Disk, path: &Path) -> io::Result<(u64, u32)> {
    /// Bytes that are read at once.
    const PIECE: usize = 1024 * 1024;
    let (mut length, mut sum) = (0, 0);
    loop {
        let piece = disk.read(path, length, PIECE)?;
        if piece.is_empty() {
            return Ok((length, sum));
        }
        length += piece.len() as u64;
        sum = crc32c::crc32c_append(sum, &piece);
    }
}

fn to_usize(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
