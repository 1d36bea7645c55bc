//! Servers that share a greylist in a real MariaDB.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lamppost_greylist::{Algorithm, Decision, Filter, Policy, Workshop};
use lamppost_load::Mariadb;
use lamppost_net::Clock as _;
use support::{Node, OLD_TABLES, POLICY, TestClock, age, init, manual, server, until};

const START: Duration = Duration::from_secs(1_700_000_000);
/// Dates of the database are whole seconds, rounded up.
const SECOND: Duration = Duration::from_secs(1);

async fn node(database: &Mariadb, folder: &tempfile::TempDir) -> Node {
    Node::open(server(database), folder.path(), TestClock::at(START)).await
}

fn counters(database: &Mariadb) -> (u64, u64) {
    let value = |name: &str| {
        let told = database.execute(&format!("SHOW GLOBAL STATUS LIKE '{name}'")).unwrap();
        told.split_whitespace().last().unwrap().parse::<u64>().unwrap()
    };
    (value("Questions"), value("Com_select"))
}

#[tokio::test]
async fn an_unknown_triplet_costs_one_round_trip_and_a_known_one_none() {
    let database = Mariadb::start(&[]).unwrap();
    let did = init(&database).await;
    assert_eq!(did.len(), 4, "{did:?}");
    let folder = tempfile::tempdir().unwrap();
    let node = node(&database, &folder).await;
    let (peer, from) = ("192.0.2.1", "Sender@elsewhere.test");
    assert_eq!(node.reason(peer, from, "first@lamppost.test").await, "new");
    node.write().await;
    let before = counters(&database);
    for count in 0..10 {
        assert_eq!(node.reason(peer, from, &format!("{count}@lamppost.test")).await, "new");
    }
    let after = counters(&database);
    // The counting itself is the client's two questions and some that it asks when it begins.
    let idle = {
        let before = counters(&database);
        let after = counters(&database);
        (after.0 - before.0, after.1 - before.1)
    };
    assert_eq!((after.0 - before.0 - idle.0, after.1 - before.1 - idle.1), (10, 10));
    node.write().await;
    age(&database, &[&node], POLICY.delay + SECOND);
    assert_eq!(node.reason("192.0.2.9", from, "first@lamppost.test").await, "waited");
    node.write().await;
    let before = counters(&database);
    for _ in 0..10 {
        assert_eq!(node.reason(peer, from, "First@lamppost.test").await, "known");
    }
    let after = counters(&database);
    assert_eq!((after.0 - before.0, after.1 - before.1), idle);
    // Another node knows it by one look.
    let other_folder = tempfile::tempdir().unwrap();
    let other = Node::open(server(&database), other_folder.path(), node.clock.clone()).await;
    assert_eq!(other.reason(peer, from, "first@lamppost.test").await, "known");
    let explained = database
        .execute("EXPLAIN SELECT * FROM greylist.relaytofrom WHERE lamppost_key IN (x'00', x'01')")
        .unwrap();
    assert!(explained.contains("lamppost_key"), "{explained}");
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "both kinds of nodes meet on one database")]
async fn both_ways_to_write_addresses_are_read_and_old_nodes_work_beside() {
    let database = Mariadb::start(&["--sql-mode="]).unwrap();
    let with = |sql: &str| database.execute(&format!("USE greylist; {sql}")).unwrap();
    with(&OLD_TABLES.replace("rcpt_to(20)));", "rcpt_to(20))) ENGINE=MyISAM;"));
    let old_row = |ip: &str, from: &str, to: &str, block: &str| {
        format!(
            "INSERT INTO relaytofrom VALUES (0,'{ip}','{from}','{to}',NOW() {block},NOW() + INTERVAL 5 HOUR,1,0,0,'AUTO',NOW(),NOW());"
        )
    };
    with(&old_row(
        "192.0.2.77",
        "<Old@elsewhere.test>",
        "<Me@lamppost.test>",
        "- INTERVAL 1 MINUTE",
    ));
    with(&old_row(
        "198.51.100.7",
        "qmail@elsewhere.test",
        "me@lamppost.test",
        "- INTERVAL 1 MINUTE",
    ));
    with(&old_row("203.0.113.7", "<>", "<me@lamppost.test>", "+ INTERVAL 90 SECOND"));
    with(&manual("'127.0.0.1'", "NULL", "0000-00-00 00:00:00", "9999-12-31 23:59:59"));
    let did = init(&database).await;
    assert_eq!(did.len(), 4, "{did:?}");
    assert!(did[0].contains("from MyISAM to InnoDB") && did[0].contains("IPv6"), "{did:?}");
    let folder = tempfile::tempdir().unwrap();
    let node = node(&database, &folder).await;
    // Beside old nodes one decides as they do.
    node.greylist.set_policy(Policy { algorithm: Algorithm::Relaydelay, ..POLICY });
    assert_eq!(node.reason("192.0.2.1", "old@elsewhere.test", "me@lamppost.test").await, "waited");
    assert_eq!(
        node.reason("198.51.100.200", "qmail@elsewhere.test", "me@lamppost.test").await,
        "waited"
    );
    let early = node.check("203.0.113.1", "", "me@lamppost.test").await;
    let Decision::Defer(hold) = early else { panic!("{early:?}") };
    assert!(
        format!("{hold:?}").starts_with("Early { retry_in: 8")
            || format!("{hold:?}").starts_with("Early { retry_in: 90"),
        "{hold:?}"
    );
    assert_eq!(node.reason("2001:db8::1", "new@elsewhere.test", "me@lamppost.test").await, "new");
    node.write().await;
    let rows = with(
        "SELECT relay_ip, mail_from, rcpt_to, blocked_count, passed_count, origin_type FROM relaytofrom WHERE mail_from IS NOT NULL ORDER BY id",
    );
    // Our rows are written as most are here, and those of old nodes are counted on.
    assert_eq!(
        rows,
        "192.0.2.77\t<Old@elsewhere.test>\t<Me@lamppost.test>\t1\t1\tAUTO\n\
         198.51.100.7\tqmail@elsewhere.test\tme@lamppost.test\t1\t1\tAUTO\n\
         203.0.113.7\t<>\t<me@lamppost.test>\t2\t0\tAUTO\n\
         2001:db8::\t<new@elsewhere.test>\t<me@lamppost.test>\t1\t0\tAUTO\n"
    );
    // What relaydelay 0.04 says itself: its look, its insert, its counting.
    node.check("192.0.2.1", "ours@elsewhere.test", "me@lamppost.test").await;
    node.write().await;
    let found = with(
        "SELECT id, NOW() > block_expires FROM relaytofrom WHERE record_expires > NOW() \
         AND mail_from = '<OURS@elsewhere.test>' AND rcpt_to = '<me@lamppost.test>' \
         AND (relay_ip IS NULL OR relay_ip LIKE '192.0.2.%') ORDER BY relay_ip DESC",
    );
    assert!(found.trim_end().ends_with("\t0"), "{found}");
    with(
        "INSERT INTO relaytofrom (relay_ip, mail_from, rcpt_to, block_expires, record_expires, \
         create_time, last_update, origin_type) VALUES ('192.0.2.5', '<theirs@elsewhere.test>', \
         '<me@lamppost.test>', NOW() - INTERVAL 2 SECOND, NOW() + INTERVAL 5 HOUR, NOW(), NOW(), 'AUTO')",
    );
    assert_eq!(
        node.reason("192.0.2.1", "theirs@elsewhere.test", "me@lamppost.test").await,
        "waited"
    );
    // Its time is over, and it passes at an old node, which counts and puts the end off.
    with(
        "UPDATE relaytofrom SET passed_count = passed_count + 1, \
         block_expires = NOW() - INTERVAL 2 SECOND, record_expires = NOW() + INTERVAL 36 DAY WHERE mail_from = '<ours@elsewhere.test>'",
    );
    assert_eq!(node.reason("192.0.2.1", "ours@elsewhere.test", "me@lamppost.test").await, "known");
    // It is unblocked for whoever answers: relaydelay's reverse tracking knows no address yet.
    with(
        "INSERT INTO relaytofrom (relay_ip, mail_from, rcpt_to, block_expires, record_expires, \
         create_time, last_update, origin_type) VALUES (NULL, '<answer@elsewhere.test>', \
         '<me@lamppost.test>', NOW() - INTERVAL 2 SECOND, NOW() + INTERVAL 4 DAY, NOW(), NOW(), 'AUTO')",
    );
    let answer = "answer@elsewhere.test";
    assert_eq!(node.reason("198.51.100.9", answer, "me@lamppost.test").await, "waited");
    node.write().await;
    let filled = "SELECT relay_ip FROM relaytofrom WHERE mail_from = '<answer@elsewhere.test>'";
    assert_eq!(with(filled), "198.51.100.0\n");
    assert_eq!(node.reason("203.0.113.99", answer, "me@lamppost.test").await, "new");
    with(&manual("'10'", "NULL", "9999-12-31 23:59:59", "9999-12-31 23:59:59"));
    node.greylist.read_wildcards(node.clock.now()).await.unwrap();
    assert_eq!(node.reason("127.0.0.1", "a@b.test", "me@lamppost.test").await, "allowed");
    assert_eq!(node.reason("10.1.2.3", "a@b.test", "me@lamppost.test").await, "blocked");
}

