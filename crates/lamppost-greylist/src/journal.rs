//! What was decided while a shared store could not be asked: kept on the local disk until it can be.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lamppost_database::{Database, Migrations};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use crate::store::Changes;
use crate::{Change, Life, StoreError, Triplet};

/// Triplets whose changes are kept at most: about 30 MB on disk.
pub(crate) const JOURNALLED_MAX: usize = 200_000;
/// Triplets that are written back together.
const BATCH_MAX: usize = 1000;

/// Times are milliseconds since 1970. `batch` counts up; what has one number is written back together.
const MIGRATIONS: Migrations = Migrations {
    component: "greylist-journal",
    steps: &["CREATE TABLE node (name BLOB NOT NULL, starts INTEGER NOT NULL);
     INSERT INTO node (name, starts) VALUES (randomblob(16), 0);
     CREATE TABLE change (
         relay_ip TEXT NOT NULL,
         mail_from TEXT NOT NULL,
         rcpt_to TEXT NOT NULL,
         batch INTEGER NOT NULL,
         at INTEGER NOT NULL,
         block_expires INTEGER NOT NULL,
         record_expires INTEGER NOT NULL,
         blocked INTEGER NOT NULL,
         passed INTEGER NOT NULL,
         aborted INTEGER NOT NULL,
         known_until INTEGER,
         ends_at INTEGER,
         PRIMARY KEY (relay_ip, mail_from, rcpt_to, batch)
     ) WITHOUT ROWID;
     CREATE INDEX change_batch ON change (batch);"],
};

/// A journal in a database of its own.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    database: Database,
}

/// Who writes it, and from which number on batches may be counted: no batch ever had a higher one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) node: [u8; 16],
    pub(crate) first: u64,
}

/// How much was kept.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    /// Changes that are in the journal now.
    pub(crate) count: usize,
    /// Triplets for which there was no room.
    pub(crate) lost: usize,
    /// Whether the batch is as large as one should be.
    pub(crate) is_full: bool,
}

