//! A store that forgets everything at the end: for simulations and tests.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::{
    Census, Changes, Filter, Page, Record, Seen, Store, StoreError, Triplet, Whom, Wildcard,
};

/// Triplets in memory; clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    records: Arc<Mutex<HashMap<Triplet, Record>>>,
    wildcards: Arc<Mutex<Vec<Wildcard>>>,
}

impl Store for MemoryStore {
    fn look(
        &self,
        triplets: Vec<Triplet>,
        now: Duration,
    ) -> BoxFuture<'_, Result<Seen, StoreError>> {
        let held = self.records.lock();
        let records = triplets.iter().map(|triplet| held.get(triplet).copied()).collect();
        Box::pin(ready(Ok(Seen { now, records })))
    }

    fn apply(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut records = self.records.lock();
        for (triplet, change) in changes.iter() {
            let record = change.on(records.get(triplet));
            records.insert(triplet.clone(), record);
        }
        Box::pin(ready(Ok(())))
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

    fn list(
        &self,
        filter: Filter,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        let records = self.records.lock();
        let after = after.map(|after| {
            let mut parts = after.splitn(3, '\n').map(str::to_owned);
            let mut part = || parts.next().unwrap_or_default();
            Triplet { network: part(), sender: part(), recipient: part() }
        });
        let meant = records.iter().filter(|(triplet, _)| {
            filter.matches(triplet) && after.as_ref().is_none_or(|after| *triplet > after)
        });
        let mut found: Vec<_> = meant.map(|(triplet, record)| (triplet.clone(), *record)).collect();
        found.sort_by(|(one, _), (other, _)| one.cmp(other));
        found.truncate(limit);
        Box::pin(ready(Ok(Page::up_to(limit, found))))
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

    fn wildcards(&self, now: Duration) -> BoxFuture<'_, Result<Vec<Wildcard>, StoreError>> {
        let wildcards = self.wildcards.lock();
        let live = wildcards.iter().filter(|wildcard| now < wildcard.record_expires);
        Box::pin(ready(Ok(live.cloned().collect())))
    }

    fn write_wildcards(
        &self,
        written: Vec<Wildcard>,
        _: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut wildcards = self.wildcards.lock();
        wildcards.retain(|wildcard| written.iter().all(|new| new.whom != wildcard.whom));
        wildcards.extend(written);
        Box::pin(ready(Ok(())))
    }

    fn forget_wildcards(&self, whom: Vec<Whom>) -> BoxFuture<'_, Result<usize, StoreError>> {
        let mut wildcards = self.wildcards.lock();
        let before = wildcards.len();
        wildcards.retain(|wildcard| !whom.contains(&wildcard.whom));
        Box::pin(ready(Ok(before - wildcards.len())))
    }
}
