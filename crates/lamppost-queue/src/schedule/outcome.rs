//! What became of a try: told in the log, noted in the spool, and followed by the next try, a bounce
//! or the end.

use std::sync::Arc;

use lamppost_roles::{Attempt, Outcome, QueueId, Timestamp};
use tracing::{info, warn};

use super::given_up_at;
use crate::control::account;
use crate::record::{Item, MessageRecord, Progress, RecipientRecord};
use crate::spool::Spool;

/// A recipient that was tried, as the log names it.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    pub(super) item: Item,
    session: String,
    to: String,
}

impl Tried {
    /// A recipient of a message.
    pub(super) fn of(record: &MessageRecord, item: Item) -> Self {
        let recipient = record.envelope.recipients.get(item.1 as usize);
        let to = recipient.map(|recipient| recipient.address.to_string()).unwrap_or_default();
        Self { item, session: record.envelope.origin.session.clone(), to }
    }

    /// Recipients of a message that cannot be read, or not all of it, with what became of their try.
    pub(super) async fn lost(
        spool: &Arc<Spool>,
        (id, indices): (QueueId, Vec<u32>),
        outcome: &Outcome,
    ) -> Vec<(Self, Outcome)> {
        let reader = spool.clone();
        let read = spool.settings.blocking.run(move || reader.load_record(id)).await;
        let record = read.ok().and_then(Result::ok).flatten();
        let lost = indices.into_iter().map(|index| {
            let tried = match &record {
                Some(record) => Self::of(record, (id, index)),
                None => Self::known(spool, (id, index)),
            };
            (tried, outcome.clone())
        });
        lost.collect()
    }

    /// A recipient as far as memory knows it.
    pub(super) fn known(spool: &Spool, item: Item) -> Self {
        let queue = spool.index.lock();
        let recipients = queue.message(item.0).map(|message| &message.recipients);
        let recipient = recipients.and_then(|all| all.get(item.1 as usize));
        let to = recipient.map(|recipient| account(&queue.route(recipient))).unwrap_or_default();
        Self { item, session: String::new(), to }
    }
}

/// Takes outcomes into the spool and tells them; returns whether any was no success.
pub(super) fn conclude(spool: &Arc<Spool>, outcomes: Vec<(Tried, Outcome)>) -> bool {
    let mut delivered = Vec::new();
    let mut troubled = false;
    // The same for all: the recipients of one message that wait for the relay come due together.
    let now = spool.now();
    for (tried, outcome) in outcomes {
        let is_retried = spool.again.lock().remove(&tried.item);
        if outcome == Outcome::Done {
            let Tried { item: (id, _), session, to } = &tried;
            let delay_ms = now.0.saturating_sub(id.received().0);
            info!(queue_id = %id, session, to, delay_ms, "message delivered");
            delivered.push(tried.item);
        } else {
            troubled = true;
            not_delivered(spool, (&tried, is_retried), outcome, now);
        }
    }
    if !delivered.is_empty() {
        spool.note_delivered(delivered);
    }
    troubled
}

/// With `is_retried` an administrator asked for another try while this one was under way.
fn not_delivered(
    spool: &Arc<Spool>,
    (tried, is_retried): (&Tried, bool),
    outcome: Outcome,
    now: Timestamp,
) {
    let Tried { item: (id, index), session, to } = tried;
    let Some(mut record) = present(spool, tried.item) else {
        // Deleted meanwhile.
        return;
    };
    record.attempts += 1;
    // A file that is in its Maildir's `tmp/` is only renamed: to give that up, and to prepare it
    // again one day, could double it.
    let is_prepared = matches!(record.progress, Progress::Intended { .. });
    let given_up = given_up_at(spool, id.received());
    let is_young = now < given_up;
    let reason = match outcome {
        Outcome::Done => return,
        Outcome::Deferred(reason) | Outcome::Failed(reason) if is_retried => {
            record.progress = match record.progress {
                Progress::Intended { .. } => Progress::Intended { due: now },
                _ => Progress::Waiting { due: now },
            };
            info!(queue_id = %id, session, to, reason = reason.to_string(), retry_in_ms = 0, "delivery deferred");
            reason
        }
        Outcome::Deferred(reason) if is_prepared || is_young => {
            let next = Timestamp(now.0.saturating_add(wait_ms(spool, *id, record.attempts)));
            // The last try is when its lifetime ends, as its sender was told.
            let due = if is_prepared { next } else { next.min(given_up) };
            record.progress = match record.progress {
                Progress::Intended { .. } => Progress::Intended { due },
                _ => Progress::Waiting { due },
            };
            info!(queue_id = %id, session, to, reason = reason.to_string(), retry_in_ms = due.0 - now.0, "delivery deferred");
            reason
        }
        Outcome::Deferred(reason) | Outcome::Failed(reason) => {
            record.progress = Progress::Failed;
            warn!(queue_id = %id, session, to, reason = reason.to_string(), "delivery failed");
            reason
        }
    };
    record.last = Some(Attempt { at: now, reason });
    // Nobody waits for it: it is durable with the next sync, and a crash before only repeats it.
    spool.note_progress((*id, *index), record);
}

/// A recipient's present state.
fn present(spool: &Spool, (id, index): Item) -> Option<RecipientRecord> {
    let queue = spool.index.lock();
    let recipient = queue.message(id)?.recipients.get(index as usize)?;
    Some(RecipientRecord {
        progress: recipient.progress,
        attempts: recipient.attempts,
        last: queue.last(recipient),
    })
}

/// The wait after so many tries: doubled each time, with a fifth of jitter that differs from
/// message to message, so that what failed together does not come back together.
fn wait_ms(spool: &Spool, id: QueueId, attempts: u32) -> u64 {
    let first = spool.settings.retry_first.as_millis();
    let doubled =
        first.saturating_mul(1_u128.checked_shl(attempts.saturating_sub(1)).unwrap_or(u128::MAX));
    let wait = u64::try_from(doubled.min(spool.settings.retry_max.as_millis())).unwrap_or(u64::MAX);
    let spread = (wait / 5).max(1);
    let jitter = id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(attempts) % spread;
    wait.saturating_add(jitter)
}
