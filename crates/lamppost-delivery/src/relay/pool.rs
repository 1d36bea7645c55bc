//! Connections that wait for the next request, and how many there may be.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::RelaySettings;
use super::connection::Connection;
use super::standing::Standing;

/// The connections to one host.
pub(super) struct Pool {
    settings: RelaySettings,
    pub(super) standing: Standing,
    turns: Arc<Semaphore>,
    kept: Mutex<Kept>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Connections that wait, the one that waited longest first.
#[derive(Default)]
struct Kept {
    connections: Vec<(Connection, Instant)>,
    /// Whether a task closes those that waited too long.
    swept: bool,
}

/// The right to use one connection.
///
/// Nobody connects anew while one waits, so there are never more than there are turns.
pub(super) struct Turn {
    pool: Arc<Pool>,
    permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(settings: RelaySettings) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(settings.connections_max.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { settings, standing: Standing::default(), turns, kept: Mutex::default() })
    }

    pub(super) fn settings(&self) -> &RelaySettings {
        &self.settings
    }

    /// Waits until a connection may be used.
    pub(super) async fn turn(self: Arc<Self>) -> Turn {
        loop {
            // It is closed by nobody.
            if let Ok(permit) = self.turns.clone().acquire_owned().await {
                return Turn { pool: self, permit };
            }
        }
    }

    /// Closes connections once they waited too long, until none waits.
    async fn sweep(self: Arc<Self>) {
        while let Some(due) = self.next_due() {
            tokio::time::sleep_until(due).await;
            let late = {
                let mut kept = self.kept.lock();
                let now = Instant::now();
                let late = kept.connections.partition_point(|(_, until)| *until <= now);
                kept.connections.drain(..late).collect::<Vec<_>>()
            };
            for (connection, _) in late {
                connection.quit().await;
            }
        }
    }

    /// When the next connection has waited too long.
    fn next_due(&self) -> Option<Instant> {
        let mut kept = self.kept.lock();
        let due = kept.connections.first().map(|(_, until)| *until);
        kept.swept = due.is_some();
        due
    }
}

impl Turn {
    pub(super) fn settings(&self) -> &RelaySettings {
        &self.pool.settings
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.pool.standing
    }

    /// A connection that waits: the one that waited least, which the host is least tired of.
    pub(super) fn kept(&self) -> Option<Connection> {
        self.pool.kept.lock().connections.pop().map(|(connection, _)| connection)
    }

    /// Lets a connection wait for the next request.
    pub(super) fn keep(self, connection: Connection) {
        let Self { pool, permit } = self;
        let until = Instant::now() + pool.settings.idle_timeout;
        let begin = {
            let mut kept = pool.kept.lock();
            kept.connections.push((connection, until));
            !std::mem::replace(&mut kept.swept, true)
        };
        drop(permit);
        if begin {
            tokio::spawn(pool.sweep());
        }
    }
}
