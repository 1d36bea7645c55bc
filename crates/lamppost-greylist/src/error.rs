//! Why a store could not do what was asked.

use std::time::Duration;

use lamppost_database::DatabaseError;

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The embedded database says so.
    #[error(transparent)]
    Embedded(DatabaseError),
    /// No connection to the shared database can be made.
    #[error("cannot connect to the database {server}")]
    Unreachable {
        /// Which, without names and passwords.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The shared database does not answer.
    #[error("the database {server} did not {what} within {} s", .after.as_secs())]
    Silent {
        /// Which.
        server: String,
        /// What it was asked to do.
        what: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The shared database refused a statement.
    #[error("cannot {what} in the database {server}")]
    Statement {
        /// Which.
        server: String,
        /// What was to be done.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The tables of the shared database are not what they should be.
    #[error("the database {server} cannot be used: {problem}")]
    Foreign {
        /// Which.
        server: String,
        /// Which table and column, what is expected there, and what to do.
        problem: String,
    },
    /// The shared database was found away a moment ago, and is not waited for.
    #[error("the database {server} is away: {reason}")]
    Away {
        /// Which.
        server: String,
        /// What was found then.
        reason: String,
    },
}
