//! Segments of the log on disk: their headers, and finding the records in them
//! (docs/reference/spool-format.md).

use crate::record::{RECORD_HEADER, RECORD_MAGIC, Record, RecordHeader};

/// What a segment begins with; its last letter is the format's version.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"LAMPLOG2";
/// Bytes of a segment before its records: two copies of the header, a sector apart, so that a torn
/// write costs one of them at most.
pub(crate) const SEGMENT_HEADER: usize = 1024;
/// Where the second copy is.
const SECOND_COPY: usize = 512;
/// Bytes of a copy.
const COPY: usize = 36;

/// The identity of a segment. Checksums of its records cover it, so that a record of another life
/// of the same file is never taken for one of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentId {
    /// The segment's number; the file is named after it.
    pub(crate) number: u64,
    /// Drawn by lot each time the file is begun anew: nobody who sends mail can know it, so nothing
    /// within a message can pass for a record.
    pub(crate) generation: u64,
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: SegmentId,
    /// The sequence number of the first record that may be in it.
    pub(crate) sequence: u64,
}

/// What a segment's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A segment of this format.
    Ours(SegmentHeader),
    /// A segment of a format that only a newer program knows.
    Newer,
    /// A segment of the first format, which no release wrote.
    Older,
    /// No header, or a damaged one.
    Broken,
}

impl SegmentHeader {
    /// The header's bytes.
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut copy = [0; COPY];
        copy[..8].copy_from_slice(&SEGMENT_MAGIC);
        copy[8..16].copy_from_slice(&self.id.number.to_le_bytes());
        copy[16..24].copy_from_slice(&self.id.generation.to_le_bytes());
        copy[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        let sum = crc32c::crc32c(&copy[..32]);
        copy[32..].copy_from_slice(&sum.to_le_bytes());
        let mut header = [0; SEGMENT_HEADER];
        header[..COPY].copy_from_slice(&copy);
        header[SECOND_COPY..SECOND_COPY + COPY].copy_from_slice(&copy);
        header
    }
}

/// Reads a segment's header.
pub(crate) fn read_head(bytes: &[u8]) -> Head {
    let copies = [0, SECOND_COPY].map(|at| bytes.get(at..at + COPY));
    let good = copies.into_iter().flatten().find_map(|copy| {
        let sum = u32::from_le_bytes(*copy[32..].first_chunk()?);
        let good = copy[..8] == SEGMENT_MAGIC && sum == crc32c::crc32c(&copy[..32]);
        let number = |at: usize| Some(u64::from_le_bytes(*copy.get(at..)?.first_chunk()?));
        let id = SegmentId { number: number(8)?, generation: number(16)? };
        good.then_some(SegmentHeader { id, sequence: number(24)? })
    });
    let is_like =
        |copy: &[u8], letter: fn(u8) -> bool| copy[..7] == SEGMENT_MAGIC[..7] && letter(copy[7]);
    // A letter that is damaged is no other version's.
    let is_whole = |copy: &[u8]| copy[32..] == crc32c::crc32c(&copy[..32]).to_le_bytes();
    let newer = |copy: &[u8]| is_whole(copy) && is_like(copy, |letter| letter > SEGMENT_MAGIC[7]);
    let older = |copy: &[u8]| is_like(copy, |letter| letter == b'1');
    match good {
        Some(header) => Head::Ours(header),
        None if copies.into_iter().flatten().any(newer) => Head::Newer,
        None if copies.into_iter().flatten().any(older) => Head::Older,
        None => Head::Broken,
    }
}

/// What was found in a segment.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// A record.
    Record {
        record: Box<Record>,
        sequence: u64,
        /// Where it begins.
        at: u64,
        /// Bytes of its text.
        text: u32,
    },
    /// Bytes that are no valid record: before a valid one, or the beginning of one that is torn.
    Hole { at: u64, length: u64 },
}

/// Everything in a segment behind its header, in order. What is damaged is skipped up to the next
/// valid record. What lies behind the last record is left over from another life of the file, unless
/// a record of this life begins there.
pub(crate) fn scan(segment: SegmentId, bytes: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER.min(bytes.len());
    let mut hole = at;
    let mut torn = None;
    while at < bytes.len() {
        if let Some((record, header)) = record_at(segment, &bytes[at..]) {
            push_hole(&mut found, bytes, hole, at);
            let place = at as u64;
            let record = Box::new(record);
            found.push(Found::Record {
                record,
                sequence: header.sequence,
                at: place,
                text: header.text,
            });
            at += header.length();
            (hole, torn) = (at, None);
        } else {
            if torn.is_none() && RecordHeader::read(segment, &bytes[at..]).is_some() {
                torn = Some(at);
            }
            let next = memchr::memmem::find(&bytes[at + 1..], &RECORD_MAGIC);
            at = next.map_or(bytes.len(), |next| at + 1 + next);
        }
    }
    if let Some(torn) = torn {
        push_hole(&mut found, bytes, torn, bytes.len());
    }
    found
}

fn push_hole(found: &mut Vec<Found>, bytes: &[u8], from: usize, to: usize) {
    if bytes[from..to].iter().any(|&byte| byte != 0) {
        found.push(Found::Hole { at: from as u64, length: (to - from) as u64 });
    }
}

