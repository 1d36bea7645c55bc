//! What a damaged or failing disk costs, and what it must not: nothing delivered comes back unasked,
//! the start goes on, and what is lost is copied, named and told.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use lamppost_queue::Settings;
use lamppost_roles::{
    Content, ContentRequest, ControlAnswer, ControlRequest, DeliveryRequest, Envelope,
    IntakeAnswer, IntakeRequest, Outcome, QueueId, Reason, RecipientState, Route, RouteAnswer,
    Verb,
};
use lamppost_sim::{Operation, SimulatedDisk};
use lamppost_smtp::{Refusal, ReversePath, Status};
use support::{
    Around, change, deliver, envelope, listed, restart, show, small, start, status, stored, submit,
    succeed, until, world,
};

/// Has all deliveries succeed from now on.
fn succeeding(around: &mut Around) {
    let (_, idle) = lamppost_net::link::link();
    tokio::spawn(succeed(std::mem::replace(&mut around.delivery, idle)));
}

async fn held(around: &Around, content: &str) -> QueueId {
    let id = stored(&submit(around, "held", content).await);
    change(around, Verb::Hold, id).await;
    id
}

/// Where a text lies in the log.
fn find(disk: &SimulatedDisk, text: &str) -> (PathBuf, u64) {
    let world = disk.world();
    let mut places = disk.files(".seg").into_iter().filter_map(|path| {
        let bytes = world.file(&path)?;
        let at = bytes.windows(text.len()).position(|window| window == text.as_bytes())?;
        Some((path, at as u64))
    });
    places.next_back().unwrap()
}

/// The checkpoints in the order in which they were written.
fn checkpoints(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let written = disk.log().into_iter().filter_map(|operation| match operation {
        Operation::Rename { from, to } => from.ends_with("checkpoint.new").then_some(to),
        _ => None,
    });
    written.collect()
}

fn newest(disk: &SimulatedDisk) -> PathBuf {
    checkpoints(disk).pop().unwrap()
}