#[tokio::test]
async fn what_is_too_long_or_strange_for_a_column_is_found_again() {
    let database = Mariadb::start(&["--sql-mode=TRADITIONAL"]).unwrap();
    let with = |sql: &str| database.execute(&format!("USE greylist; {sql}")).unwrap();
    with(&OLD_TABLES.replace("rcpt_to(20)));", "rcpt_to(20))) DEFAULT CHARSET=latin1;"));
    init(&database).await;
    let folder = tempfile::tempdir().unwrap();
    let node = node(&database, &folder).await;
    let long = format!("{}@{}.test", "l".repeat(250), "d".repeat(60));
    let senders = [
        long.as_str(),
        "\"'; DROP TABLE relaytofrom; --\\\"@elsewhere.test",
        "jürgen@elsewhere.test",
        "😀@elsewhere.test",
        "50%_off@elsewhere.test",
        "",
    ];
    for sender in senders {
        assert_eq!(node.reason("2001:db8:1:2:3:4:5:6", sender, "a@lamppost.test").await, "new");
        assert_eq!(node.reason("192.0.2.1", sender, &long).await, "new");
    }
    node.write().await;
    age(&database, &[&node], POLICY.delay + SECOND);
    for sender in senders {
        let to = "A@lamppost.test";
        assert_eq!(node.reason("2001:db8:1:2::9", sender, to).await, "waited", "{sender}");
        assert_eq!(node.reason("192.0.2.1", sender, &long).await, "waited", "{sender}");
    }
    node.write().await;
    assert_eq!(with("SELECT COUNT(*), SUM(passed_count) FROM relaytofrom"), "12\t12\n");
    let filter = Filter { sender: Some("@elsewhere.test".into()), ..Filter::default() };
    let mut after = None;
    let mut listed = Vec::new();
    loop {
        let page = node.greylist.list(filter.clone(), after, 3).await.unwrap();
        listed.extend(page.triplets);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed.len(), 8, "{listed:?}");
    assert_eq!(node.greylist.forget(filter).await.unwrap(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_decide_at_once_count_exactly() {
    const ATTEMPTS: usize = 10_000;
    const TRIPLETS: usize = 200;
    let database = Mariadb::start(&["--max-connections=100"]).unwrap();
    init(&database).await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let clock = TestClock::at(START);
    let mut nodes = Vec::new();
    for folder in &folders {
        nodes.push(Node::open(server(&database), folder.path(), clock.clone()).await);
    }
    let nodes = Arc::new(nodes);
    let tasks = (0..8).map(|task| {
        let nodes = nodes.clone();
        tokio::spawn(async move {
            let node = &nodes[task % nodes.len()];
            for attempt in (task..ATTEMPTS).step_by(8) {
                let to = format!("{}@lamppost.test", attempt % TRIPLETS);
                node.check("192.0.2.1", "sender@elsewhere.test", &to).await;
                if attempt % 97 < 8 {
                    node.write().await;
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    for node in nodes.iter() {
        node.write().await;
        assert_eq!(node.greylist.condition().away, None);
    }
    assert_eq!(
        database
            .execute(
                "SELECT COUNT(*), SUM(blocked_count), SUM(passed_count) FROM greylist.relaytofrom"
            )
            .unwrap(),
        format!("{TRIPLETS}\t{ATTEMPTS}\t0\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_decided_while_the_database_is_away_is_written_back() {
    let mut database = Mariadb::start(&[]).unwrap();
    init(&database).await;
    database.stop().unwrap();
    let folder = tempfile::tempdir().unwrap();
    // It is away at the start.
    let first = node(&database, &folder).await;
    let (peer, from) = ("192.0.2.1", "sender@elsewhere.test");
    assert!(first.store.ask().await.is_err());
    let refused = first.try_check(peer, from, "a@lamppost.test").await;
    assert!(refused.unwrap_err().to_string().contains("is away"));
    first.store.decide_alone(true);
    assert_eq!(first.reason(peer, from, "a@lamppost.test").await, "new");
    assert_eq!(first.reason(peer, from, "a@lamppost.test").await, "early");
    assert_eq!(first.reason(peer, from, "b@lamppost.test").await, "new");
    first.write().await;
    first.clock.forward(POLICY.delay + SECOND);
    assert_eq!(first.reason(peer, from, "a@lamppost.test").await, "waited");
    first.write().await;
    assert_eq!(first.greylist.condition().journalled, 2);
    // The journal survives a restart.
    let clock = first.clock.clone();
    drop(first);
    let second = Node::open(server(&database), folder.path(), clock).await;
    second.store.decide_alone(true);
    assert_eq!(second.greylist.condition().journalled, 2);
    assert_eq!(second.reason(peer, from, "a@lamppost.test").await, "known");
    assert_eq!(second.reason(peer, from, "b@lamppost.test").await, "waited");
    second.write().await;
    database.start_again().unwrap();
    until("the journal is written back", async || {
        second.greylist.condition() == lamppost_greylist::Condition::default()
    })
    .await;
    assert_eq!(
        database
            .execute("SELECT rcpt_to, blocked_count, passed_count FROM greylist.relaytofrom ORDER BY rcpt_to")
            .unwrap(),
        "a@lamppost.test\t2\t2\nb@lamppost.test\t1\t1\n"
    );
    // Nobody waits again for it, wherever it comes in.
    let other_folder = tempfile::tempdir().unwrap();
    let other = Node::open(server(&database), other_folder.path(), second.clock.clone()).await;
    assert_eq!(other.reason(peer, from, "a@lamppost.test").await, "known");
    assert_eq!(other.reason(peer, from, "b@lamppost.test").await, "known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_killed_under_load_counts_nothing_twice_and_loses_nothing() {
    let mut database = Mariadb::start(&[]).unwrap();
    init(&database).await;
    let folder = tempfile::tempdir().unwrap();
    let node = Arc::new(node(&database, &folder).await);
    node.store.decide_alone(true);
    let loaded = node.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let made = Arc::new(AtomicU64::new(0));
    let counted = made.clone();
    let load = tokio::spawn(async move {
        let mut attempts = 0_u64;
        while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            let to = format!("{}@lamppost.test", attempts % 50);
            loaded.check("192.0.2.1", "sender@elsewhere.test", &to).await;
            attempts += 1;
            counted.store(attempts, Ordering::Relaxed);
            if attempts.is_multiple_of(20) {
                loaded.write().await;
            }
        }
        loaded.write().await;
        attempts
    });
    for _ in 0..3 {
        let before = made.load(Ordering::Relaxed);
        until("there is load", async || made.load(Ordering::Relaxed) > before + 500).await;
        database.kill().unwrap();
        until("the node sees that", async || node.greylist.condition().away.is_some()).await;
        database.start_again().unwrap();
        until("all is written back", async || {
            node.greylist.condition() == lamppost_greylist::Condition::default()
        })
        .await;
    }
    stop.send(()).unwrap();
    let attempts = load.await.unwrap();
    until("all is written back", async || node.greylist.condition().journalled == 0).await;
    assert_eq!(
        database
            .execute(
                "SELECT COUNT(*), SUM(blocked_count), SUM(passed_count) FROM greylist.relaytofrom"
            )
            .unwrap(),
        format!("50\t{attempts}\t0\n")
    );
}

#[tokio::test]
async fn tables_of_others_are_told_by_name() {
    let database = Mariadb::start(&[]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let node = node(&database, &folder).await;
    let told = async || {
        use std::error::Error as _;
        let error = node.store.ask().await.unwrap_err();
        assert!(error.source().is_none());
        error.to_string()
    };
    assert!(told().await.contains("no table `relaytofrom`; run `lamppost greylist init`"));
    let with = |sql: &str| database.execute(&format!("USE greylist; {sql}")).unwrap();
    with("CREATE TABLE relaytofrom (id INT, rcpt_to TEXT)");
    let error = told().await;
    assert!(error.contains("`relaytofrom` has no column `relay_ip`"), "{error}");
    let planned = Workshop::open(&server(&database)).await.unwrap().plan().await.unwrap_err();
    assert!(planned.to_string().contains("name another database"), "{planned}");
    with(&format!("DROP TABLE relaytofrom; {OLD_TABLES}"));
    let error = told().await;
    assert!(
        error.contains("has no column `lamppost_key`; run `lamppost greylist init`"),
        "{error}"
    );
    init(&database).await;
    node.store.ask().await.unwrap();
}

fn signal(database: &Mariadb, name: &str) {
    let pid = database.pid().unwrap().to_string();
    assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_is_waited_for_once() {
    let database = Mariadb::start(&[]).unwrap();
    init(&database).await;
    let folder = tempfile::tempdir().unwrap();
    let node = node(&database, &folder).await;
    node.store.decide_alone(true);
    let (peer, from) = ("192.0.2.1", "sender@elsewhere.test");
    assert_eq!(node.reason(peer, from, "a@lamppost.test").await, "new");
    node.write().await;
    signal(&database, "-STOP");
    let begun = std::time::Instant::now();
    // More than there are connections: none waits until all before it were given up.
    let crowd = (0..40).map(|number| {
        let to = format!("crowd-{number}@lamppost.test");
        let node = &node;
        async move { node.reason(peer, from, &to).await }
    });
    let (first, crowd) = futures_util::future::join(
        node.reason(peer, from, "b@lamppost.test"),
        futures_util::future::join_all(crowd),
    )
    .await;
    assert_eq!((first, crowd), ("new", vec!["new"; 40]));
    assert!(begun.elapsed() < Duration::from_secs(8));
    let begun = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(node.reason(peer, from, "b@lamppost.test").await, "early");
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    let away = node.greylist.condition().away.unwrap();
    assert!(away.contains("did not look triplets up within 5 s"), "{away}");
    node.write().await;
    signal(&database, "-CONT");
    until("all is written back", async || {
        node.greylist.condition() == lamppost_greylist::Condition::default()
    })
    .await;
    let rows = "SELECT rcpt_to, blocked_count FROM greylist.relaytofrom
        WHERE rcpt_to NOT LIKE 'crowd%' ORDER BY rcpt_to";
    assert_eq!(database.execute(rows).unwrap(), "a@lamppost.test\t1\nb@lamppost.test\t11\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_only_reads_is_read_and_what_it_misses_is_kept() {
    let database = Mariadb::start(&[]).unwrap();
    init(&database).await;
    database
        .execute("CREATE USER plain IDENTIFIED BY 'x'; GRANT ALL ON greylist.* TO plain")
        .unwrap();
    let mut by = server(&database);
    by.user = "plain".into();
    by.password = Some(lamppost_greylist::Password("x".into()));
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(by, folder.path(), TestClock::at(START)).await;
    let (peer, from) = ("192.0.2.1", "sender@elsewhere.test");
    assert_eq!(node.reason(peer, from, "a@lamppost.test").await, "new");
    node.write().await;
    database.execute("SET GLOBAL read_only = 1").unwrap();
    assert_eq!(node.reason(peer, from, "a@lamppost.test").await, "early");
    assert_eq!(node.reason(peer, from, "b@lamppost.test").await, "new");
    node.write().await;
    assert_eq!(node.reason(peer, from, "b@lamppost.test").await, "early");
    let condition = node.greylist.condition();
    assert_eq!(condition.journalled, 2);
    assert!(condition.away.unwrap().contains("--read-only"));
    database.execute("SET GLOBAL read_only = 0").unwrap();
    node.write().await;
    until("all is written back", async || {
        node.greylist.condition() == lamppost_greylist::Condition::default()
    })
    .await;
    let rows = "SELECT rcpt_to, blocked_count FROM greylist.relaytofrom ORDER BY rcpt_to";
    assert_eq!(database.execute(rows).unwrap(), "a@lamppost.test\t2\nb@lamppost.test\t2\n");
}

#[tokio::test]
async fn nodes_whose_clocks_differ_decide_by_the_database() {
    let database = Mariadb::start(&[]).unwrap();
    init(&database).await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let late = Node::open(server(&database), folders[0].path(), TestClock::at(START)).await;
    let clock = TestClock::at(START + Duration::from_secs(420));
    let early = Node::open(server(&database), folders[1].path(), clock).await;
    let (peer, from, to) = ("192.0.2.1", "sender@elsewhere.test", "a@lamppost.test");
    assert_eq!(late.reason(peer, from, to).await, "new");
    late.write().await;
    // Seven minutes later by its own clock, and at the same moment by the database's.
    assert_eq!(early.reason(peer, from, to).await, "early");
    early.write().await;
    age(&database, &[&late, &early], POLICY.delay + SECOND);
    assert_eq!(early.reason(peer, from, to).await, "waited");
    early.write().await;
    assert_eq!(late.reason(peer, from, to).await, "known");
    let lifetime = "SELECT TIMESTAMPDIFF(MINUTE, NOW(), record_expires) FROM greylist.relaytofrom";
    let minutes: u64 = database.execute(lifetime).unwrap().trim().parse().unwrap();
    assert!((36 * 24 * 60 - 1..=36 * 24 * 60).contains(&minutes), "{minutes}");
    // What is known is forgotten by both when its time is over by the database's clock.
    age(&database, &[&late, &early], POLICY.lifetime + SECOND);
    assert_eq!(late.reason(peer, from, to).await, "new");
}

#[tokio::test]
async fn the_statements_for_administrators_make_what_is_needed() {
    use lamppost_greylist::{Dialect, Password, admin_statements};
    let database = Mariadb::start(&[]).unwrap();
    let mut by = server(&database);
    by.user = "gre'y".into();
    by.database = "re`lay".into();
    by.password = Some(Password("o'\\pass".into()));
    let mut workshop = Workshop::open_server(&server(&database)).await.unwrap();
    assert_eq!(workshop.dialect().await.unwrap(), Dialect::Mariadb);
    for statement in admin_statements(&by, ("%", "o'\\pass"), Dialect::Mariadb) {
        workshop.run(&statement).await.unwrap();
    }
    let mut workshop = Workshop::open(&by).await.unwrap();
    for step in workshop.plan().await.unwrap() {
        workshop.run(&step.sql).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(by, folder.path(), TestClock::at(START)).await;
    node.store.ask().await.unwrap();
}

/// Addresses of letters that are odd somewhere, each time the same.
fn odd_addresses(count: usize) -> Vec<String> {
    const LETTERS: &[char] = &[
        'a', 'Z', '0', '\'', '"', '\\', '%', '_', '<', '>', '|', ' ', '\t', '#', 'ä', 'Ä', 'ß',
        'İ', 'Σ', 'ς', 'é', '\u{301}', '€', '日', '😀', '\u{200b}', '.', '-', '+', '=', ';',
    ];
    let mut state = 1_u64;
    let mut next = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    (0..count)
        .map(|number| {
            let user: String = (0..=next(40)).map(|_| LETTERS[next(LETTERS.len())]).collect();
            format!("{user}{number}@{}.test", "sub.".repeat(next(60)))
        })
        .collect()
}

#[tokio::test]
async fn whatever_an_address_is_made_of_it_is_found_again() {
    for (charset, brackets) in [("latin1", false), ("utf8mb4", false), ("utf8mb3", true)] {
        let database = Mariadb::start(&[]).unwrap();
        let table = format!("rcpt_to(20))) DEFAULT CHARSET={charset};");
        let with = |sql: &str| database.execute(&format!("USE greylist; {sql}")).unwrap();
        with(&OLD_TABLES.replace("rcpt_to(20)));", &table));
        if brackets {
            with(
                "SET sql_mode=''; INSERT INTO relaytofrom VALUES (0,'192.0.2.1','<a@b>','<c@d>',NOW(),NOW(),0,0,0,'AUTO',NOW(),NOW())",
            );
        }
        init(&database).await;
        let folder = tempfile::tempdir().unwrap();
        let node = node(&database, &folder).await;
        let addresses = odd_addresses(300);
        for address in &addresses {
            assert_eq!(node.reason("192.0.2.1", address, "me@lamppost.test").await, "new");
            assert_eq!(node.reason("2001:db8::1", "", address).await, "new");
        }
        node.write().await;
        for address in &addresses {
            let upper = address.to_uppercase().to_lowercase();
            let address = if upper == address.to_lowercase() { &upper } else { address };
            let reason = node.reason("192.0.2.9", address, "Me@lamppost.test").await;
            assert_eq!(reason, "early", "{charset}: {address:?}");
            let reason = node.reason("2001:db8::2", "", address).await;
            assert_eq!(reason, "early", "{charset}: {address:?}");
        }
    }
}

#[tokio::test]
async fn what_passed_is_written_down_for_reports() {
    use lamppost_greylist::Passed;
    let database = Mariadb::start(&[]).unwrap();
    let with = |sql: &str| database.execute(&format!("USE greylist; {sql}")).unwrap();
    with(OLD_TABLES);
    init(&database).await;
    let folder = tempfile::tempdir().unwrap();
    let node = node(&database, &folder).await;
    for (peer, name) in [("192.0.2.1", Some("mx.elsewhere.test")), ("2001:db8:1:2:3:4:5:6", None)] {
        node.greylist.log(Passed {
            peer: peer.parse().unwrap(),
            name: name.map(str::to_owned),
            is_mismatch: false,
            sender: "o'neill@elsewhere.test".into(),
            recipient: "me@lamppost.test".into(),
        });
    }
    node.greylist.write_log().await.unwrap();
    assert_eq!(
        with(
            "SELECT relay_ip, relay_name, mail_from, rcpt_to, rcpt_host FROM mail_log ORDER BY id"
        ),
        "192.0.2.1\tmx.elsewhere.test\to'neill@elsewhere.test\tme@lamppost.test\tlamppost.test\n\
         2001:db8:1:2:3:4:5:6\tNULL\to'neill@elsewhere.test\tme@lamppost.test\tlamppost.test\n"
    );
    assert_eq!(with("SELECT relay_ip, relay_name FROM dns_name"), "192.0.2.1\ttset.erehwesle.xm\n");
}

#[tokio::test]
async fn tls_proves_who_the_database_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let open_to_all = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let keys = tempfile::tempdir().unwrap();
    let now = lamppost_net::SystemClock.now();
    let made = lamppost_net::demo_ca::ensure(keys.path(), "db.lamppost.test", now).unwrap();
    open_to_all(keys.path(), 0o755);
    open_to_all(&made.files.key, 0o644);
    let database = Mariadb::start(&[
        &format!("--ssl-cert={}", made.files.certificate.display()),
        &format!("--ssl-key={}", made.files.key.display()),
        "--require-secure-transport=ON",
    ])
    .unwrap();
    let ask = async |host: &str, trusted: bool| {
        let mut by = server(&database);
        by.at = lamppost_greylist::ServerPlace::Tcp {
            host: host.into(),
            addresses: vec![database.address().ip()],
            port: database.address().port(),
        };
        by.authorities = trusted.then(|| std::fs::read(&made.ca).unwrap());
        match Workshop::open(&by).await {
            Ok(mut workshop) => workshop.plan().await.map(|steps| steps.len()),
            Err(error) => Err(error),
        }
    };
    assert_eq!(ask("db.lamppost.test", true).await.unwrap(), 4);
    assert!(ask("db.lamppost.test", false).await.is_err());
    assert!(ask("other.lamppost.test", true).await.is_err());
}
