//! Who must come back later: the decision, and its store behind one trait.
//!
//! Greylisting (RFC 6647) defers the first attempt of a triplet, that is a network, a sender and a
//! recipient who have not met before. Real servers come back; most senders of spam do not. Columns
//! and meaning of the stored rows are relaydelay's, which administrators know.

mod decision;
mod filter;
mod memory;
mod sqlite;
mod triplet;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;

pub use decision::{Decision, Hold, Policy, Record, Why, decide};
pub use filter::{Census, Filter};
pub use lamppost_database::DatabaseError as StoreError;
pub use memory::MemoryStore;
pub use sqlite::SqliteStore;
pub use triplet::Triplet;

/// Where triplets are remembered.
pub trait Store: Send + Sync {
    /// Decides an attempt and remembers it, both in one step that no other attempt comes between.
    fn attempt(
        &self,
        policy: Policy,
        triplet: Triplet,
        now: Duration,
    ) -> BoxFuture<'_, Result<Decision, StoreError>>;

    /// Forgets triplets whose record has expired, at most `limit`; returns how many.
    fn expire(&self, now: Duration, limit: usize) -> BoxFuture<'_, Result<usize, StoreError>>;

    /// What is remembered of a triplet.
    fn look(&self, triplet: Triplet) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;

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

    /// How many triplets are remembered.
    fn count(&self) -> BoxFuture<'_, Result<u64, StoreError>>;
}

/// The greylist: a policy that can change while it is asked, and a store.
pub struct Greylist {
    policy: ArcSwap<Policy>,
    store: Box<dyn Store>,
}

impl Greylist {
    /// Records that are swept out in one go; the store answers attempts between.
    const EXPIRE_AT_ONCE: usize = 1000;

    /// A greylist over a store.
    pub fn new(policy: Policy, store: Box<dyn Store>) -> Self {
        Self { policy: ArcSwap::from_pointee(policy), store }
    }

    /// Decides by another policy from the next attempt on.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// May this mail come in now? The null sender is empty; `now` is the time since 1970.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn check(
        &self,
        peer: IpAddr,
        sender: &str,
        recipient: &str,
        now: Duration,
    ) -> Result<Decision, StoreError> {
        let policy = **self.policy.load();
        if !policy.enabled {
            return Ok(Decision::Accept(Why::SwitchedOff));
        }
        self.attempt(policy, (peer, sender, recipient), now).await
    }

    /// As [`Self::check`], though greylisting may be switched off for all others.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn check_although_off(
        &self,
        peer: IpAddr,
        sender: &str,
        recipient: &str,
        now: Duration,
    ) -> Result<Decision, StoreError> {
        let policy = Policy { enabled: true, ..**self.policy.load() };
        self.attempt(policy, (peer, sender, recipient), now).await
    }

    async fn attempt(
        &self,
        policy: Policy,
        (peer, sender, recipient): (IpAddr, &str, &str),
        now: Duration,
    ) -> Result<Decision, StoreError> {
        let triplet = Triplet::new(&policy, peer, sender, recipient);
        self.store.attempt(policy, triplet, now).await
    }

    /// Forgets all triplets whose record has expired; returns how many.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn expire(&self, now: Duration) -> Result<usize, StoreError> {
        let mut expired = 0;
        loop {
            let some = self.store.expire(now, Self::EXPIRE_AT_ONCE).await?;
            expired += some;
            if some < Self::EXPIRE_AT_ONCE {
                return Ok(expired);
            }
        }
    }

    /// What an attempt would meet now, its triplet, and what is remembered of that; nothing changes.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn look(
        &self,
        peer: IpAddr,
        sender: &str,
        recipient: &str,
        now: Duration,
    ) -> Result<(Triplet, Option<Record>, Decision), StoreError> {
        let policy = **self.policy.load();
        let triplet = Triplet::new(&policy, peer, sender, recipient);
        let seen = self.store.look(triplet.clone()).await?;
        let decision = decide(&policy, seen.as_ref(), now);
        Ok((triplet, seen, decision))
    }

    /// The network of an address, as triplets name it.
    pub fn network(&self, peer: IpAddr) -> String {
        Triplet::new(&self.policy.load(), peer, "", "").network
    }

    /// As [`Store::list`].
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn list(
        &self,
        filter: Filter,
        after: Option<Triplet>,
        limit: usize,
    ) -> Result<Vec<(Triplet, Record)>, StoreError> {
        self.store.list(filter, after, limit).await
    }

    /// Forgets all triplets that are meant; returns how many.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn forget(&self, filter: Filter) -> Result<usize, StoreError> {
        let mut forgotten = 0;
        loop {
            let some = self.store.forget(filter.clone(), Self::EXPIRE_AT_ONCE).await?;
            forgotten += some;
            if some < Self::EXPIRE_AT_ONCE {
                return Ok(forgotten);
            }
        }
    }

    /// How many triplets are remembered, by what they are.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn census(&self) -> Result<Census, StoreError> {
        self.store.census().await
    }

    /// How many triplets are remembered.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn count(&self) -> Result<u64, StoreError> {
        self.store.count().await
    }
}
