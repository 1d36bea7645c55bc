//! The ends of connections that are no ends of sessions.

use std::io;

/// Why a connection ended before its session did.
pub(super) enum Lost {
    /// The client closed it, or the network did.
    Closed,
    /// It could not be read from or written to.
    Failed(io::Error),
    /// Nothing true could be said to the client any more; the log says why.
    CutOff,
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}
