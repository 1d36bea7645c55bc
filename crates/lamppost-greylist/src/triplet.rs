//! Who meets whom: the key of the greylist.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Policy;

/// A network, a sender and a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Triplet {
    /// The first address of the client's network, in the usual notation.
    pub network: String,
    /// The sender in lower case; empty for the null sender.
    pub sender: String,
    /// The recipient in lower case.
    pub recipient: String,
}

impl Triplet {
    /// The key of an attempt.
    ///
    /// Large senders come back from a neighbour of the address that they tried first, hence the
    /// network. Some change the case of addresses from one attempt to the next.
    pub fn new(policy: &Policy, peer: IpAddr, sender: &str, recipient: &str) -> Self {
        Self {
            network: network(policy, peer).to_string(),
            sender: sender.to_lowercase(),
            recipient: recipient.to_lowercase(),
        }
    }
}

fn network(policy: &Policy, peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(v4) => {
            let host_bits = 32 - u32::from(policy.ipv4_prefix.min(32));
            Ipv4Addr::from(v4.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            let host_bits = 128 - u32::from(policy.ipv6_prefix.min(128));
            Ipv6Addr::from(v6.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check(peer: &str, expected: &str) {
        let policy = Policy {
            enabled: true,
            delay: Duration::ZERO,
            retry_window: Duration::ZERO,
            lifetime: Duration::ZERO,
            ipv4_prefix: 24,
            ipv6_prefix: 64,
        };
        assert_eq!(network(&policy, peer.parse().unwrap()).to_string(), expected);
    }

    #[test]
    fn neighbours_share_a_network() {
        check("192.0.2.77", "192.0.2.0");
        check("::ffff:192.0.2.77", "192.0.2.0");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
    }
}
