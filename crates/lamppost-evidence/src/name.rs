//! Names of clients: whether one is confirmed, under whose domain it is, and whether it is one that providers
//! give to addresses of changing users.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use psl::Psl as _;

/// The name of a client, as far as it proves something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReverseName {
    /// Its address is among those of the name that it has.
    Confirmed(ConfirmedName),
    /// It has no name, or none that leads back to it.
    Unconfirmed,
    /// It could not be found out.
    #[default]
    Unknown,
}

/// A name that leads to the client's address, which leads to the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmedName {
    /// The name in lower case.
    pub name: String,
    /// The domain that somebody registered, which it is below; nothing where the name is itself one below
    /// which others register.
    pub domain: Option<String>,
}

impl ConfirmedName {
    /// A name that was confirmed.
    pub fn of(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let domain = registrable(&name).map(ToOwned::to_owned);
        Self { name, domain }
    }
}

/// The domain that somebody registered with a registry, which a name in lower case is or is below.
pub fn registrable(name: &str) -> Option<&str> {
    if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
        return None;
    }
    let domain = psl::List.domain(name.as_bytes())?;
    std::str::from_utf8(domain.as_bytes()).ok()
}

/// Words in names that providers give to the lines of changing users.
const OF_LINES: [&str; 25] = [
    "broadband",
    "cable",
    "catv",
    "cbl",
    "cpe",
    "dhcp",
    "dial",
    "dialin",
    "dialup",
    "dip",
    "dsl",
    "dyn",
    "dynamic",
    "dynip",
    "ftth",
    "gprs",
    "hsd",
    "lte",
    "modem",
    "ppp",
    "pppoe",
    "residential",
    "umts",
    "wimax",
    "wireless",
];
/// Words in such names that servers have too.
const OF_USERS: [&str; 12] = [
    "abo",
    "client",
    "clients",
    "cust",
    "customer",
    "customers",
    "home",
    "pool",
    "pools",
    "res",
    "user",
    "users",
];
/// Words by which such words begin or end, as in `dynamicip` and `xdsl`.
const BEGINNINGS: [&str; 4] = ["dialup", "dynamic", "dhcp", "pppoe"];
const ENDS: [&str; 2] = ["dsl", "dhcp"];
/// Words in names of servers that send mail.
const OF_MAIL: [&str; 20] = [
    "bounce",
    "bounces",
    "email",
    "mail",
    "mailer",
    "mailgate",
    "mailhost",
    "mailout",
    "mails",
    "mout",
    "mta",
    "mx",
    "mxout",
    "newsletter",
    "out",
    "outbound",
    "relay",
    "sender",
    "smtp",
    "smtpout",
];
/// Numbers of an IPv4 address, in a row, by which a name is made of it.
const NUMBERS_MIN: usize = 3;

/// Whether a name in lower case looks as if a provider gave it to whoever has this address at the time: it is made
/// of the address, or has a word of such names. What was registered with a registry is not looked at.
pub fn is_dynamic(name: &str, ip: IpAddr) -> bool {
    let domain = registrable(name).unwrap_or_default();
    let host = name.strip_suffix(domain).unwrap_or(name);
    let words = |text: &str, known: &[&str]| {
        let mut words = text.split(|letter: char| !letter.is_ascii_alphabetic());
        words.any(|word| known.contains(&word))
    };
    let mut all = host.split(|letter: char| !letter.is_ascii_alphabetic());
    let is_compound = all.any(|word| {
        BEGINNINGS.iter().any(|begin| word.starts_with(begin))
            || ENDS.iter().any(|end| word.ends_with(end))
    });
    if is_compound || words(host, &OF_LINES) {
        return true;
    }
    // Who sends much mail numbers its servers, and calls them a pool.
    let first = host.split('.').next().unwrap_or_default();
    !words(first, &OF_MAIL) && (words(host, &OF_USERS) || is_made_of(host, ip))
}

/// Whether a name is made of an address.
fn is_made_of(host: &str, ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => has_numbers(host, v4) || has_v4_in_one_piece(host, v4),
        IpAddr::V6(v6) => has_v6(host, v6),
    }
}

/// Whether three of the address's numbers stand in a row, in its order or the other way round.
fn has_numbers(host: &str, v4: Ipv4Addr) -> bool {
    let mut numbers = v4.octets().map(u32::from);
    let runs = host.split(|letter: char| !letter.is_ascii_digit()).filter(|run| !run.is_empty());
    let found: Vec<u32> = runs.map(|run| run.parse().unwrap_or(u32::MAX)).collect();
    let has = |numbers: &[u32]| {
        found
            .windows(NUMBERS_MIN)
            .any(|window| numbers.windows(NUMBERS_MIN).any(|one| one == window))
    };
    let is_forward = has(&numbers);
    numbers.reverse();
    is_forward || has(&numbers)
}

/// Whether the address stands there without separators: in hexadecimal or decimal, also with its bytes the
/// other way round.
fn has_v4_in_one_piece(host: &str, v4: Ipv4Addr) -> bool {
    let mut octets = v4.octets();
    let mut found = false;
    for _ in 0..2 {
        let (mut hex, mut decimal) = (String::new(), String::new());
        for octet in octets {
            let _infallible = write!(hex, "{octet:02x}");
            let _infallible = write!(decimal, "{octet:03}");
        }
        let whole = u32::from_be_bytes(octets).to_string();
        let mut runs = host.split(|letter: char| !letter.is_ascii_digit());
        found |= host.contains(&hex) || host.contains(&decimal) || runs.any(|run| run == whole);
        octets.reverse();
    }
    found
}

