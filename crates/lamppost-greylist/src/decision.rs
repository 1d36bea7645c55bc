//! The decision: pure, with the time given.

use std::time::Duration;

use crate::{Change, Life, Record};

/// By what an attempt is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether anybody is deferred at all.
    pub enabled: bool,
    /// How long a new triplet must wait.
    pub delay: Duration,
    /// How long after its first attempt a triplet may come back before it counts as new again.
    pub retry_window: Duration,
    /// How long a triplet that passed is known; each pass begins it anew.
    pub lifetime: Duration,
    /// How many leading bits of an IPv4 address make its network, at most 32.
    pub ipv4_prefix: u8,
    /// How many leading bits of an IPv6 address make its network, at most 128.
    pub ipv6_prefix: u8,
}

/// Whether an attempt may proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Accept(Why),
    /// It may not yet.
    Defer(Hold),
}

/// Why an attempt may proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// An administrator wrote so.
    Allowed,
    /// The triplet passed before.
    Known,
    /// Nobody is deferred.
    SwitchedOff,
    /// The triplet came back after its delay.
    Waited {
        /// How long after its first attempt.
        since_first: Duration,
    },
}

/// Why an attempt may not proceed yet, and how long the sender should wait; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// An administrator wrote so.
    Blocked {
        /// How long to wait.
        retry_in: Duration,
    },
    /// The triplet was not seen before, or so long ago that it counts as new.
    New {
        /// How long to wait.
        retry_in: Duration,
    },
    /// The triplet came back before its delay was over.
    Early {
        /// How long to wait.
        retry_in: Duration,
    },
}

impl Decision {
    /// A constant word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Accept(Why::Allowed) => "allowed",
            Self::Accept(Why::Known) => "known",
            Self::Accept(Why::SwitchedOff) => "off",
            Self::Accept(Why::Waited { .. }) => "waited",
            Self::Defer(Hold::Blocked { .. }) => "blocked",
            Self::Defer(Hold::New { .. }) => "new",
            Self::Defer(Hold::Early { .. }) => "early",
        }
    }
}

/// Decides whether an attempt may proceed, by what is remembered of its triplet.
///
/// A triplet is deferred until `policy.delay` has passed since it was first seen. It passes when it
/// comes back before its record expires, and is known for `policy.lifetime` from then on.
pub fn decide(policy: &Policy, seen: Option<&Record>, now: Duration) -> Decision {
    if !policy.enabled {
        return Decision::Accept(Why::SwitchedOff);
    }
    let Some(record) = seen.filter(|record| record.is_live(now)) else {
        return match policy.delay {
            Duration::ZERO => Decision::Accept(Why::Waited { since_first: Duration::ZERO }),
            retry_in => Decision::Defer(Hold::New { retry_in }),
        };
    };
    if record.passed_count > 0 {
        return Decision::Accept(Why::Known);
    }
    // A delay that was made shorter since, or a clock that was set back, makes nobody wait longer
    // than a new triplet would.
    match record.block_expires.saturating_sub(now).min(policy.delay) {
        Duration::ZERO => {
            // With another delay since then this is as near as can be told.
            let first = record.block_expires.saturating_sub(policy.delay);
            Decision::Accept(Why::Waited { since_first: now.saturating_sub(first) })
        }
        retry_in => Decision::Defer(Hold::Early { retry_in }),
    }
}

