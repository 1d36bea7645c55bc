//! What was acknowledged survives a kill, and comes once.
//!
//! A kill leaves the page cache alone: these tests prove the order of what the program does, not that
//! it waits for the disk. That is proved by `strace.rs` and `file_systems.rs`.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use lamppost_load::{Outcome, Report, Sent, Token};
use support::accounting;
use support::kills::{self, Kills};
use support::reader::Arrival;
use support::{Server, Setup, Wire};

/// Kills in one round, each round with a server and a seed of its own.
const KILLS_PER_ROUND: u64 = 10;
/// The seed of the first round; the others are fresh.
const FIXED_SEED: u64 = 0x1a3b_0577;

/// `LAMPPOST_KILLS` says how often, `LAMPPOST_SEED` repeats the load and the kills of one round.
#[test]
fn every_acknowledged_message_comes_once_after_kills() {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse().unwrap());
    let mut left = number("LAMPPOST_KILLS").unwrap_or(2 * KILLS_PER_ROUND);
    let mut seed = number("LAMPPOST_SEED").unwrap_or(FIXED_SEED);
    while left > 0 {
        let count = left.min(KILLS_PER_ROUND);
        let told = Kills { seed, count, ..Kills::default() }.round(None);
        println!("{told}");
        left -= count;
        seed = kills::fresh_seed();
    }
}

#[test]
fn a_kill_loses_nothing_even_without_syncs() {
    // What `durability = "none"` promises.
    let setup = Setup {
        queue: "durability = \"none\"\nretry-first = \"1s\"\nsegment-size = \"1MiB\"",
        ..kills::setup()
    };
    println!("{}", Kills { seed: 3, count: 3, setup }.round(None));
}

#[test]
fn the_account_notices_what_is_lost_doubled_or_out_of_nowhere() {
    let token = |number| Token { seed: 1, number, size: 500 };
    let sent = |number, outcome| Sent {
        token: token(number),
        recipients: vec!["a".into(), "b".into()],
        outcome,
        latency: std::time::Duration::ZERO,
    };
    let came = |mailbox: &str, id: &str, number| Arrival {
        mailbox: mailbox.into(),
        id: id.into(),
        token: token(number),
    };
    let reports = [Report {
        sent: vec![
            sent(1, Outcome::Acknowledged("2.0.0 stored as x1".into())),
            sent(2, Outcome::Unknown),
            sent(3, Outcome::Refused(451)),
            sent(4, Outcome::Unknown),
        ],
        ..Report::default()
    }];
    let good = [came("a", "x1", 1), came("b", "x1", 1), came("a", "x2", 2), came("b", "x2", 2)];
    let check = |arrivals: &[Arrival]| accounting::problems(&reports, arrivals);
    assert_eq!(check(&good), Vec::<String>::new());
    assert!(check(&good[1..])[0].starts_with("lost: lamp-1-1-500"));
    assert!(check(&good[..3])[0].contains("came to some"));
    let with = |more: Arrival| check(&[&good[..], &[more]].concat());
    assert!(with(came("a", "x1", 1))[0].starts_with("doubled: x1"));
    assert!(with(came("a", "x9", 1))[0].starts_with("doubled: lamp-1-1-500"));
    assert!(with(came("a", "x2", 2))[0].starts_with("doubled: x2"));
    assert!(with(came("a", "x3", 3))[0].contains("Refused(451), came"));
    assert!(with(came("c", "x1", 1))[0].contains("not sent there"));
}

#[test]
fn a_maildir_that_a_crash_left_half_made_is_completed() {
    for made in [&["tmp"][..], &["tmp", "new"], &["new"], &["cur"], &["tmp", "cur"]] {
        let server = Server::start(&Setup::default());
        for folder in made {
            let folder = server.maildir("demo@lamppost.test").join(folder);
            std::fs::create_dir_all(folder).unwrap();
        }
        let mut wire = Wire::greeted(server.mx);
        assert!(wire.deliver("demo@lamppost.test", "Subject: x\r\n\r\nx").starts_with("250"));
        println!("only {made:?} is there");
        server.delivered("demo@lamppost.test", 1);
    }
}

#[test]
fn sigterm_ends_idle_sessions_and_exits_cleanly() {
    let mut server = Server::start(&Setup::default());
    let mut idle = Wire::greeted(server.mx);
    assert_eq!(server.stop(), Some(0));
    assert!(idle.reply().starts_with("421 4.3.2"));
}

#[test]
fn sigterm_lets_a_message_finish() {
    let mut server = Server::start(&Setup::default());
    let mut wire = Wire::greeted(server.mx);
    wire.begin_content("demo@lamppost.test");
    support::signal(server.pid(), "TERM");
    assert!(support::until(|| server.log().contains("stopping")));
    assert!(wire.ask("Subject: late\r\n\r\nlate\r\n.\r\n").starts_with("250 2.0.0"));
    assert!(wire.reply().starts_with("421"));
    server.launch_after_exit();
    server.delivered("demo@lamppost.test", 1);
}
