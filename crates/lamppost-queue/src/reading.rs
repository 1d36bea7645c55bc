//! How far a start has come with reading the spool, for those who wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much of the log is read; clones tell of the same start.
#[derive(Clone, Debug, Default)]
pub struct Reading(Arc<Segments>);

#[derive(Debug, Default)]
struct Segments {
    read: AtomicU64,
    all: AtomicU64,
}

impl Reading {
    /// Segments of the log that are read, and all that are to be.
    pub fn segments(&self) -> (u64, u64) {
        (self.0.read.load(Ordering::Relaxed), self.0.all.load(Ordering::Relaxed))
    }

    /// So many are to be read.
    pub(crate) fn begin(&self, segments: usize) {
        self.0.all.store(segments as u64, Ordering::Relaxed);
    }

    /// One more is read.
    pub(crate) fn step(&self) {
        self.0.read.fetch_add(1, Ordering::Relaxed);
    }
}
