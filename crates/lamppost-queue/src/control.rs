//! What administrators see and change, and the contents that delivery reads.

use std::sync::Arc;

use lamppost_net::link::Inbox;
use lamppost_roles::{
    Attempt, ContentAnswer, ContentRequest, ControlAnswer, ControlRequest, Filter, Listing,
    MessageView, QueueId, Reason, RecipientState, RecipientView, Selection, Verb,
};
use lamppost_smtp::Status;
use tracing::info;

use crate::bounce::told;
use crate::committer::CommitFailed;
use crate::filter::{is_meant, may_be_meant, needs_envelope};
use crate::index::{Message, Recipient};
use crate::record::{MessageRecord, Progress, RecipientRecord, Record};
use crate::spool::Spool;

/// Messages on a page of a listing.
const PAGE_MAX: u32 = 1000;
/// Messages that are looked at for a page; a page may be empty before the end.
const LOOK_MAX: usize = 20_000;
/// Messages that are looked at under one lock, and changed by one record.
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
        ControlRequest::Change { verb, selection } => change(spool, verb, selection).await,
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
            match spool.read(id, offset, length_max.min(PIECE_MAX)) {
                Ok(Some(piece)) => ControlAnswer::Piece(piece),
                Ok(None) => ControlAnswer::NotFound,
                Err(error) => ControlAnswer::Failed(error.to_string()),
            }
        }
        // These need no disk and never come here.
        ControlRequest::Status | ControlRequest::Change { .. } => ControlAnswer::NotFound,
    }
}

/// A page of the messages that are meant. Long queues are looked at in pieces, so that nobody waits
/// for the lock.
fn list(spool: &Spool, mut after: Option<QueueId>, limit: u32, filter: &Filter) -> Listing {
    let mut messages = Vec::new();
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
        let Some(last) = last else { return Listing { messages, next: None } };
        for id in ids {
            if messages.len() >= limit as usize {
                return Listing { messages, next: after };
            }
            messages.extend(meant(spool, id, filter));
            after = Some(id);
        }
        after = Some(last);
    }
    Listing { messages, next: after }
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
            last: index.last(recipient),
            attempts: recipient.attempts,
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

fn state(recipient: &Recipient) -> RecipientState {
    match recipient.progress {
        _ if recipient.is_under_way() => RecipientState::Delivering,
        Progress::Waiting { due } | Progress::Intended { due } => RecipientState::Waiting { due },
        Progress::Delivered => RecipientState::Delivered,
        Progress::Failed => RecipientState::Failed,
        Progress::Bounced => RecipientState::Bounced,
    }
}

async fn change(spool: &Arc<Spool>, verb: Verb, selection: Selection) -> ControlAnswer {
    let ids = match selection {
        Selection::Ids(ids) => ids,
        Selection::All => spool.index.lock().after(None).map(|(id, _)| id).collect(),
    };
    let mut changed = 0;
    for ids in ids.chunks(CHUNK) {
        match change_some(spool, verb, ids).await {
            Ok(count) => changed += count as u64,
            Err(error) => return ControlAnswer::Failed(error.to_string()),
        }
    }
    ControlAnswer::Changed(changed)
}

/// Changes messages; tells how many there were to change.
///
/// A message whose delivery is under way may still arrive: holding and deleting stop the tries
/// after it.
async fn change_some(
    spool: &Arc<Spool>,
    verb: Verb,
    ids: &[QueueId],
) -> Result<usize, CommitFailed> {
    match verb {
        Verb::Hold | Verb::Release => {
            let held = verb == Verb::Hold;
            let ids = concerned(spool, ids, |message| message.held != held);
            let (count, concerned) = (ids.len(), ids.clone());
            let apply = move |spool: &Spool| {
                let mut index = spool.index.lock();
                for &id in &concerned {
                    index.hold(id, held);
                }
            };
            if count > 0 {
                spool.change(&Record::Held { ids, held }, apply).await?;
            }
            Ok(count)
        }
        Verb::Delete => {
            let ids = concerned(spool, ids, |_| true);
            let (count, concerned) = (ids.len(), ids.clone());
            let apply = move |spool: &Spool| {
                for &id in &concerned {
                    let ended = spool.index.lock().take(id);
                    spool.ended(ended);
                    info!(queue_id = %id, "message deleted");
                }
            };
            if count > 0 {
                spool.change(&Record::Deleted { ids }, apply).await?;
            }
            Ok(count)
        }
        Verb::Retry => move_on(spool, ids, retried).await,
        Verb::Return => {
            let count = move_on(spool, ids, returned).await?;
            spool.failures.lock().extend(ids);
            spool.notices.notify_one();
            Ok(count)
        }
    }
}

