//! A store that forgets everything at the end: for simulations and tests.

use std::collections::HashMap;
use std::future::ready;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::{Decision, Policy, Record, Store, StoreError, Triplet, decide};

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

    fn count(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(ready(Ok(self.records.lock().len() as u64)))
    }
}
