//! What passed, until it is written down.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::{Greylist, Passed, StoreError};

/// Mail that waits to be written down; the oldest goes when there is more.
const WAITING_MAX: usize = 10_000;

/// Mail that passed and is not written down yet.
#[derive(Debug, Default)]
pub(crate) struct Log {
    waiting: Mutex<VecDeque<Passed>>,
}

impl Greylist {
    /// Has mail that passed written down, where the store has tables for it.
    pub fn log(&self, passed: Passed) {
        let mut waiting = self.log.waiting.lock();
        if waiting.len() >= WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back(passed);
    }

    /// Writes down what passed since the last time; it is no more than a report, and lost where that fails.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn write_log(&self) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut *self.log.waiting.lock());
        if waiting.is_empty() {
            return Ok(());
        }
        self.store.log(waiting.into()).await
    }
}
