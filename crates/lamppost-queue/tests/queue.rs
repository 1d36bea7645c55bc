//! What the queue promises: nothing acknowledged is lost, nothing delivered comes back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use lamppost_disk::Blocking;
use lamppost_net::link::{carry_answers, carry_questions, link};
use lamppost_roles::{
    Content, ContentAnswer, ContentRequest, ControlAnswer, ControlRequest, DeliveryAnswer,
    DeliveryRequest, IntakeAnswer, IntakeRequest, Outcome, QueueId, Reason, Route, Verb,
};
use lamppost_smtp::{Refusal, Status};
use proptest::prelude::*;
use support::{
    Around, change, deliver, envelope, listed, restart, start, stored, submit, until, world,
};

#[tokio::test]
async fn a_message_goes_through_prepare_intent_and_publish() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), |_| {}).await;
    let id = stored(&submit(&around, "demo", "hello\n").await);
    let DeliveryRequest::Prepare(jobs) = deliver(&mut around, &Outcome::Done).await else {
        panic!()
    };
    assert_eq!(jobs[0].placement.id, id);
    assert_eq!(jobs[0].content, Content::Inline(Bytes::from_static(b"hello\n")));
    // The intent is durable before the file is renamed: after a power cut now, it is published and
    // not prepared again.
    let (request, reply) = around.delivery.next().await.unwrap();
    let DeliveryRequest::Publish(placements) = request else { panic!("{request:?}") };
    assert_eq!(placements[0].id, id);
    let after = disk.after_power_cut();
    drop(reply);
    let mut around = restart(around, &after, folder.path(), |_| {}).await;
    let redo = deliver(&mut around, &Outcome::Done).await;
    assert!(matches!(redo, DeliveryRequest::Publish(_)), "{redo:?}");
    until(async || listed(&around).await.is_empty()).await;
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "it holds up the committer's thread, not this one")]
async fn messages_that_arrive_together_share_a_sync() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), |_| {}).await;
    let before = disk.syncs();
    let gate = disk.gate.clone();
    let held = gate.lock();
    let mut submits = Box::pin(futures_util::future::join_all(
        (0..200).map(|_| submit(&around, "demo", "hello\n")),
    ));
    // All are handed in while the first sync is held up, and share the next.
    for _ in 0..1000 {
        let polled = futures_util::poll!(&mut submits);
        assert!(polled.is_pending(), "answered before its sync");
        tokio::task::yield_now().await;
    }
    drop(held);
    let answers = submits.await;
    assert_eq!(answers.iter().map(stored).collect::<BTreeSet<_>>().len(), 200);
    assert!(disk.syncs() - before <= 3, "{} syncs", disk.syncs() - before);
}

#[tokio::test]
async fn a_disk_that_fails_refuses_and_what_was_refused_never_comes() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), |_| {}).await;
    let first = stored(&submit(&around, "held", "first\n").await);
    // The write succeeds and the sync fails: the record is there, and must be voided.
    disk.fail_after(1, 0);
    let refused = submit(&around, "held", "second\n").await;
    assert_eq!(refused, IntakeAnswer::Refused(Refusal::SpoolFailed));
    let status = around.control.ask(ControlRequest::Status).await.unwrap();
    assert!(matches!(status, ControlAnswer::Status(status) if status.fault.is_some()));
    disk.mend();
    let third = stored(&submit(&around, "held", "third\n").await);
    assert_eq!(listed(&around).await, [first, third]);
    let after = disk.after_kill();
    let around = restart(around, &after, folder.path(), |_| {}).await;
    assert_eq!(listed(&around).await, [first, third]);
}

