//! The schedule: due recipients are worked on in batches and come back with an outcome.

mod mailboxes;
mod outcome;
mod relay;
mod routing;

use std::sync::Arc;
use std::time::Duration;

use lamppost_net::Drain;
use lamppost_net::link::Port;
use lamppost_roles::{
    DeliveryAnswer, DeliveryRequest, Outcome, Reason, RouteAnswer, RouteRequest, Timestamp,
};
use lamppost_smtp::Status;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::index::{Bounds, ItemBatch, Work};
use crate::spool::Spool;

/// How long to wait when a role that must answer is gone.
const GONE_PAUSE: Duration = Duration::from_secs(1);
/// A mailbox whose batch takes longer gets batches of its own.
const SLOW: Duration = Duration::from_secs(5);

/// The roles that the schedule asks.
#[derive(Clone, Debug)]
pub(crate) struct Askers {
    pub(crate) delivery: Port<DeliveryRequest, DeliveryAnswer>,
    pub(crate) routing: Port<RouteRequest, RouteAnswer>,
}

/// Hands out batches until told to stop.
pub(crate) async fn run(
    spool: Arc<Spool>,
    askers: Askers,
    batches: Drain,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(spool.settings.deliveries_at_once_max));
    loop {
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            place = places.clone().acquire_owned() => place,
        };
        let Ok(place) = place else { return };
        let batch = tokio::select! {
            biased;
            batch = next_batch(&spool, &batches) => batch,
            () = stop.cancelled() => return,
        };
        let (spool, askers, end) = (spool.clone(), askers.clone(), batches.clone());
        batches.spawn(async move {
            let begun = Instant::now();
            // A batch that is cut short is repeated at the next start, as after a crash.
            let troubled = tokio::select! {
                biased;
                troubled = work(&spool, &askers, &batch) => troubled,
                () = end.overdue() => return,
            };
            let troubled = troubled || begun.elapsed() > SLOW;
            spool.index.lock().batch_over(&batch, troubled, spool.now());
            spool.due.notify_one();
            drop(place);
        });
    }
}

/// Waits for a batch, and for the end of a pause.
async fn next_batch(spool: &Spool, batches: &Drain) -> ItemBatch {
    // A relay that hangs must leave places to mailboxes.
    let half = (spool.settings.deliveries_at_once_max / 2).max(1);
    let relays_max = spool.settings.relays_at_once_max.min(half);
    let bounds = Bounds {
        items_max: spool.settings.batch_max,
        relays_max: u32::try_from(relays_max).unwrap_or(u32::MAX),
        lag_ms: u64::try_from(spool.settings.delivery_lag.as_millis()).unwrap_or(u64::MAX),
    };
    loop {
        batches.unpaused().await;
        let now = spool.now();
        let look = spool.index.lock().next_batch(now, bounds);
        let again = match look {
            Ok(batch) => return batch,
            Err(again) => again,
        };
        let wait = again.map_or(Duration::from_secs(3600), |due| {
            Duration::from_millis(due.0.saturating_sub(now.0).max(1))
        });
        tokio::select! {
            () = spool.due.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Works on a batch; tells whether there was trouble.
async fn work(spool: &Arc<Spool>, askers: &Askers, batch: &ItemBatch) -> bool {
    match batch.work {
        Work::Mailbox => mailboxes::deliver(spool, &askers.delivery, &batch.items).await,
        Work::Relay => relay::deliver(spool, &askers.delivery, &batch.items).await,
        Work::Routing => routing::decide(spool, &askers.routing, &batch.items).await,
    }
}

/// Asks delivery; when it is gone, all entries are deferred.
async fn ask(
    delivery: &Port<DeliveryRequest, DeliveryAnswer>,
    request: DeliveryRequest,
    entries: usize,
) -> Vec<Outcome> {
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

/// When a message is given up.
pub(crate) fn given_up_at(spool: &Spool, received: Timestamp) -> Timestamp {
    let lifetime = u64::try_from(spool.settings.lifetime.as_millis()).unwrap_or(u64::MAX);
    Timestamp(received.0.saturating_add(lifetime))
}
