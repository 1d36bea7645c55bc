//! The greylist: a policy that can change while it is asked, and a store.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::by_hand::ByHand;
use crate::known::Known;
use crate::log::Log;
use crate::unwritten::Unwritten;
use crate::{
    Census, Decision, Filter, Page, Policy, Record, Store, StoreError, Triplet, Why, decide,
};

/// Records that are swept out in one go; the store answers attempts between.
const EXPIRE_AT_ONCE: usize = 1000;
/// Triplets whose changes wait to be written, before those who change more write themselves.
const UNWRITTEN_MAX: usize = 10_000;

/// Who must come back later.
pub struct Greylist {
    policy: ArcSwap<Policy>,
    pub(crate) store: Box<dyn Store>,
    known: Known,
    unwritten: Mutex<Unwritten>,
    pub(crate) by_hand: ByHand,
    pub(crate) log: Log,
    /// One writes at a time.
    writer: tokio::sync::Mutex<()>,
}

impl Greylist {
    /// How often [`Self::write`] should be called: what was decided since then is lost with the process.
    pub const WRITE_EVERY: Duration = Duration::from_millis(500);

    /// A greylist over a store.
    pub fn new(policy: Policy, store: Box<dyn Store>) -> Self {
        Self {
            policy: ArcSwap::from_pointee(policy),
            store,
            known: Known::default(),
            unwritten: Mutex::default(),
            by_hand: ByHand::default(),
            log: Log::default(),
            writer: tokio::sync::Mutex::default(),
        }
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
        if let Some(decision) = self.ruled(peer, recipient, now) {
            return Ok(decision);
        }
        let triplet = Triplet::new(&policy, peer, sender, recipient);
        if self.unwritten.lock().len() >= UNWRITTEN_MAX {
            self.write().await?;
        }
        if self.known.has(&triplet, now) {
            let decision = Decision::Accept(Why::Known);
            self.unwritten.lock().add(triplet, decision.change(&policy, None, now));
            return Ok(decision);
        }
        let writing = self.unwritten.lock().writing();
        let seen = self.store.look(vec![triplet.clone()], now).await?;
        // From here on no other attempt on the same triplet comes between.
        let mut unwritten = self.unwritten.lock();
        let shown = seen.records.into_iter().next().flatten();
        let record = unwritten.on(&triplet, shown, &writing);
        let decision = decide(&policy, record.as_ref(), seen.now);
        let change = decision.change(&policy, record.as_ref(), seen.now);
        self.known.learn(&triplet, &change.on(record.as_ref()), now);
        unwritten.add(triplet, change);
        Ok(decision)
    }

    /// Writes what was decided since the last time; returns of how many triplets.
    ///
    /// # Errors
    /// When the store takes nothing: it waits for the next time.
    pub async fn write(&self) -> Result<usize, StoreError> {
        let _alone = self.writer.lock().await;
        let Some(changes) = self.unwritten.lock().begin() else { return Ok(0) };
        let count = changes.len();
        let done = self.store.apply(changes).await;
        let mut unwritten = self.unwritten.lock();
        match done {
            Ok(()) => unwritten.written(),
            Err(error) => {
                unwritten.failed();
                return Err(error);
            }
        }
        Ok(count)
    }

    /// Forgets all triplets whose record has expired; returns how many.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn expire(&self, now: Duration) -> Result<usize, StoreError> {
        self.write().await?;
        let mut expired = 0;
        loop {
            let some = self.store.expire(now, EXPIRE_AT_ONCE).await?;
            expired += some;
            if some < EXPIRE_AT_ONCE {
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
        self.write().await?;
        let policy = **self.policy.load();
        let triplet = Triplet::new(&policy, peer, sender, recipient);
        let seen = self.store.look(vec![triplet.clone()], now).await?;
        let record = seen.records.into_iter().next().flatten();
        let decision = self
            .ruled(peer, recipient, now)
            .unwrap_or_else(|| decide(&policy, record.as_ref(), seen.now));
        Ok((triplet, record, decision))
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
        after: Option<String>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.write().await?;
        self.store.list(filter, after, limit).await
    }

    /// Forgets all triplets that are meant; returns how many.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn forget(&self, filter: Filter) -> Result<usize, StoreError> {
        self.write().await?;
        let mut forgotten = 0;
        loop {
            let some = self.store.forget(filter.clone(), EXPIRE_AT_ONCE).await?;
            forgotten += some;
            if some < EXPIRE_AT_ONCE {
                // After the store forgot them, so that no look brings one back.
                self.known.clear();
                return Ok(forgotten);
            }
        }
    }

    /// How many triplets are remembered, by what they are.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn census(&self) -> Result<Census, StoreError> {
        self.write().await?;
        self.store.census().await
    }
}
