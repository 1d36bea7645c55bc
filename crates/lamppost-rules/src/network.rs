//! Networks as keys: `192.0.2.0/24`, `2001:db8::/32`. No tcpserver looks such keys up.

use std::net::IpAddr;

/// Why a key with a slash is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// There is no whole address before the slash.
    #[error("no whole address stands before the slash")]
    Address,
    /// What is behind the slash is no number of bits that the address has.
    #[error("behind the slash stands how many bits are the network's, from 0 to {max}")]
    Bits {
        /// Bits of the address.
        max: u8,
    },
    /// Bits of the address that are not the network's are set.
    #[error("the address is not the first of its network, which is {network}")]
    NotFirst {
        /// The network.
        network: String,
    },
    /// An IPv4 address is written as one of IPv6.
    #[error("clients with IPv4 addresses are looked up by these, not as `::ffff:…`")]
    Mapped,
}

impl NetworkError {
    pub(crate) fn cure(&self) -> String {
        match self {
            Self::Address => "write it as 192.0.2.0/24 or 2001:db8::/32".into(),
            Self::Bits { max } => format!("write a number from 0 to {max} behind the slash"),
            Self::NotFirst { network } => format!("write {network}"),
            Self::Mapped => "write the network as one of IPv4".into(),
        }
    }
}

/// The key of a network as it is looked up, from one as somebody writes it.
pub(crate) fn key(text: &[u8]) -> Result<Vec<u8>, NetworkError> {
    let text = std::str::from_utf8(text).map_err(|_| NetworkError::Address)?;
    let (address, bits) = text.split_once('/').ok_or(NetworkError::Address)?;
    let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
    if address.to_canonical() != address {
        return Err(NetworkError::Mapped);
    }
    let max = width(address);
    let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let bits = bits.parse().ok().filter(|bits| is_number && *bits <= max);
    let network = of(address, bits.ok_or(NetworkError::Bits { max })?);
    if first(&network) != Some(address) {
        return Err(NetworkError::NotFirst { network });
    }
    Ok(network.into_bytes())
}

fn first(network: &str) -> Option<IpAddr> {
    network.split_once('/')?.0.parse().ok()
}

/// Bits of an address.
pub(crate) fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The key of the network of an address with so many bits.
pub(crate) fn of(address: IpAddr, bits: u8) -> String {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            format!("{}/{bits}", std::net::Ipv4Addr::from(u32::from(address) & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            format!("{}/{bits}", std::net::Ipv6Addr::from(u128::from(address) & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let found = key(text.as_bytes()).map(|key| String::from_utf8(key).unwrap());
        let found = found.map_err(|error| error.to_string() + "; " + &error.cure());
        assert_eq!(found.as_deref(), expected.map_err(ToOwned::to_owned).as_ref().copied());
    }

    #[test]
    fn networks_are_written_in_one_way() {
        check("192.0.2.0/24", Ok("192.0.2.0/24"));
        check("0.0.0.0/0", Ok("0.0.0.0/0"));
        check("192.0.2.7/032", Ok("192.0.2.7/32"));
        check("2001:DB8:0:0::/32", Ok("2001:db8::/32"));
        check("::/0", Ok("::/0"));
        check("2001:db8::1/128", Ok("2001:db8::1/128"));
        let first = "the address is not the first of its network, which is 192.0.2.0/24; write 192.0.2.0/24";
        check("192.0.2.7/24", Err(first));
        let bits = "behind the slash stands how many bits are the network's, from 0 to 32; write a number from 0 to 32 behind the slash";
        for wrong in
            ["192.0.2.0/33", "192.0.2.0/", "192.0.2.0/+8", "192.0.2.0/8/8", "192.0.2.0/256"]
        {
            check(wrong, Err(bits));
        }
        let address =
            "no whole address stands before the slash; write it as 192.0.2.0/24 or 2001:db8::/32";
        for wrong in ["/8", "192.0.2/24", "10./8", "mail/8"] {
            check(wrong, Err(address));
        }
        let mapped = "clients with IPv4 addresses are looked up by these, not as `::ffff:…`; write the network as one of IPv4";
        check("::ffff:192.0.2.0/120", Err(mapped));
    }
}
