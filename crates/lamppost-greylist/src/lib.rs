//! Who must come back later: the decision, and its store behind one trait.
//!
//! Greylisting (RFC 6647) defers the first attempt of a triplet, that is a network, a sender and a
//! recipient who have not met before. Real servers come back; most senders of spam do not. Columns
//! and meaning of the stored rows are relaydelay's, which administrators know.
//!
//! An attempt takes one look into the store, and none for a triplet that is known here. What is to
//! be remembered of it is written behind, together with what others left. What the DNS tells of a client is
//! asked for those only who are not known.

mod attempt;
mod by_hand;
mod decision;
mod error;
mod filter;
mod greylist;
pub mod import;
mod journal;
mod known;
mod log;
mod mariadb;
mod memory;
mod policy;
mod record;
pub mod replay;
mod settlement;
mod shared;
mod sqlite;
mod store;
mod triplet;
mod unwritten;
mod whom;
mod wildcard;

pub use attempt::{Attempt, Outcome, Passage, Ruling};
pub use decision::{Case, Decision, Hold, Rule, Verdict, Why, decide};
pub use error::StoreError;
pub use filter::{Census, Filter};
pub use greylist::Greylist;
pub use mariadb::{Dialect, Password, Server, ServerPlace, Step, Workshop, admin_statements};
pub use memory::MemoryStore;
pub use policy::{Adaptive, Algorithm, Policy, Stage, Terms};
pub use record::{Change, Life, Record};
pub use shared::SharedStore;
pub use sqlite::SqliteStore;
pub use store::{Changes, Condition, Page, Passed, Seen, Store};
pub use triplet::Triplet;
pub use whom::NoWhom;
pub use wildcard::{NEVER, Whom, Wildcard, Wildcards};
