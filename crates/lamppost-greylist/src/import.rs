//! What other greylists remember, read so that whoever they know need not wait again here.

mod dump;
pub mod postgrey;
pub mod sqlgrey;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

pub use dump::{Dump, DumpProblem, Pair};

use crate::{Change, Life, Policy, Record, Triplet};

/// Whom another greylist lets pass, or has told to come back. Times are since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The client, or the first address of its network.
    pub client: IpAddr,
    /// The sender, empty for the null sender, or `@domain` for all of a domain; nothing where all
    /// senders are meant.
    pub sender: Option<String>,
    /// The recipient; nothing where all are meant.
    pub recipient: Option<String>,
    /// When the first attempt was made.
    pub first: Duration,
    /// When the last attempt was made that counted.
    pub last: Duration,
    /// How often mail passed, as far as that is known; 0 for those that must come back.
    pub passed: u64,
}

/// What became of what another greylist remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many triplets, and networks as a whole, are known better now.
    pub taken: u64,
    /// How many were known as well before.
    pub unchanged: u64,
    /// How many rows say nothing any more, or nothing yet: their time is over, or a whole domain or
    /// network must come back.
    pub left_out: u64,
}

/// Changes that make triplets known as if they had met here, and how many rows make none. `network`
/// names the network of an address.
///
/// Where not one sender and one recipient is meant it counts for the network as a whole.
pub(crate) fn wanted(
    policy: &Policy,
    network: impl Fn(IpAddr) -> String,
    rows: Vec<Remembered>,
    now: Duration,
) -> (HashMap<Triplet, Change>, u64) {
    let (mut all, mut left_out) = (HashMap::<Triplet, Change>::new(), 0);
    for row in rows {
        let Remembered { client, sender, recipient, first, last, passed } = row;
        let network = network(client);
        let (triplet, is_whole) = match (sender, recipient) {
            (Some(sender), Some(recipient)) if !sender.starts_with('@') => {
                let (sender, recipient) = (sender.to_lowercase(), recipient.to_lowercase());
                (Triplet { network, sender, recipient }, true)
            }
            _ => (Triplet::reputation(&network), false),
        };
        let change = Change {
            at: now,
            block_expires: if passed > 0 { first } else { first + policy.delay },
            record_expires: first + policy.retry_window,
            blocked: u64::from(passed == 0),
            passed,
            aborted: 0,
            life: (passed > 0).then_some(Life::KnownUntil(last + policy.lifetime)),
        };
        let is_live = change.on(None).is_live(now);
        if !is_live || (passed == 0 && !is_whole) {
            left_out += 1;
            continue;
        }
        all.entry(triplet).and_modify(|other| *other = both(*other, change)).or_insert(change);
    }
    (all, left_out)
}

/// What two rows say of one triplet, or of one network.
fn both(one: Change, other: Change) -> Change {
    let until = |change: Change| match change.life {
        Some(Life::KnownUntil(until)) => Some(until),
        _ => None,
    };
    let until = until(one).max(until(other));
    let passed = one.passed + other.passed;
    Change {
        block_expires: one.block_expires.min(other.block_expires),
        record_expires: one.record_expires.max(other.record_expires),
        blocked: if passed > 0 { 0 } else { one.blocked.max(other.blocked) },
        passed,
        life: until.map(Life::KnownUntil),
        ..one
    }
}

/// What of a change is not held yet; nothing when all is, so that taking the same twice doubles nothing.
pub(crate) fn missing(wanted: Change, held: Option<&Record>, now: Duration) -> Option<Change> {
    let Some(held) = held.filter(|held| held.is_live(now)) else { return Some(wanted) };
    let missing = Change {
        blocked: if held.passed_count > 0 {
            0
        } else {
            wanted.blocked.saturating_sub(held.blocked_count)
        },
        passed: wanted.passed.saturating_sub(held.passed_count),
        ..wanted
    };
    (missing.on(Some(held)) != *held).then_some(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Greylist, MemoryStore};

    const DAY: Duration = Duration::from_secs(86_400);
    /// When it is imported.
    const NOW: Duration = Duration::from_secs(100 * 86_400);

    fn row(sender: Option<&str>, passed: u64, age: Duration) -> Remembered {
        let (client, at) = ("192.0.2.7".parse().unwrap(), NOW.saturating_sub(age));
        let (sender, recipient) = (sender.map(str::to_owned), Some("You@here.test".to_owned()));
        Remembered { client, sender, recipient, first: at, last: at, passed }
    }

    async fn held(greylist: &Greylist, triplet: &Triplet) -> Option<Record> {
        let all = greylist.list(crate::Filter::default(), None, 100).await.unwrap();
        all.triplets.into_iter().find(|(one, _)| one == triplet).map(|(_, record)| record)
    }

    #[tokio::test]
    async fn who_is_imported_twice_counts_once() {
        let hour = Duration::from_secs(3600);
        let policy = Policy::by_address(hour / 12, 10 * hour, 36 * DAY);
        let greylist = Greylist::new(policy, Box::new(MemoryStore::default()));
        let rows = vec![
            row(Some("Known@one.test"), 1, 30 * DAY),
            row(Some("waits@one.test"), 0, hour),
            row(Some("gone@one.test"), 1, 37 * DAY),
            row(Some("never@one.test"), 0, 11 * hour),
            row(Some("@two.test"), 2, DAY),
            row(None, 5, DAY),
            row(Some("@three.test"), 0, hour),
        ];
        let taken = greylist.take_over(rows.clone(), NOW).await.unwrap();
        assert_eq!(taken, Taken { taken: 3, unchanged: 0, left_out: 3 });
        let triplet = |sender: &str| Triplet {
            network: "192.0.2.0".into(),
            sender: sender.into(),
            recipient: "you@here.test".into(),
        };
        let known = held(&greylist, &triplet("known@one.test")).await.unwrap();
        assert_eq!((known.passed_count, known.record_expires), (1, NOW + 6 * DAY));
        let waiting = held(&greylist, &triplet("waits@one.test")).await.unwrap();
        assert_eq!((waiting.passed_count, waiting.blocked_count), (0, 1));
        assert_eq!(waiting.block_expires, NOW.saturating_sub(hour * 11 / 12));
        let network = held(&greylist, &Triplet::reputation("192.0.2.0")).await.unwrap();
        assert_eq!(network.passed_count, 7);
        let again = greylist.take_over(rows, NOW).await.unwrap();
        assert_eq!(again, Taken { taken: 0, unchanged: 3, left_out: 3 });
        assert_eq!(held(&greylist, &triplet("known@one.test")).await, Some(known));
        // The one that waited has passed there since.
        let since = greylist.take_over(vec![row(Some("waits@one.test"), 1, hour)], NOW).await;
        assert_eq!(since.unwrap().taken, 1);
        let passed = held(&greylist, &triplet("waits@one.test")).await.unwrap();
        assert_eq!((passed.passed_count, passed.blocked_count), (1, 1));
        assert_eq!(passed.record_expires, (NOW + 36 * DAY).saturating_sub(hour));
    }
}
