//! The decision: pure, with the time given.

use std::time::Duration;

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
}

/// Whether an attempt may proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Accept(Why),
    /// It may not yet.
    Defer {
        /// How long the sender should wait; never zero.
        retry_in: Duration,
    },
}

/// Why an attempt may proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The triplet passed before.
    Known,
    /// Nobody is deferred.
    SwitchedOff,
    /// The triplet came back after its delay.
    Waited,
}

/// Decides whether an attempt may proceed.
///
/// A triplet is deferred until `policy.delay` has passed since it was first seen. It passes when it
/// comes back before its record expires, and is known for `policy.lifetime` from then on.
pub fn decide(policy: &Policy, seen: Option<&Record>, now: Duration) -> Decision {
    if !policy.enabled {
        return Decision::Accept(Why::SwitchedOff);
    }
    let Some(record) = seen.filter(|record| now < record.record_expires) else {
        return wait(policy.delay);
    };
    if record.passed_count > 0 {
        return Decision::Accept(Why::Known);
    }
    // A delay that was made shorter since, or a clock that was set back, makes nobody wait longer
    // than a new triplet would.
    wait(record.block_expires.saturating_sub(now).min(policy.delay))
}

fn wait(retry_in: Duration) -> Decision {
    if retry_in.is_zero() { Decision::Accept(Why::Waited) } else { Decision::Defer { retry_in } }
}

impl Record {
    /// What is remembered after an attempt that was decided so.
    #[must_use]
    pub fn after(policy: &Policy, seen: Option<&Self>, decision: Decision, now: Duration) -> Self {
        let new = Self {
            block_expires: now + policy.delay,
            record_expires: now + policy.retry_window,
            blocked_count: 0,
            passed_count: 0,
        };
        let known = seen.copied().filter(|record| now < record.record_expires).unwrap_or(new);
        match decision {
            Decision::Accept(_) => Self {
                record_expires: now + policy.lifetime,
                passed_count: known.passed_count + 1,
                ..known
            },
            Decision::Defer { .. } => Self { blocked_count: known.blocked_count + 1, ..known },
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
            seen = Some(Record::after(&POLICY, seen.as_ref(), decision, now));
        }
    }

    fn defer(minutes_left: u64) -> Decision {
        Decision::Defer { retry_in: minutes(minutes_left) }
    }

    const WAITED: Decision = Decision::Accept(Why::Waited);
    const KNOWN: Decision = Decision::Accept(Why::Known);

    #[test]
    fn a_triplet_waits_once() {
        check(&[(0, defer(5)), (1, defer(4)), (5, WAITED), (6, KNOWN), (7, KNOWN)]);
    }

    #[test]
    fn who_comes_back_too_late_is_new() {
        check(&[(0, defer(5)), (600, defer(5)), (605, WAITED)]);
    }

    #[test]
    fn passing_refreshes_the_lifetime() {
        let day = 24 * 60;
        check(&[
            (0, defer(5)),
            (5, WAITED),
            (35 * day, KNOWN),
            (70 * day, KNOWN),
            (107 * day, defer(5)),
        ]);
    }

    #[test]
    fn a_delay_made_shorter_counts_at_once() {
        let seen = Record::after(&POLICY, None, defer(5), minutes(100));
        let shorter = Policy { delay: minutes(1), ..POLICY };
        assert_eq!(decide(&shorter, Some(&seen), minutes(101)), defer(1));
        let none = Policy { delay: Duration::ZERO, ..POLICY };
        assert_eq!(decide(&none, Some(&seen), minutes(101)), WAITED);
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
                    Decision::Defer { retry_in } => {
                        prop_assert!(!retry_in.is_zero() && retry_in <= POLICY.delay);
                    }
                    Decision::Accept(Why::Waited) => {
                        let seen = seen.unwrap();
                        prop_assert!(now >= seen.block_expires && now < seen.record_expires);
                    }
                    Decision::Accept(Why::Known) => prop_assert!(seen.unwrap().passed_count > 0),
                    Decision::Accept(Why::SwitchedOff) => prop_assert!(false),
                }
                seen = Some(Record::after(&POLICY, seen.as_ref(), decision, now));
            }
        }
    }
}
