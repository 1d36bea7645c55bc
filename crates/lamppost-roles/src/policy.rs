//! Front and queue to policy: who may do what, and the way to a recipient.

use std::net::IpAddr;

use lamppost_smtp::{Address, Refusal, ReversePath, Secret};
use serde::{Deserialize, Serialize};

use crate::Route;

/// What the front asks of policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PolicyRequest {
    /// Is this the password of this account?
    Authenticate {
        /// The client's address, for the limit on failed tries.
        peer: IpAddr,
        /// The name that the client gave.
        user: String,
        /// The password that the client gave.
        password: Secret,
    },
    /// May this account send under this address?
    Sender {
        /// The authenticated account.
        account: Address,
        /// The address in MAIL FROM.
        sender: ReversePath,
    },
    /// May mail from this sender to this recipient come in?
    Recipient {
        /// The client's address.
        peer: IpAddr,
        /// The address in MAIL FROM.
        sender: ReversePath,
        /// The address in RCPT TO.
        recipient: Address,
        /// The authenticated account, if any.
        account: Option<Address>,
    },
    /// The account hands in one message to so many recipients: does its quota allow that?
    Charge {
        /// The authenticated account.
        account: Address,
        /// The number of recipients.
        recipients: u32,
    },
}

/// What policy answers the front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyAnswer {
    /// To Authenticate: the account's own name.
    Account(Address),
    /// To Recipient: it may, and this is the way to it.
    Route(Route),
    /// To Sender and Charge: it may.
    Allowed,
    /// It may not.
    Refused(Refusal),
}

/// What the queue asks of policy: the way to a recipient that nobody asked about yet, as that of a
/// bounce. Nobody is asked to wait and nothing is refused: the mail is this host's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRequest {
    /// The recipient.
    pub address: Address,
}

/// What policy answers the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteAnswer {
    /// This is the way.
    Route(Route),
    /// The domain is here, and there is no such mailbox.
    Unknown,
    /// The recipient is elsewhere, and no way leads out.
    Nowhere,
    /// It cannot be told now.
    Unavailable,
}
