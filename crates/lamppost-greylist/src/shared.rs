//! A store that several servers share, and what is done while it is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use lamppost_database::Database;
use lamppost_net::Clock;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::journal::{Journal, Origin};
use crate::mariadb::{Batch, Mariadb, Server};
use crate::store::{Changes, Condition, Page, Passed};
use crate::{Census, Filter, Seen, Store, StoreError, Triplet, Whom, Wildcard};

/// How often it is looked whether a store that is away is there again.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long the database may take to show triplets, waiting for a connection included.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Triplets in a database that several servers share.
///
/// While it is away nobody waits for it. What is decided meanwhile is written into a journal on the local
/// disk, and from there into the database once that is there again.
pub struct SharedStore {
    inner: Arc<Inner>,
    tending: AbortHandle,
}

struct Inner {
    database: Mariadb,
    journal: Journal,
    node: [u8; 16],
    /// What was found when it was asked last, if that was no answer.
    away: Mutex<Option<String>>,
    /// Why it took nothing when it was last written to, if so: it may be there and only be read.
    unwritable: Mutex<Option<String>>,
    /// Whether attempts are decided by what is known here while it is away.
    decides_alone: AtomicBool,
    journalled: AtomicUsize,
    lost: AtomicU64,
    /// The number of the batch that is written next, held by whoever writes: the database takes batches
    /// in the order of their numbers alone.
    batch: tokio::sync::Mutex<u64>,
}

impl SharedStore {
    /// Opens the journal; the database need not be there.
    ///
    /// # Errors
    /// When the journal cannot be opened.
    pub async fn open(
        server: Server,
        journal: Database,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let (journal, origin, journalled) = Journal::open(journal, clock.now()).await?;
        let Origin { node, first } = origin;
        let inner = Arc::new(Inner {
            database: Mariadb::new(server, clock),
            journal,
            node,
            away: Mutex::default(),
            unwritable: Mutex::default(),
            decides_alone: AtomicBool::default(),
            journalled: AtomicUsize::new(journalled),
            lost: AtomicU64::default(),
            batch: tokio::sync::Mutex::new(first),
        });
        let tended = inner.clone();
        let tending = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(RETRY_EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                tended.tend().await;
            }
        });
        Ok(Self { inner, tending: tending.abort_handle() })
    }

    /// Whether attempts are decided by what is known here while the database is away, instead of not at
    /// all.
    pub fn decide_alone(&self, alone: bool) {
        self.inner.decides_alone.store(alone, Ordering::Relaxed);
    }

    /// Whether the database can be asked now.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn ask(&self) -> Result<(), StoreError> {
        let asked = self.inner.database.look(&[], Duration::ZERO).await;
        self.inner.met(asked).map(drop)
    }
}

impl Drop for SharedStore {
    fn drop(&mut self) {
        self.tending.abort();
    }
}

