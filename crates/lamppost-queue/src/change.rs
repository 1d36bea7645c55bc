//! What administrators change: retry, hold, release, delete, return.
//!
//! Each change is told in the log once it is durable, with who asked for it.

use std::collections::HashSet;
use std::sync::Arc;

use lamppost_roles::{
    Attempt, Changes, ControlAnswer, QueueId, Reason, Selection, Timestamp, Unchanged, Verb,
    WhyUnchanged,
};
use lamppost_smtp::Status;
use tracing::info;

use crate::bounce::told;
use crate::committer::CommitFailed;
use crate::index::{Message, Recipient};
use crate::record::{Progress, RecipientRecord, Record};
use crate::spool::Spool;

/// Messages that are changed by one record.
const CHUNK: usize = 1000;

/// The next state of a recipient; nothing when it stays as it is.
type Next = fn(RecipientRecord, Timestamp) -> Option<RecipientRecord>;
/// Tells the log what was done to a message, and by whom.
type Fact = fn(QueueId, &str);

/// Changes messages, and tells which ones stay as they were, and why.
pub(crate) async fn change(
    spool: &Arc<Spool>,
    verb: Verb,
    selection: Selection,
    by: String,
) -> ControlAnswer {
    let by: Arc<str> = by.into();
    let (ids, are_named) = match selection {
        Selection::Ids(mut ids) => {
            let mut seen = HashSet::new();
            ids.retain(|id| seen.insert(*id));
            (ids, true)
        }
        Selection::All => (spool.index.lock().after(None).map(|(id, _)| id).collect(), false),
    };
    let mut changes = Changes::default();
    for ids in ids.chunks(CHUNK) {
        if let Err(error) = change_some(spool, (verb, &by), ids, &mut changes).await {
            return ControlAnswer::Failed(error.to_string());
        }
        if !are_named {
            changes.unknown.clear();
            changes.unchanged.clear();
        }
    }
    ControlAnswer::Changed(changes)
}

/// A message whose delivery is under way may still arrive: holding and deleting stop the tries
/// after it.
async fn change_some(
    spool: &Arc<Spool>,
    (verb, by): (Verb, &Arc<str>),
    ids: &[QueueId],
    changes: &mut Changes,
) -> Result<(), CommitFailed> {
    if verb == Verb::Retry {
        remember(spool, ids);
    }
    let concerned = sort_out(spool, verb, ids, changes);
    if concerned.is_empty() {
        return Ok(());
    }
    let changed = match verb {
        Verb::Hold | Verb::Release => hold(spool, (concerned, by), verb == Verb::Hold).await?,
        Verb::Delete => delete(spool, (concerned, by)).await?,
        Verb::Retry => {
            let fact: Fact = |id, by| info!(queue_id = %id, by, "message retried");
            let moved = move_on(spool, (concerned.clone(), by), (fact, retried)).await?;
            changes.held += count_held(spool, &moved);
            begun(&concerned, &moved, changes)
        }
        Verb::Return => {
            let fact: Fact = |id, by| info!(queue_id = %id, by, "message returned");
            let moved = move_on(spool, (concerned.clone(), by), (fact, returned)).await?;
            let count = begun(&concerned, &moved, changes);
            spool.failures.lock().extend(moved);
            spool.notices.notify_one();
            count
        }
    };
    changes.changed += changed as u64;
    Ok(())
}

/// Remembers recipients whose delivery is under way: they are tried again at once if it fails.
fn remember(spool: &Spool, ids: &[QueueId]) {
    let index = spool.index.lock();
    let mut again = spool.again.lock();
    for &id in ids {
        let recipients = index.message(id).into_iter().flat_map(|message| &message.recipients);
        let under_way = (0_u32..).zip(recipients).filter(|(_, one)| one.is_under_way());
        again.extend(under_way.map(|(place, _)| (id, place)));
    }
}

/// The messages that a verb changes; the others are told.
fn sort_out(spool: &Spool, verb: Verb, ids: &[QueueId], changes: &mut Changes) -> Vec<QueueId> {
    let index = spool.index.lock();
    let mut concerned = Vec::new();
    for &id in ids {
        match index.message(id).map(|message| why_unchanged(verb, message)) {
            None => changes.unknown.push(id),
            Some(Some(why)) => changes.unchanged.push(Unchanged { id, why }),
            Some(None) => concerned.push(id),
        }
    }
    concerned
}

