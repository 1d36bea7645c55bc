//! A kill, a start, and then a power cut: what the kill left unsynced is durable before anything is
//! built upon it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use lamppost_roles::{DeliveryAnswer, DeliveryRequest, Outcome};
use lamppost_sim::SimulatedDisk;
use support::{Around, deliver, entries, small, start, stored, submit, world};

/// What delivery is asked first; nothing when there is nothing to deliver.
async fn asked(around: &mut Around, answer: bool) -> Option<DeliveryRequest> {
    let next = tokio::time::timeout(Duration::from_secs(1), around.delivery.next()).await;
    let (request, reply) = next.ok()??;
    if answer {
        reply.send(DeliveryAnswer(vec![Outcome::Done; entries(&request)]));
    }
    Some(request)
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_went_on_after_a_kill_is_not_repeated_after_a_power_cut() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), small).await;
    stored(&submit(&around, "demo", "Subject: x\n\nx\n").await);
    deliver(&mut around, &Outcome::Done).await;
    let published = asked(&mut around, false).await;
    assert!(matches!(published, Some(DeliveryRequest::Publish(_))), "{published:?}");
    let log = disk.log();
    around.queue.stop(Duration::ZERO).await;
    let mut left = disk.begin();
    let mut published = 0;
    for operation in &log {
        left.apply(operation);
        let killed = SimulatedDisk::with_world(left.clone());
        let mut second = start(&killed, folder.path(), small).await;
        let first = asked(&mut second, true).await;
        // Nothing waits for the record that says that it is done.
        let cut = killed.after_power_cut();
        second.queue.stop(Duration::ZERO).await;
        if !matches!(first, Some(DeliveryRequest::Publish(_))) {
            continue;
        }
        published += 1;
        let mut third = start(&cut, folder.path(), small).await;
        let again = asked(&mut third, true).await;
        let is_repeated = matches!(again, Some(DeliveryRequest::Prepare(_)));
        assert!(!is_repeated, "delivered again; killed after {operation:?}");
        third.queue.stop(Duration::ZERO).await;
    }
    // Killed between the write of the intent and its sync, and after that.
    assert!(published >= 2, "{published}");
}
