//! A store that forgets everything at the end: for simulations and tests.

use std::collections::HashMap;
use std::future::ready;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::{Census, Decision, Filter, Policy, Record, Store, StoreError, Triplet, decide};

/// Triplets in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: Mutex<HashMap<Triplet, Record>>,
}

impl Store for MemoryStore {
    fn attempt(
        &self,
        policy: Policy,
        triplet: Triplet,
        now: Duration,
    ) -> BoxFuture<'_, Result<Decision, StoreError>> {
        let mut records = self.records.lock();
        let seen = records.get(&triplet);
        let decision = decide(&policy, seen, now);
        let record = Record::after(&policy, seen, decision, now);
        records.insert(triplet, record);
        Box::pin(ready(Ok(decision)))
    }

    fn expire(&self, now: Duration, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        let mut expired = 0;
        self.records.lock().retain(|_, record| {
            let keep = now < record.record_expires || expired == limit;
            expired += usize::from(!keep);
            keep
        });
        Box::pin(ready(Ok(expired)))
    }

    fn look(&self, triplet: Triplet) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(ready(Ok(self.records.lock().get(&triplet).copied())))
    }

    fn list(
        &self,
        filter: Filter,
        after: Option<Triplet>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Triplet, Record)>, StoreError>> {
        let records = self.records.lock();
        let meant = records.iter().filter(|(triplet, _)| {
            filter.matches(triplet) && after.as_ref().is_none_or(|after| *triplet > after)
        });
        let mut found: Vec<_> = meant.map(|(triplet, record)| (triplet.clone(), *record)).collect();
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        found.truncate(limit);
        Box::pin(ready(Ok(found)))
    }

    fn forget(&self, filter: Filter, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        let mut forgotten = 0;
        self.records.lock().retain(|triplet, _| {
            let keep = forgotten == limit || !filter.matches(triplet);
            forgotten += usize::from(!keep);
            keep
        });
        Box::pin(ready(Ok(forgotten)))
    }

    fn census(&self) -> BoxFuture<'_, Result<Census, StoreError>> {
        let mut census = Census::default();
        self.records.lock().values().for_each(|record| census.add(record));
        Box::pin(ready(Ok(census)))
    }

    fn count(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(ready(Ok(self.records.lock().len() as u64)))
    }
}
