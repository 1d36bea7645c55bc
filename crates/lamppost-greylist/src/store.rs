//! What the greylist needs of a store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::{Census, Change, Filter, Record, StoreError, Triplet};

/// What is written together.
pub type Changes = Arc<HashMap<Triplet, Change>>;

/// What a look into a store shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The time by the store's clock, which all who share it decide by.
    pub now: Duration,
    /// What is remembered of each triplet that was asked about, in that order; also what has expired.
    pub records: Vec<Option<Record>>,
}

/// Where triplets are remembered. Times are since 1970.
pub trait Store: Send + Sync {
    /// What is remembered of these triplets: one round trip, and nothing is changed. `now` is the time
    /// by this machine's clock, for a store that has none.
    fn look(
        &self,
        triplets: Vec<Triplet>,
        now: Duration,
    ) -> BoxFuture<'_, Result<Seen, StoreError>>;

    /// Adds changes to what is held, all or none.
    fn apply(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets triplets whose record has expired, at most `limit`; returns how many.
    fn expire(&self, now: Duration, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Triplets with what is remembered of them, in the order of their names: at most `limit` of those
    /// that are meant, after this one.
    fn list(
        &self,
        filter: Filter,
        after: Option<Triplet>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<(Triplet, Record)>, StoreError>>;

    /// Forgets the triplets that are meant, at most `limit`; returns how many.
    fn forget(&self, filter: Filter, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// How many triplets are remembered, by what they are.
    fn census(&self) -> BoxFuture<'_, Result<Census, StoreError>>;
}
