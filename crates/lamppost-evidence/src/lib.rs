//! Evidence about a client that sends mail: what SPF says of it, its forward-confirmed name, and which
//! networks it may count as by that.
//!
//! Nothing here is an error for the client: what cannot be found out is unknown, and says neither good nor bad.
//! Everything but the lookups is a function of what was found.

mod confirmation;
mod inquiry;
mod keys;
mod name;
mod spf;

use std::net::IpAddr;

use futures_util::future::BoxFuture;

pub use confirmation::confirmed_names;
pub use inquiry::{DnsInvestigator, Limits};
pub use keys::{Prefixes, keys};
pub use name::{ConfirmedName, ReverseName, is_dynamic, registrable};
pub use spf::{Spf, SpfResult};

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

/// Who finds out about clients.
pub trait Investigator: Send + Sync {
    /// What can be found out about a client within the time that there is. It is kept for a while, so that it
    /// costs next to nothing to ask again for the next recipient.
    fn investigate<'a>(&'a self, client: Client<'a>) -> BoxFuture<'a, Evidence>;
}
