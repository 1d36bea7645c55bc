//! Records of the log: what they say, and how they lie on disk (docs/reference/spool-format.md).

use bytes::Bytes;
use lamppost_roles::{Attempt, Envelope, QueueId, Timestamp};
use serde::{Deserialize, Serialize};

/// What a segment begins with; its last letter is the format's version.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"LAMPLOG1";
/// What a record begins with.
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"LREC";
/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER: usize = 32;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER: usize = 24;

/// The identity of a segment. Checksums of its records cover it, so that a record of another life
/// of the same file is never taken for one of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentId {
    /// The segment's number; the file is named after it.
    pub(crate) number: u64,
    /// Differs each time the file is begun anew.
    pub(crate) generation: u64,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "most records are messages")]
pub(crate) enum Record {
    /// A message with its present state; its content follows the record's text, or lies aside.
    Message(MessageRecord),
    /// Recipients have moved on.
    Progress { id: QueueId, recipients: Vec<(u32, RecipientRecord)> },
    /// An administrator holds the message, or holds it no more.
    Held { id: QueueId, held: bool },
    /// An administrator deleted the message.
    Deleted { id: QueueId },
    /// These records of another segment were answered with a failure and never happened.
    Void { segment: u64, first: u64, last: u64 },
}

/// A message with its present state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MessageRecord {
    pub(crate) id: QueueId,
    pub(crate) envelope: Envelope,
    pub(crate) recipients: Vec<RecipientRecord>,
    pub(crate) held: bool,
    /// Bytes of content.
    pub(crate) size: u64,
    /// Whether the content lies in a file of its own.
    pub(crate) aside: bool,
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
    /// It failed for good.
    Failed,
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
        // The text's length goes before it, since content may follow.
        let text = postcard::to_extend(record, vec![0; 4]);
        // Postcard fails for types that do not know their own length, and these do.
        let mut text = text.unwrap_or_default();
        let length = u32::try_from(text.len().saturating_sub(4)).unwrap_or(u32::MAX);
        if let Some(head) = text.get_mut(..4) {
            head.copy_from_slice(&length.to_le_bytes());
        }
        Self { text, content }
    }

    /// Bytes that the record takes in the log.
    pub(crate) fn len(&self) -> usize {
        RECORD_HEADER + self.text.len() + self.content.len()
    }

    /// The record's header.
    pub(crate) fn header(&self, segment: SegmentId, sequence: u64) -> [u8; RECORD_HEADER] {
        let length = u32::try_from(self.text.len() + self.content.len()).unwrap_or(u32::MAX);
        let mut header = [0; RECORD_HEADER];
        header[..4].copy_from_slice(&RECORD_MAGIC);
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[8..16].copy_from_slice(&sequence.to_le_bytes());
        let mut sum = checksum_head(segment, &header);
        sum = crc32c::crc32c_append(sum, &self.text);
        sum = crc32c::crc32c_append(sum, &self.content);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        header
    }
}

/// The checksum's beginning: the segment's identity, and length and sequence number of the record.
fn checksum_head(segment: SegmentId, header: &[u8; RECORD_HEADER]) -> u32 {
    let sum = crc32c::crc32c(&segment.number.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &segment.generation.to_le_bytes());
    crc32c::crc32c_append(sum, &header[4..16])
}

/// A segment's header.
pub(crate) fn segment_header(segment: SegmentId) -> [u8; SEGMENT_HEADER] {
    let mut header = [0; SEGMENT_HEADER];
    header[..8].copy_from_slice(&SEGMENT_MAGIC);
    header[8..16].copy_from_slice(&segment.number.to_le_bytes());
    header[16..24].copy_from_slice(&segment.generation.to_le_bytes());
    let sum = crc32c::crc32c(&header[..24]);
    header[24..28].copy_from_slice(&sum.to_le_bytes());
    header
}

/// What was found in a segment.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// A record, and where its content begins in the segment.
    Record { record: Box<Record>, sequence: u64, content_at: usize },
    /// Bytes that are no valid record, before a valid one or before the end.
    Hole { at: usize, length: usize },
}

/// Reads a segment's header; nothing when it is none.
pub(crate) fn read_segment_header(bytes: &[u8]) -> Option<SegmentId> {
    let header = bytes.first_chunk::<SEGMENT_HEADER>()?;
    let sum = u32::from_le_bytes(*header[24..].first_chunk()?);
    let good = header[..8] == SEGMENT_MAGIC && sum == crc32c::crc32c(&header[..24]);
    good.then(|| SegmentId { number: number_at(header, 8), generation: number_at(header, 16) })
}

fn number_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Everything in a segment behind its header, in order. What is damaged is skipped up to the next
/// valid record; zeros at the end are space that was never written.
pub(crate) fn scan(segment: SegmentId, bytes: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER.min(bytes.len());
    let mut hole = at;
    while at < bytes.len() {
        if let Some((record, sequence, text, length)) = record_at(segment, bytes, at) {
            push_hole(&mut found, bytes, hole, at);
            let content_at = at + RECORD_HEADER + 4 + text;
            found.push(Found::Record { record: Box::new(record), sequence, content_at });
            at += RECORD_HEADER + length;
            hole = at;
        } else {
            let next = memchr::memmem::find(&bytes[at + 1..], &RECORD_MAGIC);
            at = next.map_or(bytes.len(), |next| at + 1 + next);
        }
    }
    push_hole(&mut found, bytes, hole, bytes.len());
    found
}

