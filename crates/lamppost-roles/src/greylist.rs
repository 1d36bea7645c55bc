//! Control to policy: the greylist, as an administrator sees and changes it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// What the control role asks of policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GreylistRequest {
    /// The triplets in the order of their names, at most `limit` after `after`.
    List {
        /// Where the page before ended.
        after: Option<String>,
        /// How many at most.
        limit: u32,
        /// Which of them.
        filter: GreylistFilter,
    },
    /// What an attempt would meet now; nothing is remembered of it.
    Why(GreylistAttempt),
    /// How many there are.
    Stats,
    /// Forget these: who is among them must wait again.
    Forget(GreylistFilter),
    /// Forget those whose time is over.
    Expire,
    /// Take over what another greylist remembers.
    Import(Vec<GreylistMemory>),
    /// What administrators wrote by hand.
    Manual,
    /// Write by hand, in place of what is there for the same clients or recipients.
    WriteManual(Vec<ManualRow>),
    /// Forget what was written by hand for these.
    ForgetManual(Vec<ManualWhom>),
}

/// For whom something is written by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ManualWhom {
    /// Clients whose address is this or begins with it.
    Relay(String),
    /// A recipient, or a domain of recipients.
    Recipient(String),
}

/// What is written by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ManualRow {
    /// For whom.
    pub whom: ManualWhom,
    /// Whether their mail passes; it is deferred otherwise.
    pub allows: bool,
    /// Until when; nothing for ever.
    pub until: Option<Timestamp>,
}

/// Whom another greylist lets pass, or has told to come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GreylistMemory {
    /// The client, or the first address of its network.
    pub client: IpAddr,
    /// The sender, empty for the null sender, or `@domain`; nothing where all are meant.
    #[serde(default)]
    pub sender: Option<String>,
    /// The recipient; nothing where all are meant.
    #[serde(default)]
    pub recipient: Option<String>,
    /// When the first attempt was made.
    pub first: Timestamp,
    /// When the last attempt was made that counted.
    pub last: Timestamp,
    /// How often mail passed, as far as that is known; 0 for those that must come back.
    pub passed: u64,
}

/// Which triplets are wanted: those for which all that is named holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct GreylistFilter {
    /// Those of the network that this address is in.
    pub ip: Option<IpAddr>,
    /// The sender's address, `@domain`, or `<>` for none.
    pub sender: Option<String>,
    /// The recipient's address, or `@domain`.
    pub recipient: Option<String>,
}

/// An attempt to send, as somebody asks about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GreylistAttempt {
    /// The client's address.
    pub ip: IpAddr,
    /// The address in MAIL FROM; empty or `<>` for the null sender.
    pub sender: String,
    /// The address in RCPT TO.
    pub recipient: String,
    /// What the client calls itself; matters for the null sender alone.
    #[serde(default)]
    pub helo: String,
}

/// What policy answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GreylistAnswer {
    /// To List.
    Listing(GreylistListing),
    /// To Why.
    Why(Box<GreylistWhy>),
    /// To Stats.
    Stats(GreylistStats),
    /// To Forget, Expire and `ForgetManual`: how many.
    Forgotten(u64),
    /// To Import.
    Imported(GreylistImported),
    /// To Manual and `WriteManual`: all that is there now.
    Manual(Vec<ManualRow>),
    /// It could not be done; the reason is for people.
    Failed(String),
}

/// A page of triplets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GreylistListing {
    /// The triplets.
    pub triplets: Vec<TripletView>,
    /// Where the next page begins; nothing at the end.
    pub next: Option<String>,
}

/// A triplet as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TripletView {
    /// The first address of the client's network.
    pub network: String,
    /// The sender; empty for the null sender.
    pub sender: String,
    /// The recipient.
    pub recipient: String,
    /// From when on it passes.
    pub passes_from: Timestamp,
    /// When it is forgotten, unless it comes before.
    pub expires: Timestamp,
    /// How often it was deferred.
    pub deferred: u64,
    /// How often it passed; one that did is known.
    pub passed: u64,
}

/// What an attempt would meet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GreylistWhy {
    /// Whether it would pass.
    pub passes: bool,
    /// Why: the word that replies, the log and the metrics use.
    pub reason: String,
    /// How long it should wait, in milliseconds, if it would be deferred.
    pub retry_in_ms: Option<u64>,
    /// Whether the greylist only watches: who would be deferred passes.
    pub observes: bool,
    /// Whether it is told so only after RCPT.
    pub held_until_data: bool,
    /// By what its delay is as long as it is: the word that the log uses.
    pub rule: String,
    /// That delay, in milliseconds.
    pub delay_ms: u64,
    /// The networks that the client counts as, the best known first.
    pub networks: Vec<String>,
    /// What is known of the client.
    pub evidence: EvidenceView,
    /// What is remembered of it, under the network by which it was decided.
    pub triplet: Option<TripletView>,
}

/// What is known of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EvidenceView {
    /// What SPF says (RFC 7208), such as `pass`.
    pub spf: String,
    /// The domain that was asked; empty where there is none.
    pub spf_domain: String,
    /// Its name, if it is confirmed.
    pub name: Option<String>,
    /// Whether its names look as if they were given to whoever has the address at the time.
    pub dynamic: bool,
    /// Whether lists in the DNS hold it.
    pub listed: bool,
}

/// How many triplets are remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GreylistStats {
    /// Those that never passed.
    pub waiting: u64,
    /// Those that did.
    pub known: u64,
    /// Those whose changes wait here until the shared database is there again.
    #[serde(default)]
    pub journalled: u64,
    /// Those of which changes are lost, since no more could wait.
    #[serde(default)]
    pub lost: u64,
    /// Why the shared database cannot be asked, if so; how many triplets there are is not known then.
    #[serde(default)]
    pub away: Option<String>,
}

/// What became of what another greylist remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GreylistImported {
    /// How many triplets, and networks as a whole, are known better now.
    pub taken: u64,
    /// How many were known as well before.
    pub unchanged: u64,
    /// How many rows say nothing: their time is over, or a whole domain or network must come back.
    pub left_out: u64,
}
