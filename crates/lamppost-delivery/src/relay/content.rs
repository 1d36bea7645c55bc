//! A message's content, piece by piece.

use bytes::Bytes;
use lamppost_net::link::Port;
use lamppost_roles::{Content, ContentAnswer, ContentRequest, RelayJob};

/// Bytes that are read and sent at once.
const PIECE_BYTES: usize = 128 * 1024;

/// Reads a content from its start to its end.
pub(super) struct Reader<'a> {
    job: &'a RelayJob,
    port: &'a Port<ContentRequest, ContentAnswer>,
    first: Bytes,
    /// What comes next of a content that is here.
    next: Bytes,
    at: u64,
    length: u64,
}

impl<'a> Reader<'a> {
    /// Reads the first piece, which tells what the header section is like.
    pub(super) async fn open(
        job: &'a RelayJob,
        port: &'a Port<ContentRequest, ContentAnswer>,
    ) -> Result<Self, String> {
        let (first, length) = match &job.content {
            Content::Inline(content) => (content.clone(), content.len() as u64),
            Content::Aside { length } => (Bytes::new(), *length),
        };
        let mut reader = Self { job, port, next: first.clone(), first, at: 0, length };
        if matches!(job.content, Content::Aside { .. }) && length > 0 {
            reader.first = reader.ask().await?;
            reader.next = reader.first.clone();
        }
        Ok(reader)
    }

    /// The first piece: all of a content that is here.
    pub(super) fn first(&self) -> &[u8] {
        &self.first
    }

    /// About how many bytes it has on the wire, where each line end is one more.
    pub(super) fn size(&self) -> u64 {
        let line_ends = self.first.split(|&byte| byte == b'\n').count() as u64;
        // Lines of what is not here are taken to be as long as those that are.
        let share = self.length / (self.first.len() as u64).max(1);
        self.length + line_ends * share.max(1)
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
