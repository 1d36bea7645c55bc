//! The sockets that the supervisor holds for its roles.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use lamppost_console::{ControlSocket, ListenerStatus, SocketError};
use tokio::task::JoinSet;
use tracing::error;

use super::group::Group;
use super::{ORPHANS_LAST, Supervisor};
use crate::exit::{Code, Failure};
use crate::place::Opened;
use crate::run::listeners::{self, Bound};
use crate::run::local::Local;
use crate::run::setup::Setup;
use crate::state_files;

/// Makes the control socket, for whom it is meant, unless it is `held`.
pub(super) fn control_socket(
    opened: &Opened,
    setup: &Setup,
    held: Option<UnixListener>,
) -> Result<UnixListener, Failure> {
    let socket = held.map_or_else(|| bind_control(opened), Ok)?;
    let path = &opened.control_socket;
    let given = state_files::hand_over(&opened.state, path).and_then(|()| {
        setup.control_group.map_or(Ok(()), |group| ControlSocket::admit(path, group))
    });
    given.map_err(|error| Failure::at(Code::Io, "cannot give the control socket away", &error))?;
    Ok(socket)
}

fn bind_control(opened: &Opened) -> Result<UnixListener, Failure> {
    let begun = Instant::now();
    loop {
        match ControlSocket::bind(&opened.control_socket) {
            Err(SocketError::Held { .. }) if begun.elapsed() < ORPHANS_LAST => {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            bound => return bound.map_err(|error| Failure::of(Code::Unavailable, &error)),
        }
    }
}

impl Supervisor {
    /// Waits for the addresses that this machine does not have yet, and for no others.
    pub(super) fn await_addresses(&mut self) {
        self.appearing = JoinSet::new();
        self.keep_sockets();
        for (place, bound) in self.mail.iter().enumerate() {
            if bound.socket.is_none() && !bound.is_skipped {
                let address = bound.address;
                self.appearing.spawn(async move { (place, listeners::appear(address).await) });
            }
        }
    }

    pub(super) fn appeared(&mut self, group: &Group, place: usize, socket: TcpListener) {
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        if let Err(error) = group.listen(number, &socket) {
            // The next group of roles gets it.
            error!(reason = %error, "the front could not be given a socket");
        }
        if let Some(bound) = self.mail.get_mut(place) {
            bound.socket = Some(socket);
        }
        self.keep_sockets();
    }

    /// Has the service manager keep the sockets that listen, for the next start.
    fn keep_sockets(&mut self) {
        let mail = self.mail.iter().filter_map(|bound| bound.socket.as_ref());
        self.store.keep(mail.chain(&self.metrics));
    }

    pub(super) fn listeners(&self) -> Vec<ListenerStatus> {
        let mail = self.mail.iter().filter(|bound| !bound.is_skipped).map(Bound::status);
        mail.chain(self.locals.iter().map(Local::status)).collect()
    }
}