impl Journal {
    /// Brings the tables up to date.
    ///
    /// # Errors
    /// When that fails, or a newer program wrote them.
    pub(crate) async fn open(
        database: Database,
        now: Duration,
    ) -> Result<(Self, Origin, usize), StoreError> {
        database.migrate(MIGRATIONS).await.map_err(StoreError::Embedded)?;
        let begin = move |connection: &mut Connection| {
            // By the clock too: a journal that was restored must not count again what it counted before.
            let starts = "UPDATE node SET starts = max(starts + 1, ?1)";
            connection.execute(starts, [now.as_secs()])?;
            let (node, starts): ([u8; 16], u64) =
                connection.query_row("SELECT name, starts FROM node", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            // Nobody writes a million batches a second.
            Ok((Origin { node, first: starts << 20 }, count(connection)?))
        };
        let begun = database.run("begin the journal", begin).await;
        let (origin, count) = begun.map_err(StoreError::Embedded)?;
        Ok((Self { database }, origin, count))
    }

    /// Adds changes to a batch.
    pub(crate) async fn add(&self, batch: u64, changes: Changes) -> Result<Kept, StoreError> {
        let add = move |connection: &mut Connection| add(connection, batch, &changes);
        self.database.run("write to the journal", add).await.map_err(StoreError::Embedded)
    }

    /// What the journal holds of triplets, in that order.
    pub(crate) async fn look(
        &self,
        triplets: Vec<Triplet>,
    ) -> Result<Vec<Vec<Change>>, StoreError> {
        let look = move |connection: &mut Connection| {
            let mut select = connection.prepare_cached(
                "SELECT at, block_expires, record_expires, blocked, passed, aborted, known_until,
                     ends_at FROM change
                 WHERE relay_ip = ?1 AND mail_from = ?2 AND rcpt_to = ?3 ORDER BY batch",
            )?;
            let changes = triplets.into_iter().map(|triplet| {
                let Triplet { network, sender, recipient } = triplet;
                select.query_map([network, sender, recipient], change)?.collect()
            });
            changes.collect()
        };
        self.database.run("look into the journal", look).await.map_err(StoreError::Embedded)
    }

    /// The oldest batch; nothing when none waits.
    pub(crate) async fn oldest(&self) -> Result<Option<(u64, Changes)>, StoreError> {
        let oldest = |connection: &mut Connection| {
            let batch: Option<u64> =
                connection.query_row("SELECT min(batch) FROM change", [], |row| row.get(0))?;
            let Some(batch) = batch else { return Ok(None) };
            let mut select = connection.prepare_cached(
                "SELECT at, block_expires, record_expires, blocked, passed, aborted, known_until,
                     ends_at, relay_ip, mail_from, rcpt_to FROM change WHERE batch = ?1",
            )?;
            let rows = select.query_map([batch], |row| {
                let (network, sender, recipient) = (row.get(8)?, row.get(9)?, row.get(10)?);
                Ok((Triplet { network, sender, recipient }, change(row)?))
            })?;
            let changes = rows.collect::<rusqlite::Result<HashMap<_, _>>>()?;
            Ok(Some((batch, Arc::new(changes))))
        };
        self.database.run("read the journal", oldest).await.map_err(StoreError::Embedded)
    }

    /// A batch is where it belongs; returns how many changes wait yet.
    pub(crate) async fn done(&self, batch: u64) -> Result<usize, StoreError> {
        let done = move |connection: &mut Connection| {
            connection.execute("DELETE FROM change WHERE batch = ?1", [batch])?;
            count(connection)
        };
        self.database.run("shorten the journal", done).await.map_err(StoreError::Embedded)
    }
}

fn count(connection: &Connection) -> rusqlite::Result<usize> {
    connection.query_row("SELECT count(*) FROM change", [], |row| row.get(0))
}

fn add(connection: &mut Connection, batch: u64, changes: &Changes) -> rusqlite::Result<Kept> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut kept = Kept { count: count(&transaction)?, ..Kept::default() };
    {
        let mut select = transaction.prepare_cached(
            "SELECT at, block_expires, record_expires, blocked, passed, aborted, known_until,
                 ends_at FROM change
             WHERE relay_ip = ?1 AND mail_from = ?2 AND rcpt_to = ?3 AND batch = ?4",
        )?;
        let mut write = transaction.prepare_cached(
            "INSERT OR REPLACE INTO change (relay_ip, mail_from, rcpt_to, batch, at,
                 block_expires, record_expires, blocked, passed, aborted, known_until, ends_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?;
        for (triplet, later) in changes.iter() {
            let Triplet { network, sender, recipient } = triplet;
            let found = select.query_row(params![network, sender, recipient, batch], change);
            let mut whole = *later;
            if let Some(mut earlier) = found.optional()? {
                earlier.add(*later);
                whole = earlier;
            } else if kept.count >= JOURNALLED_MAX {
                kept.lost += 1;
                continue;
            } else {
                kept.count += 1;
            }
            let (known_until, ends_at) = match whole.life {
                None => (None, None),
                Some(Life::KnownUntil(until)) => (Some(ms(until)), None),
                Some(Life::EndsAt(end)) => (None, Some(ms(end))),
            };
            write.execute(params![
                network,
                sender,
                recipient,
                batch,
                ms(whole.at),
                ms(whole.block_expires),
                ms(whole.record_expires),
                whole.blocked,
                whole.passed,
                whole.aborted,
                known_until,
                ends_at,
            ])?;
        }
    }
    let size = "SELECT count(*) FROM change WHERE batch = ?1";
    let size: usize = transaction.query_row(size, [batch], |row| row.get(0))?;
    kept.is_full = size >= BATCH_MAX;
    transaction.commit()?;
    Ok(kept)
}

fn change(row: &Row<'_>) -> rusqlite::Result<Change> {
    let time = |place| row.get(place).map(Duration::from_millis);
    let life = match (row.get::<_, Option<u64>>(6)?, row.get::<_, Option<u64>>(7)?) {
        (_, Some(end)) => Some(Life::EndsAt(Duration::from_millis(end))),
        (Some(until), None) => Some(Life::KnownUntil(Duration::from_millis(until))),
        (None, None) => None,
    };
    Ok(Change {
        at: time(0)?,
        block_expires: time(1)?,
        record_expires: time(2)?,
        blocked: row.get(3)?,
        passed: row.get(4)?,
        aborted: row.get(5)?,
        life,
    })
}

/// Milliseconds as the database's integers hold them.
fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
