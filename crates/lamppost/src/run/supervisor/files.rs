//! Files that others have in their hands, such as those that the configuration names, read on a thread of
//! their own: one that hangs, as on a dead network file system, holds up nobody.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::exit::{Code, Failure};

/// How long files may take to be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who reads them: one thread, and none beside it that would hang too.
pub(super) struct Files {
    one: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Files {
    fn default() -> Self {
        Self { one: Arc::new(Semaphore::new(1)), patience: PATIENCE }
    }
}

/// Files were not read in time.
#[derive(Debug)]
pub(super) struct Late;

impl From<Late> for Failure {
    fn from(_: Late) -> Self {
        let seconds = PATIENCE.as_secs();
        let what = format!(
            "the configuration and the files that it names could not be read within {seconds} s"
        );
        Self::new(Code::Unavailable, what).cure(
            "look whether a file system does not answer that one of them is on, as a network file system \
             whose server is away",
        )
    }
}

impl Files {
    /// Reads them, unless that takes too long, or what was read before hangs yet.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Late> {
        let turn = self.one.clone().try_acquire_owned().map_err(|_| Late)?;
        let read = move || {
            let read = read();
            drop(turn);
            read
        };
        match timeout(self.patience, tokio::task::spawn_blocking(read)).await {
            Ok(Ok(read)) => Ok(read),
            _ => Err(Late),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn what_hangs_takes_one_thread_and_no_time() {
        let files = Files { patience: Duration::from_millis(10), ..Files::default() };
        assert_eq!(files.read(|| 1).await.ok(), Some(1));
        let (end, ended) = channel::<()>();
        let hung = files.read(move || ended.recv().is_ok()).await;
        assert!(hung.is_err());
        // Nobody else waits where one does.
        assert!(files.read(|| 2).await.is_err());
        drop(end);
        let turn = files.one.acquire().await;
        drop(turn);
        assert_eq!(files.read(|| 3).await.ok(), Some(3));
    }
}