/// Has mail come and go until another checkpoint is written.
async fn until_checkpoint(around: &Around, disk: &SimulatedDisk) {
    let before = checkpoints(disk).len();
    while checkpoints(disk).len() == before {
        stored(&submit(around, "demo", &"x".repeat(900)).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A spool whose first segment holds a message that was delivered long ago, in a segment that is gone,
/// and one that stays; returns the two, and the newest checkpoint.
async fn delivered_long_ago(folder: &Path) -> (SimulatedDisk, [QueueId; 2], PathBuf) {
    let disk = SimulatedDisk::new(folder);
    let mut around = start(&disk, folder, small).await;
    let gone = stored(&submit(&around, "demo", "gone\n").await);
    // So large that its segment is not worth being written again.
    let stays = held(&around, &"s".repeat(2000)).await;
    for _ in 0..5 {
        stored(&submit(&around, "demo", &"x".repeat(900)).await);
    }
    succeeding(&mut around);
    for _ in 0..200 {
        stored(&submit(&around, "demo", &"x".repeat(900)).await);
    }
    until(async || listed(&around).await == [stays]).await;
    assert!(find(&disk, "gone\n").0.ends_with("0000000001.seg"));
    assert!(!disk.files(".seg").iter().any(|path| path.ends_with("0000000003.seg")));
    around.queue.stop(Duration::ZERO).await;
    let newest = newest(&disk);
    (disk.after_power_cut(), [gone, stays], newest)
}

#[tokio::test(start_paused = true)]
async fn when_a_checkpoint_is_damaged_the_one_before_and_the_log_say_the_same() {
    for by_the_disk in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (disk, [_, stays], newest) = delivered_long_ago(folder.path()).await;
        if by_the_disk {
            disk.spoil(&newest, 50, 1);
        } else {
            disk.damage(&newest, 50, b"damage");
        }
        let around = start(&disk, folder.path(), small).await;
        assert_eq!(listed(&around).await, [stays]);
        let damage = status(&around).await.damage;
        assert!(damage.len() == 1 && damage[0].contains("the one before"), "{damage:?}");
        // Another was written at once, and is as good as the one that was damaged.
        let around = restart(around, &disk.after_kill(), folder.path(), small).await;
        assert_eq!((listed(&around).await, status(&around).await.damage.len()), (vec![stays], 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_is_kept_as_long_as_the_older_checkpoint_needs_it() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), small).await;
    let late = held(&around, "late\n").await;
    let stays = held(&around, &"s".repeat(2000)).await;
    succeeding(&mut around);
    for _ in 0..3 {
        until_checkpoint(&around, &disk).await;
    }
    // What says that it was delivered is behind the older checkpoint.
    change(&around, Verb::Release, late).await;
    until(async || listed(&around).await == [stays]).await;
    until_checkpoint(&around, &disk).await;
    let newest = newest(&disk);
    let disk = disk.after_kill();
    disk.damage(&newest, 50, b"damage");
    let mut around = restart(around, &disk, folder.path(), small).await;
    assert_eq!(listed(&around).await, [stays]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(around.delivery.next_waiting().is_none(), "it was delivered again");
}

#[tokio::test(start_paused = true)]
async fn without_a_checkpoint_what_may_have_been_delivered_is_held() {
    for is_removed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (disk, [gone, stays], _) = delivered_long_ago(folder.path()).await;
        for name in ["checkpoint", "checkpoint.2"] {
            let path = folder.path().join(name);
            if is_removed {
                lamppost_disk::Disk::remove(&disk, &path).unwrap();
            } else {
                disk.damage(&path, 50, b"damage");
            }
        }
        let mut around = start(&disk, folder.path(), small).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(around.delivery.next_waiting().is_none(), "it was delivered again unasked");
        // The others whose records lie there are not counted by name.
        let ids = listed(&around).await;
        assert!(ids.contains(&gone) && ids.contains(&stays), "{ids:?}");
        let view = show(&around, gone).await.unwrap();
        let last = view.recipients[0].last.as_ref().unwrap();
        assert!(view.held && last.reason.text.contains("delivered long ago"), "{view:?}");
        let damage = status(&around).await.damage;
        assert!(damage.iter().any(|text| text.contains("is held: ")), "{damage:?}");
        // They stay held, and released ones go on, whatever is killed.
        change(&around, Verb::Delete, stays).await;
        let mut around = restart(around, &disk.after_kill(), folder.path(), small).await;
        assert!(show(&around, gone).await.unwrap().held);
        change(&around, Verb::Release, gone).await;
        deliver(&mut around, &Outcome::Done).await;
        deliver(&mut around, &Outcome::Done).await;
        until(async || !listed(&around).await.contains(&gone)).await;
        assert!(!listed(&around).await.contains(&stays));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_checkpoint_a_whole_log_is_believed() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), small).await;
    let id = stored(&submit(&around, "demo", "waits\n").await);
    around.queue.stop(Duration::ZERO).await;
    let disk = disk.after_power_cut();
    lamppost_disk::Disk::remove(&disk, &folder.path().join("checkpoint")).unwrap();
    let around = start(&disk, folder.path(), small).await;
    assert!(!show(&around, id).await.unwrap().held);
    assert_eq!(status(&around).await.damage, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_does_not_give_costs_no_more_than_that() {
    let (disk, folder) = world();
    let large = |settings: &mut Settings| {
        small(settings);
        settings.segment_size = 1024 * 1024;
    };
    let around = start(&disk, folder.path(), large).await;
    let first = held(&around, "first\n").await;
    let second = held(&around, &"second ".repeat(3000)).await;
    let third = held(&around, "third\n").await;
    let disk = disk.after_kill();
    let (segment, at) = find(&disk, "second second");
    disk.spoil(&segment, at + 8192, 512);
    let around = restart(around, &disk, folder.path(), large).await;
    assert_eq!(listed(&around).await, [first, second, third]);
    let fault = show(&around, second).await.unwrap().fault;
    assert!(fault.is_some_and(|fault| fault.contains("content")), "what was in it is known");
    assert!(show(&around, third).await.unwrap().held, "what lies behind the hole is replayed");
    let damage = status(&around).await.damage;
    assert!(damage.iter().any(|text| text.contains("cannot be read")), "{damage:?}");
    let copies = disk.files(".eml");
    assert_eq!(copies.len(), 1);
    // What is left of the second is kept.
    let copy = disk.world().file(&copies[0]).unwrap().to_vec();
    assert!(copy.windows(14).filter(|window| *window == b"second second ").count() > 1000);

    // A header that cannot be read at all costs the segment, and not the start.
    let disk = disk.after_kill();
    disk.spoil(&segment, 0, 1024);
    let around = restart(around, &disk, folder.path(), large).await;
    let fourth = held(&around, "fourth\n").await;
    assert!(listed(&around).await.contains(&fourth));
    assert!(disk.files("quarantine").iter().any(|path| path.ends_with("0000000001.seg")));
}

fn sent(mailbox: &str) -> Envelope {
    Envelope {
        sender: "sender@lamppost.test".parse::<ReversePath>().unwrap(),
        ..envelope(&[mailbox])
    }
}

/// What is delivered is read back first.
fn without_memory(settings: &mut Settings) {
    small(settings);
    settings.memory_max = 0;
}

async fn bounced(around: &mut Around) -> String {
    let (_, reply) = around.routing.next().await.unwrap();
    reply.send(RouteAnswer::Route(Route::Mailbox("sender@lamppost.test".parse().unwrap())));
    let request = deliver(around, &Outcome::Done).await;
    let DeliveryRequest::Prepare(jobs) = &request else { panic!("{request:?}") };
    let Content::Inline(content) = &jobs[0].content else { panic!("{request:?}") };
    let text = String::from_utf8(content.to_vec()).unwrap();
    deliver(around, &Outcome::Done).await;
    text
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_found_damaged_is_copied_named_and_bounced_without_inner_words() {
    // Its content, and its envelope.
    for damaged in ["secret", "named-here-alone"] {
        let (disk, folder) = world();
        let mut around = start(&disk, folder.path(), without_memory).await;
        let content = Bytes::from_static(b"Subject: hello\n\nsecret body\n");
        let submit = IntakeRequest::Submit { envelope: sent("named-here-alone"), content };
        let id = stored(&around.intake.ask(submit).await.unwrap());
        let (segment, at) = find(&disk, damaged);
        disk.damage(&segment, at, b"S");
        let quarantine = folder.path().join("quarantine");
        until(async || disk.files(".json").len() == 1).await;
        let world = disk.world();
        let file = |name: String| world.file(&quarantine.join(name)).unwrap().to_vec();
        let note = String::from_utf8(file(format!("{id}.json"))).unwrap();
        for expected in [&*id.to_string(), "sender@lamppost.test", "named-here-alone@", "damaged"] {
            assert!(note.contains(expected), "{expected}: {note}");
        }
        let left = file(format!("{id}.eml"));
        assert!(left.starts_with(b"Subject: hello\n") && left.ends_with(b"body\n"));
        assert!(file(format!("{id}.damaged")).starts_with(b"LREC"));
        let text = bounced(&mut around).await;
        assert!(
            text.contains("<named-here-alone@lamppost.test>: the message was damaged"),
            "{text}"
        );
        for inner in ["segment", "record", "/", "spool", "checksum"] {
            let words = text.split("\n\n").nth(4).unwrap();
            assert!(!words.contains(inner), "{inner}: {words}");
        }
        assert!(!text.contains(&*folder.path().to_string_lossy()) && !text.contains("segment"));
        until(async || listed(&around).await.is_empty()).await;
        // It stays in sight, also after another start.
        for _ in 0..2 {
            let view = show(&around, id).await.unwrap();
            assert!(view.fault.as_ref().is_some_and(|fault| fault.contains("left the queue")));
            assert_eq!(view.recipients[0].address, "named-here-alone@lamppost.test");
            let damage = status(&around).await.damage;
            assert!(damage.iter().any(|text| text.contains(&id.to_string())), "{damage:?}");
            around = restart(around, &disk.after_power_cut(), folder.path(), small).await;
        }
    }
}

/// No checkpoint knows of it, and the log's text alone is whole.
#[tokio::test(start_paused = true)]
async fn a_message_whose_content_is_damaged_before_a_start_is_known_and_bounced() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), small).await;
    let content = Bytes::from_static(b"Subject: hello\n\nsecret body\n");
    let submit = IntakeRequest::Submit { envelope: sent("demo"), content };
    let id = stored(&around.intake.ask(submit).await.unwrap());
    let later = held(&around, "later\n").await;
    let disk = disk.after_kill();
    let (segment, at) = find(&disk, "secret");
    disk.damage(&segment, at, b"DDDD");
    let mut around = restart(around, &disk, folder.path(), small).await;
    let quarantine = folder.path().join("quarantine");
    let world = disk.world();
    let file = |name: String| world.file(&quarantine.join(name)).unwrap().to_vec();
    let note = String::from_utf8(file(format!("{id}.json"))).unwrap();
    for expected in ["sender@lamppost.test", "demo@lamppost.test", "its content in segment"] {
        assert!(note.contains(expected), "{expected}: {note}");
    }
    assert_eq!(file(format!("{id}.eml")), b"Subject: hello\n\nDDDDet body\n");
    assert!(file(format!("{id}.damaged")).starts_with(b"LREC"));
    let damage = status(&around).await.damage;
    assert!(damage.iter().any(|text| text.contains(&id.to_string())), "{damage:?}");
    let text = bounced(&mut around).await;
    assert!(text.contains("<demo@lamppost.test>: the message was damaged"), "{text}");
    until(async || listed(&around).await == [later]).await;
    let view = show(&around, id).await.unwrap();
    assert!(view.fault.is_some_and(|fault| fault.contains("left the queue")));
    let recipient = &view.recipients[0];
    assert_eq!((recipient.state, recipient.due), (RecipientState::Failed, None));
}

/// Nothing says whether the last group that was written was ever acknowledged.
#[tokio::test(start_paused = true)]
async fn a_content_of_the_last_group_that_is_not_whole_is_kept_and_named_and_nobody_gets_a_bounce()
{
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), small).await;
    let (one, two) = tokio::join!(
        submit(&around, "demo", "first secret\n"),
        submit(&around, "other", "second\n")
    );
    let (one, two) = (stored(&one), stored(&two));
    let disk = disk.after_kill();
    let (segment, at) = find(&disk, "secret");
    disk.damage(&segment, at, b"DDDD");
    let around = restart(around, &disk, folder.path(), small).await;
    assert_eq!(listed(&around).await, [two]);
    let damage = status(&around).await.damage.join("\n");
    for expected in [&one.to_string(), "from <>", "demo@lamppost.test", "nobody was told"] {
        assert!(damage.contains(expected), "{expected}: {damage}");
    }
    let world = disk.world();
    let copies: Vec<_> = disk.files("quarantine/").iter().map(|path| world.file(path)).collect();
    assert!(copies.iter().flatten().any(|copy| copy.ends_with(b"first DDDDet\n")), "{copies:?}");
    // What is written behind it does not make it a message that once was whole.
    let later = held(&around, "later\n").await;
    held(&around, "another group\n").await;
    let disk = disk.after_kill();
    for checkpoint in disk.files("checkpoint") {
        disk.damage(&checkpoint, 50, b"DDDD");
    }
    let mut around = restart(around, &disk, folder.path(), small).await;
    assert!(listed(&around).await.starts_with(&[two, later]));
    assert!(!status(&around).await.damage.join("\n").contains(&one.to_string()));
    let request = deliver(&mut around, &Outcome::Done).await;
    let DeliveryRequest::Prepare(jobs) = &request else { panic!("{request:?}") };
    assert_eq!(jobs.iter().map(|job| job.placement.id).collect::<Vec<_>>(), [two]);
}

