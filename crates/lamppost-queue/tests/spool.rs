//! The spool on its disk: segments that are recycled, checkpoints, damage, and a disk that is full.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lamppost_queue::Durability;
use lamppost_roles::{ControlAnswer, ControlRequest, IntakeAnswer, IntakeRequest, QueueId, Verb};
use lamppost_sim::{Operation, SimulatedDisk};
use lamppost_smtp::Refusal;
use support::{
    Around, change, envelope, listed, restart, show, small, start, status, stored, submit, succeed,
    until, world,
};

/// Has so many messages come and be delivered.
async fn flow(around: &mut Around, count: u32) {
    let (_, idle) = lamppost_net::link::link();
    tokio::spawn(succeed(std::mem::replace(&mut around.delivery, idle)));
    for _ in 0..count {
        stored(&submit(around, "demo", &"x".repeat(900)).await);
    }
}

/// A message that stays, since it is held.
async fn held(around: &Around, content: &str) -> QueueId {
    let id = stored(&submit(around, "held", content).await);
    change(around, Verb::Hold, id).await;
    id
}

async fn content(around: &Around, id: QueueId) -> ControlAnswer {
    around.control.ask(ControlRequest::Read { id, offset: 0, length_max: 9999 }).await.unwrap()
}

fn segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    disk.files(".seg")
}

/// Where a text lies in the log.
fn find(disk: &SimulatedDisk, text: &str) -> (PathBuf, u64) {
    let world = disk.world();
    let mut places = segments(disk).into_iter().filter_map(|path| {
        let bytes = world.file(&path)?;
        let at = bytes.windows(text.len()).position(|window| window == text.as_bytes())?;
        Some((path, at as u64))
    });
    places.next_back().unwrap()
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn old_records_in_a_recycled_segment_never_come_back() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), small).await;
    flow(&mut around, 200).await;
    until(async || listed(&around).await.is_empty()).await;
    let recycled = disk.log().iter().any(|operation| match operation {
        Operation::Rename { from, to } => {
            from.extension().is_some_and(|end| end == "seg") && file_name(to).starts_with("spare-")
        }
        _ => false,
    });
    assert!(recycled, "no segment was recycled: {:?}", disk.files(""));
    assert!(segments(&disk).len() < 10, "{:?}", segments(&disk));
    // A checkpoint that is gone has everything read that is there.
    let after = disk.after_kill();
    lamppost_disk::Disk::remove(&after, &folder.path().join("checkpoint")).unwrap();
    let around = restart(around, &after, folder.path(), small).await;
    assert_eq!(listed(&around).await, []);
    assert_eq!(status(&around).await.damage, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_start_reads_the_checkpoint_and_no_old_segment() {
    let (disk, folder) = world();
    let mut around = start(&disk, folder.path(), small).await;
    let stays = held(&around, "stays\n").await;
    let moved = held(&around, &"y".repeat(5000)).await;
    flow(&mut around, 30).await;
    until(async || listed(&around).await == [stays, moved]).await;
    around.queue.stop(Duration::ZERO).await;
    let after = disk.after_power_cut();
    let around = start(&after, folder.path(), small).await;
    let checkpoint = after.world().file(&folder.path().join("checkpoint")).unwrap().len() as u64;
    let most = checkpoint + 100 + 1024 * segments(&after).len() as u64;
    assert!(after.bytes_read() <= most, "{} bytes read, {most} expected", after.bytes_read());
    assert_eq!(listed(&around).await, [stays, moved]);
    assert_eq!(content(&around, stays).await, ControlAnswer::Piece("stays\n".into()));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_checkpoint_has_the_whole_log_read() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), small).await;
    let ids = [held(&around, "one\n").await, held(&around, "two\n").await];
    around.queue.stop(Duration::ZERO).await;
    let after = disk.after_power_cut();
    after.damage(&folder.path().join("checkpoint"), 60, b"damage");
    let around = start(&after, folder.path(), small).await;
    assert_eq!(listed(&around).await, ids);
    assert!(show(&around, ids[0]).await.unwrap().held);
    let damage = status(&around).await.damage;
    assert!(damage.len() == 1 && damage[0].contains("the whole log was read"), "{damage:?}");
}

