//! Descriptors that the supervisor hands to a role while it works.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use lamppost_net::receive_descriptor;
use tracing::error;

/// What the control role is handed when a role gets a new process: the end by which it asks that one.
pub(in crate::run) const INSPECT: u32 = 0;
/// And the end by which that one tells its outcomes.
pub(in crate::run) const OUTCOMES: u32 = 1;
/// What those are handed whom the new process asks.
pub(in crate::run) const QUESTIONS: u32 = 0;

/// Takes each descriptor that comes by `from`, in a thread, until the supervisor is gone.
///
/// # Errors
/// When there can be no thread.
pub(super) fn receive(
    from: OwnedFd,
    mut take: impl FnMut(u32, OwnedFd) + Send + 'static,
) -> io::Result<()> {
    let handle = tokio::runtime::Handle::current();
    let from = UnixStream::from(from);
    let work = move || {
        let _context = handle.enter();
        loop {
            match receive_descriptor(&from) {
                Ok(None) => return,
                Ok(Some((what, descriptor))) => take(what, descriptor),
                // One that found no room here is lost, and those that come later may find some.
                Err(reason) if reason.kind() == io::ErrorKind::InvalidData => {
                    error!(%reason, "a descriptor could not be received");
                }
                Err(reason) => {
                    error!(%reason, "no further descriptors can be received");
                    return;
                }
            }
        }
    };
    std::thread::Builder::new().name("handed".into()).spawn(work).map(drop)
}
