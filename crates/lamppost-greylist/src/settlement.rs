//! What is remembered of what became of messages.

use std::time::Duration;

use crate::{Adaptive, Algorithm, Change, Life, Outcome, Passage, Policy};

impl Policy {
    /// What changes of a triplet that had leave to pass, and of the reputation of its networks.
    pub(crate) fn settled(
        &self,
        passage: &Passage,
        is_null: bool,
        outcome: Outcome,
        now: Duration,
    ) -> (Change, Option<Change>) {
        let (now, adaptive) = match &self.algorithm {
            Algorithm::Adaptive(adaptive) => (now, Some(adaptive)),
            Algorithm::Relaydelay => (Duration::from_secs(now.as_secs()), None),
        };
        let mut change = quiet(now, now);
        match outcome {
            Outcome::Accepted => {
                change.passed = 1;
                // A bounce answers one message: relaydelay has the next one wait again.
                change.life = Some(match adaptive {
                    None if is_null => Life::EndsAt(now),
                    _ => Life::KnownUntil(now + self.lifetime),
                });
            }
            Outcome::Refused => {
                change.aborted = 1;
                change.life = passage.is_first.then_some(Life::EndsAt(now));
            }
        }
        let reputation = adaptive.filter(|adaptive| adaptive.learns_of(outcome, passage));
        let reputation = reputation.map(|adaptive| Change {
            passed: change.passed,
            aborted: change.aborted,
            ..quiet(now, now + adaptive.promote_within)
        });
        (change, reputation)
    }

    /// What changes of the reputation of a network that misbehaved, if that matters.
    pub(crate) fn misbehaviour(&self, now: Duration) -> Option<Change> {
        match &self.algorithm {
            Algorithm::Adaptive(adaptive) if adaptive.demote_after > 0 && self.is_on() => {
                Some(Change { aborted: 1, ..quiet(now, now + adaptive.promote_within) })
            }
            _ => None,
        }
    }

    /// What is remembered of mail that may be answered, if that matters.
    pub(crate) fn opening(&self, now: Duration) -> Option<Change> {
        match &self.algorithm {
            Algorithm::Adaptive(adaptive) if !adaptive.answer_window.is_zero() && self.is_on() => {
                let until = now + adaptive.answer_window;
                Some(Change { life: Some(Life::KnownUntil(until)), ..quiet(now, until) })
            }
            _ => None,
        }
    }
}

impl Adaptive {
    /// Whether what became of a message says something of its networks: each triplet counts for them once.
    fn learns_of(&self, outcome: Outcome, passage: &Passage) -> bool {
        match outcome {
            Outcome::Accepted => self.promote_after > 0 && passage.is_first,
            Outcome::Refused => self.demote_after > 0,
        }
    }
}

/// A change that counts nothing yet.
fn quiet(now: Duration, record_expires: Duration) -> Change {
    Change {
        at: now,
        block_expires: now,
        record_expires,
        blocked: 0,
        passed: 0,
        aborted: 0,
        life: None,
    }
}
