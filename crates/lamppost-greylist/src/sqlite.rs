//! The embedded store, with relaydelay's columns.
//!
//! Times are milliseconds since 1970, so that delays shorter than a second work too.

use std::time::Duration;

use futures_util::future::BoxFuture;
use lamppost_database::{Database, Migrations};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use crate::{
    Census, Changes, Filter, Page, Record, Seen, Store, StoreError, Triplet, Whom, Wildcard,
};

/// relaydelay's `relaytofrom`, with the key that it lacks.
const MIGRATIONS: Migrations = Migrations {
    component: "greylist",
    steps: &[
        "CREATE TABLE relaytofrom (
         id INTEGER PRIMARY KEY,
         relay_ip TEXT NOT NULL,
         mail_from TEXT NOT NULL,
         rcpt_to TEXT NOT NULL,
         block_expires INTEGER NOT NULL,
         record_expires INTEGER NOT NULL,
         blocked_count INTEGER NOT NULL DEFAULT 0,
         passed_count INTEGER NOT NULL DEFAULT 0,
         aborted_count INTEGER NOT NULL DEFAULT 0,
         origin_type TEXT NOT NULL DEFAULT 'AUTO' CHECK (origin_type IN ('MANUAL', 'AUTO')),
         create_time INTEGER NOT NULL,
         last_update INTEGER NOT NULL,
         UNIQUE (relay_ip, mail_from, rcpt_to)
     );
     CREATE INDEX relaytofrom_record_expires ON relaytofrom (record_expires);",
        // Manual rows name a relay or a recipient and nobody else.
        "ALTER TABLE relaytofrom RENAME TO relaytofrom_before;
     DROP INDEX relaytofrom_record_expires;
     CREATE TABLE relaytofrom (
         id INTEGER PRIMARY KEY,
         relay_ip TEXT,
         mail_from TEXT,
         rcpt_to TEXT,
         block_expires INTEGER NOT NULL,
         record_expires INTEGER NOT NULL,
         blocked_count INTEGER NOT NULL DEFAULT 0,
         passed_count INTEGER NOT NULL DEFAULT 0,
         aborted_count INTEGER NOT NULL DEFAULT 0,
         origin_type TEXT NOT NULL DEFAULT 'AUTO' CHECK (origin_type IN ('MANUAL', 'AUTO')),
         create_time INTEGER NOT NULL,
         last_update INTEGER NOT NULL,
         UNIQUE (relay_ip, mail_from, rcpt_to)
     );
     INSERT INTO relaytofrom SELECT * FROM relaytofrom_before;
     DROP TABLE relaytofrom_before;
     CREATE INDEX relaytofrom_record_expires ON relaytofrom (record_expires);
     CREATE INDEX relaytofrom_manual ON relaytofrom (id) WHERE mail_from IS NULL;",
    ],
};

/// What a [`Filter`] means; its parts are the parameters 1 to 3.
const MEANT: &str = "mail_from IS NOT NULL AND (?1 IS NULL OR relay_ip = ?1)
    AND (?2 IS NULL OR mail_from = ?2
        OR (substr(?2, 1, 1) = '@' AND substr(mail_from, -length(?2)) = ?2))
    AND (?3 IS NULL OR rcpt_to = ?3
        OR (substr(?3, 1, 1) = '@' AND substr(rcpt_to, -length(?3)) = ?3))";

/// Triplets in the state database.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    database: Database,
}

impl SqliteStore {
    /// Brings the tables up to date.
    ///
    /// # Errors
    /// When that fails, or a newer program wrote them.
    pub async fn open(database: Database) -> Result<Self, StoreError> {
        database.migrate(MIGRATIONS).await.map_err(StoreError::Embedded)?;
        Ok(Self { database })
    }

    /// Does work on the database; `what` completes the sentence "cannot …".
    fn run<T, F>(&self, what: &'static str, job: F) -> BoxFuture<'_, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        Box::pin(async move { self.database.run(what, job).await.map_err(StoreError::Embedded) })
    }
}

