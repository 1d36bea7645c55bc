//! Questions to name servers, behind a trait that tests and simulations replace.

pub mod list;
mod name_servers;
mod resolv_conf;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::future::BoxFuture;

pub use name_servers::{NameServers, Patience};
pub use resolv_conf::{PORT, name_servers};

/// Who answers questions about names. A name that does not exist, or has nothing of what is asked for, is no
/// error: its answer is empty.
pub trait Resolver: Send + Sync {
    /// The IPv4 addresses of a name (A).
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Ipv4Addr>, LookupError>>;

    /// The IPv6 addresses of a name (AAAA).
    fn v6_addresses<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Ipv6Addr>, LookupError>>;

    /// The texts of a name (TXT), each in one piece; what is not UTF-8 in them is replaced.
    fn texts<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<String>, LookupError>>;

    /// The hosts that take the mail of a name (MX), those to be tried first before the others, without a dot
    /// at their ends.
    fn exchanges<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<String>, LookupError>>;

    /// The names of an address (PTR), without a dot at their ends. Whoever has the address chooses them: they
    /// prove nothing until the address is found among theirs.
    fn names(&self, address: IpAddr) -> BoxFuture<'_, Result<Vec<String>, LookupError>>;
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// A name server answered that it cannot tell, or cannot be reached.
    #[error("the name servers cannot tell: {reason}")]
    Failed {
        /// In their words.
        reason: String,
    },
    /// It cannot be the name of anything.
    #[error("`{name}` cannot be a name in the DNS")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// No name server answered in time.
    #[error("no name server answered in time")]
    Silent,
}
