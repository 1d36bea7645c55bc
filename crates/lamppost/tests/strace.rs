//! No 250 goes out before the sync that covers its message, as the system calls tell; and how many
//! syncs a message costs. What this needs is set up by `cargo xtask setup`.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;

use lamppost_load::{Load, Outcome, Report};
use support::trace::{self, Calls, Trace, Traced};
use support::{Setup, Wire};

const ACCOUNT: &str = "demo@lamppost.test";

fn setup(durability: &'static str) -> Setup {
    let limits = "greeting-delay = \"0s\"\nsessions-per-address-max = 200";
    Setup { queue: durability, limits, ..Setup::default() }
}

/// What the system calls of a load tell.
fn traced(
    durability: &'static str,
    calls: Calls,
    (sessions, count): (usize, u64),
) -> (Trace, Report) {
    let traced = Traced::start(&setup(durability), calls);
    let mut load = Load::new(traced.server.mx, &[ACCOUNT]);
    load.sessions = sessions;
    load.count = Some(count);
    load.sizes = vec![700, 4096];
    let report = load.start().unwrap().finish();
    assert_eq!(report.acknowledged().count() as u64, count, "{:?}", report.complaints);
    traced.server.await_empty_queue();
    (traced.finish(), report)
}

/// The markers of messages by the words of their replies.
fn markers(report: &Report) -> HashMap<String, String> {
    let stored = |sent: &lamppost_load::Sent| match &sent.outcome {
        Outcome::Acknowledged(text) => Some((text.clone(), format!("Subject: {}", sent.token))),
        _ => None,
    };
    report.sent.iter().filter_map(stored).collect()
}

#[test]
fn no_reply_precedes_the_sync_that_covers_it() {
    for (durability, sessions) in [
        ("durability = \"group\"", 20),
        ("durability = \"group\"", 1),
        ("durability = \"each\"", 5),
    ] {
        let (trace, report) = traced(durability, Calls::SyncsAndWrites, (sessions, 60));
        let checked = trace.check(&markers(&report));
        assert_eq!((checked.early, checked.covered), (Vec::new(), 60), "{durability} {sessions}");
    }
}

#[test]
fn without_syncs_the_same_check_fails() {
    let (trace, report) = traced("durability = \"none\"", Calls::SyncsAndWrites, (20, 60));
    let checked = trace.check(&markers(&report));
    assert!(checked.early.len() > 30, "{} of 60 were early", checked.early.len());
}

#[test]
fn a_large_message_is_covered_with_its_own_file() {
    let checked = large("durability = \"group\"");
    for checked in checked {
        assert_eq!((checked.early, checked.covered), (Vec::new(), 1));
    }
    let [record, _] = large("durability = \"none\"");
    assert_eq!(record.early.len(), 1);
}

/// Sends a message that gets a file of its own; holds the reply against its record in the log, and
/// against its content.
fn large(durability: &'static str) -> [trace::Checked; 2] {
    const RECORD: &str = "marker-of-the-record@";
    const CONTENT: &str = "Subject: marker-of-the-content";
    let traced = Traced::start(&setup(durability), Calls::SyncsAndWrites);
    let mut wire = Wire::greeted(traced.server.mx);
    assert!(wire.ask(format!("MAIL FROM:<{RECORD}elsewhere.test>\r\n")).starts_with("250"));
    assert!(wire.ask(format!("RCPT TO:<{ACCOUNT}>\r\n")).starts_with("250"));
    assert!(wire.ask("DATA\r\n").starts_with("354"));
    let filler = "0123456789abcdef\r\n".repeat(20_000);
    let reply = wire.ask(format!("{CONTENT}\r\n\r\n{filler}.\r\n"));
    drop(wire);
    let words = reply.trim_end().strip_prefix("250 ").unwrap();
    traced.server.await_empty_queue();
    let trace = traced.finish();
    [RECORD, CONTENT].map(|marker| trace.check(&HashMap::from([(words.into(), marker.into())])))
}

/// What one message costs that nobody shares with, exactly.
#[test]
fn a_lone_message_costs_two_syncs_of_the_log_and_four_of_its_maildir() {
    const MESSAGES: usize = 12;
    let traced = Traced::start(&setup("durability = \"group\""), Calls::SyncsAndWrites);
    let mut wire = Wire::greeted(traced.server.mx);
    let marker = |number: usize| format!("Subject: marker-{number}-of-many");
    let filling = "0123456789abcde\r\n".repeat(240);
    let mut replies = HashMap::new();
    // The first makes the Maildir, and is not counted.
    for number in 0..=MESSAGES {
        let reply = wire.deliver(ACCOUNT, &format!("{}\r\n\r\n{filling}", marker(number)));
        let words = reply.trim_end().strip_prefix("250 ").unwrap().to_owned();
        replies.insert(words, marker(number));
        traced.server.await_empty_queue();
    }
    drop(wire);
    let trace = traced.finish();
    let checked = trace.check(&replies);
    assert_eq!((checked.early, checked.covered), (Vec::new(), MESSAGES + 1));
    let markers: Vec<_> = (0..=MESSAGES).map(marker).collect();
    let rows = trace.syncs_between(&markers);
    assert_eq!(rows.len(), MESSAGES + 2);
    // The last ends with what the program does when it stops.
    for row in &rows[2..=MESSAGES] {
        let kinds: Vec<_> = row.iter().map(|sync| kind(sync)).collect();
        // The message, its file and its name, the intent, and the name in new/.
        let counted = ["log", "file", "tmp", "log", "new", "tmp"];
        assert!(kinds.starts_with(&counted), "{row:?}");
        // That it was delivered waits for no sync: it shares the next message's, or has one later.
        assert!(matches!(&kinds[counted.len()..], [] | ["log"]), "{row:?}");
    }
}

/// What a sync is of.
fn kind(sync: &str) -> &str {
    let (call, file) = sync.split_once(' ').unwrap();
    match (call, file) {
        ("fdatasync", file) if file.starts_with("spool/log/0") => "log",
        ("fdatasync", file) if file.contains("/Maildir/tmp/") => "file",
        ("fsync", file) if file.ends_with("/Maildir/tmp") => "tmp",
        ("fsync", file) if file.ends_with("/Maildir/new") => "new",
        _ => sync,
    }
}

#[test]
fn messages_share_their_syncs() {
    /// Syncs of the start, of the end and of segments that are made ahead.
    const ASIDE: usize = 40;
    for (calls, sessions, count, most) in [
        // On a fast disk nobody need wait for company, and nothing costs more than when it is alone.
        (Calls::Syncs, 1, 100, 3 * 100 + ASIDE),
        (Calls::Syncs, 20, 600, 2 * 600 + ASIDE),
        (Calls::Syncs, 100, 1000, 2 * 1000 + ASIDE),
        // On one where a sync takes longer than anything else, whoever arrives meanwhile shares the next.
        (Calls::SlowSyncs, 1, 20, 3 * 20 + ASIDE),
        (Calls::SlowSyncs, 20, 500, 500 * 3 / 10),
        (Calls::SlowSyncs, 100, 1000, 1000 * 3 / 20),
    ] {
        let (trace, report) = traced("durability = \"group\"", calls, (sessions, count));
        let (spool, all) = trace.syncs();
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let a_message = |syncs: usize| syncs as f64 / count as f64;
        println!(
            "{calls:?}, {sessions} sessions, {} messages: {:.3} syncs of the spool a message, {:.3} \
             with those of Maildirs",
            report.acknowledged().count(),
            a_message(spool),
            a_message(all),
        );
        assert!(spool <= most, "{spool} syncs of the spool for {count} messages, {most} at most");
    }
}
