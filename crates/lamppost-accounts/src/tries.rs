//! Wrong passwords: how many there were, from where and for whom.
//!
//! An address that guesses is blocked. An account that is guessed at is blocked too, but not for
//! addresses that its owner has used, or anybody could lock the owner out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::Settings;

/// Entries of each table; when it is full, the oldest half is forgotten.
const ENTRIES_MAX: usize = 20_000;
/// How long an address counts as its owner's after a right password.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What is remembered of wrong and right passwords.
#[derive(Debug)]
pub(crate) struct Tries {
    per_address_max: u32,
    per_account_max: u32,
    window: Duration,
    by_address: HashMap<IpAddr, Failures>,
    by_account: HashMap<String, Failures>,
    /// When an account's right password last came from an address.
    known: HashMap<(String, IpAddr), Duration>,
}

/// Wrong passwords since `since`.
#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Duration,
    count: u32,
}

impl Tries {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            per_address_max: settings.failures_per_address_max,
            per_account_max: settings.failures_per_account_max,
            window: settings.failure_window,
            by_address: HashMap::new(),
            by_account: HashMap::new(),
            known: HashMap::new(),
        }
    }

    /// Whether not even a right password helps now.
    pub(crate) fn is_blocked(&self, peer: IpAddr, name: &str, now: Duration) -> bool {
        let peer = subscriber(peer);
        let recent = |failures: Option<&Failures>| {
            failures.filter(|failures| now < failures.since + self.window).map_or(0, |f| f.count)
        };
        if recent(self.by_address.get(&peer)) >= self.per_address_max {
            return true;
        }
        let known = self.known.get(&(name.to_owned(), peer));
        recent(self.by_account.get(name)) >= self.per_account_max
            && known.is_none_or(|&at| now >= at + KNOWN_FOR)
    }

    /// How many addresses and how many accounts are blocked now.
    pub(crate) fn blocked(&self, now: Duration) -> (usize, usize) {
        let blocked = |failures: &Failures, most: u32| {
            failures.count >= most && now < failures.since + self.window
        };
        let of_address = |failures: &&Failures| blocked(failures, self.per_address_max);
        let of_account = |failures: &&Failures| blocked(failures, self.per_account_max);
        (
            self.by_address.values().filter(of_address).count(),
            self.by_account.values().filter(of_account).count(),
        )
    }

    /// Remembers a wrong password.
    pub(crate) fn failed(&mut self, peer: IpAddr, name: &str, now: Duration) {
        let window = self.window;
        let count = |failures: &mut Failures| {
            if now >= failures.since + window {
                *failures = Failures { since: now, count: 0 };
            }
            failures.count += 1;
        };
        let none = Failures { since: now, count: 0 };
        make_room(&mut self.by_address, |failures| failures.since);
        count(self.by_address.entry(subscriber(peer)).or_insert(none));
        make_room(&mut self.by_account, |failures| failures.since);
        count(self.by_account.entry(name.to_owned()).or_insert(none));
    }

    /// Remembers a right password.
    pub(crate) fn succeeded(&mut self, peer: IpAddr, name: &str, now: Duration) {
        make_room(&mut self.known, |&at| at);
        self.known.insert((name.to_owned(), subscriber(peer)), now);
    }
}

/// Forgets the older half of a full table.
fn make_room<K, V>(table: &mut HashMap<K, V>, age: impl Fn(&V) -> Duration) {
    if table.len() < ENTRIES_MAX {
        return;
    }
    let mut ages: Vec<_> = table.values().map(&age).collect();
    let (_, &mut middle, _) = ages.select_nth_unstable(ENTRIES_MAX / 2);
    let mut excess = ENTRIES_MAX / 2;
    table.retain(|_, value| {
        let keep = age(value) > middle || excess == 0;
        excess -= usize::from(!keep);
        keep
    });
}

/// The unit that a subscriber has: an IPv4 address, or an IPv6 /64.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_passwords_are_forgotten_after_the_window() {
        let settings = Settings { failures_per_address_max: 1, ..Settings::default() };
        let mut tries = Tries::new(&settings);
        let peer = "2001:db8::1".parse().unwrap();
        let neighbour = "2001:db8::2".parse().unwrap();
        let now = Duration::from_secs(1000);
        tries.failed(peer, "demo", now);
        assert!(tries.is_blocked(neighbour, "other", now));
        assert_eq!(tries.blocked(now), (1, 0));
        assert!(!tries.is_blocked(peer, "other", now + settings.failure_window));
        assert_eq!(tries.blocked(now + settings.failure_window), (0, 0));
    }

    #[test]
    fn tables_never_grow_beyond_their_limit() {
        let mut tries = Tries::new(&Settings::default());
        for number in 0..3 * ENTRIES_MAX {
            let peer = IpAddr::V4(u32::try_from(number).unwrap().into());
            tries.failed(peer, &number.to_string(), Duration::from_secs(1));
            tries.succeeded(peer, "demo", Duration::from_secs(number as u64));
            assert!(tries.by_address.len() <= ENTRIES_MAX);
        }
        assert!(tries.by_account.len() <= ENTRIES_MAX && tries.known.len() <= ENTRIES_MAX);
    }
}
