//! The schedule: due recipients go to delivery in batches, a mailbox at a time, and come back with
//! an outcome.
//!
//! A mailbox has one batch under way at most, so a slow one holds up nobody but itself; the mailbox
//! that has waited longest is next.

use std::sync::Arc;
use std::time::Duration;

use lamppost_net::Drain;
use lamppost_net::link::Port;
use lamppost_roles::{
    Attempt, Content, DeliveryAnswer, DeliveryJob, DeliveryRequest, Outcome, Placement, Reason,
    Timestamp,
};
use lamppost_smtp::{Address, Status};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::index::{Item, Place};
use crate::record::{Progress, RecipientRecord};
use crate::spool::Spool;

/// Bytes of contents in a batch; one message may be larger.
const BATCH_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How long to wait when delivery itself is gone.
const GONE_PAUSE: Duration = Duration::from_secs(1);

type Delivery = Port<DeliveryRequest, DeliveryAnswer>;

/// Hands out batches until told to stop.
pub(crate) async fn run(
    spool: Arc<Spool>,
    delivery: Delivery,
    batches: Drain,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(spool.settings.deliveries_at_once_max));
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = stop.cancelled() => return,
        };
        let Ok(place) = place else { return };
        let batch = loop {
            let now = spool.now();
            let (batch, due) = {
                let mut index = spool.index.lock();
                let batch = index.next_batch(now, spool.settings.batch_max);
                (batch, index.next_due())
            };
            if let Some(batch) = batch {
                break batch;
            }
            let wait = due.map_or(Duration::from_secs(3600), |due| {
                Duration::from_millis(due.0.saturating_sub(now.0).max(1))
            });
            tokio::select! {
                () = spool.due.notified() => {}
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        };
        let (spool, delivery, end) = (spool.clone(), delivery.clone(), batches.clone());
        batches.spawn(async move {
            let (mailbox, items) = batch;
            // A batch that is cut short is repeated at the next start, as after a crash.
            tokio::select! {
                () = deliver(&spool, &delivery, &items) => {}
                () = end.overdue() => return,
            }
            spool.index.lock().batch_over(&mailbox);
            spool.due.notify_one();
            drop(place);
        });
    }
}

/// One recipient on its way.
struct Try {
    item: Item,
    placement: Placement,
    record: RecipientRecord,
    session: String,
    to: Address,
    received: Timestamp,
}

async fn deliver(spool: &Arc<Spool>, delivery: &Delivery, items: &[Item]) {
    let (mut ready, to_prepare): (Vec<_>, Vec<_>) = items
        .iter()
        .filter_map(|&item| try_of(spool, item))
        .partition(|one| matches!(one.record.progress, Progress::Intended { .. }));
    let mut to_prepare = to_prepare.into_iter();
    loop {
        let some = prepare(spool, delivery, &mut to_prepare).await;
        let last = some.is_empty() && to_prepare.len() == 0;
        ready.extend(some);
        if !ready.is_empty() {
            publish(spool, delivery, std::mem::take(&mut ready)).await;
        }
        if last {
            return;
        }
    }
}

fn try_of(spool: &Spool, item: Item) -> Option<Try> {
    let (id, index) = item;
    let queue = spool.index.lock();
    let message = queue.message(id)?;
    let recipient = message.envelope.recipients.get(index as usize)?;
    let lamppost_roles::Route::Mailbox(mailbox) = &recipient.route else {
        return None;
    };
    Some(Try {
        item,
        placement: Placement { id, index, mailbox: mailbox.clone() },
        record: message.recipients.get(index as usize)?.clone(),
        session: message.envelope.origin.session.clone(),
        to: recipient.address.clone(),
        received: message.envelope.origin.received,
    })
}

/// Has the files of as many messages written as fit a batch's bytes; returns those whose intent is
/// durable.
async fn prepare(
    spool: &Arc<Spool>,
    delivery: &Delivery,
    waiting: &mut std::vec::IntoIter<Try>,
) -> Vec<Try> {
    let mut bytes = 0;
    let mut tries = Vec::new();
    let mut jobs = Vec::new();
    while bytes < BATCH_BYTES_MAX {
        let Some(one) = waiting.next() else { break };
        match job(spool, &one).await {
            Ok(Some((job, size))) => {
                bytes += size;
                tries.push(one);
                jobs.push(job);
            }
            // Deleted meanwhile.
            Ok(None) => {}
            Err(error) => {
                let reason = format!("the message cannot be read from the spool: {error}");
                conclude(spool, one, Outcome::Deferred(Reason::own(Status::SYSTEM, reason)));
            }
        }
    }
    if jobs.is_empty() {
        return Vec::new();
    }
    let outcomes = ask(delivery, DeliveryRequest::Prepare(jobs), tries.len()).await;
    let mut intents = Vec::new();
    for (one, outcome) in tries.into_iter().zip(outcomes) {
        match outcome {
            Outcome::Done => intents.push(intend(spool.clone(), one)),
            other => conclude(spool, one, other),
        }
    }
    let mut ready = Vec::new();
    let mut intents = Intents::new(intents);
    while let Some(intended) = intents.next().await {
        ready.extend(intended);
    }
    ready
}

/// Intents that are committed together: all are handed to the committer before the first is
/// waited for.
struct Intents {
    running: std::vec::IntoIter<tokio::task::JoinHandle<Option<Try>>>,
}

impl Intents {
    fn new(intents: Vec<impl Future<Output = Option<Try>> + Send + 'static>) -> Self {
        let running: Vec<_> = intents.into_iter().map(tokio::spawn).collect();
        Self { running: running.into_iter() }
    }

