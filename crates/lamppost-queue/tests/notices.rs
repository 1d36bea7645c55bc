//! What senders are told: bounces, notices of delay, and whom nobody tells anything.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use lamppost_queue::Settings;
use lamppost_roles::{
    Content, ControlAnswer, ControlRequest, DeliveryAnswer, DeliveryRequest, Envelope, Filter,
    IntakeRequest, Outcome, QueueId, Reason, RecipientState, Route, RouteAnswer, StateFilter, Verb,
};
use lamppost_smtp::{ReversePath, Status};
use support::{
    Around, change, deliver, entries, envelope, listed, restart, show, small, start, stored, until,
    world,
};

fn failed() -> Outcome {
    Outcome::Failed(Reason::own(Status::NO_MAILBOX, "no such mailbox"))
}

fn later() -> Outcome {
    Outcome::Deferred(Reason::own(Status::SYSTEM, "not now"))
}

fn settings(settings: &mut Settings) {
    small(settings);
    settings.notice_every = Duration::from_secs(60);
}

async fn submit_from(around: &Around, sender: &str, mailboxes: &[&str]) -> QueueId {
    let envelope =
        Envelope { sender: sender.parse::<ReversePath>().unwrap(), ..envelope(mailboxes) };
    let content = Bytes::from_static(b"Subject: hello\n\nsecret\n");
    stored(&around.intake.ask(IntakeRequest::Submit { envelope, content }).await.unwrap())
}

async fn route(around: &mut Around, answer: RouteAnswer) {
    let (request, reply) = around.routing.next().await.unwrap();
    assert_eq!(request.address.as_str(), "sender@lamppost.test");
    reply.send(answer);
}

fn here() -> RouteAnswer {
    RouteAnswer::Route(Route::Mailbox("sender@lamppost.test".parse().unwrap()))
}

