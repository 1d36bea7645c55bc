//! A range of addresses.

use std::net::IpAddr;

/// All addresses that share a prefix.
///
/// An IPv4 address that came mapped into IPv6 counts as IPv4 (RFC 4291 §2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network of `address` with so many leading bits; nothing when there are not so many.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then(|| Self { address: mask(address, prefix), prefix })
    }

    /// Whether the address is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && mask(address, self.prefix) == self.address
    }
}

/// The address with all bits behind the prefix cleared.
fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(network: &str, prefix: u8, address: &str, contained: bool) {
        let network = Network::new(network.parse().unwrap(), prefix).unwrap();
        assert_eq!(network.contains(address.parse().unwrap()), contained, "{network:?} {address}");
    }

    #[test]
    fn prefixes_decide() {
        check("192.0.2.77", 24, "192.0.2.1", true);
        check("192.0.2.0", 24, "192.0.3.1", false);
        check("0.0.0.0", 0, "203.0.113.9", true);
        check("192.0.2.1", 32, "192.0.2.2", false);
        check("2001:db8::", 64, "2001:db8::1", true);
        check("2001:db8::", 64, "2001:db8:0:1::1", false);
        check("::", 0, "192.0.2.1", false);
        check("192.0.2.0", 24, "::ffff:192.0.2.1", true);
    }

    #[test]
    fn a_prefix_longer_than_the_address_is_none() {
        assert_eq!(Network::new("192.0.2.1".parse().unwrap(), 33), None);
    }
}
