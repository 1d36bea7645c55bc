//! Policy is asked for the way to a recipient: one of a message that was imported, or the sender of one
//! that bounces.

use std::collections::BTreeMap;
use std::sync::Arc;

use lamppost_net::link::Port;
use lamppost_roles::{Outcome, QueueId, Reason, Route, RouteAnswer, RouteRequest};
use lamppost_smtp::{Address, Status};
use tokio::task::JoinSet;

use super::deferred;
use super::mailboxes::load;
use super::outcome::{Tried, conclude};
use crate::record::{Item, Record};
use crate::spool::Spool;

/// Works on a batch; tells whether there was trouble.
pub(super) async fn decide(
    spool: &Arc<Spool>,
    routing: &Port<RouteRequest, RouteAnswer>,
    items: &[Item],
) -> bool {
    let mut messages: BTreeMap<QueueId, Vec<Item>> = BTreeMap::new();
    for &item in items {
        messages.entry(item.0).or_default().push(item);
    }
    let mut troubled = false;
    for (id, items) in messages {
        let loaded = match load(spool, (id, 0), false).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => continue,
            Err(outcome) => {
                let indices = items.into_iter().map(|(_, index)| index).collect();
                let lost = Tried::lost(spool, (id, indices), &outcome).await;
                troubled |= conclude(spool, lost);
                continue;
            }
        };
        let mut routes = Vec::new();
        let mut outcomes = Vec::new();
        for item in items {
            let recipient = loaded.record.envelope.recipients.get(item.1 as usize);
            let Some(recipient) = recipient else { continue };
            match ask(routing, &recipient.address).await {
                Ok(route) => routes.push((item, route)),
                Err(outcome) => outcomes.push((item, outcome)),
            }
        }
        outcomes.extend(routed(spool, routes).await);
        let outcomes =
            outcomes.into_iter().map(|(item, outcome)| (Tried::of(&loaded.record, item), outcome));
        troubled |= conclude(spool, outcomes.collect());
    }
    troubled
}

/// The way to an address, or what becomes of its mail when there is none.
async fn ask(
    routing: &Port<RouteRequest, RouteAnswer>,
    address: &Address,
) -> Result<Route, Outcome> {
    Err(match routing.ask(RouteRequest { address: address.clone() }).await {
        Ok(RouteAnswer::Route(route)) => return Ok(route),
        Ok(RouteAnswer::Unknown) => {
            Outcome::Failed(Reason::own(Status::NO_MAILBOX, "no such mailbox here"))
        }
        Ok(RouteAnswer::Nowhere) => {
            let domain = address.domain();
            let text = format!("no way out is configured for mail to {domain} (relay-to)");
            Outcome::Deferred(Reason::own(Status::NO_ROUTE, text))
        }
        Ok(RouteAnswer::Unavailable) => deferred("accounts could not be asked"),
        Err(gone) => deferred(gone.to_string()),
    })
}

/// Makes the ways durable, all by one sync where that can be, and sends the recipients along them in
/// one step, so that those who go the same way go together. Returns those that stay where they are.
async fn routed(spool: &Arc<Spool>, routes: Vec<(Item, Route)>) -> Vec<(Item, Outcome)> {
    let mut commits = JoinSet::new();
    for (item, route) in routes {
        let spool = spool.clone();
        commits.spawn(async move {
            let record = Record::Routed { item, route: route.clone() };
            (item, route, spool.change(&record, |_| {}).await)
        });
    }
    let mut durable = Vec::new();
    let mut outcomes = Vec::new();
    while let Some(committed) = commits.join_next().await {
        match committed {
            Ok((item, route, Ok(()))) => durable.push((item, route)),
            Ok((item, _, Err(error))) => outcomes.push((item, deferred(error.to_string()))),
            // A task that is cut short leaves its recipient due, as the end of a batch does.
            Err(_) => {}
        }
    }
    durable.sort_by_key(|&(item, _)| item);
    {
        let mut index = spool.index.lock();
        for (item, route) in durable {
            index.routed(item, route);
        }
    }
    spool.count_messages();
    spool.due.notify_one();
    outcomes
}
