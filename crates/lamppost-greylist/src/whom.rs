//! Whom an administrator means, as manual rows name it.

use std::net::{IpAddr, Ipv6Addr};

use crate::Whom;

/// Rows that one network is written as at most.
const ROWS_MAX: u32 = 256;

/// Why a text names nobody; for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct NoWhom {
    /// What is wrong with it.
    pub what: String,
    /// What to do about it.
    pub cure: &'static str,
}

impl Whom {
    /// The rows for an address, the beginning of one, a network in CIDR notation, a recipient or a domain of
    /// recipients. Rows name networks by whole parts of an address alone: `192.0.2.0/23` are two.
    ///
    /// # Errors
    /// When it is none of these, or too large a number of rows.
    pub fn read(text: &str) -> Result<Vec<Self>, NoWhom> {
        let text = text.trim().to_lowercase();
        let is_v4 = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_digit() || b"./".contains(&byte));
        if is_v4 || text.contains(':') {
            let networks = if text.contains(':') { v6(&text) } else { v4(&text) };
            return Ok(networks?.into_iter().map(Self::Relay).collect());
        }
        recipient(&text).map(|recipient| vec![Self::Recipient(recipient)])
    }
}

fn wrong(text: &str, cure: &'static str) -> NoWhom {
    NoWhom { what: format!("{text:?} is no address, network, recipient or domain"), cure }
}

const RELAY: &str = "write 192.0.2.1, 192.0.2, 192.0.2.0/24 or 2001:db8:1:2::/64";

fn v4(text: &str) -> Result<Vec<String>, NoWhom> {
    let parts =
        |text: &str| -> Option<Vec<u8>> { text.split('.').map(|part| part.parse().ok()).collect() };
    let Some((address, bits)) = text.split_once('/') else {
        let given = parts(text.trim_end_matches('.')).filter(|parts| parts.len() <= 4);
        let given = given.ok_or_else(|| wrong(text, RELAY))?;
        return Ok(vec![joined(&given)]);
    };
    let given = parts(address).filter(|parts| parts.len() == 4);
    let bits = bits.parse::<u32>().ok().filter(|bits| (1..=32).contains(bits));
    let (Some(given), Some(bits)) = (given, bits) else { return Err(wrong(text, RELAY)) };
    let (whole, count) = whole_parts(bits, 8);
    let first = given[whole - 1] & u8::try_from(256 - count).unwrap_or(0);
    Ok((0..count)
        .map(|place| {
            let mut parts = given[..whole].to_vec();
            parts[whole - 1] = first + u8::try_from(place).unwrap_or(0);
            joined(&parts)
        })
        .collect())
}

/// How many parts of so many bits name a network, and how many such names it has.
fn whole_parts(bits: u32, of: u32) -> (usize, u32) {
    let whole = bits.div_ceil(of);
    (usize::try_from(whole).unwrap_or(1), 1 << (whole * of - bits))
}

fn joined(parts: &[u8]) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
}

fn v6(text: &str) -> Result<Vec<String>, NoWhom> {
    let Some((address, bits)) = text.split_once('/') else {
        return match text.parse::<IpAddr>() {
            Ok(address) => Ok(vec![address.to_canonical().to_string()]),
            Err(_) => Err(wrong(text, RELAY)),
        };
    };
    let address = address.parse::<Ipv6Addr>().ok();
    let bits = bits.parse::<u32>().ok().filter(|bits| (1..=128).contains(bits));
    let (Some(address), Some(bits)) = (address, bits) else { return Err(wrong(text, RELAY)) };
    if bits == 128 {
        return Ok(vec![address.to_string()]);
    }
    let (whole, count) = whole_parts(bits, 16);
    if count > ROWS_MAX {
        return Err(NoWhom {
            what: format!("{text} would be {count} rows"),
            cure: "name a network whose length is a multiple of 16, or a few less",
        });
    }
    let segments = address.segments();
    let first = segments[whole - 1] & u16::try_from(65_536 - count).unwrap_or(0);
    let rows = (0..count).map(|place| {
        let mut parts = segments[..whole].to_vec();
        parts[whole - 1] = first + u16::try_from(place).unwrap_or(0);
        parts.iter().map(|part| format!("{part:x}")).collect::<Vec<_>>().join(":")
    });
    Ok(rows.collect())
}

fn recipient(text: &str) -> Result<String, NoWhom> {
    let cure = "write user@domain, user@ or domain";
    let bare = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text);
    let is_odd = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '<';
    if bare.is_empty() || bare.contains(is_odd) {
        return Err(wrong(text, cure));
    }
    match bare.rsplit_once('@') {
        Some(("", "")) => Err(wrong(text, cure)),
        Some(("", domain)) => Ok(domain.to_owned()),
        None | Some((_, "")) => Ok(bare.to_owned()),
        // As relaydelay writes a whole address.
        Some(_) => Ok(format!("<{bare}>")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let texts = Whom::read(text).unwrap().into_iter().map(|whom| match whom {
            Whom::Relay(text) => format!("relay {text}"),
            Whom::Recipient(text) => format!("to {text}"),
        });
        assert_eq!(texts.collect::<Vec<_>>(), expected, "{text}");
    }

    #[test]
    fn clients_are_named_by_whole_parts_of_addresses() {
        check("192.0.2.1", &["relay 192.0.2.1"]);
        check("192.0.2.", &["relay 192.0.2"]);
        check("192", &["relay 192"]);
        check("192.0.2.77/24", &["relay 192.0.2"]);
        check("192.0.2.77/32", &["relay 192.0.2.77"]);
        check("192.0.3.0/23", &["relay 192.0.2", "relay 192.0.3"]);
        check("192.0.2.5/31", &["relay 192.0.2.4", "relay 192.0.2.5"]);
        assert_eq!(Whom::read("0.0.0.0/1").unwrap().len(), 128);
        check("2001:DB8::1", &["relay 2001:db8::1"]);
        check("::ffff:192.0.2.1", &["relay 192.0.2.1"]);
        check("2001:db8:0:1::/64", &["relay 2001:db8:0:1"]);
        check("2001:db8::/31", &["relay 2001:db8", "relay 2001:db9"]);
        check("2001:db8::1/128", &["relay 2001:db8::1"]);
    }

    #[test]
    fn recipients_are_named_as_relaydelay_does() {
        check("Me@Lamppost.test", &["to <me@lamppost.test>"]);
        check("<me@lamppost.test>", &["to <me@lamppost.test>"]);
        check("@lamppost.test", &["to lamppost.test"]);
        check("lamppost.test", &["to lamppost.test"]);
        check("postmaster@", &["to postmaster@"]);
    }

    #[test]
    fn what_names_nobody_is_told() {
        let texts = ["", "192.0.2.1.5", "300.1", "192.0.2/24", "192.0.2.0/33", "2001:db8", "a b"];
        for text in texts.into_iter().chain(["@", "2001:db8::/3", "2001:db8::/0", "<>"]) {
            assert!(Whom::read(text).is_err(), "{text}");
        }
    }
}
