//! Which rule a client meets: the keys in tcpserver's order, and networks between them.

use std::net::IpAddr;

use crate::cdb::{Cdb, Damaged};
use crate::network;

/// A client as it is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Client<'c> {
    /// Its address as text; what is no address is looked up as it is, as tcprulescheck does.
    pub ip: &'c [u8],
    /// Its name, if it is known; whoever gives it has it confirmed.
    pub host: Option<&'c [u8]>,
    /// What it says of its user (RFC 1413), if it was asked.
    pub info: Option<&'c [u8]>,
}

/// Which keys are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Those of tcpserver.
    Exact,
    /// Networks too.
    Networks,
}

/// The rule that a client meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'b> {
    /// Its key.
    pub key: Vec<u8>,
    record: &'b [u8],
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'b> {
    /// It denies.
    Deny,
    /// It sets a variable: the bytes of `NAME=VALUE`.
    Set(&'b [u8]),
}

impl<'b> Found<'b> {
    /// What it does, in its order. What is cut off or unknown in the record does nothing, as in tcpserver.
    pub fn effects(&self) -> impl Iterator<Item = Effect<'b>> {
        let last = self.record.iter().rposition(|&byte| byte == 0).unwrap_or(0);
        let whole = &self.record[..last];
        whole.split(|&byte| byte == 0).filter_map(|part| match part {
            [b'D', ..] => Some(Effect::Deny),
            [b'+', variable @ ..] => Some(Effect::Set(variable)),
            _ => None,
        })
    }
}

/// Finds the rule that a client meets; where there is none it is allowed.
///
/// The order is tcpserver's: `INFO@IP`, `INFO@=HOST`, the address, `=HOST`, what the address begins with,
/// longest first, then the ends of the name, then `=` for any name, then the empty key. Networks stand among
/// what the address begins with, the one with more bits first; a text counts 8 bits for each number of an
/// IPv4 address in it, and 16 for each of an IPv6 address, and comes before a network of as many.
///
/// # Errors
/// When the cdb is damaged where the search comes to it.
pub fn look_up<'b>(
    cdb: &Cdb<'b>,
    client: &Client<'_>,
    keys: Keys,
) -> Result<Option<Found<'b>>, Damaged> {
    let mut search = Search { cdb, found: None };
    let Client { ip, host, info } = *client;
    if let Some(info) = info {
        search.look(&[info, b"@", ip])?;
        if let Some(host) = host {
            search.look(&[info, b"@=", host])?;
        }
    }
    search.look(&[ip])?;
    let networks = match keys {
        Keys::Exact => None,
        Keys::Networks => std::str::from_utf8(ip).ok().and_then(|ip| ip.parse().ok()),
    };
    if let Some(address) = networks {
        search.look_in_network(address, network::width(address))?;
    }
    if let Some(host) = host {
        search.look(&[b"=", host])?;
    }
    search.look_at_address(ip, networks)?;
    if let Some(host) = host {
        for (dot, _) in host.iter().enumerate().filter(|(_, byte)| **byte == b'.') {
            search.look(&[b"=", &host[dot..]])?;
        }
        search.look(&[b"="])?;
    }
    search.look(&[])?;
    Ok(search.found)
}

/// A search that stops at the first rule.
struct Search<'s, 'b> {
    cdb: &'s Cdb<'b>,
    found: Option<Found<'b>>,
}

impl Search<'_, '_> {
    fn look(&mut self, parts: &[&[u8]]) -> Result<(), Damaged> {
        if self.found.is_none() {
            let key = parts.concat();
            self.found = self.cdb.find(&key)?.map(|record| Found { key, record });
        }
        Ok(())
    }

    fn look_in_network(&mut self, address: IpAddr, bits: u8) -> Result<(), Damaged> {
        // The key is not made once a rule is found.
        if self.found.is_some() {
            return Ok(());
        }
        self.look(&[network::of(address, bits).as_bytes()])
    }

    /// What the address begins with, and the networks that it is in.
    fn look_at_address(&mut self, ip: &[u8], networks: Option<IpAddr>) -> Result<(), Damaged> {
        let mut bits_left = networks.map_or(0, network::width);
        for length in (1..=ip.len()).rev().filter(|&length| matches!(ip[length - 1], b'.' | b':')) {
            let prefix = &ip[..length];
            if let Some(address) = networks {
                let bits = named_bits(prefix, address);
                while bits_left > bits + 1 {
                    bits_left -= 1;
                    self.look_in_network(address, bits_left)?;
                }
            }
            self.look(&[prefix])?;
        }
        if let Some(address) = networks {
            for bits in (0..bits_left).rev() {
                self.look_in_network(address, bits)?;
            }
        }
        Ok(())
    }
}

/// Bits that a prefix of an address's text names.
fn named_bits(prefix: &[u8], address: IpAddr) -> u8 {
    let numbers = prefix.split(|byte| matches!(byte, b'.' | b':')).filter(|part| !part.is_empty());
    let each = if address.is_ipv4() { 8 } else { 16 };
    numbers.fold(0, |bits: u8, _| bits.saturating_add(each)).min(network::width(address))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::{Grammar, compile};

    /// The key that a client meets in rules with these keys.
    fn met(keys: &[String], client: &Client<'_>) -> Option<String> {
        let mut text = String::new();
        for key in keys {
            let _infallible = writeln!(text, "{key}:allow");
        }
        let cdb = compile(text.as_bytes(), Grammar::Extended, u32::MAX).unwrap().cdb;
        let found = look_up(&Cdb::new(&cdb), client, Keys::Networks).unwrap();
        found.map(|found| String::from_utf8(found.key).unwrap())
    }

    /// All keys that match, in the order in which they do.
    fn check(client: &Client<'_>, order: &str) {
        let mut keys: Vec<String> =
            order.split_terminator('\n').map(|key| key.trim().to_owned()).collect();
        while !keys.is_empty() {
            let mut others = keys.clone();
            others.reverse();
            assert_eq!(met(&others, client).as_ref(), keys.first());
            keys.remove(0);
        }
        assert_eq!(met(&["9.9.9.9".into()], client), None);
    }

    #[test]
    fn keys_are_met_in_tcpservers_order_with_networks_between() {
        let client = Client { ip: b"192.0.2.7", host: Some(b"a.b.test"), info: Some(b"joe") };
        check(
            &client,
            "joe@192.0.2.7
            joe@=a.b.test
            192.0.2.7
            192.0.2.7/32
            =a.b.test
            192.0.2.6/31
            192.0.2.0/25
            192.0.2.
            192.0.2.0/24
            192.0.0.0/17
            192.0.
            192.0.0.0/16
            192.
            192.0.0.0/8
            128.0.0.0/1
            0.0.0.0/0
            =.b.test
            =.test
            =
            \n",
        );
        let client = Client { ip: b"2001:db8::1:7", host: None, info: Some(b"") };
        check(
            &client,
            "@2001:db8::1:7
            2001:db8::1:7
            2001:db8::1:7/128
            2001:db8::1:0/112
            2001:db8::/49
            2001:db8::1:
            2001:db8::/48
            2001:db8::
            2001:db8:
            2001:db8::/32
            2001:d00::/24
            2001:
            2001::/16
            2000::/3
            ::/0",
        );
        check(&Client { ip: b"no address", host: None, info: None }, "no address");
        check(&Client { ip: b"::1", host: None, info: None }, "::1\n::1/128\n::/127\n::\n:\n::/0");
    }
}
