//! Records of the log: what they say, and how they lie on disk (docs/reference/spool-format.md).

use bytes::Bytes;
use lamppost_roles::{Attempt, Envelope, QueueId, Route, Timestamp};
use serde::{Deserialize, Serialize};

use crate::segment::SegmentId;

/// What a record begins with.
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"LREC";
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER: usize = 36;

/// A recipient of a message: its place in the envelope, from 0.
pub(crate) type Item = (QueueId, u32);

/// What a record says. New kinds go to the end: their numbers are part of the format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// A message with its present state; its content follows the record's text, or lies aside.
    Message(MessageRecord),
    /// The files of these recipients are in `tmp/`, durably: they must be published, and never
    /// prepared again.
    Intended { items: Vec<Item>, at: Timestamp },
    /// These recipients have their mail.
    Delivered { items: Vec<Item> },
    /// Recipients have moved on otherwise.
    Progress { id: QueueId, recipients: Vec<(u32, RecipientRecord)> },
    /// An administrator holds messages, or holds them no more.
    Held { ids: Vec<QueueId>, held: bool },
    /// An administrator deleted messages.
    Deleted { ids: Vec<QueueId> },
    /// Policy chose the way to a recipient.
    Routed { item: Item, route: Route },
    /// A message about a message, together with what it settles there. Its content follows the
    /// record's text.
    Notice { of: QueueId, settles: Settles, message: MessageRecord },
    /// These records of another segment never happened: they were answered with a failure, or were not
    /// written whole when the program ended.
    Void { segment: u64, first: u64, last: u64 },
}

/// What a notice settles in the message that it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Settles {
    /// The sender was told that it takes longer.
    Delay,
    /// The sender was told that these recipients failed for good.
    Failures(Vec<u32>),
}

/// A message with its present state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MessageRecord {
    pub(crate) id: QueueId,
    pub(crate) envelope: Envelope,
    pub(crate) recipients: Vec<RecipientRecord>,
    pub(crate) held: bool,
    /// Whether the sender was told that it takes longer.
    pub(crate) delay_told: bool,
    /// Bytes of content.
    pub(crate) size: u64,
    /// Whether the content lies in a file of its own.
    pub(crate) aside: bool,
    /// CRC-32C of a content that lies in a file of its own; 0 for others, which their record covers.
    pub(crate) aside_sum: u32,
}

/// How far a recipient is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecipientRecord {
    pub(crate) progress: Progress,
    pub(crate) attempts: u32,
    pub(crate) last: Option<Attempt>,
}

/// How far a recipient is, as far as a crash may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Progress {
    /// It waits for its next try.
    Waiting { due: Timestamp },
    /// Its file is in `tmp/`, durably: it must be published, and never prepared again.
    Intended { due: Timestamp },
    /// It has its mail.
    Delivered,
    /// It failed for good, and the sender is yet to be told.
    Failed,
    /// It failed for good, and a bounce is on its way.
    Bounced,
}

impl Progress {
    /// Whether nothing is left to do for the recipient.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Bounced)
    }
}

impl RecipientRecord {
    /// A recipient that has not been tried.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { progress: Progress::Waiting { due: now }, attempts: 0, last: None }
    }
}

/// A record on its way to the log: its text and the content behind it.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) text: Vec<u8>,
    pub(crate) content: Bytes,
}

impl Draft {
    /// A record with content behind it; the content is not copied.
    pub(crate) fn new(record: &Record, content: Bytes) -> Self {
        // Postcard fails for types that do not know their own length, and these do.
        let text = postcard::to_allocvec(record).unwrap_or_default();
        Self { text, content }
    }

    /// Bytes that the record takes in the log.
    pub(crate) fn len(&self) -> usize {
        RECORD_HEADER + self.text.len() + self.content.len()
    }

    /// The header of a record in the group that begins with the record of the number `group`.
    pub(crate) fn header(
        &self,
        segment: SegmentId,
        sequence: u64,
        group: u64,
    ) -> [u8; RECORD_HEADER] {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut header = [0; RECORD_HEADER];
        header[..4].copy_from_slice(&RECORD_MAGIC);
        header[4..8].copy_from_slice(&mark(segment));
        header[8..12].copy_from_slice(&length(&self.text).to_le_bytes());
        header[12..16].copy_from_slice(&length(&self.content).to_le_bytes());
        header[16..24].copy_from_slice(&sequence.to_le_bytes());
        let before = u32::try_from(sequence.saturating_sub(group)).unwrap_or(u32::MAX);
        header[24..28].copy_from_slice(&before.to_le_bytes());
        let text_sum = text_sum(segment, &header, &self.text);
        header[28..32].copy_from_slice(&text_sum.to_le_bytes());
        let content_sum = crc32c::crc32c_append(text_sum, &self.content);
        header[32..].copy_from_slice(&content_sum.to_le_bytes());
        header
    }
}

/// The generation as far as it fits into a record's header: what is left over from another life of
/// the file is told from damage without reading it.
fn mark(segment: SegmentId) -> [u8; 4] {
    let [a, b, c, d, ..] = segment.generation.to_le_bytes();
    [a, b, c, d]
}

/// Covers the segment's identity, the lengths, the numbers and the text.
fn text_sum(segment: SegmentId, header: &[u8; RECORD_HEADER], text: &[u8]) -> u32 {
    let sum = crc32c::crc32c(&segment.number.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &segment.generation.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &header[4..28]), text)
}

/// A record's header as it was read; what it says is not proved before the checksums are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHeader {
    pub(crate) sequence: u64,
    /// The number of its group's first record.
    pub(crate) group: u64,
    /// Bytes of text.
    pub(crate) text: u32,
    /// Bytes of content.
    pub(crate) content: u32,
    segment: SegmentId,
    bytes: [u8; RECORD_HEADER],
}

impl RecordHeader {
    /// Reads the header that the bytes begin with, if it is one of this life of the segment.
    pub(crate) fn read(segment: SegmentId, bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<RECORD_HEADER>()?;
        if header[..4] != RECORD_MAGIC || header[4..8] != mark(segment) {
            return None;
        }
        let number = |at: usize| Some(u32::from_le_bytes(*header.get(at..)?.first_chunk()?));
        let sequence = u64::from_le_bytes(*header[16..].first_chunk()?);
        let (text, content) = (number(8)?, number(12)?);
        let group = sequence.saturating_sub(u64::from(number(24)?));
        Some(Self { sequence, group, text, content, segment, bytes: *header })
    }

    /// Bytes of the whole record.
    pub(crate) fn length(&self) -> usize {
        RECORD_HEADER + self.text as usize + self.content as usize
    }

    /// The record, if the bytes that begin with this header hold all of its text, undamaged.
    pub(crate) fn record(&self, bytes: &[u8]) -> Option<Record> {
        let text = bytes.get(RECORD_HEADER..)?.get(..self.text as usize)?;
        let sum = text_sum(self.segment, &self.bytes, text);
        (self.bytes[28..32] == sum.to_le_bytes()).then(|| postcard::from_bytes(text).ok())?
    }

    /// Whether this is the record's content, undamaged.
    pub(crate) fn is_content(&self, content: &[u8]) -> bool {
        let text_sum = self.bytes[28..32].first_chunk().map_or(0, |sum| u32::from_le_bytes(*sum));
        let sum = crc32c::crc32c_append(text_sum, content);
        content.len() == self.content as usize && self.bytes[32..] == sum.to_le_bytes()
    }
}
