//! Sockets that the service manager keeps for the next start of the program, so that a restart refuses
//! nobody (`sd_notify(3)`, `FDSTORE`).

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;

use sd_notify::NotifyState;
use tracing::warn;

/// What the service manager keeps; nothing where there is none.
#[derive(Debug, Default)]
pub(super) struct Store {
    names: BTreeSet<String>,
}

impl Store {
    /// Has these sockets kept, and no others.
    pub(super) fn keep<'a>(&mut self, sockets: impl Iterator<Item = &'a TcpListener>) {
        let mut names = BTreeSet::new();
        for socket in sockets {
            let Ok(address) = socket.local_addr() else { continue };
            let name = name(address);
            if !self.names.contains(&name) {
                let state = [NotifyState::FdStore, NotifyState::FdName(&name)];
                if let Err(reason) = sd_notify::notify_with_fds(&state, &[socket.as_fd()]) {
                    warn!(%address, %reason, "a socket is not kept for the next start");
                }
            }
            names.insert(name);
        }
        for name in std::mem::replace(&mut self.names, names) {
            if !self.names.contains(&name) {
                drop(sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)]));
            }
        }
    }

    /// What was kept of the program before, under the names that it gave.
    pub(super) fn of(held: &[&TcpListener]) -> Self {
        let names = held.iter().filter_map(|socket| socket.local_addr().ok().map(name));
        Self { names: names.collect() }
    }
}

/// The name of an address: a name has no colon (`sd_notify(3)`, `FDNAME`).
fn name(address: SocketAddr) -> String {
    address.to_string().replace([':', '[', ']'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_the_service_manager_wants_them() {
        for address in ["127.0.0.1:25", "[2001:db8::1]:587"] {
            let name = name(address.parse().unwrap());
            assert!(name.len() < 256 && name.is_ascii() && !name.contains(':'), "{name}");
        }
        assert_ne!(name("[::1]:25".parse().unwrap()), name("[::12]:5".parse().unwrap()));
    }
}
