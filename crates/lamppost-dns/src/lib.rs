//! Questions to name servers, behind a trait that tests and simulations replace.

pub mod list;
mod name_servers;
mod resolv_conf;

use std::net::Ipv4Addr;

use futures_util::future::BoxFuture;

pub use name_servers::{NameServers, Patience};
pub use resolv_conf::{PORT, name_servers};

/// Who answers questions about names. A name that does not exist, or has nothing of what is asked for, is no
/// error: its answer is empty.
pub trait Resolver: Send + Sync {
    /// The IPv4 addresses of a name (A).
    fn addresses<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<Ipv4Addr>, LookupError>>;

    /// The texts of a name (TXT), each in one piece; what is not UTF-8 in them is replaced.
    fn texts<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<String>, LookupError>>;
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