fn push_hole(found: &mut Vec<Found>, bytes: &[u8], from: usize, to: usize) {
    if bytes[from..to].iter().any(|&byte| byte != 0) {
        found.push(Found::Hole { at: from, length: to - from });
    }
}

/// The record at a place with its sequence number, the length of its text and that of all of it.
fn record_at(segment: SegmentId, bytes: &[u8], at: usize) -> Option<(Record, u64, usize, usize)> {
    let header = bytes.get(at..)?.first_chunk::<RECORD_HEADER>()?;
    if header[..4] != RECORD_MAGIC {
        return None;
    }
    let length = u32::from_le_bytes(*header[4..].first_chunk()?) as usize;
    let payload = bytes.get(at + RECORD_HEADER..)?.get(..length)?;
    let sum = crc32c::crc32c_append(checksum_head(segment, header), payload);
    if header[16..20] != sum.to_le_bytes() {
        return None;
    }
    let text = u32::from_le_bytes(*payload.first_chunk()?) as usize;
    let record = postcard::from_bytes(payload.get(4..)?.get(..text)?).ok()?;
    Some((record, number_at(header, 8), text, length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENT: SegmentId = SegmentId { number: 7, generation: 99 };

    fn deleted(id: u64) -> Record {
        Record::Deleted { id: QueueId(id) }
    }

    fn written(segment: SegmentId, records: &[(u64, Record, &'static str)]) -> Vec<u8> {
        let mut bytes = segment_header(segment).to_vec();
        for (sequence, record, content) in records {
            let draft = Draft::new(record, Bytes::from_static(content.as_bytes()));
            bytes.extend(draft.header(segment, *sequence));
            bytes.extend(&draft.text);
            bytes.extend(&draft.content[..]);
        }
        bytes
    }

    fn ids(found: &[Found]) -> Vec<u64> {
        let ids = found.iter().filter_map(|found| match found {
            Found::Record { record, .. } => match **record {
                Record::Deleted { id } => Some(id.0),
                _ => None,
            },
            Found::Hole { .. } => None,
        });
        ids.collect()
    }

    #[test]
    fn records_are_read_back() {
        let bytes = written(SEGMENT, &[(1, deleted(1), "hello"), (2, deleted(2), "")]);
        assert_eq!(read_segment_header(&bytes), Some(SEGMENT));
        let found = scan(SEGMENT, &bytes);
        assert_eq!(ids(&found), [1, 2]);
        let Found::Record { content_at, .. } = found[0] else { panic!() };
        assert_eq!(&bytes[content_at..content_at + 5], b"hello");
    }

    #[test]
    fn a_damaged_record_is_a_hole_and_the_rest_is_read() {
        let mut bytes = written(
            SEGMENT,
            &[(1, deleted(1), "a"), (2, deleted(2), "LREC"), (3, deleted(3), "c")],
        );
        let second = memchr::memmem::find_iter(&bytes, &RECORD_MAGIC).nth(1).unwrap();
        bytes[second + RECORD_HEADER + 5] ^= 1;
        let found = scan(SEGMENT, &bytes);
        assert_eq!(ids(&found), [1, 3]);
        assert!(found.iter().any(|found| matches!(found, Found::Hole { at, .. } if *at == second)));
    }

    #[test]
    fn a_record_of_another_life_of_the_file_is_dead() {
        let old = written(SegmentId { generation: 98, ..SEGMENT }, &[(1, deleted(1), "")]);
        assert_eq!(ids(&scan(SEGMENT, &old)), [] as [u64; 0]);
    }

    #[test]
    fn space_that_was_never_written_is_no_damage() {
        let mut bytes = written(SEGMENT, &[(1, deleted(1), "")]);
        bytes.extend([0; 4096]);
        assert_eq!(scan(SEGMENT, &bytes).len(), 1);
    }

    proptest! {
        /// However a segment is torn, the whole records before the tear are read.
        #[test]
        fn a_torn_end_costs_only_the_torn_record(cut in 0_usize..300) {
            let bytes = written(SEGMENT, &[(1, deleted(1), "first"), (2, deleted(2), "second")]);
            let ends: Vec<_> = [1, 2].iter().map(|&n| {
                written(SEGMENT, &[(1, deleted(1), "first"), (2, deleted(2), "second")][..n]).len()
            }).collect();
            let cut = cut.min(bytes.len());
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            prop_assert_eq!(ids(&scan(SEGMENT, &bytes[..cut])).len(), whole);
        }

        #[test]
        fn any_bytes_are_records_or_holes(bytes: Vec<u8>, signed: bool) {
            let bytes = if signed { [&segment_header(SEGMENT)[..], &RECORD_MAGIC, &bytes].concat() } else { bytes };
            drop(scan(SEGMENT, &bytes));
            let _any = read_segment_header(&bytes);
        }

        #[test]
        fn any_flipped_bit_is_noticed(bit in 0_usize..8, at in 0_usize..1000) {
            let mut bytes = written(SEGMENT, &[(1, deleted(1), "first")]);
            let at = SEGMENT_HEADER + at % (bytes.len() - SEGMENT_HEADER);
            // Four bytes of the header are padding that nothing reads.
            prop_assume!(!(SEGMENT_HEADER + 20..SEGMENT_HEADER + 24).contains(&at));
            bytes[at] ^= 1 << bit;
            prop_assert!(ids(&scan(SEGMENT, &bytes)).is_empty());
        }
    }
}
