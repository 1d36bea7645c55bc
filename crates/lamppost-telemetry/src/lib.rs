//! Events, logs, metrics and health.
//!
//! Secrets never reach this crate: they travel as `lamppost_smtp::Secret`, which prints as `…`.

mod format;
mod health;
mod lines;
mod metrics;
mod outcomes;
mod words;

pub use format::{Format, Guard, LinesTo, OutcomesTo, Settings, StartError, start};
pub use health::{Fact, Health, State};
pub use metrics::{Gauge, Metrics, counters, merged};
pub use outcomes::{Kept, OutcomeEvent, ReadError, read_outcomes};
pub use words::count;