impl Inner {
    /// Notes whether the database is there, by how it answered.
    fn met<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        *self.away.lock() = answer.as_ref().err().map(|error| reason(error));
        answer
    }

    /// Why the database is not asked, if that is so.
    fn absence(&self) -> Option<StoreError> {
        let reason = self.away.lock().clone()?;
        Some(StoreError::Away { server: self.database.name(), reason })
    }

    async fn look(&self, triplets: Vec<Triplet>, now: Duration) -> Result<Seen, StoreError> {
        let seen = match self.absence() {
            Some(error) => Err(error),
            None => self.met(self.ask(&triplets, now).await),
        };
        let seen = match seen {
            Err(_) if self.decides_alone.load(Ordering::Relaxed) => {
                Seen { now, records: vec![None; triplets.len()] }
            }
            seen => seen?,
        };
        if self.journalled.load(Ordering::Relaxed) == 0 {
            return Ok(seen);
        }
        let changes = self.journal.look(triplets).await?;
        let records = seen.records.into_iter().zip(changes).map(|(record, changes)| {
            changes.iter().fold(record, |record, change| Some(change.on(record.as_ref())))
        });
        Ok(Seen { now, records: records.collect() })
    }

    /// Asks the database. With those before it, which may wait as long: nobody waits for their sum.
    async fn ask(&self, triplets: &[Triplet], now: Duration) -> Result<Seen, StoreError> {
        let looked = timeout(LOOK_TIMEOUT, self.database.look(triplets, now)).await;
        looked.unwrap_or_else(|_| {
            let (server, what) = (self.database.name(), "look triplets up");
            Err(StoreError::Silent { server, what, after: LOOK_TIMEOUT })
        })
    }

    async fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let written = self.database.write(batch).await;
        *self.unwritable.lock() = written.as_ref().err().map(|error| reason(error));
        written
    }

    async fn apply(&self, changes: Changes) -> Result<(), StoreError> {
        let mut next = self.batch.lock().await;
        let number = *next;
        if self.journalled.load(Ordering::Relaxed) == 0 && self.absence().is_none() {
            // Whatever comes of it, nothing else may have this number.
            *next += 1;
            let batch = Batch { node: self.node, number, changes: changes.clone() };
            if self.write(&batch).await.is_ok() {
                return Ok(());
            }
        }
        let kept = self.journal.add(number, changes).await?;
        self.journalled.store(kept.count, Ordering::Relaxed);
        self.lost.fetch_add(kept.lost as u64, Ordering::Relaxed);
        if kept.is_full && *next == number {
            *next += 1;
        }
        Ok(())
    }

    /// Looks whether the database is there again, and writes back what it has missed.
    async fn tend(&self) {
        if self.absence().is_some()
            && self.met(self.database.look(&[], Duration::ZERO).await).is_err()
        {
            return;
        }
        while self.journalled.load(Ordering::Relaxed) > 0 {
            if self.write_back().await.is_err() {
                return;
            }
        }
    }

    async fn write_back(&self) -> Result<(), StoreError> {
        let mut next = self.batch.lock().await;
        let Some((number, changes)) = self.journal.oldest().await? else {
            self.journalled.store(0, Ordering::Relaxed);
            return Ok(());
        };
        // Nothing may be added to what is on its way.
        *next = (*next).max(number + 1);
        self.write(&Batch { node: self.node, number, changes }).await?;
        self.journalled.store(self.journal.done(number).await?, Ordering::Relaxed);
        Ok(())
    }
}

/// An error with all that it comes from.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

impl Store for Arc<SharedStore> {
    fn look(
        &self,
        triplets: Vec<Triplet>,
        now: Duration,
    ) -> BoxFuture<'_, Result<Seen, StoreError>> {
        Box::pin(self.inner.look(triplets, now))
    }

    fn apply(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.inner.apply(changes))
    }

    fn expire(&self, _: Duration, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(self.inner.database.expire(limit))
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move { self.inner.database.list(&filter, after.as_deref(), limit).await })
    }

    fn forget(&self, filter: Filter, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(async move { self.inner.database.forget(&filter, limit).await })
    }

    fn census(&self) -> BoxFuture<'_, Result<Census, StoreError>> {
        Box::pin(self.inner.database.census())
    }

    fn wildcards(&self, now: Duration) -> BoxFuture<'_, Result<Vec<Wildcard>, StoreError>> {
        Box::pin(self.inner.database.wildcards(now))
    }

    fn write_wildcards(
        &self,
        wildcards: Vec<Wildcard>,
        now: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.inner.database.write_wildcards(&wildcards, now).await })
    }

    fn forget_wildcards(&self, whom: Vec<Whom>) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(async move { self.inner.database.forget_wildcards(&whom).await })
    }

    fn log(&self, passed: Vec<Passed>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            match self.inner.absence() {
                Some(error) => Err(error),
                None => self.inner.database.log(&passed).await,
            }
        })
    }

    fn condition(&self) -> Condition {
        Condition {
            away: self.inner.away.lock().clone().or_else(|| self.inner.unwritable.lock().clone()),
            journalled: self.inner.journalled.load(Ordering::Relaxed),
            lost: self.inner.lost.load(Ordering::Relaxed),
        }
    }
}
