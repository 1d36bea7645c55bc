//! How it stands with the host: whether it takes connections, and what went wrong last.

use std::sync::Arc;
use std::time::Duration;

use lamppost_telemetry::Gauge;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How it stands with the host that takes mail for elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayStanding {
    /// Its name, as `host:port`.
    pub name: String,
    /// Whether it takes connections.
    pub reach: RelayReach,
    /// Connections that are open now.
    pub connections: usize,
    /// What went wrong last.
    pub fault: Option<RelayFault>,
}

/// Whether the host took the last connection, and for how long that has been so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayReach {
    /// Nobody tried yet.
    Untried,
    /// It did.
    Up(Duration),
    /// It did not.
    Down(Duration),
}

/// Something that went wrong with the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayFault {
    /// What, for people: one line.
    pub text: String,
    /// How long ago.
    pub ago: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Standing {
    known: Mutex<Known>,
    /// One share for each open connection, and its own.
    open: Arc<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether it is up, and since when.
    reach: Option<(bool, Instant)>,
    fault: Option<(String, Instant)>,
}

/// An open connection.
pub(super) struct Presence {
    _share: Arc<()>,
    gauge: Gauge,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Standing {
    /// A connection is ready that was begun at `begun`.
    pub(super) fn reached(&self, begun: Instant) {
        self.known.lock().turn(true, begun);
    }

    /// No connection was to be had.
    pub(super) fn lost(&self, why: String) {
        let now = Instant::now();
        let mut known = self.known.lock();
        known.turn(false, now);
        known.fault = Some((why, now));
    }

    /// Something went wrong with a connection.
    pub(super) fn complained(&self, why: String) {
        self.known.lock().fault = Some((why, Instant::now()));
    }

    /// A connection is open for as long as this is there.
    pub(super) fn presence(&self, gauge: Gauge) -> Presence {
        gauge.inc();
        Presence { _share: self.open.clone(), gauge }
    }

    pub(super) fn told(&self, name: String) -> RelayStanding {
        let known = self.known.lock();
        RelayStanding {
            name,
            reach: match known.reach {
                None => RelayReach::Untried,
                Some((true, since)) => RelayReach::Up(since.elapsed()),
                Some((false, since)) => RelayReach::Down(since.elapsed()),
            },
            connections: Arc::strong_count(&self.open) - 1,
            fault: known
                .fault
                .as_ref()
                .map(|(text, at)| RelayFault { text: text.clone(), ago: at.elapsed() }),
        }
    }
}

impl Known {
    fn turn(&mut self, is_up: bool, now: Instant) {
        if self.reach.is_none_or(|(was_up, _)| was_up != is_up) {
            self.reach = Some((is_up, now));
        }
    }
}