/// Its record settles what it is about: without it the sender would never be told.
#[tokio::test(start_paused = true)]
async fn a_bounce_whose_content_is_damaged_before_a_start_is_written_anew() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), small).await;
    let content = Bytes::from_static(b"Subject: hello\n\nbody\n");
    let submit = IntakeRequest::Submit { envelope: sent("demo"), content };
    let id = stored(&around.intake.ask(submit).await.unwrap());
    let failed = Outcome::Failed(Reason::own(Status::POLICY, "not today"));
    deliver(&mut around, &failed).await;
    until(async || !listed(&around).await.contains(&id)).await;
    held(&around, "late\n").await;
    let disk = disk.after_kill();
    let (segment, at) = find(&disk, "not today\n");
    disk.damage(&segment, at, b"DDDD");
    let mut around = restart(around, &disk, folder.path(), small).await;
    loop {
        let (_, reply) = around.routing.next().await.unwrap();
        let route = Route::Mailbox("sender@lamppost.test".parse().unwrap());
        reply.send(RouteAnswer::Route(route));
        let DeliveryRequest::Prepare(jobs) = deliver(&mut around, &Outcome::Done).await else {
            continue;
        };
        let Content::Inline(content) = &jobs[0].content else { panic!("{jobs:?}") };
        if String::from_utf8_lossy(content).contains("not today") {
            return;
        }
    }
}