/// Why a verb changes nothing in a message; nothing when it does.
fn why_unchanged(verb: Verb, message: &Message) -> Option<WhyUnchanged> {
    let is_wanted = |progress| match verb {
        Verb::Retry => matches!(
            progress,
            Progress::Waiting { .. } | Progress::Intended { .. } | Progress::Failed
        ),
        _ => matches!(progress, Progress::Waiting { .. }),
    };
    let mut idle = message.recipients.iter().filter(|one| !one.is_under_way());
    let is_under_way = message.recipients.iter().any(Recipient::is_under_way);
    let has =
        |wanted: fn(Progress) -> bool| message.recipients.iter().any(|one| wanted(one.progress));
    match verb {
        Verb::Hold => message.held.then_some(WhyUnchanged::SoBefore),
        Verb::Release => (!message.held).then_some(WhyUnchanged::SoBefore),
        Verb::Delete => None,
        // Nobody could be told: the message would stay, and be no better off.
        Verb::Return if message.is_null_sender => Some(WhyUnchanged::NoSender),
        _ if idle.any(|one| is_wanted(one.progress)) => None,
        _ if is_under_way => Some(WhyUnchanged::Delivering),
        // Its file lies beside the Maildir and only waits to be renamed.
        _ if has(|progress| matches!(progress, Progress::Intended { .. })) => {
            Some(WhyUnchanged::Delivering)
        }
        _ if has(|progress| progress == Progress::Failed) => Some(WhyUnchanged::SoBefore),
        _ => Some(WhyUnchanged::Settled),
    }
}

async fn hold(
    spool: &Arc<Spool>,
    (ids, by): (Vec<QueueId>, &Arc<str>),
    held: bool,
) -> Result<usize, CommitFailed> {
    let count = ids.len();
    let (concerned, by) = (ids.clone(), by.clone());
    let apply = move |spool: &Spool| {
        let mut index = spool.index.lock();
        for &id in &concerned {
            index.hold(id, held);
            if held {
                info!(queue_id = %id, by = &*by, "message held");
            } else {
                info!(queue_id = %id, by = &*by, "message released");
            }
        }
    };
    spool.change(&Record::Held { ids, held }, apply).await.map(|()| count)
}

async fn delete(
    spool: &Arc<Spool>,
    (ids, by): (Vec<QueueId>, &Arc<str>),
) -> Result<usize, CommitFailed> {
    let count = ids.len();
    let (concerned, by) = (ids.clone(), by.clone());
    let apply = move |spool: &Spool| {
        for &id in &concerned {
            let ended = spool.index.lock().take(id);
            spool.ended(ended);
            info!(queue_id = %id, by = &*by, "message deleted");
        }
    };
    spool.change(&Record::Deleted { ids }, apply).await.map(|()| count)
}

/// Counts the messages that were moved on. The delivery of the others began meanwhile.
fn begun(concerned: &[QueueId], moved: &[QueueId], changes: &mut Changes) -> usize {
    let went: HashSet<_> = moved.iter().collect();
    let others = concerned.iter().filter(|id| !went.contains(id));
    let why = WhyUnchanged::Delivering;
    changes.unchanged.extend(others.map(|&id| Unchanged { id, why }));
    moved.len()
}

fn count_held(spool: &Spool, ids: &[QueueId]) -> u64 {
    let index = spool.index.lock();
    ids.iter().filter(|&&id| index.message(id).is_some_and(|message| message.held)).count() as u64
}

/// Moves recipients on whose delivery is not under way; returns the messages that this concerned.
async fn move_on(
    spool: &Arc<Spool>,
    (ids, by): (Vec<QueueId>, &Arc<str>),
    (fact, next): (Fact, Next),
) -> Result<Vec<QueueId>, CommitFailed> {
    let now = spool.now();
    let mut changes = Vec::new();
    let mut moved = Vec::new();
    for id in ids {
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
        let (spool, by) = (spool.clone(), by.clone());
        moved.push(id);
        // All are handed in before the first is waited for, and share a sync.
        changes.push(tokio::spawn(async move {
            let places: Vec<_> = recipients.iter().map(|&(place, _)| place).collect();
            let apply = move |spool: &Spool| {
                fact(id, &by);
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
    for change in changes {
        change.await.unwrap_or(Err(CommitFailed::Failed))?;
    }
    Ok(moved)
}

/// A recipient that is to be tried now. One that failed for good waits again.
fn retried(record: RecipientRecord, due: Timestamp) -> Option<RecipientRecord> {
    let progress = match record.progress {
        Progress::Waiting { .. } | Progress::Failed => Progress::Waiting { due },
        Progress::Intended { .. } => Progress::Intended { due },
        Progress::Delivered | Progress::Bounced => return None,
    };
    Some(RecipientRecord { progress, ..record })
}

/// A recipient that is given up. One whose file only waits to be renamed gets its mail.
fn returned(record: RecipientRecord, at: Timestamp) -> Option<RecipientRecord> {
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
