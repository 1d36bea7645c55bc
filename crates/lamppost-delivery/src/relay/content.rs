//! A message's content, piece by piece.

use bytes::Bytes;
use lamppost_net::link::Port;
use lamppost_roles::{Content, ContentAnswer, ContentRequest, RelayJob};
use lamppost_smtp::Measure;

/// Bytes that are read and sent at once.
const PIECE_BYTES: usize = 128 * 1024;

/// Measures what is sent of a message: `lines`, then its content.
///
/// A content that is not here is read twice for it; a host may refuse by the size that it is told, so
/// a guess would lose mail.
pub(super) async fn measure(
    lines: &str,
    job: &RelayJob,
    port: &Port<ContentRequest, ContentAnswer>,
) -> Result<Measure, String> {
    let mut measure = Measure::default();
    measure.add(lines.as_bytes());
    let mut reader = Reader::new(job, port);
    while !reader.is_at_end() {
        measure.add(&reader.piece().await?);
    }
    Ok(measure)
}

/// Reads a content from its start to its end.
pub(super) struct Reader<'a> {
    job: &'a RelayJob,
    port: &'a Port<ContentRequest, ContentAnswer>,
    /// What comes next of a content that is here.
    next: Bytes,
    at: u64,
    length: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn new(job: &'a RelayJob, port: &'a Port<ContentRequest, ContentAnswer>) -> Self {
        let (next, length) = match &job.content {
            Content::Inline(content) => (content.clone(), content.len() as u64),
            Content::Aside { length } => (Bytes::new(), *length),
        };
        Self { job, port, next, at: 0, length }
    }

    /// The next piece; empty at the end.
    pub(super) async fn piece(&mut self) -> Result<Bytes, String> {
        if self.next.is_empty() && self.at < self.length {
            self.next = self.ask().await?;
        }
        let piece = self.next.split_to(self.next.len().min(PIECE_BYTES));
        self.at += piece.len() as u64;
        Ok(piece)
    }

    /// Whether there is no further piece.
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.length
    }

    async fn ask(&self) -> Result<Bytes, String> {
        let length_max = u32::try_from(PIECE_BYTES).unwrap_or(u32::MAX);
        let request = ContentRequest { id: self.job.id, offset: self.at, length_max };
        match self.port.ask(request).await {
            Ok(ContentAnswer::Piece(piece)) if piece.is_empty() => {
                Err("it is shorter than the queue says".into())
            }
            Ok(ContentAnswer::Piece(piece)) => Ok(piece),
            Ok(ContentAnswer::Failed(reason)) => Err(reason),
            Err(gone) => Err(gone.to_string()),
        }
    }
}
