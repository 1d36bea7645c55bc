//! What the greylist needs of a store.

use std::collections::HashMap;
use std::future::ready;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::{Census, Change, Filter, Record, StoreError, Triplet, Whom, Wildcard};

/// What is written together.
pub type Changes = Arc<HashMap<Triplet, Change>>;

/// What a look into a store shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The time that the records' times are by. A store with a clock of its own, which all who share it
    /// decide by, tells them as far from this as they are from its own time.
    pub now: Duration,
    /// What is remembered of each triplet that was asked about, in that order; also what has expired.
    pub records: Vec<Option<Record>>,
}

/// Some of the triplets of a store, in an order of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The triplets with what is remembered of them.
    pub triplets: Vec<(Triplet, Record)>,
    /// Where the next page begins; nothing at the end.
    pub next: Option<String>,
}

impl Page {
    /// A page that ends where the last of these is, unless there are fewer than `limit`.
    pub(crate) fn up_to(limit: usize, triplets: Vec<(Triplet, Record)>) -> Self {
        let last = triplets.last().filter(|_| triplets.len() == limit);
        let next = last.map(|(last, _)| {
            let Triplet { network, sender, recipient } = last;
            // No part has a line end.
            format!("{network}\n{sender}\n{recipient}")
        });
        Self { triplets, next }
    }
}

/// How a store does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Why it cannot be asked, if so.
    pub away: Option<String>,
    /// Triplets whose changes are kept here until it can be.
    pub journalled: usize,
    /// Triplets of which nothing could be kept, since there was no more room for them.
    pub lost: u64,
}

/// Mail that passed, for relaydelay's `mail_log` and `dns_name`, which reports are drawn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The client's address.
    pub peer: IpAddr,
    /// Its name, if that is known.
    pub name: Option<String>,
    /// Whether that name does not lead back to the address.
    pub is_mismatch: bool,
    /// The sender; empty for the null sender.
    pub sender: String,
    /// The recipient.
    pub recipient: String,
}

/// Where triplets are remembered. Times are since 1970.
pub trait Store: Send + Sync {
    /// What is remembered of these triplets: one round trip, and nothing is changed. `now` is the time
    /// by this machine's clock.
    fn look(
        &self,
        triplets: Vec<Triplet>,
        now: Duration,
    ) -> BoxFuture<'_, Result<Seen, StoreError>>;

    /// Adds changes to what is held, all or none.
    fn apply(&self, changes: Changes) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets triplets whose record has expired, at most `limit`; returns how many.
    fn expire(&self, now: Duration, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// At most `limit` of the triplets that are meant, after where a page ended.
    fn list(
        &self,
        filter: Filter,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>>;

    /// Forgets the triplets that are meant, at most `limit`; returns how many.
    fn forget(&self, filter: Filter, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// How many triplets are remembered, by what they are.
    fn census(&self) -> BoxFuture<'_, Result<Census, StoreError>>;

    /// The wildcards that administrators wrote and that have not expired, the oldest first.
    fn wildcards(&self, now: Duration) -> BoxFuture<'_, Result<Vec<Wildcard>, StoreError>>;

    /// Writes wildcards, in place of those for the same clients or recipients.
    fn write_wildcards(
        &self,
        wildcards: Vec<Wildcard>,
        now: Duration,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Forgets the wildcards for these; returns how many.
    fn forget_wildcards(&self, whom: Vec<Whom>) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// Writes down what passed, where there are tables for it.
    fn log(&self, passed: Vec<Passed>) -> BoxFuture<'_, Result<(), StoreError>> {
        drop(passed);
        Box::pin(ready(Ok(())))
    }

    /// How it does, as far as that is known without asking it.
    fn condition(&self) -> Condition {
        Condition::default()
    }
}