fn concerned(
    spool: &Spool,
    ids: &[QueueId],
    is_concerned: impl Fn(&Message) -> bool,
) -> Vec<QueueId> {
    let index = spool.index.lock();
    let concerned = ids.iter().copied();
    concerned.filter(|&id| index.message(id).is_some_and(&is_concerned)).collect()
}

type Now = lamppost_roles::Timestamp;

/// Moves recipients on whose delivery is not under way; tells how many messages that concerned.
async fn move_on(
    spool: &Arc<Spool>,
    ids: &[QueueId],
    next: impl Fn(RecipientRecord, Now) -> Option<RecipientRecord>,
) -> Result<usize, CommitFailed> {
    let now = spool.now();
    let mut changes = Vec::new();
    for &id in ids {
        let recipients: Vec<_> = {
            let mut index = spool.index.lock();
            let Some(message) = index.message(id) else { continue };
            let idle = (0_u32..).zip(&message.recipients).filter(|(_, one)| !one.is_under_way());
            let next = idle.filter_map(|(place, one)| {
                let last = index.last(one);
                let record =
                    RecipientRecord { progress: one.progress, attempts: one.attempts, last };
                Some((place, next(record, now)?))
            });
            let next: Vec<_> = next.collect();
            // Until the change is committed no delivery of theirs may begin.
            for &(place, _) in &next {
                index.claim((id, place));
            }
            next
        };
        if recipients.is_empty() {
            continue;
        }
        let record = Record::Progress { id, recipients: recipients.clone() };
        let spool = spool.clone();
        // All are handed in before the first is waited for, and share a sync.
        changes.push(tokio::spawn(async move {
            let places: Vec<_> = recipients.iter().map(|&(place, _)| place).collect();
            let apply = move |spool: &Spool| {
                let ended = spool.index.lock().progress(id, &recipients);
                spool.ended(ended);
            };
            let done = spool.change(&record, apply).await;
            if done.is_err() {
                let mut index = spool.index.lock();
                for place in places {
                    index.give_up_claim((id, place));
                }
            }
            done
        }));
    }
    let count = changes.len();
    for change in changes {
        change.await.unwrap_or(Err(CommitFailed::Failed))?;
    }
    Ok(count)
}

/// A recipient that is to be tried now. One that failed for good waits again.
fn retried(record: RecipientRecord, due: Now) -> Option<RecipientRecord> {
    let progress = match record.progress {
        Progress::Waiting { .. } | Progress::Failed => Progress::Waiting { due },
        Progress::Intended { .. } => Progress::Intended { due },
        Progress::Delivered | Progress::Bounced => return None,
    };
    Some(RecipientRecord { progress, ..record })
}

/// A recipient that is given up. One whose file only waits to be renamed gets its mail.
fn returned(record: RecipientRecord, at: Now) -> Option<RecipientRecord> {
    if !matches!(record.progress, Progress::Waiting { .. }) {
        return None;
    }
    let mut reason =
        Reason::own(Status::POLICY, "returned by the administrator of the mail server");
    if let Some(last) = record.last {
        reason.text = format!("{} (last try: {})", reason.text, told(&last.reason));
    }
    let last = Some(Attempt { at, reason });
    Some(RecipientRecord { progress: Progress::Failed, last, ..record })
}
