//! Policy is asked for the way to a recipient: a bounce on its way to the sender.

use std::sync::Arc;

use lamppost_net::link::Port;
use lamppost_roles::{Outcome, Reason, Route, RouteAnswer, RouteRequest};
use lamppost_smtp::Status;

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
    let mut troubled = false;
    for &item in items {
        let loaded = match load(spool, item, false).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => continue,
            Err(outcome) => {
                troubled |= conclude(spool, vec![(Tried::known(spool, item), outcome)]);
                continue;
            }
        };
        let Some(recipient) = loaded.record.envelope.recipients.get(item.1 as usize) else {
            continue;
        };
        let domain = recipient.address.domain().to_owned();
        let asked = routing.ask(RouteRequest { address: recipient.address.clone() }).await;
        let outcome = match asked {
            Ok(RouteAnswer::Route(route)) => match routed(spool, item, route).await {
                Ok(()) => continue,
                Err(error) => deferred(error.to_string()),
            },
            Ok(RouteAnswer::Unknown) => {
                Outcome::Failed(Reason::own(Status::NO_MAILBOX, "no such mailbox here"))
            }
            Ok(RouteAnswer::Nowhere) => {
                let text = format!("no way out is configured for mail to {domain} (relay-to)");
                Outcome::Deferred(Reason::own(Status::NO_ROUTE, text))
            }
            Ok(RouteAnswer::Unavailable) => deferred("accounts could not be asked"),
            Err(gone) => deferred(gone.to_string()),
        };
        troubled |= conclude(spool, vec![(Tried::of(&loaded.record, item), outcome)]);
    }
    troubled
}

async fn routed(
    spool: &Arc<Spool>,
    item: Item,
    route: Route,
) -> Result<(), crate::committer::CommitFailed> {
    let record = Record::Routed { item, route: route.clone() };
    spool.change(&record, move |spool| spool.index.lock().routed(item, route)).await
}
