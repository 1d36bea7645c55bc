//! What becomes of messages that an administrator changes, and of ids that name none.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use lamppost_roles::{
    Changes, DeliveryAnswer, IntakeRequest, Outcome, QueueId, Reason, RecipientState, Unchanged,
    Verb, WhyUnchanged,
};
use lamppost_smtp::Status;
use support::{
    Around, change_all, deliver, envelope, listed, show, small, start, stored, until, world,
};

async fn submit_from(around: &Around, sender: &str) -> QueueId {
    let mut envelope = envelope(&["a"]);
    envelope.sender = sender.parse().unwrap();
    let request =
        IntakeRequest::Submit { envelope, content: Bytes::from_static(b"Subject: x\n\n") };
    stored(&around.intake.ask(request).await.unwrap())
}

/// A queue that begins no delivery for an hour, and the folder of its lock.
async fn undelivered() -> (Around, tempfile::TempDir) {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), |settings| {
        small(settings);
        settings.delivery_lag = Duration::from_secs(3600);
    });
    (around.await, folder)
}

/// What is told of one message that stays as it was.
fn unchanged(id: QueueId, why: WhyUnchanged) -> Changes {
    Changes { unchanged: vec![Unchanged { id, why }], ..Changes::default() }
}

#[tokio::test(start_paused = true)]
async fn unknown_ids_are_told_and_doubles_are_one() {
    let (around, _folder) = undelivered().await;
    let id = submit_from(&around, "s@lamppost.test").await;
    let nobody = QueueId(7);
    for verb in [Verb::Hold, Verb::Release, Verb::Retry, Verb::Return] {
        let changes = change_all(&around, verb, &[id, nobody, id, nobody]).await;
        let expected = Changes { changed: 1, unknown: vec![nobody], ..Changes::default() };
        assert_eq!(changes, expected, "{verb:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_so_already_is_told() {
    let (around, _folder) = undelivered().await;
    let id = submit_from(&around, "s@lamppost.test").await;
    let again = unchanged(id, WhyUnchanged::SoBefore);
    assert_eq!(change_all(&around, Verb::Release, &[id]).await, again);
    assert_eq!(change_all(&around, Verb::Hold, &[id]).await.changed, 1);
    assert_eq!(change_all(&around, Verb::Hold, &[id]).await, again);
    // A retry makes it due, and it stays held all the same.
    let expected = Changes { changed: 1, held: 1, ..Changes::default() };
    assert_eq!(change_all(&around, Verb::Retry, &[id]).await, expected);
    assert!(show(&around, id).await.unwrap().held);
}

#[tokio::test(start_paused = true)]
async fn a_bounce_is_not_returned() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), small).await;
    let id = submit_from(&around, "").await;
    let later = Outcome::Deferred(Reason::own(Status::NO_ANSWER, "not now"));
    deliver(&mut around, &later).await;
    until(async || {
        show(&around, id).await.unwrap().recipients[0].state == RecipientState::Deferred
    })
    .await;
    let expected = unchanged(id, WhyUnchanged::NoSender);
    assert_eq!(change_all(&around, Verb::Return, &[id]).await, expected);
    let view = show(&around, id).await.unwrap();
    assert_eq!(view.recipients[0].state, RecipientState::Deferred);
    assert_eq!(change_all(&around, Verb::Delete, &[id]).await.changed, 1);
    assert!(listed(&around).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_being_delivered_is_left_to_its_delivery() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), small).await;
    let id = submit_from(&around, "s@lamppost.test").await;
    let (_request, _reply) = around.delivery.next().await.unwrap();
    let expected = unchanged(id, WhyUnchanged::Delivering);
    for verb in [Verb::Retry, Verb::Return] {
        assert_eq!(change_all(&around, verb, &[id]).await, expected, "{verb:?}");
    }
    assert_eq!(show(&around, id).await.unwrap().recipients[0].due, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_retried_while_it_is_being_delivered_is_tried_again_at_once_if_that_fails() {
    let reason = || Reason::own(Status::POLICY, "not now");
    for outcome in [Outcome::Deferred(reason()), Outcome::Failed(reason())] {
        let (disk, folder) = world();
        let mut around = start(&disk, folder.path(), small).await;
        let id = submit_from(&around, "s@lamppost.test").await;
        let (_request, reply) = around.delivery.next().await.unwrap();
        change_all(&around, Verb::Retry, &[id]).await;
        let failed = tokio::time::Instant::now();
        reply.send(DeliveryAnswer(vec![outcome]));
        let (_request, reply) = around.delivery.next().await.unwrap();
        assert!(failed.elapsed() < Duration::from_secs(2), "{:?}", failed.elapsed());
        // Once, and not for ever.
        reply.send(DeliveryAnswer(vec![Outcome::Deferred(reason())]));
        let waits = async || show(&around, id).await.unwrap().recipients[0].due.is_some();
        until(waits).await;
        let view = show(&around, id).await.unwrap();
        assert_eq!(view.recipients[0].attempts, 2);
        assert!(failed.elapsed() < Duration::from_secs(4));
        assert!(around.delivery.next_waiting().is_none());
    }
}
