//! Who may connect: the rules of tcp.smtp, as text and as the cdb that tcprules makes of it, and how they
//! are looked up for a client.
//!
//! A rule has a key, such as an address, a prefix of one or a name, denies or allows, and sets variables
//! (ucspi-tcp 0.88, `tcprules.c`, `rules.c`). Whatever tcprules takes means the same here, byte for byte in
//! the cdb. What the [`Extended`](Grammar::Extended) grammar adds, such as networks, stands in the same cdb
//! under keys that no tcpserver looks up.

mod cdb;
mod compile;
mod line;
mod lookup;
mod network;
mod rules;
mod writer;

pub use cdb::{Cdb, Damaged};
pub use compile::{Compiled, Remark, Unusable, Why, compile};
pub use line::{Grammar, Wrong};
pub use lookup::{Client, Effect, Found, Keys, look_up};
pub use network::NetworkError;
pub use rules::{Form, ReadError, Rules, Verdict};
pub use writer::{CdbWriter, TooLarge};