/// The text of the one message that is to be prepared.
fn prepared(request: &DeliveryRequest) -> String {
    let DeliveryRequest::Prepare(jobs) = request else { panic!("{request:?}") };
    let Content::Inline(content) = &jobs[0].content else { panic!("{request:?}") };
    assert_eq!((jobs.len(), &jobs[0].sender), (1, &ReversePath::Null));
    String::from_utf8(content.to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn recipients_that_failed_are_told_in_one_bounce() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), settings).await;
    submit_from(&around, "sender@lamppost.test", &["a", "b"]).await;
    for _ in 0..2 {
        let DeliveryRequest::Prepare(jobs) = deliver(&mut around, &failed()).await else {
            panic!()
        };
        if jobs.len() == 2 {
            break;
        }
    }
    route(&mut around, here()).await;
    let text = prepared(&deliver(&mut around, &Outcome::Done).await);
    for expected in [
        "To: <sender@lamppost.test>\n",
        "Final-Recipient: rfc822; a@lamppost.test\nAction: failed\nStatus: 5.1.1\n",
        "Final-Recipient: rfc822; b@lamppost.test\nAction: failed\n",
        "Subject: hello\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("secret"), "{text}");
    deliver(&mut around, &Outcome::Done).await;
    until(async || listed(&around).await.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn the_null_sender_is_told_nothing() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), settings).await;
    let id = submit_from(&around, "", &["a"]).await;
    deliver(&mut around, &failed()).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(listed(&around).await, [id]);
    assert_eq!(show(&around, id).await.unwrap().recipients[0].state, RecipientState::Failed);
    assert!(around.routing.next_waiting().is_none() && around.delivery.next_waiting().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_bounce_goes_the_way_that_policy_tells() {
    for answer in [RouteAnswer::Nowhere, RouteAnswer::Unknown, RouteAnswer::Route(Route::Relay)] {
        let (disk, folder) = world();
        let mut around = start(&disk, folder.path(), settings).await;
        submit_from(&around, "sender@lamppost.test", &["a"]).await;
        deliver(&mut around, &failed()).await;
        route(&mut around, answer.clone()).await;
        match answer {
            RouteAnswer::Nowhere => {
                let is_waiting = async || {
                    let ids = listed(&around).await;
                    let view = show(&around, ids[0]).await.unwrap();
                    let one = &view.recipients[0];
                    one.state.is_waiting()
                        && one
                            .last
                            .as_ref()
                            .is_some_and(|last| last.reason.text.contains("relay-to"))
                };
                until(is_waiting).await;
                route(&mut around, here()).await;
                prepared(&deliver(&mut around, &Outcome::Done).await);
            }
            RouteAnswer::Unknown => {
                let failed = async || {
                    let ids = listed(&around).await;
                    let view = show(&around, ids[0]).await.unwrap();
                    ids.len() == 1 && view.recipients[0].state == RecipientState::Failed
                };
                until(failed).await;
            }
            _ => {
                let request = deliver(&mut around, &Outcome::Done).await;
                let DeliveryRequest::Relay(jobs) = request else { panic!("{request:?}") };
                assert_eq!(jobs[0].sender, ReversePath::Null);
                until(async || listed(&around).await.is_empty()).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_is_told_of_a_delay_once() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), settings).await;
    let id = submit_from(&around, "sender@lamppost.test", &["a"]).await;
    let mut notices = Vec::new();
    let begin = tokio::time::Instant::now();
    let end = begin + Duration::from_secs(12 * 3600);
    tokio::spawn(async move {
        while let Some((_, reply)) = around.routing.next().await {
            reply.send(here());
        }
    });
    while let Ok(Some((request, reply))) =
        tokio::time::timeout_at(end, around.delivery.next()).await
    {
        let outcome = match &request {
            DeliveryRequest::Prepare(jobs) if jobs[0].placement.id == id => later(),
            DeliveryRequest::Prepare(_) => {
                notices.push((prepared(&request), tokio::time::Instant::now()));
                Outcome::Done
            }
            _ => Outcome::Done,
        };
        reply.send(DeliveryAnswer(vec![outcome; entries(&request)]));
    }
    assert_eq!(notices.len(), 1);
    let (text, at) = &notices[0];
    assert!(text.contains("Subject: Delayed mail") && text.contains("Action: delayed\n"), "{text}");
    let told = *at - begin;
    assert!(
        told >= Duration::from_secs(4 * 3600) && told < Duration::from_secs(4 * 3600 + 120),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_an_administrator_returns_is_bounced() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), settings).await;
    let id = submit_from(&around, "sender@lamppost.test", &["a"]).await;
    deliver(&mut around, &later()).await;
    let is_deferred =
        async || show(&around, id).await.unwrap().recipients[0].state == RecipientState::Deferred;
    until(is_deferred).await;
    change(&around, Verb::Return, id).await;
    route(&mut around, here()).await;
    let text = prepared(&deliver(&mut around, &Outcome::Done).await);
    assert!(text.contains("returned by the administrator"), "{text}");
    assert!(text.contains("(last try: this mail server has a problem"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn messages_are_listed_by_what_is_asked() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), |of| {
        settings(of);
        of.delivery_lag = Duration::from_secs(3600);
    });
    let around = around.await;
    let a = submit_from(&around, "sender@lamppost.test", &["a"]).await;
    let b = submit_from(&around, "other@elsewhere.test", &["b", "c"]).await;
    change(&around, Verb::Hold, b).await;
    let none = Filter::default;
    let cases = [
        (none(), vec![a, b]),
        (Filter { sender: Some("@elsewhere.test".into()), ..none() }, vec![b]),
        (Filter { recipient: Some("c@lamppost.test".into()), ..none() }, vec![b]),
        (Filter { domain: Some("lamppost.test".into()), ..none() }, vec![a, b]),
        (Filter { state: Some(StateFilter::Held), ..none() }, vec![b]),
        (Filter { state: Some(StateFilter::New), ..none() }, vec![a, b]),
        (Filter { state: Some(StateFilter::Failed), ..none() }, vec![]),
        (Filter { larger: Some(1000), ..none() }, vec![]),
        (Filter { before: Some(a.received()), ..none() }, vec![]),
        (Filter { since: Some(a.received()), ..none() }, vec![a, b]),
    ];
    for (filter, expected) in cases {
        let shown = format!("{filter:?}");
        let request = ControlRequest::List { after: None, limit: 1000, filter };
        let answer = around.control.ask(request).await.unwrap();
        let ControlAnswer::Listing(listing) = answer else { panic!("{answer:?}") };
        let ids: Vec<_> = listing.messages.iter().map(|message| message.id).collect();
        assert_eq!(ids, expected, "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_sender_of_held_mail_is_not_told_that_it_is_tried_again() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), settings).await;
    let id = submit_from(&around, "sender@lamppost.test", &["a"]).await;
    change(&around, Verb::Hold, id).await;
    tokio::time::sleep(Duration::from_secs(12 * 3600)).await;
    assert_eq!(listed(&around).await, [id]);
}

/// Answers deliveries of a message with "not now", and others with success, until the first notice;
/// returns its text and when it came.
async fn first_notice(mut around: Around, id: QueueId) -> (String, tokio::time::Instant) {
    tokio::spawn(async move {
        while let Some((_, reply)) = around.routing.next().await {
            reply.send(here());
        }
    });
    loop {
        let (request, reply) = around.delivery.next().await.unwrap();
        let outcome = match &request {
            DeliveryRequest::Prepare(jobs) if jobs[0].placement.id == id => later(),
            DeliveryRequest::Prepare(_) => {
                return (prepared(&request), tokio::time::Instant::now());
            }
            _ => Outcome::Done,
        };
        reply.send(DeliveryAnswer(vec![outcome; entries(&request)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_that_was_not_told_while_the_message_was_held_is_told_later() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), settings).await;
    let begin = tokio::time::Instant::now();
    let id = submit_from(&around, "sender@lamppost.test", &["a"]).await;
    let newer = async || submit_from(&around, "", &["b"]).await;
    change(&around, Verb::Hold, id).await;
    change(&around, Verb::Hold, newer().await).await;
    tokio::time::sleep(Duration::from_secs(12 * 3600)).await;
    change(&around, Verb::Release, id).await;
    let (text, at) = first_notice(around, id).await;
    assert!(text.contains("Subject: Delayed mail"), "{text}");
    assert!(at - begin < Duration::from_secs(12 * 3600 + 120), "{:?}", at - begin);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_given_up_when_its_lifetime_ends_and_not_at_some_try_behind() {
    let (disk, folder) = world();
    let lifetime = Duration::from_secs(3 * 3600 + 17);
    let of = |of: &mut Settings| {
        settings(of);
        of.lifetime = lifetime;
    };
    let around = start(&disk, folder.path(), of).await;
    let begin = tokio::time::Instant::now();
    let id = submit_from(&around, "sender@lamppost.test", &["a"]).await;
    let (text, at) = first_notice(around, id).await;
    assert!(text.contains("Action: failed\n"), "{text}");
    let lived = at - begin;
    assert!(lived >= lifetime && lived < lifetime + Duration::from_secs(5), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bounce_that_was_given_its_way_is_sent_once() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), settings).await;
    submit_from(&around, "sender@lamppost.test", &["a"]).await;
    deliver(&mut around, &failed()).await;
    route(&mut around, RouteAnswer::Route(Route::Relay)).await;
    let (request, _reply) = around.delivery.next().await.unwrap();
    assert!(matches!(request, DeliveryRequest::Relay(_)), "{request:?}");
    let again = tokio::time::timeout(Duration::from_secs(3), around.delivery.next()).await;
    assert!(again.is_err(), "{again:?}");
}

/// A power cut may lose a record that nobody waited for and leave the bounce behind it.
#[tokio::test(start_paused = true)]
async fn a_bounce_is_written_once_though_the_record_of_the_failure_is_lost() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), settings).await;
    submit_from(&around, "sender@lamppost.test", &["a"]).await;
    deliver(&mut around, &failed()).await;
    // The bounce is stored: its way is asked for.
    drop(around.routing.next().await.unwrap());
    let disk = disk.after_kill();
    let reason = b"no such mailbox";
    let place = |path: &std::path::PathBuf| {
        let world = disk.world();
        world.file(path)?.windows(reason.len()).position(|window| window == reason)
    };
    let (segment, at) =
        disk.files(".seg").iter().find_map(|path| Some((path.clone(), place(path)?))).unwrap();
    disk.damage(&segment, at as u64, b"N");
    let mut around = restart(around, &disk, folder.path(), settings).await;
    route(&mut around, here()).await;
    prepared(&deliver(&mut around, &Outcome::Done).await);
    deliver(&mut around, &Outcome::Done).await;
    until(async || listed(&around).await.is_empty()).await;
}
