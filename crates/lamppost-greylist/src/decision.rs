//! The decision: pure, with the time given.

use std::time::Duration;

use lamppost_evidence::{Evidence, SpfResult};

use crate::{Adaptive, Algorithm, Change, Life, Policy, Record};

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
    /// The recipient wrote to the sender's domain.
    Answers,
    /// The triplet passed before.
    Known,
    /// Nobody is deferred for this recipient.
    OptedOut,
    /// Nobody is deferred.
    SwitchedOff,
    /// The delay that holds for it is none.
    Unhindered(Rule),
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

/// By what a delay is as long as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// The network misbehaved: `suspect-delay`.
    Demoted,
    /// The client has an address of changing users: `suspect-delay`.
    Dynamic,
    /// The configuration names the domain that SPF or a confirmed name speaks for: `good-delay`.
    GoodDomain,
    /// The client is on lists in the DNS: `suspect-delay`.
    Listed,
    /// Enough triplets of the network passed: `good-delay`.
    Promoted,
    /// The recipient has a delay of its own.
    Recipient,
    /// Nothing is known that says better or worse: `delay`.
    #[default]
    Unknown,
}

impl Rule {
    /// A constant word for logs and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Demoted => "demoted",
            Self::Dynamic => "dynamic",
            Self::GoodDomain => "good-domain",
            Self::Listed => "dns-listed",
            Self::Promoted => "promoted",
            Self::Recipient => "recipient",
            Self::Unknown => "unknown",
        }
    }
}

impl Decision {
    /// A constant word for replies, logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Accept(Why::Allowed) => "allowed",
            Self::Accept(Why::Answers) => "answer",
            Self::Accept(Why::Known) => "known",
            Self::Accept(Why::OptedOut) => "opted-out",
            Self::Accept(Why::SwitchedOff) => "off",
            Self::Accept(Why::Unhindered(rule @ (Rule::GoodDomain | Rule::Promoted))) => {
                rule.name()
            }
            Self::Accept(Why::Unhindered(_)) => "no-delay",
            Self::Accept(Why::Waited { .. }) => "waited",
            Self::Defer(Hold::Blocked { .. }) => "blocked",
            Self::Defer(Hold::New { .. }) => "new",
            Self::Defer(Hold::Early { .. }) => "early",
        }
    }

    /// How long the sender should wait, if it must.
    pub fn retry_in(&self) -> Option<Duration> {
        match *self {
            Self::Accept(_) => None,
            Self::Defer(
                Hold::New { retry_in } | Hold::Early { retry_in } | Hold::Blocked { retry_in },
            ) => Some(retry_in),
        }
    }
}

/// What is at hand when an attempt is decided.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What is known of the client.
    pub evidence: &'a Evidence,
    /// The networks that it counts as.
    pub keys: &'a [String],
    /// What is remembered of its triplet under each of them; also what has expired.
    pub records: &'a [Option<Record>],
    /// What is remembered of each of them as a whole: passed triplets, and misbehaviour as aborted messages.
    pub reputations: &'a [Option<Record>],
    /// What is remembered of mail the other way.
    pub answers: Option<Record>,
    /// How long new triplets to the recipient must wait, if not as long as others.
    pub own_delay: Option<Duration>,
}

/// A decision, and how it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// By what its delay is as long as it is.
    pub rule: Rule,
    /// That delay.
    pub delay: Duration,
    /// Which of the networks had the record that decided, if one had.
    pub winner: Option<usize>,
}

/// Decides whether an attempt may proceed, by what is remembered of its triplet.
///
/// A triplet is deferred until its delay has passed since it was first seen. It passes when it comes back
/// before its record expires, and is known for `policy.lifetime` from then on. Of several networks that the
/// client counts as, any under which it is known counts, or else the one whose wait ends first.
pub fn decide(policy: &Policy, case: &Case<'_>, now: Duration) -> Verdict {
    match &policy.algorithm {
        Algorithm::Adaptive(adaptive) => decide_adaptively((policy, adaptive), case, now),
        Algorithm::Relaydelay => decide_as_relaydelay(policy, case, now),
    }
}