    async fn next(&mut self) -> Option<Option<Try>> {
        let next = self.running.next()?;
        // A task that panicked has no outcome; its recipient is due again after the batch.
        Some(next.await.unwrap_or(None))
    }
}

/// Makes durable that the file is to be published; nothing when that failed.
async fn intend(spool: Arc<Spool>, mut one: Try) -> Option<Try> {
    let due = spool.now();
    one.record.progress = Progress::Intended { due };
    let (id, index) = one.item;
    match spool.intend(id, index, one.record.clone()).await {
        Ok(()) => Some(one),
        Err(error) => {
            one.record.progress = Progress::Waiting { due };
            conclude(&spool, one, deferred(error.to_string()));
            None
        }
    }
}

async fn publish(spool: &Arc<Spool>, delivery: &Delivery, tries: Vec<Try>) {
    let placements = tries.iter().map(|one| one.placement.clone()).collect();
    let outcomes = ask(delivery, DeliveryRequest::Publish(placements), tries.len()).await;
    for (one, outcome) in tries.into_iter().zip(outcomes) {
        conclude(spool, one, outcome);
    }
}

/// Asks delivery; when it is gone, all entries are deferred.
async fn ask(delivery: &Delivery, request: DeliveryRequest, entries: usize) -> Vec<Outcome> {
    match delivery.ask(request).await {
        Ok(DeliveryAnswer(outcomes)) if outcomes.len() == entries => outcomes,
        Ok(_) => vec![deferred("delivery answered nonsense"); entries],
        Err(gone) => {
            warn!(reason = %gone, "delivery is gone");
            tokio::time::sleep(GONE_PAUSE).await;
            vec![deferred(gone.to_string()); entries]
        }
    }
}

fn deferred(text: impl Into<String>) -> Outcome {
    Outcome::Deferred(Reason::own(Status::SYSTEM, text))
}

async fn job(spool: &Arc<Spool>, one: &Try) -> std::io::Result<Option<(DeliveryJob, u64)>> {
    let (id, _) = one.item;
    let (sender, origin, size, place, kept) = {
        let mut index = spool.index.lock();
        let Some(message) = index.message(id) else {
            return Ok(None);
        };
        let (sender, origin) = (message.envelope.sender.clone(), message.envelope.origin.clone());
        let (size, place) = (message.size, message.place);
        let others = message.recipients.len() > 1;
        let kept = if others { message.content.clone() } else { index.take_content(id) };
        (sender, origin, size, place, kept)
    };
    let content = match (place, kept) {
        (Place::Aside, _) => Content::Aside { length: size },
        (Place::Log { .. }, Some(content)) => Content::Inline(content),
        (Place::Log { .. }, None) => {
            let reader = spool.clone();
            let length_max = u32::try_from(size).unwrap_or(u32::MAX);
            let reading = tokio::task::spawn_blocking(move || reader.read(id, 0, length_max));
            match reading.await.map_err(std::io::Error::other)? {
                Some(content) => Content::Inline(content?),
                None => return Ok(None),
            }
        }
    };
    let in_memory = if matches!(content, Content::Inline(_)) { size } else { 0 };
    let (placement, recipient) = (one.placement.clone(), one.to.clone());
    Ok(Some((DeliveryJob { placement, sender, recipient, origin, content }, in_memory)))
}

/// Takes an outcome into the log and tells it.
fn conclude(spool: &Arc<Spool>, one: Try, outcome: Outcome) {
    let (id, index) = one.item;
    let now = spool.now();
    let mut record = one.record;
    record.attempts += 1;
    let (queue_id, session, to) = (id.to_string(), one.session.as_str(), &one.to);
    let delay = now.0.saturating_sub(one.received.0);
    // A file that is in its Maildir's `tmp/` is only renamed: to give that up, and to prepare it
    // again one day, could double it.
    let is_prepared = matches!(record.progress, Progress::Intended { .. });
    let young = Duration::from_millis(delay) < spool.settings.lifetime;
    match outcome {
        Outcome::Done => {
            record.progress = Progress::Delivered;
            spool.count_delivered();
            info!(queue_id, session, %to, delay_ms = delay, "message delivered");
        }
        Outcome::Deferred(reason) if is_prepared || young => {
            let due = Timestamp(now.0.saturating_add(wait_ms(spool, id.0, record.attempts)));
            record.progress = match record.progress {
                Progress::Intended { .. } => Progress::Intended { due },
                _ => Progress::Waiting { due },
            };
            info!(queue_id, session, %to, reason = reason.text, retry_in_ms = due.0 - now.0, "delivery deferred");
            record.last = Some(Attempt { at: now, reason });
        }
        Outcome::Deferred(reason) | Outcome::Failed(reason) => {
            record.progress = Progress::Failed;
            warn!(queue_id, session, %to, reason = reason.text, "delivery failed");
            record.last = Some(Attempt { at: now, reason });
        }
    }
    // Nobody waits for it: it is durable with the next sync, and a crash before only repeats it.
    spool.clone().note(id, index, record);
}

/// The wait after so many tries: doubled each time, with a fifth of jitter that differs from
/// message to message, so that what failed together does not come back together.
fn wait_ms(spool: &Spool, id: u64, attempts: u32) -> u64 {
    let first = spool.settings.retry_first.as_millis();
    let doubled =
        first.saturating_mul(1_u128.checked_shl(attempts.saturating_sub(1)).unwrap_or(u128::MAX));
    let wait = u64::try_from(doubled.min(spool.settings.retry_max.as_millis())).unwrap_or(u64::MAX);
    let spread = (wait / 5).max(1);
    let jitter = id.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(attempts) % spread;
    wait.saturating_add(jitter)
}
