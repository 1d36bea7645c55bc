//! What administrators see and change, and the contents that delivery reads.

use std::sync::Arc;

use lamppost_net::link::Inbox;
use lamppost_roles::{
    ContentAnswer, ContentRequest, ControlAnswer, ControlRequest, Listing, MessageView, QueueId,
    RecipientState, RecipientView, Selection, Verb,
};
use tracing::info;

use crate::index::Message;
use crate::record::{Progress, RecipientRecord, Record};
use crate::spool::Spool;

/// Messages on a page of a listing.
const PAGE_MAX: u32 = 1000;
/// Bytes in a piece of content.
const PIECE_MAX: u32 = 1024 * 1024;

/// Answers administrators until they are gone.
pub(crate) async fn serve(spool: Arc<Spool>, mut inbox: Inbox<ControlRequest, ControlAnswer>) {
    while let Some((request, reply)) = inbox.next().await {
        let spool = spool.clone();
        tokio::spawn(async move { reply.send(answer(&spool, request).await) });
    }
}

/// Gives delivery the large contents, until it is gone.
pub(crate) async fn serve_content(
    spool: Arc<Spool>,
    mut inbox: Inbox<ContentRequest, ContentAnswer>,
) {
    while let Some((ContentRequest { id, offset, length_max }, reply)) = inbox.next().await {
        let spool = spool.clone();
        tokio::task::spawn_blocking(move || {
            reply.send(match spool.read(id, offset, length_max.min(PIECE_MAX)) {
                Some(Ok(piece)) => ContentAnswer::Piece(piece),
                Some(Err(error)) => ContentAnswer::Failed(error.to_string()),
                None => ContentAnswer::Failed("the message is no longer in the queue".into()),
            });
        });
    }
}

async fn answer(spool: &Arc<Spool>, request: ControlRequest) -> ControlAnswer {
    match request {
        ControlRequest::Status => ControlAnswer::Status(spool.status()),
        ControlRequest::List { after, limit } => list(spool, after, limit.min(PAGE_MAX)),
        ControlRequest::Show(id) => match spool.index.lock().message(id) {
            Some(message) => ControlAnswer::Message(view(id, message)),
            None => ControlAnswer::NotFound,
        },
        ControlRequest::Read { id, offset, length_max } => {
            let reader = spool.clone();
            let reading = move || reader.read(id, offset, length_max.min(PIECE_MAX));
            match tokio::task::spawn_blocking(reading).await {
                Ok(Some(Ok(piece))) => ControlAnswer::Piece(piece),
                Ok(None) => ControlAnswer::NotFound,
                Ok(Some(Err(error))) => ControlAnswer::Failed(error.to_string()),
                Err(error) => ControlAnswer::Failed(error.to_string()),
            }
        }
        ControlRequest::Change { verb, selection } => change(spool, verb, selection).await,
    }
}

fn list(spool: &Spool, after: Option<QueueId>, limit: u32) -> ControlAnswer {
    let index = spool.index.lock();
    let mut rest = index.after(after);
    let messages =
        rest.by_ref().take(limit as usize).map(|(id, message)| view(id, message)).collect();
    ControlAnswer::Listing(Listing { messages, more: rest.next().is_some() })
}

fn view(id: QueueId, message: &Message) -> MessageView {
    let recipients = message.envelope.recipients.iter().zip(&message.recipients);
    let recipients = (0..).zip(recipients).map(|(index, (recipient, record))| RecipientView {
        address: recipient.address.clone(),
        state: match record.progress {
            _ if message.busy.contains(&index) => RecipientState::Delivering,
            Progress::Waiting { due } | Progress::Intended { due } => {
                RecipientState::Waiting { due }
            }
            Progress::Delivered => RecipientState::Delivered,
            Progress::Failed => RecipientState::Failed,
        },
        last: record.last.clone(),
        attempts: record.attempts,
    });
    MessageView {
        id,
        sender: message.envelope.sender.clone(),
        size: message.size,
        origin: message.envelope.origin.clone(),
        held: message.held,
        recipients: recipients.collect(),
    }
}

async fn change(spool: &Arc<Spool>, verb: Verb, selection: Selection) -> ControlAnswer {
    let ids = match selection {
        Selection::Ids(ids) => ids,
        Selection::All => spool.index.lock().after(None).map(|(id, _)| id).collect(),
    };
    let mut changed = 0;
    for id in ids {
        match change_one(spool, verb, id).await {
            Ok(did) => changed += u64::from(did),
            Err(error) => return ControlAnswer::Failed(error.to_string()),
        }
    }
    ControlAnswer::Changed(changed)
}

/// Changes a message; false when there is none, or nothing to change.
///
/// A message whose delivery is under way may still arrive: holding and deleting stop the tries
/// after it.
async fn change_one(
    spool: &Arc<Spool>,
    verb: Verb,
    id: QueueId,
) -> Result<bool, crate::committer::CommitFailed> {
    let (held, retried) = {
        let index = spool.index.lock();
        let Some(message) = index.message(id) else {
            return Ok(false);
        };
        (message.held, retried(spool, message))
    };
    match verb {
        Verb::Hold | Verb::Release if held == (verb == Verb::Hold) => return Ok(false),
        Verb::Hold | Verb::Release => {
            let held = verb == Verb::Hold;
            let apply = move |spool: &Spool| spool.index.lock().hold(id, held);
            spool.change(&Record::Held { id, held }, apply).await?;
        }
        Verb::Retry if retried.is_empty() => return Ok(false),
        Verb::Retry => spool.progress(id, retried).await?,
        Verb::Delete => {
            let apply = move |spool: &Spool| {
                let message = spool.index.lock().take(id);
                spool.ended(id, message);
            };
            spool.change(&Record::Deleted { id }, apply).await?;
            info!(queue_id = %id, "message deleted");
        }
    }
    Ok(true)
}

/// The recipients that a retry concerns, due now. Those that failed for good wait again.
fn retried(spool: &Spool, message: &Message) -> Vec<(u32, RecipientRecord)> {
    let due = spool.now();
    let recipients =
        (0..).zip(&message.recipients).filter(|(index, _)| !message.busy.contains(index));
    let retried = recipients.filter_map(|(index, record)| {
        let progress = match record.progress {
            Progress::Waiting { .. } | Progress::Failed => Progress::Waiting { due },
            Progress::Intended { .. } => Progress::Intended { due },
            Progress::Delivered => return None,
        };
        Some((index, RecipientRecord { progress, ..record.clone() }))
    });
    retried.collect()
}
