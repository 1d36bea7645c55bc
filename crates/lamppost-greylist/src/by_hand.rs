//! What administrators rule by hand, as the greylist goes by it.

use std::net::IpAddr;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::{Condition, Decision, Greylist, Hold, StoreError, Whom, Why, Wildcard, Wildcards};

/// How long what was read of the store counts: what administrators write there is in force that much later
/// on other nodes.
const READ_EVERY: Duration = Duration::from_secs(30);
/// How long a blocked sender is told to wait, which is never long enough.
const BLOCKED_RETRY: Duration = Duration::from_secs(60 * 60);

/// Wildcards as they were read last, and when that was.
#[derive(Debug, Default)]
pub(crate) struct ByHand {
    wildcards: ArcSwap<Wildcards>,
    read_at: Mutex<Option<Duration>>,
}

impl Greylist {
    /// What an administrator's wildcard says of an attempt.
    pub(crate) fn ruled(&self, peer: IpAddr, recipient: &str, now: Duration) -> Option<Decision> {
        let wildcards = self.by_hand.wildcards.load();
        let (wildcard, allows) = wildcards.find(peer, recipient, now)?;
        Some(if allows {
            Decision::Accept(Why::Allowed)
        } else {
            let retry_in = wildcard.block_expires.saturating_sub(now).min(BLOCKED_RETRY);
            Decision::Defer(Hold::Blocked { retry_in })
        })
    }

    /// Reads the wildcards, unless that was done a moment ago; those that are known stay in force where it
    /// fails.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn read_wildcards(&self, now: Duration) -> Result<(), StoreError> {
        {
            let mut read_at = self.by_hand.read_at.lock();
            // A clock that was set back is no reason to read nothing.
            let is_recent = |at: Duration| now >= at && now < at + READ_EVERY;
            if read_at.is_some_and(is_recent) {
                return Ok(());
            }
            *read_at = Some(now);
        }
        self.read_wildcards_anew(now).await
    }

    async fn read_wildcards_anew(&self, now: Duration) -> Result<(), StoreError> {
        let wildcards = Wildcards::new(self.store.wildcards(now).await?);
        self.by_hand.wildcards.store(wildcards.into());
        Ok(())
    }

    /// The wildcards that are in the store now.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn wildcards(&self, now: Duration) -> Result<Vec<Wildcard>, StoreError> {
        self.store.wildcards(now).await
    }

    /// Writes wildcards, in place of those for the same clients or recipients; here they are in force at
    /// once.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn write_wildcards(
        &self,
        wildcards: Vec<Wildcard>,
        now: Duration,
    ) -> Result<(), StoreError> {
        self.store.write_wildcards(wildcards, now).await?;
        self.read_wildcards_anew(now).await
    }

    /// Forgets wildcards; returns how many.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn forget_wildcards(
        &self,
        whom: Vec<Whom>,
        now: Duration,
    ) -> Result<usize, StoreError> {
        let forgotten = self.store.forget_wildcards(whom).await?;
        self.read_wildcards_anew(now).await?;
        Ok(forgotten)
    }

    /// How the store does.
    pub fn condition(&self) -> Condition {
        self.store.condition()
    }
}