/// Hands a message in as a large one.
async fn upload(around: &Around, pieces: &[&'static str]) -> QueueId {
    let IntakeAnswer::Upload(upload) = around.intake.ask(IntakeRequest::Begin).await.unwrap()
    else {
        panic!()
    };
    for &piece in pieces {
        let request = IntakeRequest::Append { upload, piece: piece.into() };
        assert_eq!(around.intake.ask(request).await.unwrap(), IntakeAnswer::Proceed);
    }
    let finish = IntakeRequest::Finish { upload, envelope: envelope(&["demo"]) };
    stored(&around.intake.ask(finish).await.unwrap())
}

#[tokio::test]
async fn a_large_content_that_was_damaged_is_not_delivered() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), |settings| {
        settings.delivery_lag = Duration::from_secs(3600);
    })
    .await;
    let id = upload(&around, &["one ", "two "]).await;
    let read = ControlRequest::Read { id, offset: 0, length_max: 100 };
    let answer = around.control.ask(read.clone()).await.unwrap();
    assert_eq!(answer, ControlAnswer::Piece("one two ".into()));
    let disk = disk.after_power_cut();
    disk.damage(&folder.path().join("bodies").join(id.to_string()), 4, b"2");
    let wait = |settings: &mut lamppost_queue::Settings| {
        settings.delivery_lag = Duration::from_secs(3600);
    };
    let around = restart(around, &disk, folder.path(), wait).await;
    // Nor is it shown as if it were whole.
    let answer = around.control.ask(read).await.unwrap();
    assert!(matches!(&answer, ControlAnswer::Failed(why) if why.contains("damaged")), "{answer:?}");
    let around = restart(around, &disk, folder.path(), |_| {}).await;
    let failed = async || {
        let shown = around.control.ask(ControlRequest::Show(id)).await.unwrap();
        let ControlAnswer::Message(message) = shown else { panic!("{shown:?}") };
        message.recipients[0].last.as_ref().is_some_and(|last| last.reason.text.contains("damaged"))
    };
    until(failed).await;
}

#[tokio::test]
async fn large_messages_go_aside_and_are_read_in_pieces() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), |_| {}).await;
    let id = upload(&around, &["one ", "two "]).await;
    let DeliveryRequest::Prepare(jobs) = deliver(&mut around, &Outcome::Done).await else {
        panic!()
    };
    assert_eq!(jobs[0].content, Content::Aside { length: 8 });
    let request = ContentRequest { id, offset: 4, length_max: 100 };
    let piece = around.content.ask(request).await.unwrap();
    assert_eq!(piece, ContentAnswer::Piece("two ".into()));
    assert_eq!(disk.after_power_cut().files("bodies").len(), 1);
    deliver(&mut around, &Outcome::Done).await;
    until(async || disk.files("bodies").is_empty()).await;
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_nothing() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), |settings| settings.uploads_max = 1).await;
    let IntakeAnswer::Upload(upload) = around.intake.ask(IntakeRequest::Begin).await.unwrap()
    else {
        panic!()
    };
    let second = around.intake.ask(IntakeRequest::Begin).await.unwrap();
    assert_eq!(second, IntakeAnswer::Refused(Refusal::SpoolFull));
    around.intake.ask(IntakeRequest::Abort { upload }).await.unwrap();
    assert!(disk.files("bodies").is_empty());
    assert!(matches!(
        around.intake.ask(IntakeRequest::Begin).await.unwrap(),
        IntakeAnswer::Upload(_)
    ));
}

#[tokio::test]
async fn what_an_administrator_decides_is_durable() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), |settings| {
        settings.delivery_lag = Duration::from_secs(60);
    });
    let around = around.await;
    let [held, deleted] = [submit(&around, "a", "x").await, submit(&around, "b", "y").await];
    let (held, deleted) = (stored(&held), stored(&deleted));
    change(&around, Verb::Hold, held).await;
    change(&around, Verb::Delete, deleted).await;
    let around = restart(around, &disk.after_power_cut(), folder.path(), |_| {}).await;
    assert_eq!(listed(&around).await, [held]);
    let ControlAnswer::Message(message) =
        around.control.ask(ControlRequest::Show(held)).await.unwrap()
    else {
        panic!()
    };
    assert!(message.held);
    change(&around, Verb::Release, held).await;
}

