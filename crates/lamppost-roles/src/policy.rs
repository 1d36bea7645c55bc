//! Front and queue to policy: who may do what, and the way to a recipient.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use lamppost_smtp::{Address, Refusal, ReversePath, Secret};
use serde::{Deserialize, Serialize};

use crate::{FileStamp, Route};

/// What the front asks of policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PolicyRequest {
    /// May this client connect, and what is so for it?
    Connection {
        /// The client's address.
        peer: IpAddr,
        /// Whether it is looked up in lists in the DNS.
        lists: bool,
    },
    /// Is this the password of this account?
    Authenticate {
        /// The client's address, for the limit on failed tries.
        peer: IpAddr,
        /// The name that the client gave.
        user: String,
        /// The password that the client gave.
        password: Secret,
    },
    /// Which address does this user of the machine send under? The system tells who it is.
    LocalUser {
        /// The user's number.
        uid: u32,
    },
    /// May this client send under this address?
    Sender {
        /// Who sends.
        by: Submitter,
        /// The address in MAIL FROM.
        sender: ReversePath,
    },
    /// May mail from this sender to this recipient come in?
    Recipient {
        /// The client's address.
        peer: IpAddr,
        /// What it calls itself.
        helo: String,
        /// The address in MAIL FROM.
        sender: ReversePath,
        /// The address in RCPT TO.
        recipient: Address,
        /// The account or local user that hands it in, if any.
        account: Option<Address>,
        /// Whether the client may hand in mail for elsewhere, as its [`Admission`] says.
        relay: bool,
        /// Whether greylisting is switched on or off for it, as its [`Admission`] says.
        greylisting: Option<bool>,
    },
    /// Another mail server asks for itself: must mail from this sender to this recipient come later?
    /// The addresses are as that one has them.
    Greylist {
        /// The client's address.
        peer: IpAddr,
        /// What it calls itself; empty where the other mail server does not tell.
        helo: String,
        /// The address in MAIL FROM; empty for the null sender.
        sender: String,
        /// The address in RCPT TO.
        recipient: String,
    },
    /// A message that is not handed in by one of this host's own was taken, or refused for good: what of it
    /// the greylist is to learn. Nobody waits for the answer.
    Outcome {
        /// The client's address.
        peer: IpAddr,
        /// The address in MAIL FROM.
        sender: ReversePath,
        /// Its recipients, with their leave to pass where policy gave one.
        recipients: Vec<(Address, Option<Passage>)>,
        /// Whether it was taken.
        accepted: bool,
    },
    /// A client hands in one message to so many recipients: does its quota allow that?
    Charge {
        /// Who sends.
        by: Submitter,
        /// The number of recipients.
        recipients: u32,
    },
}

/// What is so for a client by the rules of connections and lists in the DNS; the front keeps it as long as the session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Whether it may hand in mail for elsewhere (`RELAYCLIENT`), and what is appended to each recipient.
    pub relay: Option<String>,
    /// Bytes of a message (`DATABYTES`).
    pub message_size_max: Option<u64>,
    /// Why it hands in no mail (`RBLSMTPD`, lists in the DNS).
    pub refusal: Option<Refusal>,
    /// Whether it is greylisted, whatever is so for others (`GREYLISTING`).
    pub greylisting: Option<bool>,
    /// What this host calls itself in what it adds to messages (`TCPLOCALHOST`).
    pub host: Option<String>,
}

/// Who hands in mail of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Submitter {
    /// An account that authenticated.
    Account(Address),
    /// A user of this machine, who need not have an account.
    LocalUser(u32),
}

/// What policy answers the front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyAnswer {
    /// To Connection: it may, and this is so for it.
    Admitted(Admission),
    /// To Connection: it may not, by the rule with this key.
    Denied {
        /// The key.
        rule: String,
    },
    /// To Authenticate and `LocalUser`: the client's own name.
    Account(Address),
    /// To Recipient: it may, and this is the way to it.
    Route(Route),
    /// To Recipient: it may, and the front has to mind this.
    Minded {
        /// The way to it.
        route: Route,
        /// With what the whole message is refused before its content comes, unless it is given up.
        hold: Option<Refusal>,
        /// What policy wants to be told again when it is known what became of the message.
        passage: Option<Passage>,
    },
    /// To Sender, Charge and Outcome: it may.
    Allowed,
    /// To Greylist.
    Greylist(Verdict),
    /// It may not.
    Refused(Refusal),
}

/// Leave to pass the greylist, which counts once the message was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// The networks that the client counts as.
    pub networks: Vec<String>,
    /// Those among them that count as good once this message was taken.
    pub promoted: Vec<String>,
    /// Whether the triplet never passed before.
    pub is_first: bool,
}

/// What the greylist says of mail that wants to come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It may.
    Pass {
        /// How long the sender had to wait for that, if it is its first mail to pass.
        waited: Option<Duration>,
    },
    /// Not yet.
    Wait {
        /// A constant word that says why.
        reason: String,
        /// How long the sender should wait; never zero.
        retry_in: Duration,
    },
    /// The greylist cannot be asked, and mail waits until it can.
    Unavailable,
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

/// What policy, which may read no file, asks of the supervisor: the rules of connections as their file
/// holds them now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesRequest;

/// What the supervisor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesAnswer {
    /// The file that was looked at, if there is one.
    pub stamp: Option<FileStamp>,
    /// What it held when it last held rules.
    pub rules: Option<Bytes>,
    /// Why it holds none now; for people.
    pub fault: Option<String>,
}
