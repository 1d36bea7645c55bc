//! Ending gracefully: nothing new begins, what runs may finish, and a grace bounds it.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A shutdown that tasks share; clones are the same shutdown.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    retired: CancellationToken,
    begun: CancellationToken,
    overdue: CancellationToken,
    paused: watch::Sender<bool>,
    tasks: TaskTracker,
}

impl Drain {
    /// Runs a task that the drain waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.tasks.spawn(task));
    }

    /// Has nothing new begin until it is said otherwise; what runs goes on.
    pub fn pause(&self, is_paused: bool) {
        self.paused.send_replace(is_paused);
    }

    /// Resolves when something new may begin.
    pub async fn unpaused(&self) {
        // The sender lives as long as this does.
        drop(self.paused.subscribe().wait_for(|is_paused| !is_paused).await);
    }

    /// Resolves when nothing new may begin for a while.
    pub async fn is_paused(&self) {
        drop(self.paused.subscribe().wait_for(|is_paused| *is_paused).await);
    }

    /// Resolves when no connection should be taken any more.
    pub async fn retired(&self) {
        self.retired.cancelled().await;
    }

    /// Resolves when nothing new should begin any more, on no connection.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Whether nothing new should begin any more, on no connection.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Has no further connection taken; what has one goes on undisturbed.
    pub fn retire(&self) {
        self.retired.cancel();
    }

    /// Waits until all tasks have ended by themselves, and finishes them after `patience`.
    pub async fn wait(&self, patience: Duration, grace: Duration) -> usize {
        self.tasks.close();
        if within(patience, self.tasks.wait()).await {
            return 0;
        }
        self.finish(grace).await
    }

    /// Resolves when the grace is over: what still runs should end at once.
    pub async fn overdue(&self) {
        self.overdue.cancelled().await;
    }

    /// Begins the drain and waits until all tasks have ended; returns how many were left when even
    /// the time after the grace was over.
    pub async fn finish(&self, grace: Duration) -> usize {
        /// How long tasks may take to end at once.
        const LAST_WORDS: Duration = Duration::from_secs(3);
        self.retired.cancel();
        self.begun.cancel();
        self.tasks.close();
        if !within(grace, self.tasks.wait()).await {
            self.overdue.cancel();
            drop(tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await);
        }
        self.tasks.len()
    }
}

/// Whether something comes within a time in which this process could work: what a machine slept through, as one
/// that was moved to other hardware, or gave to others, was nobody's to use.
async fn within(patience: Duration, something: impl Future<Output = ()>) -> bool {
    /// What one look counts at most, however long it was until the next.
    const STEP: Duration = Duration::from_millis(100);
    let mut something = std::pin::pin!(something);
    let mut left = patience;
    loop {
        let step = left.min(STEP);
        if tokio::time::timeout(step, &mut something).await.is_ok() {
            return true;
        }
        left -= step;
        if left.is_zero() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_the_machine_slept_through_is_nobodys_time() {
        let drain = Drain::default();
        let one = drain.clone();
        drain.spawn(async move {
            tokio::time::sleep(Duration::from_secs(190)).await;
            assert!(!one.has_begun());
        });
        drain.retire();
        let waiting = drain.wait(Duration::from_secs(20), Duration::from_secs(10));
        let asleep = async {
            // It has begun to wait.
            tokio::time::sleep(Duration::from_secs(5)).await;
            tokio::time::advance(Duration::from_secs(180)).await;
        };
        let (left, ()) = tokio::join!(waiting, asleep);
        assert_eq!(left, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_may_finish_within_the_grace() {
        let drain = Drain::default();
        drain.spawn(tokio::time::sleep(Duration::from_secs(5)));
        assert_eq!(drain.finish(Duration::from_secs(10)).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_lasts_until_it_is_over() {
        let drain = Drain::default();
        drain.unpaused().await;
        let other = drain.clone();
        other.pause(true);
        drain.is_paused().await;
        let waiting = tokio::time::timeout(Duration::from_secs(1), drain.unpaused());
        assert!(waiting.await.is_err());
        other.pause(false);
        drain.unpaused().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_retires_is_not_hurried_before_its_time() {
        let drain = Drain::default();
        let (one, other) = (drain.clone(), drain.clone());
        drain.spawn(async move {
            one.retired().await;
            tokio::time::sleep(Duration::from_secs(50)).await;
            assert!(!one.has_begun());
        });
        drain.spawn(async move { other.begun().await });
        let begun = tokio::time::Instant::now();
        drain.retire();
        assert_eq!(drain.wait(Duration::from_secs(60), Duration::from_secs(10)).await, 0);
        assert_eq!(begun.elapsed(), Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_are_told_when_the_grace_is_over_and_left_when_they_do_not_listen() {
        let drain = Drain::default();
        let listens = drain.clone();
        drain.spawn(async move { listens.overdue().await });
        drain.spawn(std::future::pending());
        assert_eq!(drain.finish(Duration::from_secs(10)).await, 1);
    }
}
