//! Mail for elsewhere: the relay gets a message once for all recipients that go there.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use lamppost_disk::Blocking;
use lamppost_roles::{
    DeliveryAnswer, DeliveryRequest, IntakeRequest, Outcome, QueueId, Reason, Route, RouteAnswer,
};
use lamppost_smtp::Status;
use support::{Around, deliver, envelope, start, status, stored, world};

async fn submit_by(around: &Around, route: &Route, recipients: &[&str]) -> QueueId {
    let mut elsewhere = envelope(recipients);
    for recipient in &mut elsewhere.recipients {
        recipient.route = route.clone();
    }
    let content = Bytes::from_static(b"Subject: x\n\nx\n");
    let request = IntakeRequest::Submit { envelope: elsewhere, content };
    stored(&around.intake.ask(request).await.unwrap())
}

/// The recipients of a message that was handed over.
fn recipients(request: DeliveryRequest) -> Vec<String> {
    let DeliveryRequest::Relay(jobs) = request else { panic!("{request:?}") };
    let [job] = &jobs[..] else { panic!("{jobs:?}") };
    job.recipients.iter().map(|one| one.local().to_owned()).collect()
}

fn later() -> Outcome {
    Outcome::Deferred(Reason::own(Status::TEMPORARY, "not now"))
}

#[tokio::test(start_paused = true)]
async fn recipients_whose_way_is_asked_for_late_go_together() {
    let (disk, folder) = world();
    let mut around =
        start(&disk, folder.path(), |settings| settings.blocking = Blocking::Inline).await;
    submit_by(&around, &Route::Undecided, &["a", "b", "c"]).await;
    assert_eq!(status(&around).await.waiting_for_relay, 0);
    for _ in 0..3 {
        let (_, reply) = around.routing.next().await.unwrap();
        reply.send(RouteAnswer::Route(Route::Relay));
    }
    let (request, reply) = around.delivery.next().await.unwrap();
    assert_eq!(recipients(request), ["a", "b", "c"]);
    assert_eq!(status(&around).await.waiting_for_relay, 3);
    // Two that have to wait are tried again together, and each as often as it must.
    reply.send(DeliveryAnswer(vec![later(), Outcome::Done, later()]));
    assert_eq!(recipients(deliver(&mut around, &Outcome::Done).await), ["a", "c"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = status(&around).await;
    assert_eq!((status.waiting, status.waiting_for_relay, status.messages), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_recipient_that_has_no_way_holds_nobody_up() {
    let (disk, folder) = world();
    let mut around =
        start(&disk, folder.path(), |settings| settings.blocking = Blocking::Inline).await;
    submit_by(&around, &Route::Undecided, &["a", "b", "c"]).await;
    for answer in [
        RouteAnswer::Route(Route::Relay),
        RouteAnswer::Unavailable,
        RouteAnswer::Route(Route::Relay),
    ] {
        let (_, reply) = around.routing.next().await.unwrap();
        reply.send(answer);
    }
    assert_eq!(recipients(deliver(&mut around, &Outcome::Done).await), ["a", "c"]);
    let (_, reply) = around.routing.next().await.unwrap();
    reply.send(RouteAnswer::Route(Route::Relay));
    assert_eq!(recipients(deliver(&mut around, &Outcome::Done).await), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_not_split_between_batches() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), |settings| {
        (settings.batch_max, settings.relays_at_once_max) = (2, 1);
        settings.blocking = Blocking::Inline;
    })
    .await;
    submit_by(&around, &Route::Relay, &["a", "b", "c", "d", "e"]).await;
    let all = recipients(deliver(&mut around, &Outcome::Done).await);
    assert_eq!(all, ["a", "b", "c", "d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_offered_once_a_batch() {
    for (status, text) in [
        (Status::AUTH_FAILED, "535 wrong password"),
        (Status::NO_TLS, "no TLS"),
        (Status::NO_ADDRESS, "no address"),
        (Status::NO_ANSWER, "no answer"),
    ] {
        let (disk, folder) = world();
        let mut around = start(&disk, folder.path(), |settings| {
            settings.relays_at_once_max = 1;
            settings.blocking = Blocking::Inline;
        })
        .await;
        // One message is under way while the others come in: they are one batch.
        submit_by(&around, &Route::Relay, &["first"]).await;
        let (_, reply) = around.delivery.next().await.unwrap();
        for _ in 0..5 {
            submit_by(&around, &Route::Relay, &["other"]).await;
        }
        reply.send(DeliveryAnswer(vec![Outcome::Done]));
        let away = Outcome::Deferred(Reason::own(status, text));
        deliver(&mut around, &away).await;
        let again = tokio::time::timeout(Duration::from_secs(5), around.delivery.next()).await;
        assert!(again.is_err(), "{text}: {again:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn recipients_that_are_too_many_have_their_turn_at_once() {
    let (disk, folder) = world();
    let mut around =
        start(&disk, folder.path(), |settings| settings.blocking = Blocking::Inline).await;
    submit_by(&around, &Route::Relay, &["a", "b", "c", "d", "e"]).await;
    let too_many = || Outcome::Deferred(Reason::own(Status::TOO_MANY, "452 Too many"));
    let begun = tokio::time::Instant::now();
    for (expected, outcomes) in [
        (
            &["a", "b", "c", "d", "e"][..],
            vec![Outcome::Done, later(), too_many(), too_many(), too_many()],
        ),
        (&["c", "d", "e"], vec![Outcome::Done, too_many(), too_many()]),
        // This time it takes nobody: they wait.
        (&["d", "e"], vec![too_many(), too_many()]),
    ] {
        let (request, reply) = around.delivery.next().await.unwrap();
        assert_eq!(recipients(request), expected);
        // What was taken before is noted before the next transaction.
        let waiting = expected.len() + usize::from(expected.len() < 5);
        assert_eq!(status(&around).await.waiting, waiting as u64);
        reply.send(DeliveryAnswer(outcomes));
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(recipients(deliver(&mut around, &Outcome::Done).await), ["b", "d", "e"]);
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn recipients_that_waited_together_come_due_together() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), |settings| {
        settings.retry_first = Duration::from_millis(200);
    })
    .await;
    // So many that the time goes on while they are noted.
    let names: Vec<_> = (0..900).map(|number| format!("n{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    submit_by(&around, &Route::Relay, &names).await;
    for _ in 0..2 {
        assert_eq!(recipients(deliver(&mut around, &later()).await).len(), 900);
    }
}
