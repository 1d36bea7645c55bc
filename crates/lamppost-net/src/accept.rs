//! Accepting connections, also when the process has no descriptor left for one.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use tracing::error;

/// How long to wait for descriptors to become free.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// What a listener gives next; `accept` asks it.
///
/// Connections that break before they are accepted are skipped. When the process has no file
/// descriptor left, accepting pauses and says so instead of spinning.
pub async fn accept_next<T, F>(listener: impl Display, mut accept: impl FnMut() -> F) -> T
where
    F: Future<Output = io::Result<T>>,
{
    let mut exhausted = false;
    loop {
        match accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_exhaustion(&error) => {
                if !exhausted {
                    exhausted = true;
                    error!(%listener, reason = %error, "accepting pauses");
                }
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The connection that was to be accepted is gone (accept(2), error handling).
            Err(_) => {}
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