impl Store for SqliteStore {
    fn look(
        &self,
        triplets: Vec<Triplet>,
        now: Duration,
    ) -> BoxFuture<'_, Result<Seen, StoreError>> {
        self.run("look triplets up", move |connection| {
            let records = triplets.iter().map(|triplet| seen(connection, triplet));
            Ok(Seen { now, records: records.collect::<Result<_, _>>()? })
        })
    }

    fn apply(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
        self.run("write triplets", move |connection| apply(connection, &changes))
    }

    fn expire(&self, now: Duration, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.run("expire triplets", move |connection| {
            let mut delete = connection.prepare_cached(
                "DELETE FROM relaytofrom WHERE id IN (
                     SELECT id FROM relaytofrom
                     WHERE record_expires <= ?1 AND origin_type = 'AUTO' LIMIT ?2)",
            )?;
            delete.execute(params![ms(now), limit])
        })
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        self.run("list triplets", move |connection| {
            let mut select = connection.prepare_cached(&format!(
                "SELECT block_expires, record_expires, blocked_count, passed_count, aborted_count,
                     relay_ip, mail_from, rcpt_to
                 FROM relaytofrom WHERE {MEANT}
                     AND (?4 IS NULL OR (relay_ip, mail_from, rcpt_to) > (?4, ?5, ?6))
                 ORDER BY relay_ip, mail_from, rcpt_to LIMIT ?7"
            ))?;
            let Filter { network, sender, recipient } = filter;
            let mut after = after.as_deref().into_iter().flat_map(|after| after.splitn(3, '\n'));
            let [a, b, c] = std::array::from_fn(|_| after.next());
            let most = i64::try_from(limit).unwrap_or(i64::MAX);
            let given = params![network, sender, recipient, a, b, c, most];
            let rows = select.query_map(given, |row| {
                let (network, sender, recipient) = (row.get(5)?, row.get(6)?, row.get(7)?);
                Ok((Triplet { network, sender, recipient }, record(row)?))
            })?;
            Ok(Page::up_to(limit, rows.collect::<rusqlite::Result<_>>()?))
        })
    }

    fn forget(&self, filter: Filter, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.run("forget triplets", move |connection| {
            let mut delete = connection.prepare_cached(&format!(
                "DELETE FROM relaytofrom WHERE id IN (
                     SELECT id FROM relaytofrom WHERE {MEANT} LIMIT ?4)"
            ))?;
            let Filter { network, sender, recipient } = filter;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            delete.execute(params![network, sender, recipient, limit])
        })
    }

    fn census(&self) -> BoxFuture<'_, Result<Census, StoreError>> {
        self.run("count triplets", |connection| {
            connection.query_row(
                "SELECT count(*) FILTER (WHERE passed_count = 0),
                     count(*) FILTER (WHERE passed_count > 0) FROM relaytofrom
                 WHERE mail_from IS NOT NULL",
                [],
                |row| Ok(Census { waiting: row.get(0)?, known: row.get(1)? }),
            )
        })
    }

    fn wildcards(&self, now: Duration) -> BoxFuture<'_, Result<Vec<Wildcard>, StoreError>> {
        self.run("read the manual rows", move |connection| {
            let mut select = connection.prepare_cached(
                "SELECT relay_ip, rcpt_to, block_expires, record_expires FROM relaytofrom
                 WHERE mail_from IS NULL AND record_expires > ?1 ORDER BY id",
            )?;
            let rows = select.query_map([ms(now)], |row| {
                let whom = match (row.get(0)?, row.get(1)?) {
                    (Some(relay), None) => Whom::Relay(relay),
                    (None, Some(recipient)) => Whom::Recipient(recipient),
                    _ => return Ok(None),
                };
                let time = |place| row.get(place).map(Duration::from_millis);
                Ok(Some(Wildcard { whom, block_expires: time(2)?, record_expires: time(3)? }))
            })?;
            rows.filter_map(Result::transpose).collect()
        })
    }

    fn write_wildcards(
        &self,
        wildcards: Vec<Wildcard>,
        now: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.run("write manual rows", move |connection| {
            let transaction = connection.transaction()?;
            for Wildcard { whom, block_expires, record_expires } in wildcards {
                delete_wildcard(&transaction, &whom)?;
                let (relay, recipient) = match whom {
                    Whom::Relay(relay) => (Some(relay), None),
                    Whom::Recipient(recipient) => (None, Some(recipient)),
                };
                transaction.execute(
                    "INSERT INTO relaytofrom (relay_ip, rcpt_to, block_expires, record_expires,
                         origin_type, create_time, last_update)
                     VALUES (?1, ?2, ?3, ?4, 'MANUAL', ?5, ?5)",
                    params![relay, recipient, ms(block_expires), ms(record_expires), ms(now)],
                )?;
            }
            transaction.commit()
        })
    }

    fn forget_wildcards(&self, whom: Vec<Whom>) -> BoxFuture<'_, Result<usize, StoreError>> {
        self.run("forget manual rows", move |connection| {
            let transaction = connection.transaction()?;
            let forgotten = whom.iter().map(|whom| delete_wildcard(&transaction, whom)).sum();
            transaction.commit()?;
            forgotten
        })
    }
}

