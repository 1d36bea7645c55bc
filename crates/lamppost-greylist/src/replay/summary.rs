//! What came of all attempts, and what would have with other delays.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use serde::Serialize;

use super::seconds;
use crate::{Attempt, Decision, Hold, Policy, Ruling, Why};

/// Other delays that are tried, in seconds.
const OTHER_DELAYS: [u64; 8] = [60, 120, 300, 600, 900, 1800, 3600, 14_400];

/// What came of all attempts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Recipients that mail was for, each attempt counted.
    pub recipients: u64,
    /// How often each reason decided.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Mail that was delayed and came in: each sender and recipient counts once.
    pub delayed: Waits,
    /// Mail that was deferred and never came in while it could have.
    pub stopped: u64,
    /// Mail that was deferred and could still come in after the last attempt.
    pub waiting: u64,
    /// What other delays would have done, with sender, recipient and network alone.
    pub other_delays: Vec<OtherDelay>,
}

/// How long mail was delayed that came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Waits {
    /// How much mail.
    pub count: u64,
    /// The mean, in seconds.
    pub mean: u64,
    /// What half of it waited at most, in seconds.
    pub median: u64,
    /// What nine tenths waited at most, in seconds.
    pub p90: u64,
    /// The longest, in seconds.
    pub max: u64,
}

/// What another delay would have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OtherDelay {
    /// The delay, in seconds.
    pub delay: u64,
    /// Mail that would have been delayed and have come in.
    pub delayed: u64,
    /// How long it would have been delayed in the mean, in seconds.
    pub mean: u64,
    /// Mail that would never have come in.
    pub stopped: u64,
}

/// What is counted while attempts come.
pub(super) struct Tally {
    recipients: u64,
    reasons: BTreeMap<&'static str, u64>,
    /// Seconds that mail waited which came in.
    waits: Vec<u32>,
    /// Mail that was deferred for the first time.
    deferred: u64,
    last: Duration,
    /// Triplets, by a digest.
    first: HashMap<u128, First>,
    others: [(OtherDelay, u64); OTHER_DELAYS.len()],
    digests: [RandomState; 2],
}

/// A triplet since its first attempt.
#[derive(Clone, Copy)]
struct First {
    at: Duration,
    last: Duration,
    /// The delays after which it came back, one bit each.
    passed: u8,
    /// Whether it was deferred and has not passed yet.
    is_waiting: bool,
}

impl Tally {
    pub(super) fn new() -> Self {
        let others = OTHER_DELAYS.map(|delay| (OtherDelay { delay, ..OtherDelay::default() }, 0));
        Self {
            recipients: 0,
            reasons: BTreeMap::new(),
            waits: Vec::new(),
            deferred: 0,
            last: Duration::ZERO,
            first: HashMap::new(),
            others,
            digests: [RandomState::new(), RandomState::new()],
        }
    }

    /// An attempt was decided.
    pub(super) fn decided(&mut self, attempt: &Attempt<'_>, ruling: &Ruling, now: Duration) {
        self.recipients += 1;
        self.last = self.last.max(now);
        *self.reasons.entry(ruling.decision.reason()).or_default() += 1;
        if let Decision::Defer(Hold::New { .. }) = ruling.decision {
            self.deferred += 1;
        }
        if matches!(ruling.decision, Decision::Accept(Why::OptedOut | Why::SwitchedOff)) {
            return;
        }
        let key = self.digest(attempt);
        let first = First { at: now, last: now, passed: 0, is_waiting: false };
        let first = self.first.entry(key).or_insert(first);
        first.last = now;
        first.is_waiting = ruling.decision.retry_in().is_some();
        let age = now.saturating_sub(first.at);
        for (place, (other, waited)) in self.others.iter_mut().enumerate() {
            let bit = 1 << place;
            if first.passed & bit == 0 && age >= Duration::from_secs(other.delay) {
                first.passed |= bit;
                other.delayed += 1;
                *waited += seconds(age);
            }
        }
    }

    /// A message was taken.
    pub(super) fn taken(&mut self, why: Why) {
        if let Why::Waited { since_first } = why {
            self.waits.push(u32::try_from(since_first.as_secs()).unwrap_or(u32::MAX));
        }
    }

    /// Mail of an account came.
    pub(super) fn authenticated(&mut self, recipients: usize) {
        self.recipients += recipients as u64;
        *self.reasons.entry("authenticated").or_default() += recipients as u64;
    }

    /// Forgets triplets that are new again when they come next.
    pub(super) fn sweep(&mut self, policy: &Policy, now: Duration) {
        let others = &mut self.others;
        self.first.retain(|_, first| {
            let stays = first.stays(policy, now);
            if !stays {
                first.end(others);
            }
            stays
        });
    }

    pub(super) fn summary(&self, policy: &Policy) -> Summary {
        let mut others = self.others;
        let is_open = |first: &First| first.at + policy.retry_window > self.last;
        let waiting =
            self.first.values().filter(|first| first.is_waiting && is_open(first)).count();
        self.first
            .values()
            .filter(|first| !is_open(first))
            .for_each(|first| first.end(&mut others));
        let waits = waits(self.waits.clone());
        let waiting = waiting as u64;
        Summary {
            recipients: self.recipients,
            reasons: self.reasons.clone(),
            delayed: waits,
            stopped: self.deferred.saturating_sub(waits.count + waiting),
            waiting,
            other_delays: others
                .iter()
                .map(|(other, waited)| OtherDelay {
                    mean: waited.checked_div(other.delayed).unwrap_or(0),
                    ..*other
                })
                .collect(),
        }
    }

    /// A triplet's name. Two that share one are too rare to change a count.
    fn digest(&self, attempt: &Attempt<'_>) -> u128 {
        let octets = match attempt.peer {
            std::net::IpAddr::V4(v4) => u128::from(v4.to_bits() >> 8),
            std::net::IpAddr::V6(v6) => v6.to_bits() >> 64,
        };
        let whole = (octets, attempt.sender.to_lowercase(), attempt.recipient.to_lowercase());
        let [high, low] = &self.digests;
        (u128::from(high.hash_one(&whole)) << 64) | u128::from(low.hash_one(&whole))
    }
}

impl First {
    /// Whether it is still known, or may still come back.
    fn stays(&self, policy: &Policy, now: Duration) -> bool {
        let life = if self.passed == 0 { policy.retry_window } else { policy.lifetime };
        self.last + life > now || self.at + policy.retry_window > now
    }

    /// It did not come back after the delays that are left.
    fn end(&self, others: &mut [(OtherDelay, u64)]) {
        for (place, (other, _)) in others.iter_mut().enumerate() {
            other.stopped += u64::from(self.passed & (1 << place) == 0);
        }
    }
}

fn waits(mut all: Vec<u32>) -> Waits {
    all.sort_unstable();
    let at = |tenths: usize| all.get((all.len() * tenths / 10).min(all.len().saturating_sub(1)));
    let at = |tenths| at(tenths).copied().map_or(0, u64::from);
    let sum: u64 = all.iter().copied().map(u64::from).sum();
    let count = all.len() as u64;
    Waits {
        count,
        mean: sum.checked_div(count).unwrap_or(0),
        median: at(5),
        p90: at(9),
        max: all.last().copied().map_or(0, u64::from),
    }
}
