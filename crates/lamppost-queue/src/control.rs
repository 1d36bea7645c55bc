//! What administrators see, and the contents that delivery reads.

use std::sync::Arc;

use lamppost_net::link::Inbox;
use lamppost_roles::{
    ContentAnswer, ContentRequest, ControlAnswer, ControlRequest, Filter, Listing, MessageView,
    QueueId, RecipientView,
};

use crate::change::change;
use crate::filter::{due, is_meant, may_be_meant, needs_envelope, state};
use crate::record::MessageRecord;
use crate::spool::Spool;

/// Messages on a page of a listing.
const PAGE_MAX: u32 = 1000;
/// Recipients on a page, after which it ends: an answer has a bounded size.
const RECIPIENTS_MAX: usize = 5000;
/// Messages that are looked at for a page; a page may be empty before the end.
const LOOK_MAX: usize = 20_000;
/// Messages that are looked at under one lock.
const CHUNK: usize = 1000;
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
        tokio::spawn(async move {
            let reader = spool.clone();
            let reading = move || reader.read(id, offset, length_max.min(PIECE_MAX));
            reply.send(match spool.settings.blocking.run(reading).await {
                Ok(Ok(Some(piece))) => ContentAnswer::Piece(piece),
                Ok(Ok(None)) => {
                    ContentAnswer::Failed("the message is no longer in the queue".into())
                }
                Ok(Err(error)) => ContentAnswer::Failed(error.to_string()),
                Err(cut) => ContentAnswer::Failed(cut.to_string()),
            });
        });
    }
}

async fn answer(spool: &Arc<Spool>, request: ControlRequest) -> ControlAnswer {
    match request {
        ControlRequest::Status => ControlAnswer::Status(spool.status()),
        ControlRequest::Change { verb, selection, by } => change(spool, verb, selection, by).await,
        ControlRequest::Snapshot => spool.take_snapshot().await,
        ControlRequest::EndSnapshot(snapshot) => spool.end_snapshot(snapshot),
        request => {
            let reader = spool.clone();
            let reading = spool.settings.blocking.run(move || read(&reader, request)).await;
            reading.unwrap_or_else(|cut| ControlAnswer::Failed(cut.to_string()))
        }
    }
}

/// Answers what must be read from the disk.
pub(crate) fn read(spool: &Spool, request: ControlRequest) -> ControlAnswer {
    match request {
        ControlRequest::List { after, limit, filter } => {
            ControlAnswer::Listing(list(spool, after, limit.min(PAGE_MAX), &filter))
        }
        ControlRequest::Show(id) => match view(spool, id) {
            Some(view) => ControlAnswer::Message(view),
            None => match spool.quarantined(id) {
                Some(view) => ControlAnswer::Message(view),
                None => ControlAnswer::NotFound,
            },
        },
        ControlRequest::Read { id, offset, length_max } => {
            // Whoever reads a large content from its beginning is not given a damaged one as whole.
            let proved = if offset == 0 { spool.prove(id) } else { Ok(()) };
            match proved.and_then(|()| spool.read(id, offset, length_max.min(PIECE_MAX))) {
                Ok(Some(piece)) => ControlAnswer::Piece(piece),
                Ok(None) => ControlAnswer::NotFound,
                Err(error) => ControlAnswer::Failed(error.to_string()),
            }
        }
        ControlRequest::ReadSnapshot { snapshot, file, offset, length_max } => {
            spool.read_snapshot((snapshot, file), offset, length_max.min(PIECE_MAX))
        }
        // These need no disk, or the committer, and never come here.
        ControlRequest::Status
        | ControlRequest::Change { .. }
        | ControlRequest::Snapshot
        | ControlRequest::EndSnapshot(_) => ControlAnswer::NotFound,
    }
}

/// A page of the messages that are meant. Long queues are looked at in pieces, so that nobody waits
/// for the lock.
fn list(spool: &Spool, mut after: Option<QueueId>, limit: u32, filter: &Filter) -> Listing {
    let (mut messages, mut recipients) = (Vec::new(), 0);
    let newest = *spool.last_id.lock();
    for _ in 0..LOOK_MAX / CHUNK {
        let mut last = None;
        let mut ids = Vec::new();
        {
            let index = spool.index.lock();
            for (id, message) in index.after(after).take(CHUNK) {
                last = Some(id);
                if may_be_meant(filter, &index, (id, message)) {
                    ids.push(id);
                }
            }
        }
        let Some(last) = last else { return Listing { messages, next: None, newest } };
        for id in ids {
            if messages.len() >= limit as usize || recipients >= RECIPIENTS_MAX {
                return Listing { messages, next: after, newest };
            }
            let meant = meant(spool, id, filter);
            recipients += meant.as_ref().map_or(0, |message| message.recipients.len());
            messages.extend(meant);
            after = Some(id);
        }
        after = Some(last);
    }
    Listing { messages, next: after, newest }
}

fn meant(spool: &Spool, id: QueueId, filter: &Filter) -> Option<MessageView> {
    if needs_envelope(filter) {
        let record = spool.load_record(id).ok()??;
        if !is_meant(filter, &record.envelope) {
            return None;
        }
    }
    view(spool, id)
}

/// A message as administrators see it; nothing when it is gone.
pub(crate) fn view(spool: &Spool, id: QueueId) -> Option<MessageView> {
    let read = spool.load_record(id);
    let known = spool.quarantined.lock().get(&id).cloned();
    let index = spool.index.lock();
    let message = index.message(id)?;
    let (record, fault) = match read {
        Ok(record) => (record, known),
        Err(error) => (None, Some(error.to_string())),
    };
    let recipients = message.recipients.iter().enumerate().map(|(place, recipient)| {
        let known = record.as_ref().and_then(|record| record.envelope.recipients.get(place));
        let address = known.map(|known| known.address.to_string());
        RecipientView {
            address: address.unwrap_or_else(|| account(&index.route(recipient))),
            state: state(recipient),
            due: due(recipient),
            attempts: recipient.attempts,
            last: index.last(recipient),
        }
    });
    Some(MessageView {
        id,
        sender: index.sender(message),
        size: message.size,
        held: message.held,
        recipients: recipients.collect(),
        origin: record.map(|record: MessageRecord| record.envelope.origin),
        fault,
    })
}

/// What is known of a recipient whose record is damaged.
pub(crate) fn account(route: &lamppost_roles::Route) -> String {
    match route {
        lamppost_roles::Route::Mailbox(account) => account.to_string(),
        _ => "?".into(),
    }
}
