//! The networks that a client may count as.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Evidence, ReverseName, SpfResult};

/// How many leading bits of an address make a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Of an IPv4 address, at most 32.
    pub ipv4: u8,
    /// Of an IPv6 address, at most 128.
    pub ipv6: u8,
}

/// All networks that a client counts as, the best known first, and always its addresses' network at the end.
///
/// `spf:example.org` is everybody whom that domain lets send, `name:example.org` everybody with a confirmed name
/// below that domain. A lookup that fails takes away a key and gives no other one: who is known under any of
/// them is known.
pub fn keys(evidence: &Evidence, ip: IpAddr, prefixes: Prefixes) -> Vec<String> {
    let spf = &evidence.spf;
    let authorised = spf.result == SpfResult::Pass && spf.is_narrow && !spf.domain.is_empty();
    let authorised = authorised.then(|| format!("spf:{}", spf.domain));
    let named = match &evidence.name {
        ReverseName::Confirmed(name) if !evidence.is_dynamic => name.domain.as_deref(),
        _ => None,
    };
    let named = named.map(|domain| format!("name:{domain}"));
    let network = network(ip, prefixes).to_string();
    authorised.into_iter().chain(named).chain([network]).collect()
}

/// The first address of the network that an address is in.
fn network(ip: IpAddr, prefixes: Prefixes) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let host_bits = 32 - u32::from(prefixes.ipv4.min(32));
            Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(host_bits).unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            let host_bits = 128 - u32::from(prefixes.ipv6.min(128));
            Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(host_bits).unwrap_or(0)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConfirmedName, Spf};

    fn check(evidence: &Evidence, ip: &str, expected: &[&str]) {
        let prefixes = Prefixes { ipv4: 24, ipv6: 64 };
        assert_eq!(keys(evidence, ip.parse().unwrap(), prefixes), expected, "{evidence:?}");
    }

    #[test]
    fn the_best_known_network_comes_first_and_the_addresses_own_always() {
        let spf = Spf { result: SpfResult::Pass, domain: "a.test".into(), is_narrow: true };
        let name = ReverseName::Confirmed(ConfirmedName::of("mx1.mail.b.test"));
        let all = Evidence { spf, name, ..Evidence::default() };
        let v4 = "192.0.2.77";
        check(&all, v4, &["spf:a.test", "name:b.test", "192.0.2.0"]);
        check(&all, "::ffff:192.0.2.77", &["spf:a.test", "name:b.test", "192.0.2.0"]);
        check(&all, "2001:db8:1:2:3:4:5:6", &["spf:a.test", "name:b.test", "2001:db8:1:2::"]);
        check(&Evidence { is_dynamic: true, ..all.clone() }, v4, &["spf:a.test", "192.0.2.0"]);
        let mut broad = all.clone();
        broad.spf.is_narrow = false;
        check(&broad, v4, &["name:b.test", "192.0.2.0"]);
        for result in SpfResult::ALL.into_iter().filter(|one| *one != SpfResult::Pass) {
            let mut other = all.clone();
            other.spf.result = result;
            check(&other, v4, &["name:b.test", "192.0.2.0"]);
        }
        check(&Evidence::default(), v4, &["192.0.2.0"]);
        let nobody = Evidence { name: ReverseName::Unconfirmed, ..Evidence::default() };
        check(&nobody, v4, &["192.0.2.0"]);
    }

    #[test]
    fn any_prefix_makes_a_network() {
        let network = |ip: &str, ipv4, ipv6| {
            network(ip.parse().unwrap(), Prefixes { ipv4, ipv6 }).to_string()
        };
        assert_eq!(network("192.0.2.77", 32, 0), "192.0.2.77");
        assert_eq!(network("192.0.2.77", 0, 0), "0.0.0.0");
        assert_eq!(network("192.0.2.77", 255, 0), "192.0.2.77");
        assert_eq!(network("2001:db8::1", 0, 128), "2001:db8::1");
        assert_eq!(network("2001:db8::1", 0, 0), "::");
    }
}