#[tokio::test(start_paused = true)]
async fn a_header_has_two_copies_and_a_segment_without_any_is_set_aside() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), small).await;
    let first = held(&around, "first\n").await;
    let (segment, _) = find(&disk, "first\n");
    let one = disk.after_kill();
    one.damage(&segment, 8, b"damage");
    let around = restart(around, &one, folder.path(), small).await;
    assert_eq!(listed(&around).await, [first]);
    assert_eq!(status(&around).await.damage, [""; 0]);

    let second = held(&around, "second\n").await;
    let both = one.after_kill();
    let (segment, _) = find(&both, "first\n");
    both.damage(&segment, 8, b"damage");
    both.damage(&segment, 520, b"damage");
    let around = restart(around, &both, folder.path(), small).await;
    assert_eq!(listed(&around).await, [second]);
    assert_eq!(both.files("quarantine").len(), 1);
    assert_eq!(status(&around).await.damage.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hole_is_quarantined_and_the_rest_is_read() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), small).await;
    let first = held(&around, "first\n").await;
    held(&around, "second\n").await;
    let third = held(&around, "third\n").await;
    let after = disk.after_kill();
    let (segment, at) = find(&after, "second\n");
    // The last byte of its text.
    after.damage(&segment, at - 1, b"S");
    let around = restart(around, &after, folder.path(), small).await;
    assert_eq!(listed(&around).await, [first, third]);
    assert_eq!(after.files(".damaged").len(), 1);
    assert_eq!(status(&around).await.damage.len(), 1);
    let fourth = held(&around, "fourth\n").await;
    assert_eq!(listed(&around).await, [first, third, fourth]);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_takes_no_mail_while_the_queue_goes_on_and_recovers() {
    goes_on_when_full(io::ErrorKind::StorageFull).await;
}

#[tokio::test(start_paused = true)]
async fn a_spool_over_its_quota_is_as_good_as_on_a_full_disk() {
    goes_on_when_full(io::ErrorKind::QuotaExceeded).await;
}

#[tokio::test(start_paused = true)]
async fn room_on_the_disk_is_told_again_though_no_mail_comes() {
    let (disk, folder) = world();
    let with_least = |settings: &mut lamppost_queue::Settings| {
        small(settings);
        settings.free_space_min = 1 << 20;
        settings.notice_every = Duration::from_secs(1);
    };
    let around = start(&disk, folder.path(), with_least).await;
    disk.limit(folder.path(), Some((disk.used() + (1 << 19), io::ErrorKind::StorageFull)));
    let refused = submit(&around, "demo", "x").await;
    assert_eq!(refused, IntakeAnswer::Refused(Refusal::SpoolFull));
    assert_eq!(around.metrics.spool_fault.get(), 1);
    disk.limit(folder.path(), None);
    until(async || around.metrics.spool_fault.get() == 0).await;
}

async fn goes_on_when_full(kind: io::ErrorKind) {
    let (disk, folder) = world();
    let larger = |settings: &mut lamppost_queue::Settings| {
        small(settings);
        settings.segment_size = 256 * 1024;
    };
    let mut around = start(&disk, folder.path(), larger).await;
    disk.limit(folder.path(), Some((disk.used() + 200_000, kind)));
    let mut ids = Vec::new();
    loop {
        match submit(&around, "demo", &"x".repeat(1500)).await {
            IntakeAnswer::Stored(id) => ids.push(id),
            refused => {
                assert_eq!(refused, IntakeAnswer::Refused(Refusal::SpoolFull));
                break;
            }
        }
        assert!(ids.len() < 1000, "the disk is never full");
    }
    assert!(ids.len() > 10);
    // What administrators do and what is delivered still fits.
    for &id in &ids[..5] {
        change(&around, Verb::Hold, id).await;
    }
    assert_eq!(listed(&around).await, ids);
    let (_, idle) = lamppost_net::link::link();
    tokio::spawn(succeed(std::mem::replace(&mut around.delivery, idle)));
    // Those whose delivery had begun when they were held arrive all the same.
    until(async || listed(&around).await.iter().all(|id| ids[..5].contains(id))).await;
    let left = listed(&around).await;
    // What was delivered makes room, or somebody does.
    disk.set_quota(None);
    stored(&submit(&around, "demo", &"x".repeat(1500)).await);
    until(async || status(&around).await.fault.is_none()).await;
    let around = restart(around, &disk.after_power_cut(), folder.path(), larger).await;
    assert!(listed(&around).await.starts_with(&left));
}

