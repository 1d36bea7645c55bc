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

#[test]
fn messages_share_their_syncs() {
    for (calls, sessions, count, spool_max) in [
        (Calls::Syncs, 1, 100, 4.0),
        (Calls::Syncs, 20, 600, 1.5),
        (Calls::Syncs, 100, 1000, 1.5),
        (Calls::SlowSyncs, 1, 50, 4.0),
        (Calls::SlowSyncs, 20, 500, 0.6),
        (Calls::SlowSyncs, 100, 1000, 0.6),
    ] {
        let (trace, _) = traced("durability = \"group\"", calls, (sessions, count));
        let (spool, all) = trace.syncs();
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let [spool, all] = [spool, all].map(|syncs| syncs as f64 / count as f64);
        println!(
            "{calls:?}, {sessions} sessions, {count} messages: {spool:.3} syncs of the spool a \
             message, {all:.3} with those of Maildirs"
        );
        assert!(spool < spool_max, "{spool} syncs of the spool a message");
    }
}
