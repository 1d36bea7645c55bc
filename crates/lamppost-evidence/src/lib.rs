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

impl Evidence {
    /// What SPF and its confirmed names say of a client; where its names could not be found out there are none
    /// to tell.
    pub fn of(ip: IpAddr, spf: Spf, names: Option<&[String]>) -> Self {
        let evidence = Self { spf, ..Self::default() };
        let Some(names) = names else { return evidence };
        // One that is a server's speaks for the client.
        let of_server = names.iter().find(|name| !is_dynamic(name, ip));
        match of_server.or(names.first()) {
            Some(name) => Self {
                name: ReverseName::Confirmed(ConfirmedName::of(name)),
                is_dynamic: of_server.is_none(),
                ..evidence
            },
            None => Self { name: ReverseName::Unconfirmed, ..evidence },
        }
    }
}

/// Who finds out about clients.
pub trait Investigator: Send + Sync {
    /// What can be found out about a client within the time that there is. It is kept for a while, so that it
    /// costs next to nothing to ask again for the next recipient.
    fn investigate<'a>(&'a self, client: Client<'a>) -> BoxFuture<'a, Evidence>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_of_a_server_speaks_for_the_client() {
        let check = |names: Option<&[&str]>, expected: &str| {
            let names =
                names.map(|names| names.iter().map(|name| (*name).into()).collect::<Vec<_>>());
            let ip = "192.0.2.77".parse().unwrap();
            let Evidence { name, is_dynamic, .. } =
                Evidence::of(ip, Spf::default(), names.as_deref());
            let told = match name {
                ReverseName::Confirmed(name) => name.name,
                other => format!("{other:?}"),
            };
            assert_eq!(format!("{told} {is_dynamic}"), expected);
        };
        check(None, "Unknown false");
        check(Some(&[]), "Unconfirmed false");
        check(Some(&["dyn7.a.test"]), "dyn7.a.test true");
        check(Some(&["dyn7.a.test", "mx.b.test"]), "mx.b.test false");
    }
}