#[tokio::test(start_paused = true)]
async fn durability_is_what_it_says() {
    for (durability, syncs) in
        [(Durability::Each, 20..), (Durability::Group, 1..), (Durability::None, 0..)]
    {
        let (disk, folder) = world();
        let set = |settings: &mut lamppost_queue::Settings| {
            small(settings);
            settings.segment_size = 1024 * 1024;
            settings.durability = durability;
        };
        let around = start(&disk, folder.path(), set).await;
        let before = disk.syncs();
        let submits = (0..20).map(|_| submit(&around, "demo", "hello\n"));
        let answers = futures_util::future::join_all(submits).await;
        assert!(answers.iter().all(|answer| matches!(answer, IntakeAnswer::Stored(_))));
        let counted = disk.syncs() - before;
        assert!(syncs.contains(&counted), "{durability:?}: {counted} syncs");
        let most = if durability == Durability::Each { 40 } else { 3 };
        assert!(counted <= most, "{durability:?}: {counted} syncs");
        if durability == Durability::None {
            assert_eq!(counted, 0);
        }
    }
}

#[tokio::test]
async fn kills_leave_no_pile_of_segments() {
    let (mut disk, folder) = world();
    for _ in 0..20 {
        let around = start(&disk, folder.path(), |_| {}).await;
        let after = disk.after_kill();
        drop(around);
        disk = after;
    }
    assert!(disk.files(".seg").len() < 10, "{:?}", disk.files(".seg"));
}

#[tokio::test]
async fn a_large_content_whose_record_is_damaged_is_kept() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), |_| {}).await;
    let IntakeAnswer::Upload(upload) = around.intake.ask(IntakeRequest::Begin).await.unwrap()
    else {
        panic!()
    };
    let append = IntakeRequest::Append { upload, piece: "large content".into() };
    around.intake.ask(append).await.unwrap();
    let finish = IntakeRequest::Finish { upload, envelope: envelope(&["named-here-alone"]) };
    stored(&around.intake.ask(finish).await.unwrap());
    stored(&submit(&around, "demo", "after\n").await);
    let after = disk.after_kill();
    drop(around);
    let (segment, at) = find(&after, "named-here-alone");
    after.damage(&segment, at, b"N");
    let around = start(&after, folder.path(), |_| {}).await;
    assert!(!status(&around).await.damage.is_empty());
    let kept = after.files(".eml");
    let world = after.world();
    assert_eq!(world.file(&kept[0]), Some(&b"large content"[..]));
}

#[tokio::test]
async fn a_record_that_vanished_from_the_end_of_a_segment_is_missed() {
    let (disk, folder) = world();
    let around = start(&disk, folder.path(), |_| {}).await;
    stored(&submit(&around, "demo", "first\n").await);
    stored(&submit(&around, "named-here-alone", "last\n").await);
    let after = disk.after_kill();
    drop(around);
    // The next start begins the next segment.
    let around = start(&after, folder.path(), |_| {}).await;
    assert_eq!(status(&around).await.damage, [""; 0]);
    let after = after.after_kill();
    drop(around);
    let (segment, at) = find(&after, "named-here-alone");
    let head = {
        let world = after.world();
        let before = &world.file(&segment).unwrap()[..usize::try_from(at).unwrap()];
        before.windows(4).rposition(|window| window == b"LREC").unwrap() as u64
    };
    after.damage(&segment, head, b"X");
    let around = start(&after, folder.path(), |_| {}).await;
    let damage = status(&around).await.damage;
    assert!(damage.iter().any(|text| text.contains("end of segment 1: 1 record")), "{damage:?}");
}
