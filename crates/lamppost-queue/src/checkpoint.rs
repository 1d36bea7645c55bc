//! A checkpoint: the index on disk, so that a start need not read the whole log
//! (docs/reference/spool-format.md).
//!
//! It is written while the queue goes on, piece by piece, and so is of no one moment. That does no
//! harm: whatever was changed while it was written stands in the segments from `begin` on, which
//! are replayed over it.
//!
//! The last two are kept, under two names in turn, and so is the log from the older one on: when the
//! newer is damaged, the older and the log say the same. A file is replaced by a rename, so that the
//! other is whole at every moment.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use lamppost_disk::Disk;
use lamppost_roles::QueueId;
use parking_lot::Mutex;

use crate::index::{Entry, Index};
use crate::salvage::is_unreadable;
use crate::{Settings, StartError};

/// What a checkpoint begins with; its last letter is the format's version.
const MAGIC: [u8; 8] = *b"LAMPCHK1";
/// Bytes of the header.
const HEADER: usize = 36;
/// Bytes before a block: its length, its entries and its checksum.
const BLOCK_HEADER: usize = 12;
/// Messages in a block, which is taken under one lock.
const BLOCK_MESSAGES: usize = 1000;
/// The largest block that is read.
const BLOCK_MAX: usize = 256 * 1024 * 1024;

/// Where a checkpoint stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The first segment that must be replayed over it.
    pub(crate) begin: u64,
    /// The sequence number of that segment's first record.
    pub(crate) sequence: u64,
    /// No message up to here may be named again.
    pub(crate) last_id: QueueId,
}

/// What a checkpoint was.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// It was taken in.
    Whole(Position),
    /// There is none.
    Absent,
    /// It is damaged: the whole log must be replayed.
    Damaged,
    /// Only a newer program knows its format.
    Newer,
}

/// The checkpoints of a spool, and what its log must keep for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// The newest whole one.
    pub(crate) newest: Option<Position>,
    /// Which of the two names is to be written next: not that of the newest.
    pub(crate) next: usize,
    /// The first segment that the older one needs; 0 when there is none, since all is needed then.
    pub(crate) needed_from: u64,
}

impl Standing {
    /// The first segment that the newest does not cover.
    pub(crate) fn covered_below(&self) -> u64 {
        self.newest.map_or(0, |position| position.begin)
    }

    /// Another was written under the name that was next.
    pub(crate) fn wrote(&mut self, position: Position) {
        self.needed_from = self.covered_below();
        self.newest = Some(position);
        self.next = 1 - self.next;
    }
}

/// What was found of the checkpoints.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    pub(crate) standing: Standing,
    /// The messages of the newest whole one.
    pub(crate) entries: Vec<Entry>,
    /// The files that are damaged or cannot be read.
    pub(crate) damaged: Vec<PathBuf>,
}

/// Reads the newest whole checkpoint; the other one too where all is to be looked at.
///
/// # Errors
/// When the disk cannot be read for a reason that an administrator can mend, or a newer program
/// wrote one.
pub(crate) fn choose(
    disk: &dyn Disk,
    settings: &Settings,
    all: bool,
) -> Result<Choice, StartError> {
    let paths = settings.checkpoints();
    let mut choice = Choice::default();
    let mut found = Vec::new();
    for (name, path) in paths.iter().enumerate() {
        match head(disk, path).map_err(|source| unread(path, source))? {
            Loaded::Whole(position) => found.push((position, name)),
            Loaded::Absent => {}
            Loaded::Damaged => choice.damaged.push(path.clone()),
            Loaded::Newer => return Err(StartError::Format { path: path.clone() }),
        }
    }
    // Two that begin at one segment are equally good; the later one knows more names.
    found.sort_by_key(|(position, _)| (position.begin, position.last_id));
    while let Some((position, name)) = found.pop() {
        let is_newest = choice.standing.newest.is_none();
        if !is_newest && !all {
            choice.standing.needed_from = position.begin;
            break;
        }
        let mut entries = Vec::new();
        let loaded = load(disk, &paths[name], |_, entry| entries.push(entry));
        match loaded.map_err(|source| unread(&paths[name], source))? {
            Loaded::Whole(position) if is_newest => {
                choice.standing.newest = Some(position);
                choice.standing.next = 1 - name;
                choice.entries = entries;
            }
            Loaded::Whole(position) => choice.standing.needed_from = position.begin,
            Loaded::Absent | Loaded::Damaged | Loaded::Newer => {
                choice.damaged.push(paths[name].clone());
            }
        }
    }
    Ok(choice)
}

fn unread(path: &Path, source: io::Error) -> StartError {
    StartError::Disk { step: "read", path: path.to_owned(), source }
}

/// Writes a checkpoint under one of the two names; returns its bytes.
pub(crate) fn write(
    disk: &dyn Disk,
    settings: &Settings,
    index: &Mutex<Index>,
    (position, name): (Position, usize),
) -> io::Result<u64> {
    let [path, _] = settings.checkpoints();
    let new = path.with_extension("new");
    let path = &settings.checkpoints()[name % 2];
    let mut file = disk.create(&new)?;
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        file.write_at(at, &mut [IoSlice::new(bytes)])?;
        at += bytes.len() as u64;
        io::Result::Ok(())
    };
    put(&header(position))?;
    let mut after = None;
    let mut count = 0_u32;
    loop {
        let entries = index.lock().entries(after, BLOCK_MESSAGES);
        let Some(last) = entries.last() else { break };
        after = Some(last.id);
        count = count.wrapping_add(u32::try_from(entries.len()).unwrap_or(0));
        put(&block(&entries)?)?;
    }
    // An empty block with the number of all messages says that nothing is missing.
    put(&block_header(&[], count))?;
    file.sync()?;
    drop(file);
    disk.rename(&new, path)?;
    disk.sync_folder(&settings.directory)?;
    Ok(at)
}

