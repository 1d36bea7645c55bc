//! The queue's part of a backup: from the running program, or from a spool on which none runs.

use std::io;

use lamppost_console::Client;
use lamppost_queue::OfflineSpool;
use lamppost_roles::{ControlAnswer, ControlRequest, Snapshot};

use super::{SPOOL, STATE, Work, unwritten};
use crate::command::queue::source::{settings, unopened};
use crate::command::unanswered;
use crate::exit::{Code, Failure};
use crate::place::Opened;

/// Bytes that are read at once.
const PIECE_BYTES: u32 = 1024 * 1024;

/// Files that come one behind the other, after a line that names them.
struct Coming<'a> {
    work: &'a mut Work,
    head: Vec<u8>,
    snapshot: Option<Snapshot>,
    /// The file that comes next.
    next: usize,
    /// Bytes that are still to come of the one before.
    left: u64,
    /// Why the backup cannot be written.
    failure: Option<io::Error>,
}

/// Copies the queue of the running program; returns how many messages are in it.
pub(super) async fn running(work: &mut Work, client: &Client) -> Result<u64, Failure> {
    let mut coming =
        Coming { work, head: Vec::new(), snapshot: None, next: 0, left: 0, failure: None };
    let take = |piece: &[u8]| coming.take(piece);
    let streamed = client.stream("/v1/queue/snapshot", take).await;
    if let Some(error) = &coming.failure {
        return Err(unwritten(&coming.work.file, error));
    }
    streamed.map_err(|error| {
        unanswered(&error).cure("nothing is written; the program's log tells why, try again")
    })?;
    match coming.snapshot {
        Some(snapshot) if coming.left == 0 && coming.next == snapshot.files.len() => {
            Ok(snapshot.messages)
        }
        _ => Err(Failure::new(Code::Software, "the running program sent a part of the queue only")),
    }
}

impl Coming<'_> {
    fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        self.put(piece).map_err(|error| {
            let text = error.to_string();
            self.failure = Some(error);
            io::Error::other(text)
        })
    }

    fn put(&mut self, mut piece: &[u8]) -> io::Result<()> {
        if self.snapshot.is_none() {
            let end = piece.iter().position(|&byte| byte == b'\n');
            self.head.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            let Some(end) = end else { return Ok(()) };
            self.snapshot = Some(serde_json::from_slice(&self.head)?);
            piece = &piece[end + 1..];
            self.begin()?;
        }
        while !piece.is_empty() {
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(piece.len());
            if count == 0 {
                return Err(io::Error::other("the running program sent more than the queue"));
            }
            self.work.writer.put(&piece[..count])?;
            self.work.progress.add(count as u64 / 1024);
            self.left -= count as u64;
            piece = &piece[count..];
            self.begin()?;
        }
        Ok(())
    }

    /// Begins the next file of which anything comes, and all before it.
    fn begin(&mut self) -> io::Result<()> {
        let files = self.snapshot.iter().flat_map(|snapshot| &snapshot.files);
        for file in files.skip(self.next) {
            if self.left > 0 {
                break;
            }
            self.work.writer.file(&name(&file.name), file.length)?;
            self.left = file.length;
            self.next += 1;
        }
        Ok(())
    }
}

fn name(in_spool: &str) -> String {
    format!("{STATE}/{SPOOL}/{in_spool}")
}

/// Copies the queue of a program that does not run, and keeps one from starting meanwhile.
pub(super) fn offline(work: &mut Work, opened: &Opened) -> Result<u64, Failure> {
    let spool = OfflineSpool::open(settings(opened)).map_err(|error| unopened(&error))?;
    if !spool.report().is_sound() {
        return Err(Failure::new(Code::Data, "the spool is damaged")
            .cure("`lamppost queue check --repair`, then begin again"));
    }
    let snapshot = match spool.ask(ControlRequest::Snapshot) {
        ControlAnswer::Snapshot(snapshot) => snapshot,
        other => return Err(unexpected(&other)),
    };
    for (file, known) in (0..).zip(&snapshot.files) {
        let begun = work.writer.file(&name(&known.name), known.length);
        begun.map_err(|error| unwritten(&work.file, &error))?;
        let mut offset = 0;
        while offset < known.length {
            let snapshot = snapshot.snapshot;
            let length_max = PIECE_BYTES;
            let request = ControlRequest::ReadSnapshot { snapshot, file, offset, length_max };
            match spool.ask(request) {
                ControlAnswer::Piece(piece) if !piece.is_empty() => {
                    let put = work.writer.put(&piece);
                    put.map_err(|error| unwritten(&work.file, &error))?;
                    offset += piece.len() as u64;
                    work.progress.add(piece.len() as u64 / 1024);
                }
                other => return Err(unexpected(&other)),
            }
        }
    }
    Ok(snapshot.messages)
}

fn unexpected(answer: &ControlAnswer) -> Failure {
    match answer {
        ControlAnswer::Failed(reason) => Failure::new(Code::Io, reason),
        _ => Failure::new(Code::Software, "the spool gave no proper answer"),
    }
}
