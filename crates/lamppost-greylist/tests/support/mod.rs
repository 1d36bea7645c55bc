//! A private MariaDB and greylists that share it.
#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lamppost_database::{Database, Survives};
use lamppost_greylist::{
    Attempt, Decision, Greylist, Outcome, Password, Policy, Server, ServerPlace, SharedStore,
    StoreError, Workshop,
};
use lamppost_load::Mariadb;
use lamppost_net::Clock;

pub(crate) const POLICY: Policy = Policy::by_address(
    Duration::from_secs(300),
    Duration::from_secs(36_000),
    Duration::from_secs(3_110_400),
);

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A clock that runs, and can be put forward.
#[derive(Debug)]
pub(crate) struct TestClock {
    begun: Instant,
    ahead_ms: AtomicU64,
}

impl TestClock {
    pub(crate) fn at(start: Duration) -> Arc<Self> {
        let ahead_ms = AtomicU64::new(u64::try_from(start.as_millis()).unwrap());
        Arc::new(Self { begun: Instant::now(), ahead_ms })
    }

    pub(crate) fn forward(&self, by: Duration) {
        self.ahead_ms.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed)) + self.begun.elapsed()
    }
}

pub(crate) fn server(database: &Mariadb) -> Server {
    Server {
        at: ServerPlace::Tcp {
            host: database.address().ip().to_string(),
            addresses: Vec::new(),
            port: database.address().port(),
        },
        user: Mariadb::USER.into(),
        password: Some(Password(Mariadb::PASSWORD.into())),
        database: Mariadb::DATABASE.into(),
        authorities: None,
    }
}

/// Brings the tables up to date; returns what that did.
pub(crate) async fn init(database: &Mariadb) -> Vec<String> {
    let mut workshop = Workshop::open(&server(database)).await.unwrap();
    let mut did = Vec::new();
    for step in workshop.plan().await.unwrap() {
        workshop.run(&step.sql).await.unwrap();
        did.push(step.does);
    }
    assert_eq!(workshop.plan().await.unwrap(), []);
    did
}

/// One of the servers that share the database.
pub(crate) struct Node {
    pub(crate) greylist: Arc<Greylist>,
    pub(crate) store: Arc<SharedStore>,
    pub(crate) clock: Arc<TestClock>,
}

impl Node {
    pub(crate) async fn open(server: Server, folder: &Path, clock: Arc<TestClock>) -> Self {
        let journal = Database::open(&folder.join("journal.db"), Survives::Kill).unwrap();
        let store = SharedStore::open(server, journal, clock.clone()).await.unwrap();
        let store = Arc::new(store);
        let greylist = Greylist::new(POLICY, Box::new(store.clone()));
        Self { greylist: Arc::new(greylist), store, clock }
    }

    pub(crate) async fn check(&self, peer: &str, from: &str, to: &str) -> Decision {
        self.try_check(peer, from, to).await.unwrap()
    }

    /// Decides, as for another mail server: what passes counts as taken.
    pub(crate) async fn try_check(
        &self,
        peer: &str,
        from: &str,
        to: &str,
    ) -> Result<Decision, StoreError> {
        decide(&self.greylist, (peer, from, to), self.clock.now()).await
    }

    pub(crate) async fn reason(&self, peer: &str, from: &str, to: &str) -> &'static str {
        self.check(peer, from, to).await.reason()
    }

    pub(crate) async fn write(&self) {
        self.greylist.write().await.unwrap();
    }
}

/// Decides an attempt of a client that sends what passes.
pub(crate) async fn decide(
    greylist: &Greylist,
    (peer, sender, recipient): (&str, &str, &str),
    now: Duration,
) -> Result<Decision, StoreError> {
    let peer = peer.parse().unwrap();
    let attempt = Attempt { peer, helo: "", sender, recipient, although_off: false };
    let ruling = greylist.check(&attempt, None, now).await?;
    if let Some(passage) = &ruling.passage {
        greylist.settle(passage, (sender, recipient), Outcome::Accepted, now);
    }
    Ok(ruling.decision)
}

/// Lets time pass for what the database holds, and for the nodes.
pub(crate) fn age(database: &Mariadb, nodes: &[&Node], by: Duration) {
    let seconds = by.as_secs();
    database
        .execute(&format!(
            "UPDATE greylist.relaytofrom SET \
             block_expires = IF(block_expires = 0 OR block_expires > '9000-01-01', block_expires, \
                 block_expires - INTERVAL {seconds} SECOND), \
             record_expires = IF(record_expires > '9000-01-01', record_expires, \
                 record_expires - INTERVAL {seconds} SECOND)"
        ))
        .unwrap();
    for node in nodes {
        node.clock.forward(by);
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The tables as the old recipe makes them (dbdef.sql of relaydelay 0.01).
pub(crate) const OLD_TABLES: &str = "
    CREATE TABLE relaytofrom (
        id bigint NOT NULL auto_increment,
        relay_ip char(16),
        mail_from varchar(255),
        rcpt_to varchar(255),
        block_expires datetime NOT NULL,
        record_expires datetime NOT NULL,
        blocked_count bigint default 0 NOT NULL,
        passed_count bigint default 0 NOT NULL,
        aborted_count bigint default 0 NOT NULL,
        origin_type enum('MANUAL','AUTO') NOT NULL,
        create_time datetime NOT NULL,
        last_update timestamp NOT NULL,
        primary key(id), key(relay_ip), key(mail_from(20)), key(rcpt_to(20)));
    CREATE TABLE dns_name (
        relay_ip varchar(18) NOT NULL,
        relay_name varchar(255) NOT NULL,
        last_update timestamp NOT NULL,
        primary key(relay_ip), key(relay_name(20)));
    CREATE TABLE mail_log (
        id bigint NOT NULL auto_increment,
        relay_ip varchar(16) NOT NULL,
        relay_name varchar(255),
        dns_mismatch bool NOT NULL,
        mail_from varchar(255) NOT NULL,
        rcpt_to varchar(255) NOT NULL,
        rcpt_host varchar(80) NOT NULL,
        create_time datetime NOT NULL,
        primary key(id), key(relay_ip), key(mail_from(20)), key(rcpt_to(20)));";

/// A manual row as the old recipe writes it.
pub(crate) fn manual(relay: &str, to: &str, block: &str, record: &str) -> String {
    format!(
        "INSERT INTO relaytofrom VALUES (0,{relay},NULL,{to},'{block}','{record}',0,0,0,'MANUAL',NOW(),NOW());"
    )
}
