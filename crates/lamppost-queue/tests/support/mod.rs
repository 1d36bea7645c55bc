//! The roles around the queue, in the test's hands, and its disk in memory.

#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part of this")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamppost_net::link::{Inbox, Port, link};
use lamppost_net::{Clock, SystemClock};
use lamppost_queue::{Ends, Queue, Settings};
use lamppost_roles::{
    ContentAnswer, ContentRequest, ControlAnswer, ControlRequest, DeliveryAnswer, DeliveryRequest,
    Envelope, Filter, IntakeAnswer, IntakeRequest, Origin, Outcome, QueueId, Recipient, Route,
    RouteAnswer, RouteRequest, Timestamp,
};
use lamppost_sim::SimulatedDisk;
use lamppost_smtp::ReversePath;
use lamppost_telemetry::Metrics;

/// The queue with the roles around it in the test's hands.
pub(crate) struct Around {
    pub(crate) queue: Queue,
    pub(crate) intake: Port<IntakeRequest, IntakeAnswer>,
    pub(crate) control: Port<ControlRequest, ControlAnswer>,
    pub(crate) content: Port<ContentRequest, ContentAnswer>,
    pub(crate) delivery: Inbox<DeliveryRequest, DeliveryAnswer>,
    pub(crate) routing: Inbox<RouteRequest, RouteAnswer>,
}

/// An empty disk with a spool's folder, and the real folder that holds its lock.
pub(crate) fn world() -> (SimulatedDisk, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (SimulatedDisk::new(folder.path()), folder)
}

/// Starts a queue whose lock is in `folder` and whose files are on `disk`.
pub(crate) async fn start(
    disk: &SimulatedDisk,
    folder: &Path,
    change: impl FnOnce(&mut Settings),
) -> Around {
    let mut settings = Settings {
        directory: folder.to_owned(),
        free_space_min: 0,
        accept_volatile: true,
        delivery_lag: Duration::ZERO,
        ..Settings::default()
    };
    change(&mut settings);
    let ((intake, intake_end), (control, control_end)) = (link(), link());
    let ((content, content_end), (delivery_end, delivery)) = (link(), link());
    let (routing_end, routing) = link();
    let ends = Ends {
        intake: intake_end,
        control: control_end,
        content: content_end,
        delivery: delivery_end,
        routing: routing_end,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let disk = Arc::new(disk.clone());
    let queue = Queue::start_on(disk, settings, (clock, Metrics::new()), ends).await.unwrap();
    Around { queue, intake, control, content, delivery, routing }
}

/// An envelope to mailboxes of `lamppost.test`.
pub(crate) fn envelope(mailboxes: &[&str]) -> Envelope {
    let recipient = |mailbox: &&str| {
        let address: lamppost_smtp::Address = format!("{mailbox}@lamppost.test").parse().unwrap();
        Recipient { address: address.clone(), route: Route::Mailbox(address) }
    };
    Envelope {
        sender: ReversePath::Null,
        recipients: mailboxes.iter().map(recipient).collect(),
        origin: Origin {
            session: "s1".into(),
            peer: "192.0.2.1".parse().unwrap(),
            helo: "client.test".into(),
            host: "mail.lamppost.test".into(),
            protocol: "ESMTP".into(),
            tls: None,
            account: None,
            received: Timestamp(u64::try_from(SystemClock.now().as_millis()).unwrap()),
        },
    }
}

/// Hands a message in.
pub(crate) async fn submit(around: &Around, mailbox: &str, content: &str) -> IntakeAnswer {
    let content = Bytes::copy_from_slice(content.as_bytes());
    around
        .intake
        .ask(IntakeRequest::Submit { envelope: envelope(&[mailbox]), content })
        .await
        .unwrap()
}

/// The id of a message that was stored.
#[track_caller]
pub(crate) fn stored(answer: &IntakeAnswer) -> QueueId {
    let IntakeAnswer::Stored(id) = answer else { panic!("{answer:?}") };
    *id
}

/// The ids of all messages in the queue.
pub(crate) async fn listed(around: &Around) -> Vec<QueueId> {
    let request = ControlRequest::List { after: None, limit: 1000, filter: Filter::default() };
    let ControlAnswer::Listing(listing) = around.control.ask(request).await.unwrap() else {
        panic!()
    };
    listing.messages.iter().map(|message| message.id).collect()
}

/// Waits until the queue is as it should be.
pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < patience, "it never came about");
        tokio::task::yield_now().await;
    }
}

/// Answers one question of the queue with the same outcome for each entry.
pub(crate) async fn deliver(around: &mut Around, outcome: &Outcome) -> DeliveryRequest {
    let (request, reply) = around.delivery.next().await.unwrap();
    let entries = match &request {
        DeliveryRequest::Prepare(jobs) => jobs.len(),
        DeliveryRequest::Publish(placements) => placements.len(),
        DeliveryRequest::Relay(jobs) => jobs.iter().map(|job| job.recipients.len()).sum(),
    };
    reply.send(DeliveryAnswer(vec![outcome.clone(); entries]));
    request
}
