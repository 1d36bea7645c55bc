//! What relaydelay's algorithm says of attempts, as one table for all stores.
//!
//! Times are minutes. The delay is 5, the window in which a triplet may come back 600, and what passed is
//! known for 36 days, as the old recipe has it.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use lamppost_database::{Database, Survives};
use lamppost_greylist::{
    Algorithm, Greylist, MemoryStore, NEVER, Policy, SqliteStore, Whom, Wildcard,
};
use support::POLICY;

const START: Duration = Duration::from_secs(1_700_000_000);
const DAY: u64 = 24 * 60;

/// What an administrator wrote before.
enum Row {
    Allow(&'static str),
    Block(&'static str),
    /// One that lets pass until this minute.
    AllowUntil(u64, &'static str),
}

/// The minute, who comes, from whom, to whom, and what that meets.
type Step = (u64, &'static str, &'static str, &'static str, &'static str);

struct Scenario {
    name: &'static str,
    rows: &'static [Row],
    steps: &'static [Step],
}

const A: &str = "192.0.2.1";
const FROM: &str = "sender@elsewhere.test";
const TO: &str = "me@lamppost.test";

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a triplet waits once, and is known from then on",
        rows: &[],
        steps: &[
            (0, A, FROM, TO, "new"),
            (1, A, FROM, TO, "early"),
            (4, A, FROM, TO, "early"),
            (6, A, FROM, TO, "waited"),
            (7, A, FROM, TO, "known"),
        ],
    },
    Scenario {
        name: "who comes back after the window is new, and waits again",
        rows: &[],
        steps: &[
            (0, A, FROM, TO, "new"),
            (601, A, FROM, TO, "new"),
            (602, A, FROM, TO, "early"),
            (607, A, FROM, TO, "waited"),
        ],
    },
    Scenario {
        name: "no date moves while a triplet waits",
        rows: &[],
        steps: &[(0, A, FROM, TO, "new"), (3, A, FROM, TO, "early"), (6, A, FROM, TO, "waited")],
    },
    Scenario {
        name: "each pass begins the 36 days anew",
        rows: &[],
        steps: &[
            (0, A, FROM, TO, "new"),
            (6, A, FROM, TO, "waited"),
            (35 * DAY, A, FROM, TO, "known"),
            (70 * DAY, A, FROM, TO, "known"),
            (107 * DAY, A, FROM, TO, "new"),
        ],
    },
    Scenario {
        name: "neighbours in one network are one, others are not",
        rows: &[],
        steps: &[
            (0, A, FROM, TO, "new"),
            (6, "192.0.2.200", FROM, TO, "waited"),
            (7, "192.0.3.1", FROM, TO, "new"),
            (7, "2001:db8:1:2::1", FROM, TO, "new"),
            (13, "2001:db8:1:2:ffff::9", FROM, TO, "waited"),
            (13, "2001:db8:1:3::1", FROM, TO, "new"),
        ],
    },
    Scenario {
        name: "case does not matter, and another sender or recipient does",
        rows: &[],
        steps: &[
            (0, A, "Sender@Elsewhere.test", TO, "new"),
            (6, A, FROM, "ME@LAMPPOST.TEST", "waited"),
            (6, A, "other@elsewhere.test", TO, "new"),
            (6, A, FROM, "you@lamppost.test", "new"),
            (6, A, "", TO, "new"),
            (12, A, "", TO, "waited"),
        ],
    },
    Scenario {
        name: "a client that an administrator allows never waits, one that is blocked always does",
        rows: &[Row::Allow("192.0.2"), Row::Block("198.51"), Row::Allow("198.51.100.7")],
        steps: &[
            (0, A, FROM, TO, "allowed"),
            (0, "198.51.100.6", FROM, TO, "blocked"),
            (50 * DAY, "198.51.100.6", FROM, TO, "blocked"),
            (50 * DAY, "198.51.100.7", FROM, TO, "allowed"),
            (50 * DAY, "203.0.113.1", FROM, TO, "new"),
        ],
    },
    Scenario {
        name: "the client is asked about before the recipient, the longest row counts",
        rows: &[
            Row::Allow("lamppost.test"),
            Row::Block("<spamtrap@lamppost.test>"),
            Row::Allow("192.0.2.9"),
        ],
        steps: &[
            (0, A, FROM, TO, "allowed"),
            (0, A, FROM, "me@sub.lamppost.test", "allowed"),
            (0, A, FROM, "spamtrap@lamppost.test", "blocked"),
            (0, "192.0.2.9", FROM, "spamtrap@lamppost.test", "allowed"),
            (0, A, FROM, "me@other.test", "new"),
        ],
    },
    Scenario {
        name: "what an administrator wrote ends when it says",
        rows: &[Row::AllowUntil(10, "192.0.2.1")],
        steps: &[
            (0, A, FROM, TO, "allowed"),
            (12, A, FROM, TO, "new"),
            (18, A, FROM, TO, "waited"),
        ],
    },
];

fn wildcard(row: &Row) -> Wildcard {
    let whom = |text: &str| {
        let is_relay = text.starts_with(|first: char| first.is_ascii_digit());
        if is_relay { Whom::Relay(text.into()) } else { Whom::Recipient(text.into()) }
    };
    match row {
        Row::Allow(text) => Wildcard::allow(whom(text), NEVER),
        Row::Block(text) => Wildcard::block(whom(text), NEVER),
        Row::AllowUntil(minute, text) => Wildcard::allow(whom(text), START + minutes(*minute)),
    }
}

/// The two policies agree on all of the table.
fn as_relaydelay() -> Policy {
    Policy { algorithm: Algorithm::Relaydelay, ..POLICY }
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// Makes the attempts; `pass` lets time pass for the store.
async fn play(scenario: &Scenario, greylist: &Greylist, mut pass: impl AsyncFnMut(Duration)) {
    greylist.write_wildcards(scenario.rows.iter().map(wildcard).collect(), START).await.unwrap();
    let mut before = 0;
    for &(minute, peer, from, to, expected) in scenario.steps {
        greylist.write().await.unwrap();
        pass(minutes(minute - before)).await;
        before = minute;
        let now = START + minutes(minute);
        let decision = support::decide(greylist, (peer, from, to), now).await.unwrap();
        let Scenario { name, .. } = scenario;
        assert_eq!(decision.reason(), expected, "{name}: at {minute} {peer} <{from}> <{to}>");
    }
}

#[tokio::test]
async fn the_embedded_stores_decide_as_the_table_says() {
    for scenario in SCENARIOS {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("greylist.db"), Survives::Kill).unwrap();
        let sqlite = SqliteStore::open(database).await.unwrap();
        for greylist in [
            Greylist::new(POLICY, Box::new(sqlite)),
            Greylist::new(POLICY, Box::new(MemoryStore::default())),
            Greylist::new(as_relaydelay(), Box::new(MemoryStore::default())),
        ] {
            play(scenario, &greylist, async |_| {}).await;
        }
    }
}

#[cfg(feature = "peers")]
#[tokio::test]
async fn mariadb_decides_as_the_table_says() {
    use lamppost_load::Mariadb;
    use support::{Node, TestClock, age, init, server};

    let database = Mariadb::start(&["--default-time-zone=+05:30"]).unwrap();
    init(&database).await;
    for (turn, scenario) in (0..2).flat_map(|turn| SCENARIOS.iter().map(move |one| (turn, one))) {
        database.execute("DELETE FROM greylist.relaytofrom").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let node = Node::open(server(&database), folder.path(), TestClock::at(START)).await;
        if turn == 1 {
            node.greylist.set_policy(as_relaydelay());
        }
        play(scenario, &node.greylist, async |by| age(&database, &[&node], by)).await;
    }
}
