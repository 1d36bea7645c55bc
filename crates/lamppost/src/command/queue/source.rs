//! Where messages are read: from the running program, or from the spool itself when none runs.

use lamppost_console::{Client, ClientError};
use lamppost_queue::{OfflineSpool, StartError};
use lamppost_roles::{ControlAnswer, ControlRequest, Filter, Listing, MessageView, QueueId};

use super::{filters, unanswered};
use crate::exit::{Code, Failure};
use crate::place::Opened;

/// Messages on a page.
const PAGE: u32 = 1000;
/// Bytes of content that are read from a spool at once.
const PIECE_BYTES: u32 = 1024 * 1024;

/// Where messages are read.
pub(super) enum Source {
    /// The running program.
    Running(Client),
    /// The spool, under its lock.
    Offline(Box<OfflineSpool>),
}

/// The messages that are meant, page by page, so that a long queue needs no memory.
pub(super) struct Pages<'a> {
    source: &'a Source,
    filter: Filter,
    after: Option<QueueId>,
    /// The newest message when the first page was made; a busy queue would never come to its end.
    until: Option<QueueId>,
    is_over: bool,
}

impl Source {
    /// Opens the spool itself.
    pub(super) fn offline(opened: &Opened) -> Result<Self, Failure> {
        let spool = OfflineSpool::open(settings(opened)).map_err(|error| unopened(&error))?;
        Ok(Self::Offline(Box::new(spool)))
    }

    /// All messages that are in the queue now and that are meant.
    pub(super) fn pages(&self, filter: Filter) -> Pages<'_> {
        Pages { source: self, filter, after: None, until: None, is_over: false }
    }

    async fn page(&self, after: Option<QueueId>, filter: &Filter) -> Result<Listing, Failure> {
        match self {
            Self::Running(client) => {
                let after = after.map(|id| format!("&after={id}")).unwrap_or_default();
                let path = format!("/v1/queue?limit={PAGE}{after}{}", filters::query(filter));
                client.get(&path).await.map_err(|error| unanswered(&error))
            }
            Self::Offline(spool) => {
                let filter = filter.clone();
                match spool.ask(ControlRequest::List { after, limit: PAGE, filter }) {
                    ControlAnswer::Listing(listing) => Ok(listing),
                    other => Err(unexpected(other)),
                }
            }
        }
    }

    /// A message; nothing when it is not in the queue.
    pub(super) async fn show(&self, id: QueueId) -> Result<Option<MessageView>, Failure> {
        let shown = self.known(id).await?;
        // A damaged one that has left the queue is shown all the same.
        if shown.as_ref().is_none_or(|message| message.fault.is_none()) {
            return Ok(shown);
        }
        let before = Some(QueueId(id.0.saturating_sub(1)));
        let listing = self.page(before, &Filter::default()).await?;
        let is_there = listing.messages.first().is_some_and(|first| first.id == id);
        Ok(shown.filter(|_| is_there))
    }

    async fn known(&self, id: QueueId) -> Result<Option<MessageView>, Failure> {
        match self {
            Self::Running(client) => match client.get(&format!("/v1/queue/{id}")).await {
                Ok(message) => Ok(Some(message)),
                Err(ClientError::NotFound(_)) => Ok(None),
                Err(error) => Err(unanswered(&error)),
            },
            Self::Offline(spool) => match spool.ask(ControlRequest::Show(id)) {
                ControlAnswer::Message(message) => Ok(Some(message)),
                ControlAnswer::NotFound => Ok(None),
                other => Err(unexpected(other)),
            },
        }
    }

    /// Passes a message's content on; false when it is not in the queue.
    pub(super) async fn content(
        &self,
        id: QueueId,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()> + Send,
    ) -> Result<bool, Failure> {
        let spool = match self {
            Self::Running(client) => {
                let path = format!("/v1/queue/{id}/content");
                return match client.stream(&path, take).await {
                    Ok(()) => Ok(true),
                    Err(ClientError::NotFound(_)) => Ok(false),
                    Err(error) => Err(unanswered(&error)),
                };
            }
            Self::Offline(spool) => spool,
        };
        let mut offset = 0;
        loop {
            let request = ControlRequest::Read { id, offset, length_max: PIECE_BYTES };
            match spool.ask(request) {
                ControlAnswer::Piece(piece) if piece.is_empty() => return Ok(true),
                ControlAnswer::Piece(piece) => {
                    offset += piece.len() as u64;
                    take(&piece).map_err(|error| Failure::at(Code::Io, "cannot write", &error))?;
                }
                ControlAnswer::NotFound => return Ok(false),
                other => return Err(unexpected(other)),
            }
        }
    }
}