/// The record that the bytes begin with, checksums and all.
fn record_at(segment: SegmentId, bytes: &[u8]) -> Option<(Record, RecordHeader)> {
    let header = RecordHeader::read(segment, bytes)?;
    let record = header.record(bytes)?;
    let content = bytes.get(RECORD_HEADER + header.text as usize..header.length())?;
    header.is_content(content).then_some((record, header))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lamppost_roles::QueueId;
    use proptest::prelude::*;

    use super::*;
    use crate::record::Draft;

    const SEGMENT: SegmentId = SegmentId { number: 7, generation: 0x1234_5678_9abc };

    fn deleted(id: u64) -> Record {
        Record::Deleted { ids: vec![QueueId(id)] }
    }

    fn written(segment: SegmentId, records: &[(u64, Record, &'static str)]) -> Vec<u8> {
        let mut bytes = SegmentHeader { id: segment, sequence: 1 }.encode().to_vec();
        for (sequence, record, content) in records {
            let draft = Draft::new(record, Bytes::from_static(content.as_bytes()));
            bytes.extend(draft.header(segment, *sequence));
            bytes.extend(&draft.text);
            bytes.extend(&draft.content[..]);
        }
        bytes
    }

    fn two() -> [(u64, Record, &'static str); 2] {
        [(1, deleted(1), "first"), (2, deleted(2), "second")]
    }

    fn ids(found: &[Found]) -> Vec<u64> {
        let ids = found.iter().filter_map(|found| match found {
            Found::Record { record, .. } => match &**record {
                Record::Deleted { ids } => Some(ids[0].0),
                _ => None,
            },
            Found::Hole { .. } => None,
        });
        ids.collect()
    }

    fn holes(found: &[Found]) -> usize {
        found.iter().filter(|found| matches!(found, Found::Hole { .. })).count()
    }

    #[test]
    fn records_are_read_back() {
        let bytes = written(SEGMENT, &[(1, deleted(1), "hello"), (2, deleted(2), "")]);
        let header = SegmentHeader { id: SEGMENT, sequence: 1 };
        assert_eq!(read_head(&bytes), Head::Ours(header));
        let found = scan(SEGMENT, &bytes);
        assert_eq!(ids(&found), [1, 2]);
        let Found::Record { at, text, .. } = found[0] else { panic!() };
        let content = usize::try_from(at).unwrap() + RECORD_HEADER + text as usize;
        assert_eq!(&bytes[content..content + 5], b"hello");
    }

    #[test]
    fn one_good_copy_of_the_header_is_enough() {
        for at in [9, SECOND_COPY + 9] {
            let mut bytes = written(SEGMENT, &two());
            bytes[at] ^= 1;
            assert!(matches!(read_head(&bytes), Head::Ours(_)));
        }
        let mut bytes = written(SEGMENT, &two());
        bytes[9] ^= 1;
        bytes[SECOND_COPY + 9] ^= 1;
        assert_eq!(read_head(&bytes), Head::Broken);
        bytes[7] = b'9';
        assert_eq!(read_head(&bytes), Head::Broken);
        let sum = crc32c::crc32c(&bytes[..32]);
        bytes[32..COPY].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(read_head(&bytes), Head::Newer);
    }

    #[test]
    fn a_damaged_record_is_a_hole_and_the_rest_is_read() {
        let mut bytes = written(
            SEGMENT,
            &[(1, deleted(1), "a"), (2, deleted(2), "LREC"), (3, deleted(3), "c")],
        );
        let second = memchr::memmem::find_iter(&bytes, &RECORD_MAGIC).nth(1).unwrap();
        bytes[second + RECORD_HEADER + 1] ^= 1;
        let found = scan(SEGMENT, &bytes);
        assert_eq!(ids(&found), [1, 3]);
        assert!(
            found
                .iter()
                .any(|found| matches!(found, Found::Hole { at, .. } if *at == second as u64))
        );
    }

    #[test]
    fn records_of_another_life_of_the_file_are_dead_and_no_damage() {
        let old = written(SegmentId { generation: 98, ..SEGMENT }, &two());
        assert_eq!(scan(SEGMENT, &old), []);
        // A new life that has not come as far as the old one.
        let mut bytes = written(SEGMENT, &two()[..1]);
        bytes.extend(&old[SEGMENT_HEADER..]);
        let found = scan(SEGMENT, &bytes);
        assert_eq!((ids(&found), holes(&found)), (vec![1], 0));
    }

    #[test]
    fn space_that_was_never_written_is_no_damage() {
        let mut bytes = written(SEGMENT, &two()[..1]);
        bytes.extend([0; 4096]);
        assert_eq!(scan(SEGMENT, &bytes).len(), 1);
    }

    proptest! {
        /// However a segment is torn, the whole records before the tear are read, and the torn one
        /// is told.
        #[test]
        fn a_torn_end_costs_only_the_torn_record(cut in 0_usize..2000) {
            let bytes = written(SEGMENT, &two());
            let ends = [1, 2].map(|count| written(SEGMENT, &two()[..count]).len());
            let cut = cut.min(bytes.len());
            let found = scan(SEGMENT, &bytes[..cut]);
            prop_assert_eq!(ids(&found).len(), ends.iter().filter(|&&end| end <= cut).count());
        }

        #[test]
        fn any_bytes_are_records_or_holes(bytes: Vec<u8>, signed: bool) {
            let header = SegmentHeader { id: SEGMENT, sequence: 0 }.encode();
            let bytes = if signed { [&header[..], &RECORD_MAGIC, &bytes].concat() } else { bytes };
            drop(scan(SEGMENT, &bytes));
            let _any = read_head(&bytes);
        }

        #[test]
        fn any_flipped_bit_is_noticed(bit in 0_usize..8, at in 0_usize..1000) {
            let mut bytes = written(SEGMENT, &two()[..1]);
            let at = SEGMENT_HEADER + at % (bytes.len() - SEGMENT_HEADER);
            bytes[at] ^= 1 << bit;
            prop_assert!(ids(&scan(SEGMENT, &bytes)).is_empty());
        }
    }
}
