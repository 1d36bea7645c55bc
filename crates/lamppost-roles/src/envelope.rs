//! A message's envelope: who sent it, to whom, and where it came from.

use std::net::IpAddr;

use jiff::fmt::rfc2822::DateTimePrinter;
use lamppost_smtp::{Address, ReversePath};
use serde::{Deserialize, Serialize};

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

/// The session that a message came in by (RFC 5321 §4.4, RFC 3848).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The session's id, as in the log.
    pub session: String,
    /// The client's address.
    pub peer: IpAddr,
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
