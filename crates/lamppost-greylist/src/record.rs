//! What is remembered of a triplet, and what an attempt changes of it.

use std::time::Duration;

/// What is remembered of a triplet; times are since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Before this the triplet is deferred.
    pub block_expires: Duration,
    /// From this on the triplet is new again.
    pub record_expires: Duration,
    /// How often it was deferred.
    pub blocked_count: u64,
    /// How often it passed.
    pub passed_count: u64,
    /// How often a message of it was refused after it had passed.
    pub aborted_count: u64,
}

/// What one attempt on a triplet changes, or several together.
///
/// Changes are added to what a store holds, so that those of several nodes lose nothing of each other,
/// in whatever order they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When the last of the attempts was made.
    pub at: Duration,
    /// Before this the triplet is deferred, if nothing else is remembered of it.
    pub block_expires: Duration,
    /// From this on it is new again, if nothing else is remembered of it and `life` says no more.
    pub record_expires: Duration,
    /// How often it was deferred.
    pub blocked: u64,
    /// How often it passed.
    pub passed: u64,
    /// How often a message of it was refused after it had passed.
    pub aborted: u64,
    /// Until when it is remembered, if that changes.
    pub life: Option<Life>,
}

/// Until when a triplet is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// At least until then.
    KnownUntil(Duration),
    /// Until then and no longer: it must start over.
    EndsAt(Duration),
}

impl Record {
    /// Whether it counts: the others are as if they were not there.
    pub fn is_live(&self, now: Duration) -> bool {
        now < self.record_expires
    }
}

impl Change {
    /// What is remembered afterwards of a triplet of which this was remembered.
    #[must_use]
    pub fn on(&self, before: Option<&Record>) -> Record {
        // The store's clock may be behind the one that told when the first of the attempts was made.
        let live = before.filter(|record| record.is_live(self.at));
        let record = live.copied().unwrap_or(Record {
            block_expires: self.block_expires,
            record_expires: self.record_expires,
            blocked_count: 0,
            passed_count: 0,
            aborted_count: 0,
        });
        Record {
            // Of two nodes that saw it first at once, the earlier one counts.
            block_expires: record.block_expires.min(self.block_expires),
            record_expires: match self.life {
                None => record.record_expires,
                Some(Life::KnownUntil(until)) => record.record_expires.max(until),
                Some(Life::EndsAt(end)) => end,
            },
            blocked_count: record.blocked_count + self.blocked,
            passed_count: record.passed_count + self.passed,
            aborted_count: record.aborted_count + self.aborted,
        }
    }

    /// Adds what was changed later.
    pub fn add(&mut self, later: Self) {
        let is_over = !self.on(None).is_live(later.at);
        if is_over {
            *self = later;
            return;
        }
        self.at = later.at;
        self.blocked += later.blocked;
        self.passed += later.passed;
        self.aborted += later.aborted;
        self.life = match (self.life, later.life) {
            (Some(Life::KnownUntil(one)), Some(Life::KnownUntil(other))) => {
                Some(Life::KnownUntil(one.max(other)))
            }
            (earlier, later) => later.or(earlier),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Case, Policy, decide};

    const POLICY: Policy = Policy::by_address(
        Duration::from_secs(300),
        Duration::from_secs(36_000),
        Duration::from_secs(100_000),
    );

    proptest! {
        /// Changes that are written together leave what they leave one by one.
        #[test]
        fn changes_add_up(pauses in proptest::collection::vec(0_u64..50_000, 1..30), first in 1_usize..5) {
            let (mut now, mut record) = (Duration::from_secs(1_000_000), None);
            let (mut together, mut before): (Option<Change>, Option<Record>) = (None, None);
            for (count, pause) in pauses.into_iter().enumerate() {
                now += Duration::from_secs(pause);
                let case = Case {
                    evidence: &lamppost_evidence::Evidence::default(),
                    keys: &["192.0.2.0".to_owned()],
                    records: &[record],
                    reputations: &[],
                    answers: None,
                    own_delay: None,
                };
                let verdict = decide(&POLICY, &case, now);
                let change = verdict.change(&POLICY, record.as_ref(), now);
                record = Some(change.on(record.as_ref()));
                if count < first {
                    before = record;
                    continue;
                }
                match &mut together {
                    None => together = Some(change),
                    Some(together) => together.add(change),
                }
            }
            if let Some(together) = together {
                let written = together.on(before.as_ref());
                let live = record.unwrap();
                prop_assert_eq!(written.record_expires, live.record_expires);
                prop_assert_eq!(written.block_expires, live.block_expires);
                prop_assert_eq!(written.passed_count > 0, live.passed_count > 0);
            }
        }
    }
}
