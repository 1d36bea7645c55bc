//! Password hashes are expensive on purpose: only so many are computed at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use lamppost_smtp::{Refusal, Secret};
use tokio::sync::Semaphore;

use crate::password;

/// The hash that stands in for the one of an account that does not exist: same parameters, same
/// work. Nobody knows its password.
static NOBODY: LazyLock<String> = LazyLock::new(|| {
    let password = password::generate_password().unwrap_or_else(|_| Secret::new(String::new()));
    password::hash(&password).unwrap_or_default()
});

/// Computes hashes, a few at once.
#[derive(Debug)]
pub(crate) struct Hashes {
    turns: Arc<Semaphore>,
    wait: Duration,
    computed: AtomicU64,
}

impl Hashes {
    pub(crate) fn new(at_once_max: usize, wait: Duration) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once_max)), wait, computed: AtomicU64::new(0) }
    }

    /// Whether the password is the hashed one; without a hash it is not, at the same cost.
    pub(crate) async fn verify(
        &self,
        hash: Option<String>,
        password: Secret,
    ) -> Result<bool, Refusal> {
        let turn = self.turns.clone().acquire_owned();
        let turn = tokio::time::timeout(self.wait, turn).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Refusal::AuthBusy);
        };
        self.computed.fetch_add(1, Ordering::Relaxed);
        let computing = tokio::task::spawn_blocking(move || {
            let known = hash.is_some();
            let right = password::verify(&hash.unwrap_or_else(|| NOBODY.clone()), &password);
            drop(turn);
            known && right
        });
        computing.await.map_err(|_| Refusal::Unavailable)
    }

    /// How many hashes were computed.
    #[cfg(test)]
    pub(crate) fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_so() {
        let hashes = Hashes::new(0, Duration::from_secs(10));
        let refused = hashes.verify(None, Secret::new("x".into())).await;
        assert_eq!(refused, Err(Refusal::AuthBusy));
    }
}
