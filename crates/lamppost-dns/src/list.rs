//! Lists of addresses in the DNS (RFC 5782): how one is asked about an address, and what its answers mean.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use crate::LookupError;

/// The entry that no list may have (RFC 5782 §5).
pub const NEVER_LISTED: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// The entry that every list has.
pub const ALWAYS_LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Answers by which lists tell that they do not answer whoever asks: too often, or by a public resolver.
const REFUSALS: [u8; 3] = [127, 255, 255];

/// The name that is looked up (RFC 5782 §2.1, §2.4).
pub fn name(address: IpAddr, zone: &str) -> String {
    let mut name = String::with_capacity(64 + zone.len());
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            let _infallible = write!(name, "{d}.{c}.{b}.{a}.");
        }
        IpAddr::V6(v6) => {
            for octet in v6.octets().iter().rev() {
                let _infallible = write!(name, "{:x}.{:x}.", octet & 0xf, octet >> 4);
            }
        }
    }
    name + zone
}

/// What answers mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The address is not on the list, or not in a way that counts.
    Absent,
    /// It is.
    Listed,
    /// No list answers so; why.
    Wrong(String),
}

/// What the answers of a list mean of which these count.
pub fn meaning(answers: &[Ipv4Addr], counted: &[RangeInclusive<Ipv4Addr>]) -> Meaning {
    if let Some(answer) = answers.iter().find(|answer| !answer.is_loopback()) {
        return Meaning::Wrong(format!(
            "it answers {answer}, as no list does: the name servers or the zone's owner are not what they were"
        ));
    }
    if let Some(answer) = answers.iter().find(|answer| answer.octets().starts_with(&REFUSALS)) {
        return Meaning::Wrong(format!(
            "it refuses to answer this server ({answer}): it may want a name server of this host's own, or a key"
        ));
    }
    if answers.iter().any(|answer| counted.iter().any(|range| range.contains(answer))) {
        Meaning::Listed
    } else {
        Meaning::Absent
    }
}

/// What the test entries of a list tell (RFC 5782 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// It lists those that it must, and no others.
    Passed,
    /// It does not list the one that it must: it may list nobody any more.
    Empty,
    /// It lists the one that it must not, and so everybody.
    ListsAll,
    /// It cannot be told: the list does not answer.
    Unknown(LookupError),
}

impl Test {
    /// By the answers for [`NEVER_LISTED`] and for [`ALWAYS_LISTED`].
    pub fn of(
        never: Result<Vec<Ipv4Addr>, LookupError>,
        always: Result<Vec<Ipv4Addr>, LookupError>,
    ) -> Self {
        match (never, always) {
            (Ok(never), _) if !never.is_empty() => Self::ListsAll,
            (Ok(_), Ok(always)) if always.is_empty() => Self::Empty,
            (Ok(_), Ok(_)) => Self::Passed,
            (Err(error), _) | (_, Err(error)) => Self::Unknown(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_the_standard() {
        let check = |address: &str, expected: &str| {
            assert_eq!(name(address.parse().unwrap(), "bad.example"), expected);
        };
        check("192.0.2.99", "99.2.0.192.bad.example");
        check("::ffff:192.0.2.99", "99.2.0.192.bad.example");
        check(
            "2001:db8:1:2:3:4:567:89ab",
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bad.example",
        );
    }

    #[test]
    fn answers_that_no_list_gives_are_told() {
        let all = [Ipv4Addr::new(127, 0, 0, 0)..=Ipv4Addr::new(127, 255, 255, 255)];
        let wrong = |answer: &str| match meaning(&[ALWAYS_LISTED, answer.parse().unwrap()], &all) {
            Meaning::Wrong(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(wrong("192.0.2.1").contains("answers 192.0.2.1"));
        assert!(wrong("127.255.255.254").contains("refuses to answer this server"));
    }

    proptest! {
        /// Read backwards, a name is the address again, and it fits into the DNS.
        #[test]
        fn every_address_has_a_name_of_its_own(bits: u128, v4: Option<u32>, label in "[a-z0-9]{1,63}") {
            let v4 = v4.map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)));
            let address = v4.unwrap_or(IpAddr::from(bits.to_be_bytes()));
            let zone = [label.as_str(); 3].join(".");
            let zone = &zone[..zone.len().min(189)];
            let name = name(address, zone);
            prop_assert!(name.len() <= 253 && name.split('.').all(|label| label.len() <= 63));
            let labels: Vec<_> = name.strip_suffix(zone).unwrap().trim_end_matches('.').rsplit('.').collect();
            let read: IpAddr = match address.to_canonical() {
                IpAddr::V4(_) => labels.join(".").parse().unwrap(),
                IpAddr::V6(_) => {
                    let groups: Vec<_> = labels.chunks(4).map(<[&str]>::concat).collect();
                    groups.join(":").parse().unwrap()
                }
            };
            prop_assert_eq!(read, address.to_canonical());
        }

        /// An address is listed exactly when one of its answers is in a range.
        #[test]
        fn answers_count_when_a_range_holds_them(
            answers in prop::collection::vec(0_u32..0xff_fe00, 0..4),
            ranges in prop::collection::vec((0_u32..0xff_ffff, 0_u32..0x1_0000), 0..4),
        ) {
            let of = |low: u32| Ipv4Addr::from_bits(0x7f00_0000 | low);
            let answers: Vec<_> = answers.into_iter().map(of).collect();
            let ranges: Vec<_> = ranges.into_iter()
                .map(|(first, more)| of(first)..=of((first + more).min(0xff_ffff))).collect();
            let is_listed = answers.iter().any(|answer| {
                ranges.iter().any(|range| range.start() <= answer && answer <= range.end())
            });
            let expected = if is_listed { Meaning::Listed } else { Meaning::Absent };
            prop_assert_eq!(meaning(&answers, &ranges), expected);
        }
    }
}
