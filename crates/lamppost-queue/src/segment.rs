//! Segments of the log on disk: their headers, and finding the records in them
//! (docs/reference/spool-format.md).

use crate::record::{RECORD_HEADER, RECORD_MAGIC, Record, RecordHeader};

/// What a segment begins with; its last letter is the format's version.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"LAMPLOG3";
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
    /// A segment of a format before, which no release wrote.
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
    let older = |copy: &[u8]| {
        // The first had no checksum here.
        is_like(copy, |letter| letter == b'1')
            || is_whole(copy) && is_like(copy, |letter| letter < SEGMENT_MAGIC[7])
    };
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
        /// The number of its group's first record.
        group: u64,
        /// Where it begins.
        at: u64,
        /// Bytes of it whole, and of its text.
        length: u64,
        text: u32,
        /// Whether its content is what was written; its text always is.
        is_whole: bool,
    },
    /// Bytes that are no valid record: before a valid one, or the beginning of one that is torn.
    Hole { at: u64, length: u64 },
}

/// Everything in a segment behind its header, in order. What is damaged is skipped up to the next
/// valid record; of a record whose content alone is damaged the text is known. What lies behind the last
/// record is left over from another life of the file, unless a record of this life begins there.
pub(crate) fn scan(segment: SegmentId, bytes: &[u8]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER.min(bytes.len());
    let mut hole = at;
    let mut torn = None;
    while at < bytes.len() {
        if let Some((record, header, is_whole)) = record_at(segment, &bytes[at..]) {
            push_hole(&mut found, bytes, hole, at);
            let place = at as u64;
            let record = Box::new(record);
            found.push(Found::Record {
                record,
                sequence: header.sequence,
                group: header.group,
                at: place,
                length: header.length() as u64,
                text: header.text,
                is_whole,
            });
            // The text's checksum covers the lengths.
            at = at.saturating_add(header.length()).min(bytes.len());
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

/// The record that the bytes begin with, its text proved; and whether its content is too.
fn record_at(segment: SegmentId, bytes: &[u8]) -> Option<(Record, RecordHeader, bool)> {
    let header = RecordHeader::read(segment, bytes)?;
    let record = header.record(bytes)?;
    let content = bytes.get(RECORD_HEADER + header.text as usize..header.length());
    let is_whole = content.is_some_and(|content| header.is_content(content));
    Some((record, header, is_whole))
}

/// What is behind a segment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Behind {
    /// The number that the log goes on with, if it does.
    pub(crate) next: Option<u64>,
    /// Whether a record is there: what had been written before it was durable.
    pub(crate) is_written: bool,
}

/// A record without its whole content that was perhaps acknowledged to nobody.
#[derive(Debug, PartialEq)]
pub(crate) struct Unproved {
    pub(crate) record: Box<Record>,
    pub(crate) sequence: u64,
    /// Where it begins.
    pub(crate) at: u64,
    /// Whether nothing whole is behind it: a write that the end of the program cut short looks so.
    pub(crate) is_torn: bool,
}

/// Makes holes of the records without their whole contents of which nothing says that they were ever
/// durable; returns them.
///
/// A group is written when the one before is durable. So a record of a group that another follows was
/// written whole once, and one of the last group that was written perhaps never. The numbers of those at
/// the very end are given again, from `behind.next` on.
pub(crate) fn take_unproved(found: &mut Vec<Found>, length: u64, behind: Behind) -> Vec<Unproved> {
    let is_whole = |one: &Found| matches!(one, Found::Record { is_whole: true, .. });
    let end = found.iter().rposition(is_whole).map_or(0, |last| last + 1);
    let groups = found.iter().filter_map(|one| match one {
        Found::Record { group, is_whole: true, .. } => Some(*group),
        _ => None,
    });
    let followed = behind.next.filter(|_| behind.is_written);
    let durable = groups.chain(followed).max().unwrap_or(0);
    let (mut kept, mut unproved) = (Vec::with_capacity(found.len()), Vec::new());
    let mut torn = None;
    let is_unproved = |is_behind: bool, sequence: u64| {
        if is_behind {
            behind.next.is_none_or(|next| sequence >= next)
        } else {
            sequence >= durable
        }
    };
    for (place, one) in std::mem::take(found).into_iter().enumerate() {
        let is_behind = place >= end;
        match one {
            Found::Record { record, sequence, at, is_whole: false, length, .. }
                if is_unproved(is_behind, sequence) =>
            {
                if is_behind {
                    torn = torn.or(Some(at));
                } else {
                    kept.push(Found::Hole { at, length });
                }
                unproved.push(Unproved { record, sequence, at, is_torn: is_behind });
            }
            _ if torn.is_some() => {}
            one => kept.push(one),
        }
    }
    if let Some(at) = torn {
        kept.push(Found::Hole { at, length: length.saturating_sub(at) });
    }
    *found = kept;
    unproved
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
            let group = sequence;
            let draft = Draft::new(record, Bytes::from_static(content.as_bytes()));
            bytes.extend(draft.header(segment, *sequence, *group));
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

    /// The records whose contents are what was written.
    fn whole(found: &[Found]) -> Vec<u64> {
        let whole = found.iter().filter_map(|found| match found {
            Found::Record { sequence, is_whole: true, .. } => Some(*sequence),
            _ => None,
        });
        whole.collect()
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

    /// What is left of two records without their contents in two groups, or in one, with a third behind.
    fn unproved(groups: [u64; 3], behind: Behind, is_third_whole: bool) -> (Vec<u64>, Vec<u64>) {
        let mut bytes = SegmentHeader { id: SEGMENT, sequence: 1 }.encode().to_vec();
        for (sequence, group) in (1..).zip(groups) {
            let draft = Draft::new(&deleted(sequence), Bytes::from_static(b"content"));
            bytes.extend(draft.header(SEGMENT, sequence, group));
            bytes.extend(&draft.text);
            bytes.extend(if sequence == 3 && is_third_whole { b"content" } else { b"damaged" });
        }
        let mut found = scan(SEGMENT, &bytes);
        let unproved = take_unproved(&mut found, bytes.len() as u64, behind);
        let taken: Vec<_> = unproved.iter().map(|one| one.sequence).collect();
        assert_eq!(holes(&found), taken.len().min(if is_third_whole { 3 } else { 1 }));
        assert!(unproved.iter().all(|one| one.is_torn != is_third_whole));
        (ids(&found), taken)
    }

    #[test]
    fn a_record_that_another_group_follows_was_once_whole() {
        let nothing = Behind::default();
        assert_eq!(unproved([1, 2, 3], nothing, true), (vec![1, 2, 3], vec![]));
        assert_eq!(unproved([1, 2, 2], nothing, true), (vec![1, 3], vec![2]));
        assert_eq!(unproved([1, 1, 1], nothing, true), (vec![3], vec![1, 2]));
        // A segment that was begun behind it proves nothing before something is in it.
        let begun = Behind { next: Some(4), is_written: false };
        assert_eq!(unproved([1, 1, 1], begun, true), (vec![3], vec![1, 2]));
        let written = Behind { is_written: true, ..begun };
        assert_eq!(unproved([1, 1, 1], written, true), (vec![1, 2, 3], vec![]));
    }

    #[test]
    fn numbers_that_are_given_again_were_those_of_a_torn_end() {
        assert_eq!(unproved([1, 2, 3], Behind::default(), false), (vec![], vec![1, 2, 3]));
        let behind = |next| Behind { next: Some(next), is_written: false };
        assert_eq!(unproved([1, 1, 3], behind(3), false), (vec![1, 2], vec![3]));
        assert_eq!(unproved([1, 1, 3], behind(4), false), (vec![1, 2, 3], vec![]));
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
            prop_assert_eq!(whole(&found).len(), ends.iter().filter(|&&end| end <= cut).count());
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
            prop_assert!(whole(&scan(SEGMENT, &bytes)).is_empty());
        }
    }
}
