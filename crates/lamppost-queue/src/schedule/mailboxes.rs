//! Into Maildirs, in two steps: files are prepared, the intent is made durable, files are published.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use lamppost_net::link::Port;
use lamppost_roles::{
    Content, DeliveryAnswer, DeliveryJob, DeliveryRequest, Outcome, Placement, QueueId, Reason,
    Route,
};

use super::outcome::{Tried, conclude};
use super::{ask, deferred, given_up_at};
use crate::bounce::DAMAGED;
use crate::load::{Loaded, is_lost};
use crate::record::{Item, MessageRecord, Progress};
use crate::salvage::is_unreadable;
use crate::spool::Spool;

type Delivery = Port<DeliveryRequest, DeliveryAnswer>;

/// A recipient on its way.
struct Try {
    tried: Tried,
    placement: Placement,
}

/// Works on a batch; tells whether there was trouble.
pub(super) async fn deliver(spool: &Arc<Spool>, delivery: &Delivery, items: &[Item]) -> bool {
    let (intended, waiting): (Vec<_>, Vec<_>) =
        items.iter().copied().partition(|&item| is_intended(spool, item));
    let mut troubled = false;
    let mut ready = Vec::new();
    for item in intended {
        match load(spool, item, false).await {
            Ok(Some(loaded)) => ready.extend(try_of(&loaded.record, item)),
            Ok(None) => {}
            // Its file is there, whatever became of its record.
            Err(outcome) => {
                if let Some(one) = known(spool, item) {
                    ready.push(one);
                    continue;
                }
                let (id, index) = item;
                let lost = Tried::lost(spool, (id, vec![index]), &outcome).await;
                troubled |= conclude(spool, lost);
            }
        }
    }
    let mut waiting = waiting.into_iter();
    loop {
        let (some, trouble) = prepare(spool, delivery, &mut waiting).await;
        let last = some.is_empty() && waiting.len() == 0;
        troubled |= trouble;
        ready.extend(some);
        if !ready.is_empty() {
            troubled |= publish(spool, delivery, std::mem::take(&mut ready)).await;
        }
        if last {
            return troubled;
        }
    }
}

fn is_intended(spool: &Spool, (id, index): Item) -> bool {
    let queue = spool.index.lock();
    let recipient = queue.message(id).and_then(|one| one.recipients.get(index as usize));
    recipient.is_some_and(|one| matches!(one.progress, Progress::Intended { .. }))
}

/// A message, from memory while it is fresh; nothing when it is gone.
pub(super) async fn load(
    spool: &Arc<Spool>,
    (id, _): Item,
    with_content: bool,
) -> Result<Option<Loaded>, Outcome> {
    if let Some(fresh) = spool.index.lock().fresh(id) {
        return Ok(Some(Loaded { record: fresh.record, content: fresh.content }));
    }
    let reader = spool.clone();
    let reading = move || -> io::Result<Option<Loaded>> {
        if with_content {
            let loaded = reader.load(id)?;
            if let Some(loaded) = loaded.as_ref().filter(|loaded| loaded.record.aside) {
                reader.prove_aside(&loaded.record)?;
            }
            return Ok(loaded);
        }
        let record = reader.load_record(id)?;
        Ok(record.map(|record| Loaded { record, content: None }))
    };
    match spool.settings.blocking.run(reading).await {
        Ok(Ok(loaded)) => Ok(loaded),
        Ok(Err(error)) => Err(unreadable(spool, id, &error).await),
        Err(cut) => Err(deferred(cut.to_string())),
    }
}

/// The outcome of a message that cannot be read. One that is damaged fails once a copy of it is in the
/// quarantine; one that the disk does not give is tried again as long as others are.
async fn unreadable(spool: &Arc<Spool>, id: QueueId, error: &io::Error) -> Outcome {
    let is_over = is_unreadable(error) && spool.now() >= given_up_at(spool, id.received());
    if !is_lost(error) && !is_over {
        return deferred(format!("the message cannot be read from the spool: {error}"));
    }
    let (keeper, why) = (spool.clone(), error.to_string());
    match spool.settings.blocking.run(move || keeper.quarantine(id, &why)).await {
        Ok(Ok(())) => {
            // What was found first says more than what misses the content today.
            let why = spool.quarantined.lock().get(&id).cloned();
            let why = why.unwrap_or_else(|| error.to_string());
            let text = format!("the message is damaged in the spool: {why}");
            Outcome::Failed(Reason::own(DAMAGED, text))
        }
        Ok(Err(full)) => {
            deferred(format!("the message is damaged in the spool and cannot be copied: {full}"))
        }
        Err(cut) => deferred(cut.to_string()),
    }
}

