//! "An acknowledged message is in the queue, delivered or bounced, at every instant": power cuts and
//! kills after every operation of stories that seeds tell, with the program's own Maildirs, on simulated
//! disks that tear, reorder and lose what no sync covers.
//!
//! `LAMPPOST_SEED=SEED` tells one story, `LAMPPOST_SEED=SEED:OPERATIONS:CRASH` cuts the power in it
//! once, as a failure prints it; `LAMPPOST_SEEDS=COUNT` tells more stories, each with every cut.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::allow_attributes,
    reason = "a test fails by panicking, and tells its seed"
)]

mod judge;
mod mailboxes;
mod story;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use judge::Walk;
use lamppost_sim::Lie;
use mailboxes::mail;
use story::{Fact, root, tell};

/// Stories that are told by default, and how many operations lie between two power cuts.
const SEEDS: u64 = 6;
const STRIDE: usize = 11;

#[test]
fn an_acknowledged_message_is_in_the_queue_delivered_or_bounced_at_every_instant() {
    let root = root();
    let root = root.path();
    if let Ok(replay) = std::env::var("LAMPPOST_SEED") {
        let mut numbers = replay.split(':').map(|number| number.parse::<u64>().unwrap());
        let seed = numbers.next().unwrap();
        let cut = numbers.next().zip(numbers.next());
        return match cut {
            Some((operations, crash)) => {
                check(seed, root, Some((usize::try_from(operations).unwrap(), crash)));
            }
            None => check_all(seed, 1, root),
        };
    }
    let more = std::env::var("LAMPPOST_SEEDS").ok().map(|count| count.parse().unwrap());
    let (seeds, stride) = more.map_or((SEEDS, STRIDE), |count| (count, 1));
    let next = AtomicU64::new(1);
    let workers = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (next, root) = (&next, root.join(worker.to_string()));
            std::fs::create_dir_all(&root).unwrap();
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    check_all(seed, stride, &root);
                }
            });
        }
    });
}

/// Each run tells a story that none before has told.
#[test]
fn a_fresh_story_keeps_the_promise_too() {
    let root = root();
    let fresh = std::collections::hash_map::RandomState::new().build_hasher().finish();
    check_all(fresh, STRIDE, root.path());
}

/// Cuts the power after every `stride`-th operation of a story.
fn check_all(seed: u64, stride: usize, root: &Path) {
    // What panics elsewhere tells no seed of its own.
    println!("LAMPPOST_SEED={seed}");
    let story = tell(seed, root, None);
    let mut walk = Walk::new(&story);
    // Other seeds look at other moments.
    let first = usize::try_from(seed).unwrap() % stride;
    for operations in (first..=walk.len()).step_by(stride) {
        walk.go_to(operations);
        let crash = operations as u64;
        walk.check(root, crash).unwrap_or_else(|broken| fail(seed, operations, crash, &broken));
    }
}

fn check(seed: u64, root: &Path, cut: Option<(usize, u64)>) {
    let story = tell(seed, root, None);
    let Some((operations, crash)) = cut else { return };
    let mut walk = Walk::new(&story);
    walk.go_to(operations);
    walk.check(root, crash).unwrap_or_else(|broken| fail(seed, operations, crash, &broken));
}

fn fail(seed: u64, operations: usize, crash: u64, broken: &str) -> ! {
    panic!(
        "{broken}\nreplay: LAMPPOST_SEED={seed}:{operations}:{crash} cargo nextest run -p lamppost-queue --test invariant"
    )
}

#[test]
fn a_seed_tells_the_same_story_again() {
    let root = root();
    let root = root.path();
    let tell = || {
        let story = tell(7, root, None);
        let log: Vec<_> = story.disk.log().iter().map(|one| format!("{one:?}")).collect();
        (log, story.facts)
    };
    let (first, second) = (tell(), tell());
    assert!(first.0.len() > 300, "{} operations", first.0.len());
    for (at, (a, b)) in first.0.iter().zip(&second.0).enumerate() {
        assert_eq!(a, b, "operation {at}");
    }
    assert_eq!(first, second);
}

/// Without this the others would prove nothing: the stories hold what they are to be about.
#[test]
fn stories_have_everything_in_them() {
    let root = root();
    let root = root.path();
    let mut seen = BTreeSet::new();
    for seed in 1..=4 {
        let story = tell(seed, root, None);
        for (_, fact) in &story.facts {
            seen.insert(match fact {
                Fact::Stored { .. } => "stored",
                Fact::Refused { .. } => "refused",
                Fact::DeleteAsked { .. } => "delete",
                Fact::Deleted { .. } => "deleted",
                Fact::Relayed { .. } => "relayed",
            });
        }
        let world = story.disk.world();
        for text in world.paths().filter_map(|path| world.file(path)) {
            for (what, sign) in
                [("delayed", "\nAction: delayed\n"), ("bounced", "\nAction: failed\n")]
            {
                if String::from_utf8_lossy(text).contains(sign) {
                    seen.insert(what);
                }
            }
        }
        for operation in story.disk.log() {
            let text = format!("{operation:?}");
            for (what, signs) in [
                ("recycled", ["rename", "seg to", "spare-"]),
                ("published", ["rename", "/tmp/", "/new/"]),
                ("moved", ["rename", "/new/", "/cur/"]),
                ("checkpoint", ["rename", "checkpoint.new", ""]),
                ("aside", ["create", "/bodies/", ""]),
                ("failed", ["sync", "(failed)", ""]),
                ("removed", ["remove", "seg", ""]),
                ("synced each", ["sync folder", "/tmp", ""]),
                ("synced at once", ["sync file system", "/tmp", ""]),
            ] {
                if signs.iter().all(|sign| text.contains(sign)) {
                    seen.insert(what);
                }
            }
        }
    }
    let wanted = [
        "aside",
        "bounced",
        "checkpoint",
        "delayed",
        "delete",
        "deleted",
        "failed",
        "moved",
        "published",
        "recycled",
        "refused",
        "relayed",
        "removed",
        "stored",
        "synced at once",
        "synced each",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), wanted);
}

/// The tests above find each sync that is taken out: of the log, of files in `tmp/`, of the names there
/// and of those in `new/`.
#[test]
fn a_sync_that_is_missing_is_found_out() {
    let root = root();
    let root = root.path();
    for (lie, seed) in [
        (Lie::Files(root.join("log")), 1),
        (Lie::Files(mail(root)), 1),
        (Lie::Files(mail(root)), 3),
        (Lie::Folders(&["tmp", "new"]), 3),
    ] {
        let story = tell(seed, root, Some(lie.clone()));
        let mut walk = Walk::new(&story);
        let is_found = (0..=walk.len()).step_by(5).any(|operations| {
            walk.go_to(operations);
            let broken = walk.check(root, operations as u64).err();
            broken.is_some_and(|broken| ["lost", "sent"].iter().any(|word| broken.contains(word)))
        });
        assert!(is_found, "{lie:?} is not noticed");
    }
}