fn decide_adaptively(
    (policy, adaptive): (&Policy, &Adaptive),
    case: &Case<'_>,
    now: Duration,
) -> Verdict {
    let (rule, delay) = rule(policy, adaptive, case, now);
    let winner = winner(case, now);
    let told = |decision| Verdict { decision, rule, delay, winner: winner.map(|(at, _)| at) };
    let record = winner.map(|(_, record)| record);
    if record.is_some_and(|record| record.passed_count > 0) {
        return told(Decision::Accept(Why::Known));
    }
    // A sender whose domain says that it is not from there answers nothing.
    let is_forged = matches!(case.evidence.spf.result, SpfResult::Fail | SpfResult::SoftFail);
    if case.answers.is_some_and(|answers| answers.is_live(now)) && !is_forged {
        return told(Decision::Accept(Why::Answers));
    }
    let Some(record) = record else {
        return told(match delay {
            Duration::ZERO => Decision::Accept(Why::Unhindered(rule)),
            retry_in => Decision::Defer(Hold::New { retry_in }),
        });
    };
    let first = record.record_expires.saturating_sub(policy.retry_window);
    // Rows do not tell when they began: of one that was made with another window, as relaydelay's are, only
    // the wait itself is known.
    let longest = policy.delay.max(adaptive.suspect_delay);
    let is_told = record.block_expires.saturating_sub(first) <= longest;
    let first = if is_told { first } else { record.block_expires.saturating_sub(delay) };
    // Whoever was told how long to wait need not wait longer, whatever is found out later; a delay that is
    // shorter by now counts at once.
    let until = record.block_expires.min(first + delay);
    // A clock that was set back makes nobody wait longer than a new triplet would.
    told(match until.saturating_sub(now).min(delay) {
        Duration::ZERO => Decision::Accept(Why::Waited { since_first: now.saturating_sub(first) }),
        retry_in => Decision::Defer(Hold::Early { retry_in }),
    })
}

/// How long a new triplet must wait, and why.
fn rule(policy: &Policy, adaptive: &Adaptive, case: &Case<'_>, now: Duration) -> (Rule, Duration) {
    let Case { evidence, keys, reputations, own_delay, .. } = case;
    let reputations = || reputations.iter().flatten().filter(|record| record.is_live(now));
    let is_good_domain = || {
        let domain = |key: &String| {
            let domain = key.strip_prefix("spf:").or_else(|| key.strip_prefix("name:"));
            domain.is_some_and(|domain| adaptive.good_domains.iter().any(|good| good == domain))
        };
        keys.iter().any(domain)
    };
    let rule = if is_good_domain() {
        Rule::GoodDomain
    } else if evidence.is_listed {
        Rule::Listed
    } else if reputations().any(|record| adaptive.is_demoted(record)) {
        Rule::Demoted
    } else if reputations().any(|record| adaptive.is_promoted(record)) {
        Rule::Promoted
    } else if evidence.is_dynamic {
        Rule::Dynamic
    } else {
        Rule::Unknown
    };
    match (rule, *own_delay) {
        (Rule::GoodDomain | Rule::Promoted, own) => {
            (rule, own.unwrap_or(adaptive.good_delay).min(adaptive.good_delay))
        }
        (_, Some(own)) => (Rule::Recipient, own),
        (Rule::Unknown, None) => (rule, policy.delay),
        (_, None) => (rule, adaptive.suspect_delay),
    }
}

impl Adaptive {
    /// Whether enough triplets of a network passed.
    fn is_promoted(&self, reputation: &Record) -> bool {
        self.promote_after > 0 && reputation.passed_count >= self.promote_after
    }

    /// Whether a network misbehaved, and more often than not.
    fn is_demoted(&self, reputation: &Record) -> bool {
        let Record { aborted_count, passed_count, .. } = *reputation;
        self.demote_after > 0 && aborted_count >= self.demote_after && aborted_count > passed_count
    }

    /// Whether a network counts as good once one more triplet of it passes.
    pub(crate) fn is_next_promoted(&self, reputation: Option<&Record>, now: Duration) -> bool {
        let passed =
            reputation.filter(|record| record.is_live(now)).map_or(0, |record| record.passed_count);
        self.promote_after > 0 && passed + 1 >= self.promote_after
    }
}

/// The record that counts: one that passed, or else the one whose wait ends first.
fn winner(case: &Case<'_>, now: Duration) -> Option<(usize, Record)> {
    let records = case.records.iter().copied().enumerate();
    let live = records.filter_map(|(at, record)| Some((at, record?)));
    let live = live.filter(|(_, record)| record.is_live(now));
    live.min_by_key(|(_, record)| (record.passed_count == 0, record.block_expires))
}

/// relaydelay goes by whole seconds, and lets pass what is older than its wait, not what is as old.
fn decide_as_relaydelay(policy: &Policy, case: &Case<'_>, now: Duration) -> Verdict {
    let seconds = |time: Duration| Duration::from_secs(time.as_secs());
    let now = seconds(now);
    let own = case.own_delay;
    let delay = seconds(own.unwrap_or(policy.delay));
    let rule = own.map_or(Rule::Unknown, |_| Rule::Recipient);
    let winner = winner(case, now);
    let told = |decision| Verdict { decision, rule, delay, winner: winner.map(|(at, _)| at) };
    let second = Duration::from_secs(1);
    let Some((_, record)) = winner else {
        return told(match delay {
            Duration::ZERO => Decision::Accept(Why::Unhindered(rule)),
            delay => Decision::Defer(Hold::New { retry_in: delay + second }),
        });
    };
    let until = seconds(record.block_expires);
    if now <= until {
        return told(Decision::Defer(Hold::Early { retry_in: until.saturating_sub(now) + second }));
    }
    if record.passed_count > 0 {
        return told(Decision::Accept(Why::Known));
    }
    let since_first = now.saturating_sub(until.saturating_sub(delay));
    told(Decision::Accept(Why::Waited { since_first }))
}

