//! To the host that takes all mail for elsewhere: one job a message, with all its recipients there.

use std::collections::BTreeMap;
use std::sync::Arc;

use lamppost_net::link::Port;
use lamppost_roles::{DeliveryAnswer, DeliveryRequest, Outcome, QueueId, RelayJob};
use lamppost_smtp::Status;

use super::ask;
use super::mailboxes::{content, load};
use super::outcome::{Tried, conclude};
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
                let lost = |index| (Tried::known(spool, (id, index)), outcome.clone());
                troubled |= conclude(spool, indices.into_iter().map(lost).collect());
                continue;
            }
        };
        let envelope = &loaded.record.envelope;
        let known = |index: &u32| envelope.recipients.get(*index as usize).is_some();
        let indices: Vec<_> = indices.into_iter().filter(known).collect();
        let tried: Vec<_> =
            indices.iter().map(|&index| Tried::of(&loaded.record, (id, index))).collect();
        let recipients = indices
            .iter()
            .filter_map(|&index| Some(envelope.recipients.get(index as usize)?.address.clone()));
        if let Some(outcome) = &away {
            let all = tried.into_iter().map(|one| (one, outcome.clone()));
            troubled |= conclude(spool, all.collect());
            continue;
        }
        let job = RelayJob {
            id,
            sender: envelope.sender.clone(),
            recipients: recipients.collect(),
            origin: envelope.origin.clone(),
            content: content(&loaded.record, loaded.content.clone()),
        };
        // One message at a time: what was taken is noted before the next goes, so that a crash
        // repeats one message at most. Several batches run at once.
        let outcomes = ask(delivery, DeliveryRequest::Relay(vec![job]), tried.len()).await;
        away = outcomes.iter().find(|outcome| is_away(outcome)).cloned();
        troubled |= conclude(spool, tried.into_iter().zip(outcomes).collect());
    }
    troubled
}

/// Whether the relay could not be reached at all.
fn is_away(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deferred(reason) if reason.status == Status::NO_ANSWER)
}
