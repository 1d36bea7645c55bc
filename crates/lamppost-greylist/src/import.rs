//! What other greylists remember, read so that whoever they know need not wait again here.

mod dump;
pub mod postgrey;
pub mod sqlgrey;

use std::net::IpAddr;
use std::time::Duration;

pub use dump::{Dump, DumpProblem, Pair};

/// Whom another greylist lets pass, or has told to come back. Times are since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The client, or the first address of its network.
    pub client: IpAddr,
    /// The sender in lower case, empty for the null sender, or `@domain` for all of a domain; nothing
    /// where all senders are meant.
    pub sender: Option<String>,
    /// The recipient in lower case; nothing where all are meant.
    pub recipient: Option<String>,
    /// When the first attempt was made.
    pub first: Duration,
    /// When the last attempt was made that counted.
    pub last: Duration,
    /// Whether one has passed.
    pub has_passed: bool,
}
