//! How many sessions there may be at once, in all and from one client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts open sessions; clones count together.
#[derive(Clone, Debug)]
pub struct SessionLimits {
    total_max: usize,
    per_address_max: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    /// Only clients with open sessions are here, so there are never more than `total_max`.
    by_client: HashMap<Client, usize>,
}

/// Who has sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client {
    /// Who comes from an address.
    Address(IpAddr),
    /// A user of this machine.
    User(u32),
}

/// The right to one session, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    limits: SessionLimits,
    client: Client,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// All sessions together.
    #[error("too many sessions in all (sessions-max)")]
    InAll,
    /// The sessions of one address, of one IPv6 /64 or of one user of this machine.
    #[error("too many sessions from this client (sessions-per-address-max)")]
    FromAddress,
}

impl SessionLimits {
    /// Limits that nobody uses yet.
    pub fn new(total_max: usize, per_address_max: usize) -> Self {
        Self { total_max, per_address_max, open: Arc::default() }
    }

    /// Admits one more session.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(&self, address: IpAddr) -> Result<Permit, TooMany> {
        self.admit_client(Client::Address(subscriber(address)))
    }

    /// Admits one more session of a user of this machine.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit_user(&self, uid: u32) -> Result<Permit, TooMany> {
        self.admit_client(Client::User(uid))
    }

    fn admit_client(&self, client: Client) -> Result<Permit, TooMany> {
        let mut open = self.open.lock();
        if open.total >= self.total_max {
            return Err(TooMany::InAll);
        }
        let from_client = open.by_client.get(&client).copied().unwrap_or(0);
        if from_client >= self.per_address_max {
            return Err(TooMany::FromAddress);
        }
        open.by_client.insert(client, from_client + 1);
        open.total += 1;
        Ok(Permit { limits: self.clone(), client })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock();
        open.total -= 1;
        if let Some(count) = open.by_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.by_client.remove(&self.client);
            }
        }
    }
}

/// The unit that a subscriber has: an IPv4 address, or an IPv6 /64 (RFC 6177).
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

    fn admit(limits: &SessionLimits, address: &str) -> Result<Permit, TooMany> {
        limits.admit(address.parse().unwrap())
    }

    #[test]
    fn each_limit_is_reached_and_given_back() {
        let limits = SessionLimits::new(3, 2);
        let first = admit(&limits, "192.0.2.1").unwrap();
        let _second = admit(&limits, "192.0.2.1").unwrap();
        assert_eq!(admit(&limits, "192.0.2.1").unwrap_err(), TooMany::FromAddress);
        let _third = admit(&limits, "192.0.2.2").unwrap();
        assert_eq!(admit(&limits, "192.0.2.3").unwrap_err(), TooMany::InAll);
        drop(first);
        admit(&limits, "192.0.2.1").unwrap();
        assert_eq!(limits.open.lock().by_client.len(), 2);
    }

    #[test]
    fn a_subscriber_has_all_addresses_of_its_64() {
        let limits = SessionLimits::new(9, 1);
        let _first = admit(&limits, "2001:db8::1").unwrap();
        assert_eq!(admit(&limits, "2001:db8::2").unwrap_err(), TooMany::FromAddress);
        admit(&limits, "2001:db8:0:1::1").unwrap();
    }

    #[test]
    fn users_of_this_machine_count_apart_from_its_addresses() {
        let limits = SessionLimits::new(9, 1);
        let _first = limits.admit_user(33).unwrap();
        assert_eq!(limits.admit_user(33).unwrap_err(), TooMany::FromAddress);
        let _second = limits.admit_user(34).unwrap();
        admit(&limits, "127.0.0.1").unwrap();
    }
}