#[tokio::test]
async fn old_segments_go_and_a_message_that_stays_is_written_again() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), |settings| settings.segment_size = 4096).await;
    let stays = stored(&submit(&around, "stays", "stays\n").await);
    let prepare =
        deliver(&mut around, &Outcome::Deferred(Reason::own(Status::SYSTEM, "not now"))).await;
    assert!(matches!(prepare, DeliveryRequest::Prepare(_)));
    for _ in 0..100 {
        stored(&submit(&around, "demo", &"x".repeat(500)).await);
        deliver(&mut around, &Outcome::Done).await;
        deliver(&mut around, &Outcome::Done).await;
    }
    until(async || listed(&around).await == [stays]).await;
    assert!(disk.files(".seg").len() < 10, "{:?}", disk.files(".seg"));
    let around = restart(around, &disk.after_power_cut(), folder.path(), |_| {}).await;
    assert!(listed(&around).await.contains(&stays));
    let read = ControlRequest::Read { id: stays, offset: 0, length_max: 100 };
    assert_eq!(around.control.ask(read).await.unwrap(), ControlAnswer::Piece("stays\n".into()));
}

#[tokio::test]
async fn the_queue_answers_over_a_socket_as_over_a_channel() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), |_| {}).await;
    let (port, asked) = link();
    let (here, there) = tokio::net::UnixStream::pair().unwrap();
    tokio::spawn(carry_questions(asked, here));
    tokio::spawn(carry_answers(around.intake.clone(), there));
    let content = Bytes::from_static(b"over a socket\n");
    let submits = (0..50).map(|_| {
        port.ask(IntakeRequest::Submit { envelope: envelope(&["demo"]), content: content.clone() })
    });
    let answers = futures_util::future::join_all(submits).await;
    let ids: BTreeSet<_> = answers.iter().map(|answer| stored(answer.as_ref().unwrap())).collect();
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), listed(&around).await);
}