/// A message's content as delivery gets it.
pub(super) fn content(record: &MessageRecord, content: Option<Bytes>) -> Content {
    match content {
        Some(content) if !record.aside => Content::Inline(content),
        _ => Content::Aside { length: record.size },
    }
}

fn try_of(record: &MessageRecord, item: Item) -> Option<Try> {
    let (id, index) = item;
    let recipient = record.envelope.recipients.get(index as usize)?;
    let Route::Mailbox(mailbox) = &recipient.route else { return None };
    let placement = Placement { id, index, mailbox: mailbox.clone() };
    Some(Try { tried: Tried::of(record, item), placement })
}

/// As [`try_of`] for a message whose record cannot be read.
fn known(spool: &Spool, item: Item) -> Option<Try> {
    let (id, index) = item;
    let route = {
        let queue = spool.index.lock();
        let recipient = queue.message(id)?.recipients.get(index as usize)?;
        queue.route(recipient)
    };
    let Route::Mailbox(mailbox) = route else { return None };
    Some(Try { tried: Tried::known(spool, item), placement: Placement { id, index, mailbox } })
}

/// Has the files of as many messages written as fit a batch's bytes; returns those whose intent is
/// durable, and whether there was trouble.
async fn prepare(
    spool: &Arc<Spool>,
    delivery: &Delivery,
    waiting: &mut std::vec::IntoIter<Item>,
) -> (Vec<Try>, bool) {
    let mut bytes = 0;
    let mut tries = Vec::new();
    let mut jobs = Vec::new();
    let mut outcomes = Vec::new();
    while bytes < spool.settings.batch_size_max {
        let Some(item) = waiting.next() else { break };
        match load(spool, item, true).await {
            Ok(Some(loaded)) => {
                let Some(one) = try_of(&loaded.record, item) else { continue };
                bytes += loaded.content.as_ref().map_or(0, Bytes::len) as u64;
                jobs.push(job(&one, loaded));
                tries.push(one);
            }
            // Deleted meanwhile.
            Ok(None) => {}
            Err(outcome) => {
                let (id, index) = item;
                outcomes.extend(Tried::lost(spool, (id, vec![index]), &outcome).await);
            }
        }
    }
    let mut prepared = Vec::new();
    if !jobs.is_empty() {
        let answers = ask(delivery, DeliveryRequest::Prepare(jobs), tries.len()).await;
        for (one, outcome) in tries.into_iter().zip(answers) {
            match outcome {
                Outcome::Done => prepared.push(one),
                other => outcomes.push((one.tried, other)),
            }
        }
    }
    if !prepared.is_empty() {
        let items = prepared.iter().map(|one| one.tried.item).collect();
        if let Err(error) = spool.intend(items, spool.now()).await {
            let outcome = deferred(error.to_string());
            outcomes.extend(prepared.drain(..).map(|one| (one.tried, outcome.clone())));
        }
    }
    (prepared, conclude(spool, outcomes))
}

fn job(one: &Try, loaded: Loaded) -> DeliveryJob {
    let content = content(&loaded.record, loaded.content);
    let envelope = loaded.record.envelope;
    let recipient = envelope.recipients.into_iter().nth(one.placement.index as usize);
    DeliveryJob {
        sender: envelope.sender,
        // The try was made of this very recipient.
        recipient: recipient.map_or(one.placement.mailbox.clone(), |recipient| recipient.address),
        placement: one.placement.clone(),
        origin: envelope.origin,
        content,
    }
}

async fn publish(spool: &Arc<Spool>, delivery: &Delivery, tries: Vec<Try>) -> bool {
    let placements = tries.iter().map(|one| one.placement.clone()).collect();
    let outcomes = ask(delivery, DeliveryRequest::Publish(placements), tries.len()).await;
    conclude(spool, tries.into_iter().map(|one| one.tried).zip(outcomes).collect())
}
