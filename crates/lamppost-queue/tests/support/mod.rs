//! The roles around the queue, in the test's hands, and its disk in memory.

#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part of this")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamppost_disk::Blocking;
use lamppost_net::link::{Inbox, Port, link};
use lamppost_net::{Clock, SystemClock, TokioClock};
use lamppost_queue::{Ends, Queue, Settings};
use lamppost_roles::{
    Changes, ContentAnswer, ContentRequest, ControlAnswer, ControlRequest, DeliveryAnswer,
    DeliveryRequest, Envelope, Filter, IntakeAnswer, IntakeRequest, MessageView, Origin, Outcome,
    QueueId, QueueStatus, Recipient, Route, RouteAnswer, RouteRequest, Selection, Timestamp, Verb,
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
    pub(crate) metrics: Arc<Metrics>,
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
    let clock: Arc<dyn Clock> = match settings.blocking {
        Blocking::Threads => Arc::new(SystemClock),
        // Such tests pause the time.
        Blocking::Inline => Arc::new(TokioClock::starting_at(Duration::from_secs(1_800_000_000))),
    };
    let disk = Arc::new(disk.clone());
    let metrics = Metrics::new();
    let means = (clock, metrics.clone());
    let queue = Queue::start_on(disk, settings, means, ends).await.unwrap();
    Around { queue, intake, control, content, delivery, routing, metrics }
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
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Takes whatever delivery is asked for, until the queue is gone.
pub(crate) async fn succeed(mut delivery: Inbox<DeliveryRequest, DeliveryAnswer>) {
    while let Some((request, reply)) = delivery.next().await {
        reply.send(DeliveryAnswer(vec![Outcome::Done; entries(&request)]));
    }
}

/// How many outcomes an answer has.
pub(crate) fn entries(request: &DeliveryRequest) -> usize {
    match request {
        DeliveryRequest::Prepare(jobs) => jobs.len(),
        DeliveryRequest::Publish(placements) => placements.len(),
        DeliveryRequest::Relay(jobs) => jobs.iter().map(|job| job.recipients.len()).sum(),
    }
}

/// Does everything in one thread, on small segments, with a clock that tests pause.
pub(crate) fn small(settings: &mut Settings) {
    settings.blocking = Blocking::Inline;
    settings.segment_size = 16 * 1024;
    // Time to hold a message before its delivery begins.
    settings.delivery_lag = Duration::from_millis(50);
}

/// Ends the queue and starts another on a disk, with the same settings.
pub(crate) async fn restart(
    around: Around,
    disk: &SimulatedDisk,
    folder: &Path,
    change: impl FnOnce(&mut Settings),
) -> Around {
    let Around { queue, .. } = around;
    // The lock goes with the process; within one process it must be given back.
    queue.stop(Duration::ZERO).await;
    start(disk, folder, change).await
}

/// Figures of the queue.
pub(crate) async fn status(around: &Around) -> QueueStatus {
    match around.control.ask(ControlRequest::Status).await.unwrap() {
        ControlAnswer::Status(status) => status,
        other => panic!("{other:?}"),
    }
}

/// A message as administrators see it.
pub(crate) async fn show(around: &Around, id: QueueId) -> Option<MessageView> {
    match around.control.ask(ControlRequest::Show(id)).await.unwrap() {
        ControlAnswer::Message(view) => Some(view),
        ControlAnswer::NotFound => None,
        other => panic!("{other:?}"),
    }
}

/// Changes a message.
pub(crate) async fn change(around: &Around, verb: Verb, id: QueueId) {
    assert_eq!(change_all(around, verb, &[id]).await.changed, 1);
}

/// Changes messages; returns what became of each.
pub(crate) async fn change_all(around: &Around, verb: Verb, ids: &[QueueId]) -> Changes {
    let selection = Selection::Ids(ids.to_vec());
    let request = ControlRequest::Change { verb, selection, by: "test".into() };
    match around.control.ask(request).await.unwrap() {
        ControlAnswer::Changed(changes) => changes,
        other => panic!("{other:?}"),
    }
}

/// Answers one question of the queue with the same outcome for each entry.
pub(crate) async fn deliver(around: &mut Around, outcome: &Outcome) -> DeliveryRequest {
    let (request, reply) = around.delivery.next().await.unwrap();
    let entries = entries(&request);
    reply.send(DeliveryAnswer(vec![outcome.clone(); entries]));
    request
}
