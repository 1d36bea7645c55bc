//! Crashes and power cuts on file systems with journals: ext4 and XFS on loop devices.
//!
//! A power cut is made in two ways. *Cut*: the file system is told to go down without writing out
//! its log (`FS_IOC_SHUTDOWN`), and is mounted again. *Copy*: the server is stopped, and the image
//! below the loop device is copied, mounted and used. Both keep exactly what the file system had
//! handed to its device. Neither shows that the device itself keeps what it was told to flush: that
//! the flush was asked for is seen in the device's figures, and the rest is the device's promise.
#![cfg(feature = "peers")]
#![allow(
    clippy::unwrap_used,
    clippy::allow_attributes,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

mod support;

use lamppost_load::Load;
use support::kills::{ACCOUNTS, Kills, fresh_seed, load};
use support::mounted::{Kind, Mounted};
use support::reader::Reader;
use support::{Server, Setup, accounting, until};

const GROUP: &str = "retry-first = \"1s\"\nsegment-size = \"16MiB\"\nfree-space-min = \"1MiB\"";
const NONE: &str = "retry-first = \"1s\"\nsegment-size = \"16MiB\"\nfree-space-min = \"1MiB\"\n\
                    durability = \"none\"";
/// Their mail waits in the queue until the power is back.
const SOME_BLOCKED: &[&str] = &[ACCOUNTS[3]];
/// As above; nothing is delivered, and no sync of a delivery makes anything durable by accident.
const ALL_BLOCKED: &[&str] = &ACCOUNTS;

fn setup(queue: &'static str) -> Setup {
    let limits = "greeting-delay = \"0s\"\nsessions-per-address-max = 200";
    Setup { accounts: &ACCOUNTS, queue, limits, ..Setup::default() }
}

fn kills(kind: Kind) {
    let Some(disk) = Mounted::new(kind) else { return };
    let seed = fresh_seed();
    let kills = Kills { seed, count: 3, setup: setup(GROUP) };
    println!("{kind:?}: {}", kills.round(Some(&disk.point().join("state"))));
}

#[test]
fn kills_on_ext4() {
    kills(Kind::Ext4);
}

#[test]
fn kills_on_xfs() {
    kills(Kind::Xfs);
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Cut,
    Copy,
}

/// A power cut under load.
struct Cut {
    kind: Kind,
    way: Way,
    queue: &'static str,
    blocked: &'static [&'static str],
}

/// What came of it.
struct Outcome {
    acknowledged: usize,
    problems: Vec<String>,
    lost: usize,
}

/// Puts files where these accounts' Maildirs would be, or takes them away again.
fn block(server: &Server, accounts: &[&str], blocked: bool) {
    for path in accounts.iter().map(|account| server.maildir(account)) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if blocked {
            std::fs::write(&path, "in the way").unwrap();
        } else if path.is_file() {
            std::fs::remove_file(&path).unwrap();
        }
    }
}