/// What happens to a queue in a random story.
#[derive(Clone, Debug)]
enum Event {
    Submit(u8),
    Deliver(bool),
    PowerCut(u64),
    DiskFails(u64, u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => (0_u8..4).prop_map(Event::Submit),
        4 => any::<bool>().prop_map(Event::Deliver),
        1 => any::<u64>().prop_map(Event::PowerCut),
        1 => (0_u64..4, any::<u64>()).prop_map(|(good, seed)| Event::DiskFails(good, seed)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever is cut off and whatever fails: each acknowledged message is in the queue or was
    /// published, and none that was refused is there.
    #[test]
    fn what_was_acknowledged_is_never_lost(events in proptest::collection::vec(event(), 1..40)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(story(events));
    }
}

async fn story(events: Vec<Event>) {
    let (mut disk, folder) = world();
    let small = |settings: &mut lamppost_queue::Settings| {
        settings.segment_size = 2000;
        settings.blocking = Blocking::Inline;
    };
    let mut around = start(&disk, folder.path(), small).await;
    let (mut acknowledged, mut published) = (BTreeSet::new(), BTreeSet::new());
    for event in events {
        match event {
            Event::Submit(mailbox) => {
                let answer = submit(&around, &format!("m{mailbox}"), &"x".repeat(300)).await;
                if let IntakeAnswer::Stored(id) = answer {
                    acknowledged.insert(id);
                }
            }
            Event::Deliver(done) => {
                let waiting =
                    tokio::time::timeout(Duration::from_millis(5), around.delivery.next());
                let Ok(Some((request, reply))) = waiting.await else { continue };
                let (ids, publishes): (Vec<_>, _) = match &request {
                    DeliveryRequest::Prepare(jobs) => {
                        (jobs.iter().map(|j| j.placement.id).collect(), false)
                    }
                    DeliveryRequest::Publish(places) => {
                        (places.iter().map(|p| p.id).collect(), true)
                    }
                    DeliveryRequest::Relay(_) => panic!("no message here goes elsewhere"),
                };
                if done && publishes {
                    published.extend(ids.iter().copied());
                }
                let outcome = if done {
                    Outcome::Done
                } else {
                    Outcome::Deferred(Reason::own(Status::SYSTEM, "later"))
                };
                reply.send(DeliveryAnswer(vec![outcome; ids.len()]));
            }
            Event::PowerCut(seed) => {
                (disk, _) = disk.after_crash(disk.operations(), seed);
                let Around { queue, delivery, .. } = around;
                drop(delivery);
                queue.stop(Duration::ZERO).await;
                around = start(&disk, folder.path(), small).await;
            }
            Event::DiskFails(good, seed) => {
                disk.fail_after(good, seed);
                let refused = submit(&around, "m0", "y").await;
                if let IntakeAnswer::Stored(id) = refused {
                    acknowledged.insert(id);
                }
                disk.mend();
                // What was refused is void for sure once the disk has worked again.
                acknowledged.insert(stored(&submit(&around, "m0", "z").await));
            }
        }
        let there: BTreeSet<_> = listed(&around).await.into_iter().collect();
        let lost: Vec<_> = acknowledged
            .iter()
            .filter(|id| !there.contains(id) && !published.contains(id))
            .collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let risen: Vec<_> = there.difference(&acknowledged).collect();
        assert!(risen.is_empty(), "never acknowledged: {risen:?}");
    }
}

/// Hands in a message for elsewhere.
async fn submit_elsewhere(around: &Around) -> QueueId {
    let mut elsewhere = envelope(&["demo"]);
    elsewhere.recipients[0].route = Route::Relay;
    let content = Bytes::from_static(b"Subject: x\n\nx\n");
    let request = IntakeRequest::Submit { envelope: elsewhere, content };
    stored(&around.intake.ask(request).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn mail_for_a_mailbox_never_takes_the_place_of_deleted_mail_for_elsewhere() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), |settings| {
        (settings.relays_at_once_max, settings.batch_max) = (1, 1);
        settings.blocking = Blocking::Inline;
    })
    .await;
    let first = submit_elsewhere(&around).await;
    let (_, reply) = around.delivery.next().await.unwrap();
    let in_line = submit_elsewhere(&around).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    change(&around, Verb::Delete, first).await;
    change(&around, Verb::Delete, in_line).await;
    reply.send(DeliveryAnswer(vec![Outcome::Done]));
    tokio::time::sleep(Duration::from_millis(100)).await;
    stored(&submit(&around, "demo", "private\n").await);
    let (request, _reply) = around.delivery.next().await.unwrap();
    assert!(matches!(request, DeliveryRequest::Prepare(_)), "{request:?}");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_hangs_leaves_places_to_mailboxes() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), |settings| {
        (settings.relays_at_once_max, settings.batch_max) = (20, 1);
        settings.deliveries_at_once_max = 4;
        settings.blocking = Blocking::Inline;
    })
    .await;
    for _ in 0..8 {
        submit_elsewhere(&around).await;
    }
    stored(&submit(&around, "demo", "local\n").await);
    let mut hanging = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), around.delivery.next());
        let (request, reply) = next.await.unwrap().unwrap();
        if matches!(request, DeliveryRequest::Prepare(_)) {
            break;
        }
        hanging.push(reply);
    }
    assert!(hanging.len() <= 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_relayed_is_durable_soon_however_busy_the_log_is() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), |settings| {
        settings.relays_at_once_max = 1;
        settings.blocking = Blocking::Inline;
    })
    .await;
    for _ in 0..40 {
        submit_elsewhere(&around).await;
    }
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        deliver(&mut around, &Outcome::Done).await;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    let left = listed(&around).await.len();
    let around = restart(around, &disk.after_power_cut(), folder.path(), |_| {}).await;
    let back = listed(&around).await.len() - left;
    assert!(back <= 3, "{back} messages would be relayed again");
}