/// Whether the address, or what is behind its network, stands there, with or without separators.
fn has_v6(host: &str, v6: Ipv6Addr) -> bool {
    let nibbles = format!("{:032x}", v6.to_bits());
    let reversed: String = nibbles.chars().rev().collect();
    let digits: String = host.chars().filter(char::is_ascii_hexdigit).collect();
    let has = |text: &str| digits.contains(text);
    // A server may be the first of its network; nobody gives such a number by chance.
    let interface = u64::try_from(v6.to_bits() & u128::from(u64::MAX)).unwrap_or(0);
    let is_telling = interface > u64::from(u32::MAX);
    has(&nibbles)
        || has(&reversed)
        || (is_telling && (has(&nibbles[16..]) || has(&reversed[..16])))
        || host.contains(&v6.to_string().replace(':', "-"))
        || host.contains(&dashed(&v6.segments()))
        || (is_telling && host.contains(&dashed(&v6.segments()[4..])))
}

/// Groups of an address with dashes between.
fn dashed(groups: &[u16]) -> String {
    groups.iter().map(|group| format!("{group:x}")).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_below_what_was_registered() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(ConfirmedName::of(name).domain.as_deref(), expected, "{name}");
        };
        check("example.org", Some("example.org"));
        check("MX1.Mail.Example.org", Some("example.org"));
        check("mx.example.co.uk", Some("example.co.uk"));
        check("mx.example.test", Some("example.test"));
        check("co.uk", None);
        check("org", None);
        // Below it others register.
        check("shop.github.io", Some("shop.github.io"));
        check("", None);
        check(".example.org", None);
        check("mx..example.org", None);
    }

    #[test]
    fn names_of_changing_users_are_told_from_those_of_servers() {
        let check = |ip: &str, name: &str, expected: bool| {
            assert_eq!(is_dynamic(name, ip.parse().unwrap()), expected, "{ip} {name}");
        };
        let v4 = "203.0.113.99";
        for name in [
            "203-0-113-99.isp.test",
            "99.113.0.203.isp.test",
            "host203-0-113-99.range.isp.test",
            "ip-203-000-113-099.isp.test",
            "x203.0.113.isp.test",
            "p99-113-0.isp.test",
            "cb007163.isp.test",
            "ip637100cb.isp.test",
            "203000113099.isp.test",
            "099113000203.isp.test",
            "3405803875.isp.test",
            "a.dyn.isp.test",
            "dyn7.isp.test",
            "dynamicip.isp.test",
            "x-adsl3.isp.test",
            "1.vdsl.isp.test",
            "pool-7.isp.test",
            "7.cust.isp.test",
            "dialup-7.isp.test",
            "dhcp7.isp.test",
            "ppp12.isp.test",
            "cable-x.isp.test",
            // A provider's lines may be called so too.
            "mx-ll-203.0.113-99.dynamic.isp.test",
            "mail.dsl.isp.test",
        ] {
            check(v4, name, true);
        }
        for name in [
            "mail.example.org",
            "example.org",
            "mx1.example.org",
            "mail-out-1-2.example.org",
            "mail-113-99.example.org",
            "mail-203-0-113-99.example.org",
            "smtp-pool-7.example.org",
            "out.customers.example.org",
            "pool.example",
            "dynamo.example.org",
            "cabler.example.org",
            "mail.dsl-provider.test",
            "mail.cust.test",
            "web99.example.org",
            "a113.b99.example.org",
        ] {
            check(v4, name, false);
        }
        check("192.0.1.2", "mail-out-1-2.example.org", false);
        check("192.0.1.2", "server-1-2.example.org", false);
        let v6 = "2001:db8:1:2:a00:27ff:fe4e:66a1";
        for name in [
            "2001-db8-1-2-a00-27ff-fe4e-66a1.isp.test",
            "20010db8000100020a0027fffe4e66a1.isp.test",
            "1.a.6.6.e.4.e.f.f.f.7.2.0.0.a.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.isp.test",
            "x-0a0027fffe4e66a1.isp.test",
            "a00-27ff-fe4e-66a1.isp.test",
        ] {
            check(v6, name, true);
        }
        check(v6, "mx1.example.org", false);
        check("2001:db8::1", "2001-db8--1.isp.test", true);
        check("2001:db8::1", "mx1.example.org", false);
        check("2001:db8::1", "server-1.example.org", false);
    }

    proptest! {
        #[test]
        fn any_name_is_judged(name in "\\PC*", bits: u128, v4: bool) {
            let ip = if v4 { IpAddr::from(bits.to_be_bytes()).to_canonical() }
                else { Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap()).into() };
            let confirmed = ConfirmedName::of(&name);
            if let Some(domain) = &confirmed.domain {
                prop_assert!(confirmed.name.ends_with(domain.as_str()));
            }
            let _judged = is_dynamic(&confirmed.name, ip);
        }

        /// However an address is written in front of a provider's domain, the name is known as made of it.
        #[test]
        fn addresses_are_found(bits: u32, separator in "[-._x]", reverse: bool, padded: bool) {
            let v4 = Ipv4Addr::from_bits(bits);
            let mut octets = v4.octets();
            if reverse {
                octets.reverse();
            }
            let written = octets.map(|octet| if padded { format!("{octet:03}") } else { octet.to_string() });
            let name = format!("h{}.isp.test", written.join(&separator));
            prop_assert!(is_dynamic(&name, v4.into()));
        }
    }
}
