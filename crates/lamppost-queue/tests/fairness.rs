//! Accepting never starves delivering, nor the other way round: told by counts, in simulated time and
//! on one thread, so that each run is the same.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lamppost_net::link::{Inbox, Port};
use lamppost_queue::Settings;
use lamppost_roles::{DeliveryAnswer, DeliveryRequest, IntakeAnswer, IntakeRequest, Outcome};
use support::{entries, envelope, listed, small, start, stored, until, world};

/// Batches of deliveries at once.
const PLACES: usize = 4;

/// What was done so far.
#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    delivered: AtomicUsize,
}

impl Counts {
    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    fn delivered(&self) -> usize {
        self.delivered.load(Ordering::Relaxed)
    }
}

fn settings(settings: &mut Settings) {
    small(settings);
    settings.segment_size = 1024 * 1024;
    settings.delivery_lag = Duration::ZERO;
    settings.batch_max = 32;
    settings.deliveries_at_once_max = PLACES;
}

/// Delivers whatever it is asked to, each request in a task of its own.
async fn deliver(mut inbox: Inbox<DeliveryRequest, DeliveryAnswer>, counts: Arc<Counts>) {
    while let Some((request, reply)) = inbox.next().await {
        let counts = counts.clone();
        tokio::spawn(async move {
            let entries = entries(&request);
            if matches!(request, DeliveryRequest::Publish(_)) {
                counts.delivered.fetch_add(entries, Ordering::Relaxed);
            }
            reply.send(DeliveryAnswer(vec![Outcome::Done; entries]));
        });
    }
}

async fn submit(intake: &Port<IntakeRequest, IntakeAnswer>, mailbox: usize) {
    let envelope = envelope(&[&format!("m{mailbox}")]);
    let content = Bytes::from_static(b"Subject: x\n\nx\n");
    stored(&intake.ask(IntakeRequest::Submit { envelope, content }).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn deliveries_keep_up_with_a_flood_of_mail() {
    const CLIENTS: usize = 20;
    const EACH: usize = 200;
    /// Messages that may wait at any moment: a few batches, and never a share of the flood.
    const BEHIND_MAX: usize = 8 * 32;
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), settings).await;
    let counts = Arc::new(Counts::default());
    tokio::spawn(deliver(around.delivery, counts.clone()));
    let clients = (0..CLIENTS).map(|client| {
        let (intake, counts) = (around.intake.clone(), counts.clone());
        tokio::spawn(async move {
            let mut behind = 0;
            for turn in 0..EACH {
                submit(&intake, (client + turn) % 7).await;
                counts.accepted.fetch_add(1, Ordering::Relaxed);
                behind = behind.max(counts.accepted().saturating_sub(counts.delivered()));
            }
            behind
        })
    });
    let mut behind = 0;
    for client in clients.collect::<Vec<_>>() {
        behind = behind.max(client.await.unwrap());
    }
    assert_eq!(counts.accepted(), CLIENTS * EACH);
    assert!(behind <= BEHIND_MAX, "{behind} messages waited");
    until(async || counts.delivered() == CLIENTS * EACH).await;
}

#[tokio::test(start_paused = true)]
async fn mail_is_accepted_while_a_long_queue_is_delivered() {
    const BACKLOG: usize = 4000;
    const NEW: usize = 12;
    /// Deliveries that may come about while one message is accepted: two rounds of those that have a place.
    const BETWEEN_MAX: usize = 2 * PLACES * 32;
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), settings).await;
    let counts = Arc::new(Counts::default());
    // Nobody delivers yet.
    for number in 0..BACKLOG {
        submit(&around.intake, number % 300).await;
    }
    tokio::spawn(deliver(around.delivery, counts.clone()));
    let mut between = 0;
    for number in 0..NEW {
        let before = counts.delivered();
        submit(&around.intake, number).await;
        between = between.max(counts.delivered() - before);
    }
    assert!(between <= BETWEEN_MAX, "{between} deliveries were made before an answer");
    let left = BACKLOG + NEW - counts.delivered();
    assert!(left > BACKLOG / 4, "the queue was nearly empty: {left}");
    until(async || counts.delivered() == BACKLOG + NEW).await;
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_never_end_do_not_stop_accepting() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), settings).await;
    // All places of the schedule are taken by batches that hang.
    let mut hanging = Vec::new();
    for number in 0..1000 {
        submit(&around.intake, number).await;
        hanging.extend(around.delivery.next_waiting());
    }
    assert_eq!(hanging.len(), PLACES);
    let control = &around.control;
    let status = control.ask(lamppost_roles::ControlRequest::Status).await.unwrap();
    let lamppost_roles::ControlAnswer::Status(status) = status else { panic!("{status:?}") };
    assert_eq!(status.messages, 1000);
    assert_eq!(listed(&around).await.len(), 1000);
}
