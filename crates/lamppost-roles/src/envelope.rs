//! A message's envelope: who sent it, to whom, and where it came from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use jiff::fmt::rfc2822::DateTimePrinter;
use lamppost_smtp::{Address, ReversePath};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// As header fields tell it, in UTC (RFC 5322 §3.3).
    pub fn to_rfc5322(self) -> String {
        let second = i64::try_from(self.0 / 1000).unwrap_or(i64::MAX);
        let timestamp = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
        let date = timestamp.to_zoned_datetime(jiff::tz::TimeZone::UTC);
        // A date within jiff's range, as every timestamp is, can be printed.
        DateTimePrinter::new().zoned_datetime_to_string(&date).unwrap_or_default()
    }
}

/// Everything about a message that is not its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Where a bounce would go.
    pub sender: ReversePath,
    /// Who gets the message; never empty.
    pub recipients: Vec<Recipient>,
    /// Where the message came from; the Received field is written from it.
    pub origin: Origin,
}

/// One recipient and the way to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The address as the client gave it.
    pub address: Address,
    /// The way that policy chose when the recipient was accepted.
    pub route: Route,
}

/// The way to a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Route {
    /// Into the Maildir of this account.
    Mailbox(Address),
    /// To the host that takes all mail for elsewhere (`relay-to`).
    Relay,
    /// Policy must be asked when its turn comes: a bounce on its way to the sender.
    Undecided,
}

/// Where a client is.
///
/// In the spool an address has the form that it had before there was another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// At an address.
    Address(IpAddr),
    /// On this machine: a user, by number.
    User(u32),
}

/// The form of a [`Peer`] in the spool: the first two are those of an [`IpAddr`].
#[derive(Serialize, Deserialize)]
enum StoredPeer {
    V4([u8; 4]),
    V6([u8; 16]),
    User(u32),
}

/// What a user's number follows in texts.
const USER: &str = "uid:";

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl From<Ipv4Addr> for Peer {
    fn from(address: Ipv4Addr) -> Self {
        Self::Address(address.into())
    }
}

/// A text is not where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an address, or `uid:` and the number of a user")]
pub struct PeerError;

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        match text.strip_prefix(USER) {
            Some(uid) => uid.parse().map(Self::User).map_err(|_| PeerError),
            None => text.parse().map(Self::Address).map_err(|_| PeerError),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::User(uid) => write!(f, "{USER}{uid}"),
        }
    }
}

impl Serialize for Peer {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            return to.collect_str(self);
        }
        let stored = match *self {
            Self::Address(IpAddr::V4(address)) => StoredPeer::V4(address.octets()),
            Self::Address(IpAddr::V6(address)) => StoredPeer::V6(address.octets()),
            Self::User(uid) => StoredPeer::User(uid),
        };
        stored.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Peer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            return String::deserialize(from)?.parse().map_err(D::Error::custom);
        }
        Ok(match StoredPeer::deserialize(from)? {
            StoredPeer::V4(octets) => Self::Address(octets.into()),
            StoredPeer::V6(octets) => Self::Address(octets.into()),
            StoredPeer::User(uid) => Self::User(uid),
        })
    }
}

/// The session that a message came in by (RFC 5321 §4.4, RFC 3848).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The session's id, as in the log.
    pub session: String,
    /// Where the client is.
    pub peer: Peer,
    /// What the client called itself.
    pub helo: String,
    /// This host's name.
    pub host: String,
    /// `SMTP`, `ESMTP`, `ESMTPS`, `ESMTPA`, `ESMTPSA` or a UTF8 form of them (RFC 3848, RFC 6531).
    pub protocol: String,
    /// The TLS version and cipher suite, if any.
    pub tls: Option<String>,
    /// The account that authenticated, if any.
    pub account: Option<Address>,
    /// When the content was complete.
    pub received: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_client_is_reads_as_before() {
        let check = |text: &str, peer: Peer| {
            assert_eq!(serde_json::to_value(peer).unwrap(), text);
            assert_eq!(serde_json::from_value::<Peer>(text.into()).unwrap(), peer);
            let stored = postcard::to_allocvec(&peer).unwrap();
            assert_eq!(postcard::from_bytes::<Peer>(&stored).unwrap(), peer);
            if let Peer::Address(address) = peer {
                // What older programs stored.
                assert_eq!(postcard::to_allocvec(&address).unwrap(), stored);
            }
        };
        for text in ["192.0.2.7", "::1", "2001:db8::255.255.1.2"] {
            let address: IpAddr = text.parse().unwrap();
            check(&address.to_string(), address.into());
        }
        check("uid:33", Peer::User(33));
        for wrong in ["uid:", "uid:-1", "localhost", ""] {
            assert!(serde_json::from_value::<Peer>(wrong.into()).is_err(), "{wrong}");
        }
    }
}
