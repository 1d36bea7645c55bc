//! Evidence about a client that sends mail: what SPF says of it, its forward-confirmed name, and which
//! networks it may count as by that.
//!
//! Nothing here is an error for the client: what cannot be found out is unknown, and says neither good nor bad.
//! Everything but the lookups is a function of what was found.

mod keys;
mod name;

use std::net::IpAddr;

use futures_util::future::BoxFuture;

pub use keys::{Prefixes, keys};
pub use name::{ConfirmedName, ReverseName, is_dynamic, registrable};

/// A client as it introduces itself.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address.
    pub ip: IpAddr,
    /// What it says of itself in HELO or EHLO; empty where that is not known.
    pub helo: &'a str,
    /// The sender of its mail; empty for the null sender.
    pub sender: &'a str,
}

/// What is known of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What SPF says.
    pub spf: Spf,
    /// Its name.
    pub name: ReverseName,
    /// Whether its names look as if a provider gave them to whoever has the address at the time.
    pub is_dynamic: bool,
    /// Whether lists in the DNS hold it; whoever asked them sets this.
    pub is_listed: bool,
}

/// What SPF says of a client (RFC 7208).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spf {
    /// The result.
    pub result: SpfResult,
    /// The domain that was asked, in lower case: the sender's, or that of HELO for the null sender. Empty
    /// where there is none.
    pub domain: String,
    /// Whether the addresses that it lets send are known, and so few that they may count as one network.
    pub is_narrow: bool,
}

/// Results of SPF (RFC 7208 §2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpfResult {
    /// The client may not send for the domain.
    Fail,
    /// The domain says neither.
    Neutral,
    /// The domain says nothing of this kind.
    None,
    /// The client may send for the domain.
    Pass,
    /// What the domain says cannot be used.
    PermError,
    /// The client probably may not.
    SoftFail,
    /// It could not be found out.
    #[default]
    TempError,
}

impl SpfResult {
    /// All of them.
    const ALL: [Self; 7] = [
        Self::Fail,
        Self::Neutral,
        Self::None,
        Self::Pass,
        Self::PermError,
        Self::SoftFail,
        Self::TempError,
    ];

    /// Its name in the standard.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::Pass => "pass",
            Self::PermError => "permerror",
            Self::SoftFail => "softfail",
            Self::TempError => "temperror",
        }
    }

    /// The result of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|result| result.name().eq_ignore_ascii_case(name))
    }
}

/// Who finds out about clients.
pub trait Investigator: Send + Sync {
    /// What can be found out about a client within the time that there is. It is kept for a while, so that it
    /// costs next to nothing to ask again for the next recipient.
    fn investigate<'a>(&'a self, client: Client<'a>) -> BoxFuture<'a, Evidence>;
}
