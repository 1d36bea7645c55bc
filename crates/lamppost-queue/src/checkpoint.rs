//! A checkpoint: the index on disk, so that a start need not read the whole log
//! (docs/reference/spool-format.md).
//!
//! It is written while the queue goes on, piece by piece, and so is of no one moment. That does no
//! harm: whatever was changed while it was written stands in the segments from `begin` on, which
//! are replayed over it.

use std::io::{self, IoSlice};
use std::path::Path;

use lamppost_disk::Disk;
use lamppost_roles::QueueId;
use parking_lot::Mutex;

use crate::Settings;
use crate::index::{Entry, Index};

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

/// Writes a checkpoint in the place of the one before; returns its bytes.
pub(crate) fn write(
    disk: &dyn Disk,
    settings: &Settings,
    index: &Mutex<Index>,
    position: Position,
) -> io::Result<u64> {
    let path = settings.checkpoint();
    let new = path.with_extension("new");
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
    disk.rename(&new, &path)?;
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

/// Reads the checkpoint and gives its messages to `take`. When it turns out to be damaged, some may
/// have been given already.
///
/// # Errors
/// What the system says.
pub(crate) fn load(
    disk: &dyn Disk,
    path: &Path,
    mut take: impl FnMut(Position, Entry),
) -> io::Result<Loaded> {
    if disk.look(path)?.is_none() {
        return Ok(Loaded::Absent);
    }
    let head = disk.read(path, 0, HEADER)?;
    let position = match read_header(&head) {
        Ok(position) => position,
        Err(loaded) => return Ok(loaded),
    };
    let mut at = HEADER as u64;
    let mut total = 0_u32;
    loop {
        let head = disk.read(path, at, BLOCK_HEADER)?;
        let number = |from: usize| {
            head.get(from..).and_then(|rest| rest.first_chunk()).map(|b| u32::from_le_bytes(*b))
        };
        let (Some(length), Some(count), Some(sum)) = (number(0), number(4), number(8)) else {
            return Ok(Loaded::Damaged);
        };
        if length as usize > BLOCK_MAX {
            return Ok(Loaded::Damaged);
        }
        let payload = disk.read(path, at + BLOCK_HEADER as u64, length as usize)?;
        let right = crc32c::crc32c_append(crc32c::crc32c(&head[..8]), &payload) == sum;
        if !right || payload.len() != length as usize {
            return Ok(Loaded::Damaged);
        }
        if length == 0 {
            let whole = count == total;
            return Ok(if whole { Loaded::Whole(position) } else { Loaded::Damaged });
        }
        let mut rest = &payload[..];
        for _ in 0..count {
            let Ok((entry, behind)) = postcard::take_from_bytes(rest) else {
                return Ok(Loaded::Damaged);
            };
            take(position, entry);
            rest = behind;
        }
        total = total.wrapping_add(count);
        at += (BLOCK_HEADER + payload.len()) as u64;
    }
}

fn read_header(head: &[u8]) -> Result<Position, Loaded> {
    let head = head.first_chunk::<HEADER>().ok_or(Loaded::Damaged)?;
    let number = |at: usize| {
        head.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
    };
    if head[..7] == MAGIC[..7] && head[7] > MAGIC[7] {
        return Err(Loaded::Newer);
    }
    if head[..8] != MAGIC || head[32..] != crc32c::crc32c(&head[..32]).to_le_bytes() {
        return Err(Loaded::Damaged);
    }
    Ok(Position { begin: number(8), sequence: number(16), last_id: QueueId(number(24)) })
}