impl Verdict {
    /// What is remembered of an attempt that must wait, or of one that passed; by the record that decided.
    pub fn change(&self, policy: &Policy, seen: Option<&Record>, now: Duration) -> Change {
        let now = match policy.algorithm {
            Algorithm::Adaptive(_) => now,
            Algorithm::Relaydelay => Duration::from_secs(now.as_secs()),
        };
        let blocked = u64::from(matches!(self.decision, Decision::Defer(_)));
        let live = seen.filter(|record| record.is_live(now));
        Change {
            at: now,
            block_expires: live.map_or(now + self.delay, |record| record.block_expires),
            record_expires: live.map_or(now + policy.retry_window, |record| record.record_expires),
            blocked,
            passed: 1 - blocked,
            aborted: 0,
            life: (blocked == 0).then_some(Life::KnownUntil(now + policy.lifetime)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy::by_address(minutes(5), minutes(600), minutes(36 * 24 * 60));

    const fn minutes(minutes: u64) -> Duration {
        Duration::from_secs(minutes * 60)
    }

    /// Decides by addresses alone.
    fn judge(policy: &Policy, seen: Option<&Record>, now: Duration) -> Verdict {
        let case = Case {
            evidence: &Evidence::default(),
            keys: &["192.0.2.0".to_owned()],
            records: &[seen.copied()],
            reputations: &[],
            answers: None,
            own_delay: None,
        };
        decide(policy, &case, now)
    }

    /// Makes attempts at the given minutes; each must be decided as expected.
    #[track_caller]
    fn check(attempts: &[(u64, Decision)]) {
        let mut seen = None;
        for &(at, expected) in attempts {
            // Not at 0, so that a clock can be set back.
            let now = minutes(1_000_000 + at);
            let verdict = judge(&POLICY, seen.as_ref(), now);
            assert_eq!(verdict.decision, expected, "at minute {at}");
            seen = Some(verdict.change(&POLICY, seen.as_ref(), now).on(seen.as_ref()));
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
        let first = minutes(1_000_000);
        let seen = judge(&POLICY, None, first).change(&POLICY, None, first).on(None);
        let at =
            |policy: &Policy, later| judge(policy, Some(&seen), first + minutes(later)).decision;
        let shorter = Policy { delay: minutes(2), ..POLICY };
        assert_eq!(at(&shorter, 1), early(1));
        assert_eq!(at(&shorter, 2), waited(2));
        let none = Policy { delay: Duration::ZERO, ..POLICY };
        assert_eq!(at(&none, 1), waited(1));
        let longer = Policy { delay: minutes(60), ..POLICY };
        assert_eq!(at(&longer, 4), early(1));
        assert_eq!(at(&longer, 5), waited(5));
    }

    #[test]
    fn a_row_with_another_window_waits_as_it_says() {
        let first = minutes(1_000_000);
        // As relaydelay writes them.
        let seen = Record {
            block_expires: first + minutes(58),
            record_expires: first + minutes(5 * 60),
            blocked_count: 1,
            passed_count: 0,
            aborted_count: 0,
        };
        let at = |later| judge(&POLICY, Some(&seen), first + minutes(later)).decision;
        assert_eq!([at(1), at(56), at(58)], [early(5), early(2), waited(5)]);
    }

    proptest! {
        /// Whatever the clock does: nobody waits longer than the delay, nobody who was first seen
        /// passes before it, and whoever waited it out within the window passes.
        #[test]
        fn waiting_is_bounded_both_ways(times in proptest::collection::vec(0_u64..100_000, 1..50)) {
            let mut seen: Option<Record> = None;
            for at in times {
                let now = Duration::from_secs(at);
                let verdict = judge(&POLICY, seen.as_ref(), now);
                match verdict.decision {
                    Decision::Defer(Hold::New { retry_in } | Hold::Early { retry_in }) => {
                        prop_assert!(!retry_in.is_zero() && retry_in <= POLICY.delay);
                    }
                    Decision::Accept(Why::Waited { since_first }) => {
                        prop_assert!(since_first >= POLICY.delay);
                        let seen = seen.unwrap();
                        prop_assert!(now >= seen.block_expires && now < seen.record_expires);
                    }
                    Decision::Accept(Why::Known) => prop_assert!(seen.unwrap().passed_count > 0),
                    Decision::Accept(_) | Decision::Defer(Hold::Blocked { .. }) => {
                        prop_assert!(false);
                    }
                }
                seen = Some(verdict.change(&POLICY, seen.as_ref(), now).on(seen.as_ref()));
            }
        }
    }
}