fn delete_wildcard(connection: &Connection, whom: &Whom) -> rusqlite::Result<usize> {
    let (column, other, text) = match whom {
        Whom::Relay(relay) => ("relay_ip", "rcpt_to", relay),
        Whom::Recipient(recipient) => ("rcpt_to", "relay_ip", recipient),
    };
    let delete = format!(
        "DELETE FROM relaytofrom
         WHERE mail_from IS NULL AND {other} IS NULL AND {column} = ?1 COLLATE NOCASE"
    );
    connection.execute(&delete, [text])
}

fn apply(connection: &mut Connection, changes: &Changes) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut write = transaction.prepare_cached(
            "INSERT INTO relaytofrom (relay_ip, mail_from, rcpt_to, block_expires, record_expires,
                 blocked_count, passed_count, aborted_count, create_time, last_update)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9)
             ON CONFLICT (relay_ip, mail_from, rcpt_to) DO UPDATE SET
                 block_expires = excluded.block_expires, record_expires = excluded.record_expires,
                 blocked_count = excluded.blocked_count, passed_count = excluded.passed_count,
                 aborted_count = excluded.aborted_count, last_update = excluded.last_update",
        )?;
        for (triplet, change) in changes.iter() {
            let after = change.on(seen(&transaction, triplet)?.as_ref());
            let Triplet { network, sender, recipient } = triplet;
            write.execute(params![
                network,
                sender,
                recipient,
                ms(after.block_expires),
                ms(after.record_expires),
                after.blocked_count,
                after.passed_count,
                after.aborted_count,
                ms(change.at),
            ])?;
        }
    }
    transaction.commit()
}

fn seen(connection: &Connection, triplet: &Triplet) -> rusqlite::Result<Option<Record>> {
    let Triplet { network, sender, recipient } = triplet;
    connection
        .prepare_cached(
            "SELECT block_expires, record_expires, blocked_count, passed_count, aborted_count
             FROM relaytofrom
             WHERE relay_ip = ?1 AND mail_from = ?2 AND rcpt_to = ?3",
        )?
        .query_row([network, sender, recipient], record)
        .optional()
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        block_expires: Duration::from_millis(row.get(0)?),
        record_expires: Duration::from_millis(row.get(1)?),
        blocked_count: row.get(2)?,
        passed_count: row.get(3)?,
        aborted_count: row.get(4)?,
    })
}

