//! Who is at the other end of a connection, and what it is called in the log.

use std::net::IpAddr;
use std::time::Duration;

use lamppost_net::ServerTls;
use lamppost_roles::Admission;
use lamppost_smtp::{Kind, Session};

/// Who is at the other end, and how to talk to it.
pub(super) struct Client<'a, S> {
    pub(super) stream: S,
    pub(super) peer: IpAddr,
    pub(super) session: Session,
    pub(super) kind: Kind,
    pub(super) tls: Option<&'a ServerTls>,
    /// The user of this machine, if the system told one.
    pub(super) user: Option<u32>,
    /// What is so for it by the rules of connections.
    pub(super) admission: Admission,
}

impl<S> Client<'_, S> {
    /// Its address; or the user of this machine, by name and number.
    pub(super) fn shown(&self) -> String {
        match (self.user, self.session.account()) {
            (Some(uid), Some(account)) => format!("{} (uid {uid})", account.local()),
            (Some(uid), None) => format!("uid {uid}"),
            (None, _) => self.peer.to_string(),
        }
    }
}

/// A name for the session that no other session of this host has.
pub(super) fn session_id(now: Duration) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    let next = |last: u64| now.max(last + 1);
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    let id = next(last.unwrap_or_default());
    format!("{id:x}")
}
