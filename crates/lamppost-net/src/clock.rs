//! The wall clock behind a trait, so that simulations control the time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the time of day.
pub trait Clock: Send + Sync + 'static {
    /// The time since 1970-01-01T00:00:00Z.
    fn now(&self) -> Duration;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Duration {
        (**self).now()
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks the machine")]
    fn now(&self) -> Duration {
        // A clock before 1970 is as good as 1970: nothing here looks further back.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// A clock that moves with tokio's, which tests pause and simulations drive.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    start: tokio::time::Instant,
    origin: Duration,
}

impl TokioClock {
    /// A clock that shows `origin` now.
    pub fn starting_at(origin: Duration) -> Self {
        Self { start: tokio::time::Instant::now(), origin }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Duration {
        self.origin + self.start.elapsed()
    }
}
