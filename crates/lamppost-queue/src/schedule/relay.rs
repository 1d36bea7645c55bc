//! To the host that takes all mail for elsewhere: one job a message, with all its recipients there.

use std::collections::BTreeMap;
use std::sync::Arc;

use lamppost_net::link::Port;
use lamppost_roles::{DeliveryAnswer, DeliveryRequest, Outcome, QueueId, RelayJob};
use lamppost_smtp::Status;

use super::ask;
use super::mailboxes::{content, load};
use super::outcome::{Tried, conclude};
use crate::load::Loaded;
use crate::record::Item;
use crate::spool::Spool;

/// Works on a batch; tells whether there was trouble.
pub(super) async fn deliver(
    spool: &Arc<Spool>,
    delivery: &Port<DeliveryRequest, DeliveryAnswer>,
    items: &[Item],
) -> bool {
    let mut messages: BTreeMap<QueueId, Vec<u32>> = BTreeMap::new();
    for &(id, index) in items {
        messages.entry(id).or_default().push(index);
    }
    let mut troubled = false;
    // When the relay does not answer, it does not answer the others of the batch either.
    let mut away: Option<Outcome> = None;
    for (id, indices) in messages {
        let loaded = match load(spool, (id, 0), away.is_none()).await {
            Ok(Some(loaded)) => loaded,
            // Deleted meanwhile.
            Ok(None) => continue,
            Err(outcome) => {
                let lost = Tried::lost(spool, (id, indices), &outcome).await;
                troubled |= conclude(spool, lost);
                continue;
            }
        };
        let known = |index: &u32| loaded.record.envelope.recipients.get(*index as usize).is_some();
        let indices: Vec<_> = indices.into_iter().filter(known).collect();
        if let Some(outcome) = &away {
            let tried = |index| (Tried::of(&loaded.record, (id, index)), outcome.clone());
            troubled |= conclude(spool, indices.into_iter().map(tried).collect());
            continue;
        }
        let (trouble, outcome) = hand_over(spool, delivery, &loaded, indices).await;
        troubled |= trouble;
        away = outcome;
    }
    troubled
}

/// Hands one message over to as many of these recipients as the relay takes; tells whether there was
/// trouble, and what there was of it with the relay.
///
/// Recipients that were only too many have their turn at once, for as long as each turn takes some:
/// to let them wait would be to let the last of a thousand wait for days.
async fn hand_over(
    spool: &Arc<Spool>,
    delivery: &Port<DeliveryRequest, DeliveryAnswer>,
    loaded: &Loaded,
    mut indices: Vec<u32>,
) -> (bool, Option<Outcome>) {
    let (mut troubled, mut away) = (false, None);
    while !indices.is_empty() && away.is_none() {
        let request = DeliveryRequest::Relay(vec![job(loaded, &indices)]);
        // One message at a time: what was taken is noted before the next goes, so that a crash
        // repeats one message at most. Several batches run at once.
        let outcomes = ask(delivery, request, indices.len()).await;
        away = outcomes.iter().find(|outcome| is_away(outcome)).cloned();
        let goes_on = outcomes.contains(&Outcome::Done);
        let (too_many, concluded): (Vec<_>, Vec<_>) = indices
            .into_iter()
            .zip(outcomes)
            .partition(|(_, outcome)| goes_on && is_too_many(outcome));
        let tried =
            |(index, outcome)| (Tried::of(&loaded.record, (loaded.record.id, index)), outcome);
        troubled |= conclude(spool, concluded.into_iter().map(tried).collect());
        indices = too_many.into_iter().map(|(index, _)| index).collect();
    }
    (troubled, away)
}

fn job(loaded: &Loaded, indices: &[u32]) -> RelayJob {
    let envelope = &loaded.record.envelope;
    let address = |&index: &u32| Some(envelope.recipients.get(index as usize)?.address.clone());
    RelayJob {
        id: loaded.record.id,
        sender: envelope.sender.clone(),
        recipients: indices.iter().filter_map(address).collect(),
        origin: envelope.origin.clone(),
        content: content(&loaded.record, loaded.content.clone()),
    }
}

/// Whether the relay took as many recipients as it takes at once, and this one is left.
fn is_too_many(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deferred(reason) if reason.status == Status::TOO_MANY)
}

/// Whether the relay takes nothing at all: it does not answer, has no TLS, or wants another password,
/// which it must not be offered once for each message.
fn is_away(outcome: &Outcome) -> bool {
    let away = [Status::NO_ANSWER, Status::NO_ADDRESS, Status::NO_TLS, Status::AUTH_FAILED];
    let Outcome::Deferred(reason) = outcome else { return false };
    // By policy a connection is refused here, and a message there.
    let is_policy = reason.status == Status::POLICY.of_class(4) && reason.remote.is_none();
    is_policy || away.contains(&reason.status)
}