fn header(position: Position) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&position.begin.to_le_bytes());
    header[16..24].copy_from_slice(&position.sequence.to_le_bytes());
    header[24..32].copy_from_slice(&position.last_id.0.to_le_bytes());
    let sum = crc32c::crc32c(&header[..32]);
    header[32..].copy_from_slice(&sum.to_le_bytes());
    header
}

fn block(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut payload = Vec::new();
    for entry in entries {
        payload = postcard::to_extend(entry, payload).map_err(io::Error::other)?;
    }
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let mut block = block_header(&payload, count).to_vec();
    block.extend_from_slice(&payload);
    Ok(block)
}

fn block_header(payload: &[u8], count: u32) -> [u8; BLOCK_HEADER] {
    let mut header = [0; BLOCK_HEADER];
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4..8].copy_from_slice(&count.to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&header[..8]), payload);
    header[8..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Reads where a checkpoint stands.
fn head(disk: &dyn Disk, path: &Path) -> io::Result<Loaded> {
    let read = disk.look(path).and_then(|look| match look {
        Some(_) => disk.read(path, 0, HEADER).map(Some),
        None => Ok(None),
    });
    match read {
        Ok(Some(head)) => Ok(read_header(&head).map_or_else(|other| other, Loaded::Whole)),
        Ok(None) => Ok(Loaded::Absent),
        Err(error) if is_unreadable(&error) => Ok(Loaded::Damaged),
        Err(error) => Err(error),
    }
}

/// Reads a checkpoint and gives its messages to `take`. When it turns out to be damaged, some may
/// have been given already. One that the disk does not give is as good as damaged.
///
/// # Errors
/// What the system says.
pub(crate) fn load(
    disk: &dyn Disk,
    path: &Path,
    mut take: impl FnMut(Position, Entry),
) -> io::Result<Loaded> {
    let position = match head(disk, path)? {
        Loaded::Whole(position) => position,
        other => return Ok(other),
    };
    let mut at = HEADER as u64;
    let mut total = 0_u32;
    loop {
        let block = match read_block(disk, path, at) {
            Ok(Some(block)) => block,
            Ok(None) => return Ok(Loaded::Damaged),
            Err(error) if is_unreadable(&error) => return Ok(Loaded::Damaged),
            Err(error) => return Err(error),
        };
        if block.payload.is_empty() {
            let whole = block.count == total;
            return Ok(if whole { Loaded::Whole(position) } else { Loaded::Damaged });
        }
        let mut rest = &block.payload[..];
        for _ in 0..block.count {
            let Ok((entry, behind)) = postcard::take_from_bytes(rest) else {
                return Ok(Loaded::Damaged);
            };
            take(position, entry);
            rest = behind;
        }
        total = total.wrapping_add(block.count);
        at += (BLOCK_HEADER + block.payload.len()) as u64;
    }
}

/// Some messages of a checkpoint.
struct Block {
    count: u32,
    payload: Vec<u8>,
}

/// Reads a block; nothing when it is damaged.
fn read_block(disk: &dyn Disk, path: &Path, at: u64) -> io::Result<Option<Block>> {
    let head = disk.read(path, at, BLOCK_HEADER)?;
    let number = |from: usize| {
        head.get(from..).and_then(|rest| rest.first_chunk()).map(|b| u32::from_le_bytes(*b))
    };
    let (Some(length), Some(count), Some(sum)) = (number(0), number(4), number(8)) else {
        return Ok(None);
    };
    if length as usize > BLOCK_MAX {
        return Ok(None);
    }
    let payload = disk.read(path, at + BLOCK_HEADER as u64, length as usize)?;
    let right = crc32c::crc32c_append(crc32c::crc32c(&head[..8]), &payload) == sum;
    Ok((right && payload.len() == length as usize).then_some(Block { count, payload }))
}

fn read_header(head: &[u8]) -> Result<Position, Loaded> {
    let head = head.first_chunk::<HEADER>().ok_or(Loaded::Damaged)?;
    let number = |at: usize| {
        head.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
    };
    // The checksum comes first: a letter that is damaged is no other version's.
    let is_whole = head[32..] == crc32c::crc32c(&head[..32]).to_le_bytes();
    if is_whole && head[..7] == MAGIC[..7] && head[7] > MAGIC[7] {
        return Err(Loaded::Newer);
    }
    if !is_whole || head[..8] != MAGIC {
        return Err(Loaded::Damaged);
    }
    Ok(Position { begin: number(8), sequence: number(16), last_id: QueueId(number(24)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_letter_is_damage_and_no_other_version() {
        let position = Position { begin: 7, sequence: 8, last_id: QueueId(9) };
        let mut head = header(position);
        assert_eq!(read_header(&head).unwrap(), position);
        head[7] = b'9';
        assert!(matches!(read_header(&head), Err(Loaded::Damaged)));
        let sum = crc32c::crc32c(&head[..32]);
        head[32..].copy_from_slice(&sum.to_le_bytes());
        assert!(matches!(read_header(&head), Err(Loaded::Newer)));
    }
}
