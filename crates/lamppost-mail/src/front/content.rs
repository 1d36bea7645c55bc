//! A message's content on its way to the queue.
//!
//! Small contents wait in memory and go with their envelope in one piece. A content that grows
//! beyond `inline_max`, or that comes when the memory of all contents is used up, goes to the queue
//! piece by piece.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use lamppost_net::link::{Gone, Port};
use lamppost_roles::{Envelope, IntakeAnswer, IntakeRequest, QueueId, UploadId};
use lamppost_smtp::Refusal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::completion::Completion;
use super::header::Header;

/// The unit in which the memory of all contents is counted.
pub(super) const PAGE_BYTES: usize = 32 * 1024;
/// A header section longer than this is not searched to its end.
const HEADER_MAX: usize = 128 * 1024;

/// What contents share.
pub(super) struct Inflow<'a> {
    pub(super) intake: &'a Port<IntakeRequest, IntakeAnswer>,
    pub(super) pages: &'a Arc<Semaphore>,
    pub(super) inline_max: usize,
    pub(super) hops_max: usize,
}

/// The content of one message.
#[derive(Default)]
pub(super) struct Content {
    waiting: BytesMut,
    pages: Option<OwnedSemaphorePermit>,
    upload: Option<UploadId>,
    header_read: bool,
    header_searched: usize,
    size: u64,
    refused: Option<Refusal>,
}

impl Content {
    /// How many bytes came so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Takes a piece; what goes wrong is told by [`Content::finish`].
    pub(super) async fn append(
        &mut self,
        inflow: &Inflow<'_>,
        piece: &Bytes,
        fill: Option<&Completion>,
    ) {
        self.size += piece.len() as u64;
        if self.refused.is_some() {
            return;
        }
        self.waiting.extend_from_slice(piece);
        if !self.header_read && self.header_has_come() {
            self.read_header(inflow.hops_max, fill);
        }
        let fits = self.reserve(inflow.pages) && self.waiting.len() <= inflow.inline_max;
        if self.header_read && !fits {
            self.spill(inflow).await;
        }
    }

    /// Hands the message in; returns its id once it is durable.
    pub(super) async fn finish(
        mut self,
        inflow: &Inflow<'_>,
        envelope: Envelope,
        fill: Option<&Completion>,
    ) -> Result<QueueId, Unstored> {
        if !self.header_read {
            self.read_header(inflow.hops_max, fill);
        }
        if let Some(refusal) = self.refused.clone() {
            self.abort(inflow).await;
            return Err(Unstored::Refused(refusal));
        }
        let question = match self.upload {
            None => IntakeRequest::Submit { envelope, content: self.waiting.split().freeze() },
            Some(upload) => {
                if !self.waiting.is_empty() {
                    self.spill(inflow).await;
                }
                if let Some(refusal) = self.refused {
                    return Err(Unstored::Refused(refusal));
                }
                IntakeRequest::Finish { upload, envelope }
            }
        };
        match inflow.intake.ask(question).await {
            Ok(IntakeAnswer::Stored(id)) => Ok(id),
            Ok(IntakeAnswer::Refused(refusal)) => Err(Unstored::Refused(refusal)),
            Ok(_) => Err(Unstored::Refused(Refusal::Unavailable)),
            Err(Gone) => Err(Unstored::Unknown),
        }
    }

    /// Forgets what came.
    pub(super) async fn abort(self, inflow: &Inflow<'_>) {
        if let Some(upload) = self.upload {
            // A queue that is gone has forgotten the upload too.
            drop(ask(inflow.intake, IntakeRequest::Abort { upload }).await);
        }
    }

    /// Whether the empty line after the header, or as much as is searched, is there.
    fn header_has_come(&mut self) -> bool {
        let from = self.header_searched.saturating_sub(1);
        self.header_searched = self.waiting.len();
        self.waiting.starts_with(b"\n")
            || self.waiting.len() > HEADER_MAX
            || memchr::memmem::find(&self.waiting[from..], b"\n\n").is_some()
    }

    fn read_header(&mut self, hops_max: usize, fill: Option<&Completion>) {
        self.header_read = true;
        let header = Header::read(&self.waiting);
        if header.received > hops_max {
            self.refused = Some(Refusal::Loop);
        }
        let missing = fill.map(|fill| fill.missing(&header)).unwrap_or_default();
        if !missing.is_empty() {
            let mut rest = self.waiting.split_off(header.end);
            if !self.waiting.is_empty() && !self.waiting.ends_with(b"\n") {
                self.waiting.extend_from_slice(b"\n");
            }
            self.waiting.extend_from_slice(missing.as_bytes());
            if !header.closed && !rest.is_empty() {
                self.waiting.extend_from_slice(b"\n");
            }
            self.waiting.unsplit(std::mem::take(&mut rest));
        }
    }

    /// Counts what waits against the memory of all contents; false when that is used up.
    fn reserve(&mut self, pages: &Arc<Semaphore>) -> bool {
        let held = self.pages.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = self.waiting.len().div_ceil(PAGE_BYTES).saturating_sub(held);
        let Ok(wanted) = u32::try_from(wanted) else {
            return false;
        };
        match pages.clone().try_acquire_many_owned(wanted) {
            Ok(more) => {
                match &mut self.pages {
                    Some(pages) => pages.merge(more),
                    none => *none = Some(more),
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Hands in what waits as a piece of an upload.
    async fn spill(&mut self, inflow: &Inflow<'_>) {
        if let Err(refusal) = self.try_spill(inflow).await {
            self.upload = None;
            self.refused = Some(refusal);
        }
        self.waiting.clear();
        self.pages = None;
    }

    async fn try_spill(&mut self, inflow: &Inflow<'_>) -> Result<(), Refusal> {
        let upload = if let Some(upload) = self.upload {
            upload
        } else {
            let IntakeAnswer::Upload(upload) = ask(inflow.intake, IntakeRequest::Begin).await?
            else {
                return Err(Refusal::Unavailable);
            };
            self.upload = Some(upload);
            upload
        };
        let piece = self.waiting.split().freeze();
        ask(inflow.intake, IntakeRequest::Append { upload, piece }).await.map(drop)
    }
}

/// Why a message has no id.
pub(super) enum Unstored {
    /// It was not taken.
    Refused(Refusal),
    /// The queue ended before it answered: it may have the message or not.
    Unknown,
}

/// Asks the queue; a refusal, or a queue that is gone, is an error.
pub(super) async fn ask(
    intake: &Port<IntakeRequest, IntakeAnswer>,
    question: IntakeRequest,
) -> Result<IntakeAnswer, Refusal> {
    match intake.ask(question).await {
        Ok(IntakeAnswer::Refused(refusal)) => Err(refusal),
        Ok(answer) => Ok(answer),
        Err(_) => Err(Refusal::Unavailable),
    }
}