/// A segment without a header is set aside: its messages are not done, whatever the folder says now.
#[tokio::test(start_paused = true)]
async fn messages_that_are_lost_with_a_segment_are_told_and_bounced() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), small).await;
    let content = Bytes::from_static(b"Subject: hello\n\nbody\n");
    let submit = IntakeRequest::Submit { envelope: sent("demo"), content };
    let id = stored(&around.intake.ask(submit).await.unwrap());
    change(&around, Verb::Hold, id).await;
    around.queue.stop(Duration::ZERO).await;
    let (segment, _) = find(&disk, "Subject: hello");
    disk.damage(&segment, 8, b"damage");
    disk.damage(&segment, 520, b"damage");
    let mut disk = disk.after_power_cut();
    let mut around = start(&disk, folder.path(), small).await;
    // Also after another checkpoint, and a start from it.
    for _ in 0..2 {
        let view = show(&around, id).await.unwrap();
        assert!(view.held && view.fault.is_some_and(|fault| fault.contains("is lost")));
        let damage = status(&around).await.damage;
        assert!(damage.iter().any(|text| text.contains("lost with segment 1: 1;")), "{damage:?}");
        around.queue.stop(Duration::ZERO).await;
        disk = disk.after_power_cut();
        around = start(&disk, folder.path(), small).await;
    }
    change(&around, Verb::Release, id).await;
    assert!(bounced(&mut around).await.contains("<demo@lamppost.test>: the message was damaged"));
    until(async || listed(&around).await.is_empty()).await;
    let damage = status(&around).await.damage;
    assert!(damage.iter().any(|text| text.contains(&id.to_string())), "{damage:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_disk_does_not_give_is_tried_until_its_lifetime_ends() {
    let (disk, folder) = world();
    let of = |settings: &mut Settings| {
        without_memory(settings);
        settings.lifetime = Duration::from_secs(3600);
    };
    let mut around = start(&disk, folder.path(), of).await;
    let content = Bytes::from_static(b"Subject: hello\n\nsecret body\n");
    let submit = IntakeRequest::Submit { envelope: sent("demo"), content };
    let id = stored(&around.intake.ask(submit).await.unwrap());
    let (segment, at) = find(&disk, "secret");
    disk.spoil(&segment, at, 1);
    tokio::time::sleep(Duration::from_secs(3000)).await;
    let view = show(&around, id).await.unwrap();
    assert!(view.recipients[0].attempts > 2, "{view:?}");
    let damage = status(&around).await.damage;
    assert!(damage.iter().any(|text| text.contains(&id.to_string())), "{damage:?}");
    let text = bounced(&mut around).await;
    assert!(text.contains("the message was damaged") && !text.contains("os error"), "{text}");
    assert_eq!(disk.files(".json").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_not_full_of_what_only_the_older_checkpoint_needs() {
    let (disk, folder) = world();
    let of = |settings: &mut Settings| {
        small(settings);
        settings.free_space_min = 100_000;
    };
    let mut around = start(&disk, folder.path(), of).await;
    succeeding(&mut around);
    until_checkpoint(&around, &disk).await;
    until_checkpoint(&around, &disk).await;
    let before = disk.files(".seg").len();
    disk.set_quota(Some(disk.used() + 90_000));
    let refused = submit(&around, "demo", "hello\n").await;
    assert_eq!(refused, IntakeAnswer::Refused(Refusal::SpoolFull));
    until(async || disk.files(".seg").len() < before).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_message_whose_file_is_prepared_is_published() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), without_memory).await;
    stored(&submit(&around, "named-here-alone", "hello\n").await);
    deliver(&mut around, &Outcome::Done).await;
    let (_, reply) = around.delivery.next().await.unwrap();
    let disk = disk.after_power_cut();
    drop(reply);
    let mut around = restart(around, &disk, folder.path(), |settings| {
        without_memory(settings);
        settings.delivery_lag = Duration::from_secs(60);
    })
    .await;
    let (segment, at) = find(&disk, "named-here-alone");
    disk.damage(&segment, at, b"N");
    let soon = Duration::from_secs(600);
    let request = tokio::time::timeout(soon, deliver(&mut around, &Outcome::Done)).await.unwrap();
    let DeliveryRequest::Publish(placements) = request else { panic!("{request:?}") };
    assert_eq!(placements[0].mailbox.as_str(), "named-here-alone@lamppost.test");
    until(async || listed(&around).await.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_cannot_be_read_does_not_keep_others_from_being_written_again() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), small).await;
    held(&around, "a\n").await;
    let (bad, _) = find(&disk, "a\n");
    disk.spoil(&bad, 1024, 3000);
    succeeding(&mut around);
    for _ in 0..20 {
        stored(&submit(&around, "demo", &"x".repeat(900)).await);
    }
    let stays = held(&around, "the one that is to be moved\n").await;
    let (segment, _) = find(&disk, "the one that is to be moved\n");
    assert_ne!(segment, bad);
    for _ in 0..200 {
        stored(&submit(&around, "demo", &"x".repeat(900)).await);
    }
    until(async || !disk.files(".seg").contains(&segment)).await;
    assert!(disk.files(".seg").contains(&bad));
    let damage = status(&around).await.damage;
    assert!(damage.iter().any(|text| text.contains("segment 1 stays")), "{damage:?}");
    assert!(show(&around, stays).await.unwrap().fault.is_none());
}

