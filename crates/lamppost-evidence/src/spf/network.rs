//! Networks that records let send, and how many addresses they are together.

use std::net::IpAddr;

/// A network of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    first: u128,
    last: u128,
    is_v4: bool,
}

impl Network {
    /// The network of this many leading bits that an address is in.
    pub(super) fn of(address: IpAddr, bits: u8) -> Self {
        let (address, width, is_v4) = match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32_u32, true),
            IpAddr::V6(v6) => (v6.to_bits(), 128, false),
        };
        let host_bits = width - u32::from(bits).min(width);
        let hosts = 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
        Self { first: address & !hosts, last: address | hosts, is_v4 }
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        let (address, is_v4) = match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), true),
            IpAddr::V6(v6) => (v6.to_bits(), false),
        };
        is_v4 == self.is_v4 && (self.first..=self.last).contains(&address)
    }
}

/// How many addresses of one family are in any of these networks; all there are is one less than that.
pub(super) fn addresses(networks: &[Network], is_v4: bool) -> u128 {
    let mut ranges: Vec<_> = networks
        .iter()
        .filter(|network| network.is_v4 == is_v4)
        .map(|network| (network.first, network.last))
        .collect();
    ranges.sort_unstable();
    let (mut sum, mut next) = (0_u128, 0_u128);
    for (first, last) in ranges {
        let first = first.max(next);
        if first <= last {
            sum = sum.saturating_add((last - first).saturating_add(1));
            next = last.saturating_add(1);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        let (address, bits) = text.split_once('/').unwrap();
        Network::of(address.parse().unwrap(), bits.parse().unwrap())
    }

    #[test]
    fn addresses_are_counted_once() {
        let check = |texts: &[&str], v4: u128, v6: u128| {
            let networks: Vec<_> = texts.iter().map(|text| network(text)).collect();
            assert_eq!(
                (addresses(&networks, true), addresses(&networks, false)),
                (v4, v6),
                "{texts:?}"
            );
        };
        check(&[], 0, 0);
        check(&["192.0.2.1/32", "192.0.2.1/24", "192.0.2.200/25", "192.0.3.0/24"], 512, 0);
        check(&["0.0.0.0/0", "192.0.2.1/32"], 1 << 32, 0);
        check(&["255.255.255.255/32", "255.255.255.255/32"], 1, 0);
        check(&["2001:db8::/32", "2001:db8:1::/64", "192.0.2.1/32"], 1, 1 << 96);
        check(&["::/0", "::/0"], 0, u128::MAX);
        check(&["192.0.2.1/255"], 1, 0);
    }

    #[test]
    fn a_network_holds_its_own_family_only() {
        let check = |text: &str, address: &str, expected: bool| {
            assert_eq!(
                network(text).contains(address.parse().unwrap()),
                expected,
                "{text} {address}"
            );
        };
        check("192.0.2.77/24", "192.0.2.1", true);
        check("192.0.2.77/24", "192.0.3.1", false);
        check("0.0.0.0/0", "255.255.255.255", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "192.0.2.1", false);
        check("2001:db8::/32", "2001:db8:ffff::", true);
    }

    proptest! {
        #[test]
        fn as_many_are_counted_as_are_held(parts: Vec<(u8, u8)>) {
            let of = |last: u8| IpAddr::from([192, 0, 2, last]);
            let networks: Vec<_> =
                parts.iter().map(|(last, bits)| Network::of(of(*last), 24 + bits % 9)).collect();
            let held = (0..=u8::MAX).filter(|last| networks.iter().any(|one| one.contains(of(*last))));
            prop_assert_eq!(addresses(&networks, true), held.count() as u128);
        }
    }
}
