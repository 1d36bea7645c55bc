//! Why the other roles refuse something that a client asked for.
//!
//! A refusal is a fact; which code and text the client sees is decided by the reply table
//! in `reply.rs` alone.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Address;

/// Why a command was refused by the policy or the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The account may not be tried from this peer, or at all, for a while: too many failed tries.
    AuthBlocked,
    /// As many passwords are being checked as the limit allows.
    AuthBusy,
    /// Unknown account or wrong password; the two look alike to the client.
    AuthFailed,
    /// The sender must come back later.
    Greylisted {
        /// A constant word that says why.
        reason: String,
        /// How long the sender should wait before the next attempt.
        retry_in: Duration,
    },
    /// Lists in the DNS hold the client.
    Listed {
        /// Which, and what they say: printable ASCII in one line.
        text: String,
        /// Whether it need not come again.
        for_good: bool,
    },
    /// Lists in the DNS that might hold the client do not answer.
    ListsSilent,
    /// The message went through too many hosts, or through this one before.
    Loop,
    /// The mailbox is here and cannot take mail now.
    MailboxAway,
    /// The recipient is elsewhere, and no way out is configured.
    NoWayOut {
        /// The domain that no mail can be sent to.
        domain: String,
    },
    /// The account sent as much as an hour allows.
    QuotaExceeded {
        /// When the next message can be accepted.
        retry_in: Duration,
    },
    /// The recipient is elsewhere, and the client may not relay.
    RelayDenied,
    /// The sender address does not belong to the account.
    SenderNotOwned {
        /// The address that was claimed.
        sender: Address,
    },
    /// The spool has no space left for a new message.
    SpoolFull,
    /// The spool could not make the message durable.
    SpoolFailed,
    /// A role that must answer does not.
    Unavailable,
    /// The domain is ours, the mailbox does not exist.
    UnknownMailbox,
    /// The rules of connections say that mail of this client is not wanted, and in which words.
    Unwanted {
        /// The words: printable ASCII in one line.
        text: String,
        /// Whether it need not come again.
        for_good: bool,
    },
}

impl Refusal {
    /// A constant word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::AuthBlocked => "auth-blocked",
            Self::AuthBusy => "auth-busy",
            Self::AuthFailed => "auth-failed",
            Self::Greylisted { .. } => "greylisted",
            Self::Listed { .. } => "dns-listed",
            Self::ListsSilent => "dns-lists-silent",
            Self::Loop => "loop",
            Self::MailboxAway => "mailbox-away",
            Self::NoWayOut { .. } => "no-way-out",
            Self::QuotaExceeded { .. } => "quota-exceeded",
            Self::RelayDenied => "relay-denied",
            Self::SenderNotOwned { .. } => "sender-not-owned",
            Self::SpoolFull => "spool-full",
            Self::SpoolFailed => "spool-failed",
            Self::Unavailable => "unavailable",
            Self::UnknownMailbox => "unknown-mailbox",
            Self::Unwanted { .. } => "unwanted",
        }
    }
}