impl Decision {
    /// What is remembered of the attempt that was decided so, by what was remembered before.
    pub fn change(&self, policy: &Policy, seen: Option<&Record>, now: Duration) -> Change {
        let blocked = u64::from(matches!(self, Self::Defer(_)));
        let live = seen.filter(|record| record.is_live(now));
        Change {
            at: now,
            block_expires: live.map_or(now + policy.delay, |record| record.block_expires),
            record_expires: live.map_or(now + policy.retry_window, |record| record.record_expires),
            blocked,
            passed: 1 - blocked,
            aborted: 0,
            life: matches!(self, Self::Accept(_))
                .then_some(Life::KnownUntil(now + policy.lifetime)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy {
        enabled: true,
        delay: minutes(5),
        retry_window: minutes(600),
        lifetime: minutes(36 * 24 * 60),
        ipv4_prefix: 24,
        ipv6_prefix: 64,
    };

    const fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(minutes * 60)
    }

    /// Makes attempts at the given minutes; each must be decided as expected.
    #[track_caller]
    fn check(attempts: &[(u64, Decision)]) {
        let mut seen = None;
        for &(at, expected) in attempts {
            // Not at 0, so that a clock can be set back.
            let now = minutes(1_000_000 + at);
            let decision = decide(&POLICY, seen.as_ref(), now);
            assert_eq!(decision, expected, "at minute {at}");
            seen = Some(decision.change(&POLICY, seen.as_ref(), now).on(seen.as_ref()));
        }
    }

    fn new() -> Decision {
        Decision::Defer(Hold::New { retry_in: POLICY.delay })
    }

    fn early(minutes_left: u64) -> Decision {
        Decision::Defer(Hold::Early { retry_in: minutes(minutes_left) })
    }

    fn waited(since_first: u64) -> Decision {
        Decision::Accept(Why::Waited { since_first: minutes(since_first) })
    }

    const KNOWN: Decision = Decision::Accept(Why::Known);

    #[test]
    fn a_triplet_waits_once() {
        check(&[(0, new()), (1, early(4)), (7, waited(7)), (8, KNOWN), (9, KNOWN)]);
    }

    #[test]
    fn who_comes_back_too_late_is_new() {
        check(&[(0, new()), (600, new()), (605, waited(5))]);
    }

    #[test]
    fn passing_refreshes_the_lifetime() {
        let day = 24 * 60;
        check(&[
            (0, new()),
            (5, waited(5)),
            (35 * day, KNOWN),
            (70 * day, KNOWN),
            (107 * day, new()),
        ]);
    }

    #[test]
    fn a_delay_made_shorter_counts_at_once() {
        let seen = new().change(&POLICY, None, minutes(100)).on(None);
        let shorter = Policy { delay: minutes(1), ..POLICY };
        assert_eq!(decide(&shorter, Some(&seen), minutes(101)), early(1));
        let none = Policy { delay: Duration::ZERO, ..POLICY };
        assert!(matches!(
            decide(&none, Some(&seen), minutes(101)),
            Decision::Accept(Why::Waited { .. })
        ));
    }

    proptest! {
        /// Whatever the clock does: nobody waits longer than the delay, nobody who was first seen
        /// passes before it, and whoever waited it out within the window passes.
        #[test]
        fn waiting_is_bounded_both_ways(times in proptest::collection::vec(0_u64..100_000, 1..50)) {
            let mut seen: Option<Record> = None;
            for at in times {
                let now = Duration::from_secs(at);
                let decision = decide(&POLICY, seen.as_ref(), now);
                match decision {
                    Decision::Defer(Hold::New { retry_in } | Hold::Early { retry_in }) => {
                        prop_assert!(!retry_in.is_zero() && retry_in <= POLICY.delay);
                    }
                    Decision::Accept(Why::Waited { since_first }) => {
                        prop_assert!(since_first >= POLICY.delay);
                        let seen = seen.unwrap();
                        prop_assert!(now >= seen.block_expires && now < seen.record_expires);
                    }
                    Decision::Accept(Why::Known) => prop_assert!(seen.unwrap().passed_count > 0),
                    Decision::Accept(Why::SwitchedOff | Why::Allowed)
                    | Decision::Defer(Hold::Blocked { .. }) => prop_assert!(false),
                }
                seen = Some(decision.change(&POLICY, seen.as_ref(), now).on(seen.as_ref()));
            }
        }
    }
}
