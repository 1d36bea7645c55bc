//! A snapshot is the whole queue at one moment, whatever comes and goes while it is read.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::Path;
use std::time::Duration;

use lamppost_queue::{OfflineSpool, Restored, Settings};
use lamppost_roles::{
    ControlAnswer, ControlRequest, DeliveryAnswer, DeliveryRequest, Filter, IntakeAnswer,
    IntakeRequest, MessageView, Outcome, QueueId, Reason, RecipientState, Snapshot, Verb,
};
use lamppost_smtp::Status;
use support::{
    Around, change, deliver, entries, envelope, small, start, stored, submit, succeed, until, world,
};

async fn take(around: &Around) -> Snapshot {
    match around.control.ask(ControlRequest::Snapshot).await.unwrap() {
        ControlAnswer::Snapshot(snapshot) => snapshot,
        other => panic!("{other:?}"),
    }
}

/// Reads a snapshot into a folder, in small pieces.
async fn save(around: &Around, snapshot: &Snapshot, folder: &Path) -> Result<(), String> {
    for (file, known) in (0..).zip(&snapshot.files) {
        let mut content = Vec::new();
        while (content.len() as u64) < known.length {
            let request = ControlRequest::ReadSnapshot {
                snapshot: snapshot.snapshot,
                file,
                offset: content.len() as u64,
                length_max: 5000,
            };
            match around.control.ask(request).await.unwrap() {
                ControlAnswer::Piece(piece) => content.extend_from_slice(&piece),
                ControlAnswer::Failed(reason) => return Err(reason),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(content.len() as u64, known.length);
        let path = folder.join(&known.name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    Ok(())
}

async fn end(around: &Around, snapshot: &Snapshot) {
    let request = ControlRequest::EndSnapshot(snapshot.snapshot);
    assert_eq!(around.control.ask(request).await.unwrap(), ControlAnswer::Ended);
}

fn open(folder: &Path) -> OfflineSpool {
    let segment_size = 16 * 1024;
    let settings = Settings { directory: folder.to_owned(), segment_size, ..Settings::default() };
    OfflineSpool::open(settings).unwrap()
}

fn read(answer: ControlAnswer) -> Vec<u8> {
    match answer {
        ControlAnswer::Piece(piece) => piece.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// All messages of a saved spool with their contents.
fn saved(spool: &OfflineSpool) -> Vec<(MessageView, Vec<u8>)> {
    let filter = Filter::default();
    let list = spool.ask(ControlRequest::List { after: None, limit: 1000, filter });
    let ControlAnswer::Listing(listing) = list else { panic!("{list:?}") };
    let content = |id| spool.ask(ControlRequest::Read { id, offset: 0, length_max: 1 << 20 });
    listing.messages.into_iter().map(|one| (one.clone(), read(content(one.id)))).collect()
}

/// All messages of the running queue with their contents.
async fn present(around: &Around) -> Vec<(MessageView, Vec<u8>)> {
    let request = ControlRequest::List { after: None, limit: 1000, filter: Filter::default() };
    let ControlAnswer::Listing(listing) = around.control.ask(request).await.unwrap() else {
        panic!()
    };
    let mut all = Vec::new();
    for one in listing.messages {
        let request = ControlRequest::Read { id: one.id, offset: 0, length_max: 1 << 20 };
        all.push((one, read(around.control.ask(request).await.unwrap())));
    }
    all
}

/// A message whose content is a file of its own.
async fn large(around: &Around, content: &str) -> QueueId {
    let ask = async |request| around.intake.ask(request).await.unwrap();
    let IntakeAnswer::Upload(upload) = ask(IntakeRequest::Begin).await else { panic!() };
    ask(IntakeRequest::Append { upload, piece: content.to_owned().into() }).await;
    let envelope = envelope(&["large"]);
    stored(&ask(IntakeRequest::Finish { upload, envelope }).await)
}

/// Messages come and go until the log has been used several times over.
async fn churn(around: &Around, count: usize) {
    for _ in 0..count {
        stored(&submit(around, "demo", &"y".repeat(2000)).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_of_one_moment_whatever_goes_on() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), small).await;
    let (_, idle) = lamppost_net::link::link();
    tokio::spawn(succeed(std::mem::replace(&mut around.delivery, idle)));
    let mut kept = Vec::new();
    for round in 0..8 {
        let id = stored(&submit(&around, "held", &format!("held {round}")).await);
        change(&around, Verb::Hold, id).await;
        kept.push(id);
        churn(&around, 12).await;
    }
    let aside = large(&around, &"z".repeat(50_000)).await;
    change(&around, Verb::Hold, aside).await;
    until(async || present(&around).await.len() == 9).await;
    let before = present(&around).await;
    let snapshot = take(&around).await;
    assert_eq!(snapshot.messages, 9);
    let names: Vec<_> = snapshot.files.iter().map(|file| file.name.as_str()).collect();
    assert!(names.contains(&"checkpoint"), "{names:?}");
    let used = disk.used();
    // All of it goes now, and the log would be used again.
    for id in kept.iter().chain([&aside]) {
        change(&around, Verb::Delete, *id).await;
    }
    churn(&around, 100).await;
    let copy = tempfile::tempdir().unwrap();
    save(&around, &snapshot, copy.path()).await.unwrap();
    assert!(disk.used() > used, "nothing was kept for the snapshot");
    let spool = open(copy.path());
    assert!(spool.report().is_sound(), "{:?}", spool.report());
    assert_eq!(saved(&spool), before);
    // Then the queue tidies up again.
    end(&around, &snapshot).await;
    churn(&around, 50).await;
    until(async || disk.used() < used).await;
    let gone = save(&around, &snapshot, copy.path()).await.unwrap_err();
    assert!(gone.contains("given up"), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_any_more_is_let_go() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), small).await;
    let first = take(&around).await;
    for _ in 0..3 {
        take(&around).await;
    }
    let answer = around.control.ask(ControlRequest::Snapshot).await.unwrap();
    assert!(matches!(answer, ControlAnswer::Failed(ref why) if why.contains("4 backups")));
    tokio::time::sleep(Duration::from_secs(301)).await;
    take(&around).await;
    let copy = tempfile::tempdir().unwrap();
    assert!(save(&around, &first, copy.path()).await.is_err());
}

/// Mail is not refused for a backup's sake.
#[tokio::test(start_paused = true)]
async fn a_full_disk_ends_it() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), |settings| {
        small(settings);
        settings.free_space_min = 100_000;
    })
    .await;
    let (_, idle) = lamppost_net::link::link();
    tokio::spawn(succeed(std::mem::replace(&mut around.delivery, idle)));
    churn(&around, 60).await;
    disk.set_quota(Some(disk.used() + 200_000));
    let snapshot = take(&around).await;
    for _ in 0..400 {
        submit(&around, "demo", &"y".repeat(2000)).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let taken =
        async || matches!(submit(&around, "demo", "hello\n").await, IntakeAnswer::Stored(_));
    until(taken).await;
    let copy = tempfile::tempdir().unwrap();
    let gone = save(&around, &snapshot, copy.path()).await.unwrap_err();
    assert!(gone.contains("the disk became full"), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn a_restored_spool_tries_nothing_until_it_may() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), small).await;
    // One fails for good, one lies beside its Maildir, one waits.
    let failed = stored(&submit(&around, "failed", "failed").await);
    let refused = Outcome::Failed(Reason::own(Status::POLICY, "never"));
    deliver(&mut around, &refused).await;
    let intended = stored(&submit(&around, "intended", "intended").await);
    let (request, reply) = around.delivery.next().await.unwrap();
    reply.send(DeliveryAnswer(vec![Outcome::Done; entries(&request)]));
    let (request, _never) = around.delivery.next().await.unwrap();
    assert!(matches!(request, DeliveryRequest::Publish(_)));
    let waiting = large(&around, "waiting").await;
    let snapshot = take(&around).await;
    for restored in [Restored::Held, Restored::GoesOn] {
        let copy = tempfile::tempdir().unwrap();
        save(&around, &snapshot, copy.path()).await.unwrap();
        let is_held = restored == Restored::Held;
        let held = open(copy.path()).make_ready(restored).unwrap();
        assert_eq!(held, if is_held { 3 } else { 0 });
        let spool = open(copy.path());
        assert!(spool.report().is_sound(), "{:?}", spool.report());
        let all = saved(&spool);
        let known: Vec<_> = all.iter().map(|(view, _)| (view.id, view.held)).collect();
        assert_eq!(known, [failed, intended, waiting].map(|id| (id, is_held)));
        let states: Vec<_> = all.iter().map(|(view, _)| view.recipients[0].state).collect();
        let first = if is_held { RecipientState::Deferred } else { RecipientState::Failed };
        assert_eq!(states, [first, RecipientState::New, RecipientState::New]);
        assert_eq!(all[2].1, b"waiting");
        assert!(
            all[0].0.recipients[0].last.as_ref().is_some_and(|last| last.reason.text == "never")
        );
    }
}
