//! An SMTP load for proofs and measurements: every message is unique and follows from its token, so
//! that what arrives can be compared byte for byte with what was sent.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! let address = "127.0.0.1:2525".parse()?;
//! let mut load = lamppost_load::Load::new(address, &["demo@lamppost.test"]);
//! load.sessions = 20;
//! load.sizes = vec![4096];
//! load.duration = Some(Duration::from_secs(10));
//! let report = load.start()?.finish();
//! let latencies = report.latencies();
//! println!("{} acknowledged", latencies.len());
//! println!("p99 {:?}", lamppost_load::percentile(&latencies, 0.99));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Errors of the other side are results here, not errors: they stand in the [`Report`].
//!
//! [`PolicyLoad`] asks as a mail server asks a greylist, [`GreetingLoad`] connects and wants no more, and [`Mariadb`] is the database server that such proofs and measurements are made with.

mod connection;
mod greeting;
mod journal;
mod load;
mod mariadb;
mod message;
mod policy;
mod random;
mod report;
mod session;

pub use connection::Reply;
pub use greeting::{GreetingLoad, GreetingReport, answer_to_rcpt};
pub use load::{Load, Running};
pub use mariadb::Mariadb;
pub use message::{Stranger, Token};
pub use policy::{Mix, PolicyLoad, PolicyReport, answer_dunno};
pub use random::Random;
pub use report::{Outcome, Report, Sent, percentile};