async fn upload(around: &Around, mailbox: &str) -> IntakeAnswer {
    let IntakeAnswer::Upload(upload) = around.intake.ask(IntakeRequest::Begin).await.unwrap()
    else {
        panic!()
    };
    let piece = IntakeRequest::Append { upload, piece: "large content".into() };
    assert_eq!(around.intake.ask(piece).await.unwrap(), IntakeAnswer::Proceed);
    let finish = IntakeRequest::Finish { upload, envelope: envelope(&[mailbox]) };
    around.intake.ask(finish).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_large_content_goes_once_its_end_is_durable_though_the_log_failed() {
    // The record that says so fails to be written, or to be synced.
    for good in [0, 1] {
        let (disk, folder) = world();
        let mut around = start(&disk, folder.path(), small).await;
        let id = stored(&upload(&around, "demo").await);
        deliver(&mut around, &Outcome::Done).await;
        let (_, reply) = around.delivery.next().await.unwrap();
        disk.fail_after(good, 0);
        reply.send(lamppost_roles::DeliveryAnswer(vec![Outcome::Done]));
        until(async || status(&around).await.fault.is_some()).await;
        assert_eq!(disk.files("bodies/").len(), 1, "its message may come back");
        disk.mend();
        stored(&submit(&around, "held", "hello\n").await);
        until(async || disk.files("bodies/").is_empty()).await;
        let around = restart(around, &disk.after_power_cut(), folder.path(), small).await;
        assert!(!listed(&around).await.contains(&id));
        let gone = ContentRequest { id, offset: 0, length_max: 1 };
        drop(around.content.ask(gone).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_content_that_was_refused_goes_once_its_record_is_void() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), small).await;
    let IntakeAnswer::Upload(upload) = around.intake.ask(IntakeRequest::Begin).await.unwrap()
    else {
        panic!()
    };
    let piece = IntakeRequest::Append { upload, piece: "large content".into() };
    around.intake.ask(piece).await.unwrap();
    // The content and its name become durable, and its record is written and never synced.
    disk.fail_after(3, 0);
    let finish = IntakeRequest::Finish { upload, envelope: envelope(&["demo"]) };
    let refused = around.intake.ask(finish).await.unwrap();
    assert_eq!(refused, IntakeAnswer::Refused(Refusal::SpoolFailed));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(disk.files("bodies/").len(), 1, "its record is not void yet");
    disk.mend();
    let id = stored(&submit(&around, "held", "hello\n").await);
    until(async || disk.files("bodies/").is_empty()).await;
    let around = restart(around, &disk.after_kill(), folder.path(), small).await;
    assert_eq!(listed(&around).await, [id]);
    let list = ControlRequest::Status;
    assert!(matches!(around.control.ask(list).await.unwrap(), ControlAnswer::Status(_)));
}
