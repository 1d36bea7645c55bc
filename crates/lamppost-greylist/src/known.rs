//! The triplets that are known to pass, without asking the store.

use std::time::Duration;

use quick_cache::UnitWeighter;
use quick_cache::sync::Cache;
use ring::digest::{SHA256, digest};

use crate::{Record, Triplet};

/// Triplets that are kept at most.
const KNOWN_MAX: u64 = 1_000_000;
/// Triplets that room is made for at first.
const EXPECTED: usize = 10_000;
/// How long the store is not asked again about a triplet: somebody else may have it forgotten there.
const TRUSTED_FOR: Duration = Duration::from_secs(60 * 60);

/// A bounded memory of triplets that passed.
#[derive(Debug)]
pub(crate) struct Known {
    entries: Cache<Name, Entry>,
}

/// A triplet by a digest: a million whole ones would take much memory.
type Name = [u8; 16];

/// Times in seconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// From then on the triplet is new again.
    expires: u32,
    /// From then on the store is asked again.
    trusted_until: u32,
}

impl Default for Known {
    fn default() -> Self {
        Self { entries: Cache::with_weighter(EXPECTED, KNOWN_MAX, UnitWeighter) }
    }
}

impl Known {
    /// Whether a triplet is known to pass.
    pub(crate) fn has(&self, triplet: &Triplet, now: Duration) -> bool {
        let now = seconds(now);
        let entry = self.entries.get(&name(triplet));
        entry.is_some_and(|entry| now < entry.expires.min(entry.trusted_until))
    }

    /// Remembers what the store holds of a triplet, if that passes.
    pub(crate) fn learn(&self, triplet: &Triplet, record: &Record, now: Duration) {
        if record.passed_count > 0 {
            let expires = seconds(record.record_expires);
            let trusted_until = seconds(now + TRUSTED_FOR);
            self.entries.insert(name(triplet), Entry { expires, trusted_until });
        }
    }

    /// Knows none any more.
    pub(crate) fn clear(&self) {
        self.entries.clear();
    }
}

fn name(triplet: &Triplet) -> Name {
    let Triplet { network, sender, recipient } = triplet;
    // No part holds a line end.
    let whole = digest(&SHA256, format!("{network}\n{sender}\n{recipient}").as_bytes());
    let mut name = Name::default();
    let length = name.len();
    name.copy_from_slice(&whole.as_ref()[..length]);
    name
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of memory that this process holds.
    fn pages() -> u64 {
        let told = std::fs::read_to_string("/proc/self/statm").unwrap();
        told.split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn triplets_that_are_known_take_less_than_200_bytes_each() {
        const COUNT: u64 = 500_000;
        const PAGE: u64 = 4096;
        let (before, known) = (pages(), Known::default());
        let now = Duration::from_secs(1_700_000_000);
        let record = Record {
            block_expires: now,
            record_expires: now + Duration::from_secs(3_000_000),
            blocked_count: 1,
            passed_count: 1,
            aborted_count: 0,
        };
        let triplet = |number: u64| Triplet {
            network: "192.0.2.0".into(),
            sender: format!("sender{number}@elsewhere.test"),
            recipient: "me@lamppost.test".into(),
        };
        for number in 0..COUNT {
            known.learn(&triplet(number), &record, now);
        }
        assert!((0..COUNT).filter(|&number| known.has(&triplet(number), now)).count() > 499_000);
        let each = (pages() - before) * PAGE / COUNT;
        assert!(each < 200, "{each} bytes");
    }
}