/// Milliseconds as the database's integers hold them.
fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use lamppost_database::Survives;

    use super::*;
    use crate::{Attempt, Decision, Greylist, Hold, MemoryStore, Outcome, Policy, Why};

    const POLICY: Policy = Policy::by_address(
        Duration::from_secs(300),
        Duration::from_secs(36_000),
        Duration::from_secs(3_110_400),
    );

    async fn stores(folder: &tempfile::TempDir) -> [Greylist; 2] {
        let database = Database::open(&folder.path().join("greylist.db"), Survives::Kill).unwrap();
        let sqlite = SqliteStore::open(database).await.unwrap();
        [
            Greylist::new(POLICY, Box::new(sqlite)),
            Greylist::new(POLICY, Box::new(MemoryStore::default())),
        ]
    }

    async fn check(greylist: &Greylist, at: u64, peer: &str, to: &str) -> Decision {
        let attempt = Attempt {
            peer: peer.parse().unwrap(),
            helo: "",
            sender: "Sender@elsewhere.test",
            recipient: to,
            although_off: false,
        };
        let now = Duration::from_secs(1_000_000 + at);
        let ruling = greylist.check(&attempt, None, now).await.unwrap();
        if let Some(passage) = &ruling.passage {
            greylist.settle(passage, (attempt.sender, to), Outcome::Accepted, now);
        }
        ruling.decision
    }

    #[tokio::test]
    async fn both_stores_decide_alike() {
        let folder = tempfile::tempdir().unwrap();
        let new = Decision::Defer(Hold::New { retry_in: Duration::from_secs(300) });
        let early = Decision::Defer(Hold::Early { retry_in: Duration::from_secs(200) });
        for greylist in stores(&folder).await {
            let first = "a@lamppost.test";
            assert_eq!(check(&greylist, 0, "192.0.2.1", first).await, new);
            assert_eq!(check(&greylist, 100, "192.0.2.9", "A@lamppost.TEST").await, early);
            assert_eq!(check(&greylist, 300, "192.0.2.9", "b@lamppost.test").await, new);
            assert_eq!(check(&greylist, 300, "192.0.3.1", first).await, new);
            assert_eq!(
                check(&greylist, 300, "192.0.2.1", first).await,
                Decision::Accept(Why::Waited { since_first: Duration::from_secs(300) })
            );
            assert_eq!(
                check(&greylist, 301, "192.0.2.1", first).await,
                Decision::Accept(Why::Known)
            );
            assert_eq!(remembered(&greylist).await, 3);
            // Two were deferred and never came back.
            let later = Duration::from_secs(1_000_000 + 40_000);
            assert_eq!(greylist.expire(later).await.unwrap(), 2);
            assert_eq!(remembered(&greylist).await, 1);
            greylist.set_policy(Policy { enabled: false, ..POLICY });
            let off = Decision::Accept(Why::SwitchedOff);
            assert_eq!(check(&greylist, 400, "203.0.113.1", first).await, off);
        }
    }

    async fn remembered(greylist: &Greylist) -> u64 {
        let Census { waiting, known } = greylist.census().await.unwrap();
        waiting + known
    }

    /// The recipients of the triplets that are meant, page by page.
    async fn listed(greylist: &Greylist, filter: &Filter) -> Vec<String> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = greylist.list(filter.clone(), after, 2).await.unwrap();
            all.extend(page.triplets.into_iter().map(|(triplet, _)| triplet.recipient));
            after = page.next;
            if after.is_none() {
                return all;
            }
        }
    }

    #[tokio::test]
    async fn both_stores_list_and_forget_alike() {
        let folder = tempfile::tempdir().unwrap();
        for greylist in stores(&folder).await {
            for to in ["c@two.test", "b@one.test", "a@one.test", "x@sub.one.test"] {
                check(&greylist, 0, "192.0.2.1", to).await;
            }
            check(&greylist, 0, "2001:db8::1", "a@one.test").await;
            check(&greylist, 300, "192.0.2.1", "a@one.test").await;
            let census = Census { waiting: 4, known: 1 };
            assert_eq!(greylist.census().await.unwrap(), census);
            let all = ["a@one.test", "b@one.test", "c@two.test", "x@sub.one.test", "a@one.test"];
            assert_eq!(listed(&greylist, &Filter::default()).await, all);
            let of_one = Filter { recipient: Some("@one.test".into()), ..Filter::default() };
            assert_eq!(
                listed(&greylist, &of_one).await,
                ["a@one.test", "b@one.test", "a@one.test"]
            );
            let network = greylist.network("2001:db8::ffff".parse().unwrap());
            let of_network = Filter { network: Some(network), ..Filter::default() };
            assert_eq!(listed(&greylist, &of_network).await, ["a@one.test"]);
            let of_nobody = Filter { sender: Some(String::new()), ..Filter::default() };
            assert!(listed(&greylist, &of_nobody).await.is_empty());
            let from = Filter { sender: Some("sender@elsewhere.test".into()), ..of_one.clone() };
            assert_eq!(greylist.forget(from).await.unwrap(), 3);
            assert_eq!(listed(&greylist, &of_one).await, [""; 0]);
            assert_eq!(greylist.forget(Filter::default()).await.unwrap(), 2);
            assert_eq!(greylist.census().await.unwrap(), Census::default());
        }
    }

    #[tokio::test]
    async fn triplets_survive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = &stores(&folder).await[0];
        check(first, 0, "192.0.2.1", "a@lamppost.test").await;
        assert_eq!(first.write().await.unwrap(), 1);
        let decision = check(&stores(&folder).await[0], 300, "192.0.2.1", "a@lamppost.test").await;
        let since_first = Duration::from_secs(300);
        assert_eq!(decision, Decision::Accept(Why::Waited { since_first }));
    }

    #[tokio::test]
    async fn addresses_are_data_and_never_sql() {
        let folder = tempfile::tempdir().unwrap();
        let greylist = &stores(&folder).await[0];
        let evil = "\"'; DROP TABLE relaytofrom; --\"@lamppost.test";
        assert!(matches!(check(greylist, 0, "192.0.2.1", evil).await, Decision::Defer(_)));
        assert_eq!(remembered(greylist).await, 1);
    }
}
