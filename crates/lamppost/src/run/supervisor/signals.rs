//! The signals that the supervisor hears.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Code, Failure};

/// The signals that end the program, make it read its file again, or tell of a role that ended.
pub(super) struct Signals {
    pub(super) term: Signal,
    pub(super) interrupt: Signal,
    pub(super) hangup: Signal,
    pub(super) child: Signal,
}

impl Signals {
    /// Resolves when the program is to stop.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    pub(super) fn new() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind).map_err(|error| Failure::at(Code::System, "cannot take signals", &error))
        };
        Ok(Self {
            term: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hangup: take(SignalKind::hangup())?,
            child: take(SignalKind::child())?,
        })
    }
}