impl Pages<'_> {
    /// The next page that is not empty; nothing at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<MessageView>>, Failure> {
        while !self.is_over {
            let page = self.source.page(self.after, &self.filter).await?;
            let until = *self.until.get_or_insert(page.newest);
            let Listing { messages, next, .. } = bounded(page, until);
            self.is_over = next.is_none();
            self.after = next;
            if !messages.is_empty() {
                return Ok(Some(messages));
            }
        }
        Ok(None)
    }
}

/// A page without what came since. What that is, only the queue can tell: its clock may have been put back since
/// it gave a message its id, and then the time of whoever asks is before that.
fn bounded(page: Listing, until: QueueId) -> Listing {
    let Listing { mut messages, next, newest } = page;
    messages.retain(|message| message.id <= until);
    Listing { messages, next: next.filter(|next| *next < until), newest }
}

/// The queue's settings, as far as they matter while nothing runs.
pub(in crate::command) fn settings(opened: &Opened) -> lamppost_queue::Settings {
    lamppost_queue::Settings {
        directory: opened.state.join("spool"),
        hostname: opened.hostname(),
        segment_size: opened.config.mail.queue.segment_size.0,
        ..lamppost_queue::Settings::default()
    }
}

/// What to tell when a spool cannot be opened.
pub(in crate::command) fn unopened(error: &StartError) -> Failure {
    match error {
        StartError::Held { .. } => Failure::of(Code::Unavailable, error).cure(
            "this reads the spool of a program that does not run; of a running one, \
             `lamppost status` tells whether the spool is well",
        ),
        StartError::Format { .. } => Failure::of(Code::Data, error),
        StartError::Disk { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Failure::of(Code::Data, error)
                .cure("there is no spool; name the same --state or --config as `lamppost run`")
        }
        StartError::Disk { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Failure::of(Code::Permission, error)
                .cure("run this as root or as the user that lamppost runs as")
        }
        _ => Failure::of(Code::Io, error),
    }
}

fn unexpected(answer: ControlAnswer) -> Failure {
    match answer {
        ControlAnswer::Failed(reason) => Failure::new(Code::Data, reason),
        _ => Failure::new(Code::Software, "the spool gave no proper answer"),
    }
}

#[cfg(test)]
mod tests {
    use lamppost_roles::Timestamp;

    use super::*;

    fn message(id: QueueId) -> MessageView {
        MessageView {
            id,
            sender: lamppost_smtp::ReversePath::Null,
            size: 1,
            held: false,
            origin: None,
            fault: None,
            recipients: Vec::new(),
        }
    }

    /// All ids are of tomorrow, as after the clock was put back.
    #[test]
    fn what_was_there_is_listed_whatever_the_clock_says_and_what_came_since_is_not() {
        let tomorrow = out_of_reach();
        let id = |number: u64| QueueId(tomorrow.0 + number);
        let listed = |ids: &[u64], next: Option<u64>, newest: u64, until: u64| {
            let messages = ids.iter().map(|number| message(id(*number))).collect();
            let page = Listing { messages, next: next.map(id), newest: id(newest) };
            let Listing { messages, next, .. } = bounded(page, id(until));
            (messages.len(), next)
        };
        assert_eq!(listed(&[1, 2, 3], Some(3), 9, 9), (3, Some(id(3))));
        assert_eq!(listed(&[7, 8, 9], Some(9), 9, 9), (3, None));
        assert_eq!(listed(&[7, 9, 12], Some(12), 20, 9), (2, None));
        assert_eq!(listed(&[9], None, 9, 9), (1, None));
    }

    fn out_of_reach() -> QueueId {
        let day_ms = 24 * 60 * 60 * 1000;
        QueueId::first_at(Timestamp(crate::command::out::now_ms() + day_ms))
    }
}