/// Cuts the power; returns what was acknowledged and what is wrong afterwards. Nothing where no file
/// system can be mounted.
fn power_cut(cut: &Cut) -> Option<Outcome> {
    let &Cut { kind, way, queue, blocked } = cut;
    let disk = Mounted::new(kind)?;
    let seed = fresh_seed();
    println!("seed {seed}");
    let mut server = Server::start_in(&setup(queue), &disk.point().join("state"));
    block(&server, blocked, true);
    // The books are kept where no power is cut.
    let books = tempfile::tempdir().unwrap();
    let journal = books.path().join("journal");
    let load = Load { reconnect: false, journal: Some(journal.clone()), ..load(&server, seed) };
    let running = load.start().unwrap();
    assert!(until(|| running.acknowledged() >= 150));
    server.halt();
    let after = match way {
        Way::Cut => {
            disk.cut_power();
            server.go_on();
            // Sessions are refused and the program says why; then the machine is gone.
            assert!(until(|| server.is_unwell()), "nothing is said of the failed disk");
            server.kill();
            disk.mount_again();
            disk
        }
        Way::Copy => {
            let copy = disk.copy();
            server.kill();
            copy
        }
    };
    running.stop();
    let mut report = running.finish();
    let refused = report.refused().collect::<Vec<_>>();
    assert!(refused.iter().all(|code| [451, 452, 421].contains(code)), "{refused:?}");
    accounting::forgive_refusals(&mut report);
    let mut server = Server::prepare(&setup(queue), Some(after.point().join("state")));
    block(&server, blocked, false);
    server.launch();
    server.await_local_deliveries();
    let notes = Reader::start(&server, &ACCOUNTS, seed).finish();
    let mut problems = accounting::problems(std::slice::from_ref(&report), &notes.arrivals);
    problems.extend(notes.problems);
    problems.extend(accounting::journal_problems(&journal, &report));
    let lost = problems.iter().filter(|problem| problem.starts_with("lost")).count();
    println!(
        "{kind:?} {way:?}: {} acknowledged, {} refused, {} not answered, {} cut; {} arrivals, \
         {lost} lost",
        report.acknowledged().count(),
        refused.len(),
        report.unknown().count(),
        report.sent.iter().filter(|sent| sent.outcome == lamppost_load::Outcome::Cut).count(),
        notes.arrivals.len(),
    );
    drop(server);
    Some(Outcome { acknowledged: report.acknowledged().count(), problems, lost })
}

fn survives(kind: Kind, way: Way) {
    let cut = |queue, blocked| power_cut(&Cut { kind, way, queue, blocked });
    let Some(some) = cut(GROUP, SOME_BLOCKED) else { return };
    assert!(some.problems.is_empty(), "{}", some.problems.join("\n"));
    let Some(all) = cut(GROUP, ALL_BLOCKED) else { return };
    assert!(all.problems.is_empty(), "{}", all.problems.join("\n"));
    // The same test finds what is lost when nothing waits for the disk.
    let Some(none) = cut(NONE, ALL_BLOCKED) else { return };
    assert!(none.lost > 0, "none of {} was lost without syncs", none.acknowledged);
}

#[test]
fn acknowledged_mail_survives_a_power_cut_on_ext4() {
    survives(Kind::Ext4, Way::Cut);
}

#[test]
fn acknowledged_mail_survives_a_power_cut_on_xfs() {
    survives(Kind::Xfs, Way::Cut);
}

#[test]
fn acknowledged_mail_is_on_the_device_on_ext4() {
    survives(Kind::Ext4, Way::Copy);
}

#[test]
fn acknowledged_mail_is_on_the_device_on_xfs() {
    survives(Kind::Xfs, Way::Copy);
}

#[test]
fn the_device_is_told_to_flush() {
    for kind in [Kind::Ext4, Kind::Xfs] {
        let Some(disk) = Mounted::new(kind) else { return };
        let server = Server::start_in(&setup(GROUP), &disk.point().join("state"));
        for (seed, sessions, count) in [(1, 1, 50), (2, 20, 500), (3, 100, 500)] {
            let before = disk.flushes();
            let mut load = Load::new(server.mx, &ACCOUNTS);
            load.sessions = sessions;
            load.count = Some(count);
            load.seed = seed;
            let report = load.start().unwrap().finish();
            assert_eq!(report.acknowledged().count() as u64, count, "{:?}", report.complaints);
            let accepted = disk.flushes() - before;
            server.await_empty_queue();
            let flushes = disk.flushes() - before;
            #[expect(clippy::cast_precision_loss, reason = "small counts")]
            let a_message = |flushes| flushes as f64 / count as f64;
            println!(
                "{kind:?}, {sessions} sessions, {count} messages: {:.3} flushes of the device a \
                 message, {:.3} of them until all were acknowledged",
                a_message(flushes),
                a_message(accepted),
            );
            assert!(accepted > 0, "nothing was flushed");
            assert!(flushes < 8 * count, "{flushes} flushes");
        }
    }
}
