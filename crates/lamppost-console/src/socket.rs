//! The control socket: private, and never stolen from a program that still answers on it.

use std::fmt;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use crate::bounded::{Placed, Places};

/// Connections at once. Whoever comes then waits.
const CONNECTIONS_MAX: usize = 256;
/// Connections that the kernel keeps while they wait for that; it bounds this itself.
const BACKLOG: i32 = 4096;

/// Why the control socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A running program answers on it.
    #[error(
        "{path} is answered by a running program, process {pid}; stop that one first, or set control-socket in [server]"
    )]
    Held {
        /// The socket.
        path: PathBuf,
        /// The process that made the socket.
        pid: i32,
    },
    /// The system refuses.
    #[error("cannot make the control socket {path}")]
    Make {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A listening control socket.
#[derive(Debug)]
pub struct ControlSocket {
    inner: UnixListener,
}

impl ControlSocket {
    /// Makes the socket, for whoever is given it; a file that a dead program left is replaced.
    ///
    /// # Errors
    /// When a running program has it, or it cannot be made.
    pub fn bind(path: &Path) -> Result<std::os::unix::net::UnixListener, SocketError> {
        let failed = |source| SocketError::Make { path: path.to_owned(), source };
        if let Ok(answered) = std::os::unix::net::UnixStream::connect(path) {
            let holder = rustix::net::sockopt::socket_peercred(&answered);
            let pid = holder.map_or(0, |holder| holder.pid.as_raw_nonzero().get());
            return Err(SocketError::Held { path: path.to_owned(), pid });
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        private_listener(path).map_err(failed)
    }

    /// Lets the members of a group connect, beside the owner of the socket.
    ///
    /// # Errors
    /// When its group or its mode cannot be set.
    pub fn admit(path: &Path, group: u32) -> io::Result<()> {
        // Hardened units forbid the call itself, also where it would change nothing.
        if std::fs::metadata(path)?.gid() != group {
            std::os::unix::fs::chown(path, None, Some(group))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
    }

    /// Takes over a socket that was made.
    ///
    /// # Errors
    /// When it is none that listens.
    pub fn from_std(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { inner: UnixListener::from_std(socket)? })
    }
}

/// Makes a socket that nobody but its owner can ever connect to: its file has this mode from the start.
fn private_listener(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Takes connections, so many at once: of the same user and of root, and of whoever could connect where
/// the socket's file names a group. Others are closed.
pub(crate) struct Door {
    socket: ControlSocket,
    has_group: bool,
    places: Places,
}

impl Door {
    pub(crate) fn new(socket: ControlSocket, has_group: bool) -> Self {
        Self { socket, has_group, places: Places::new(CONNECTIONS_MAX, None) }
    }

    fn is_open_to(&self, uid: u32) -> bool {
        // The kernel lets nobody connect whom the mode of the file leaves out (unix(7)).
        self.has_group || uid == 0 || uid == rustix::process::geteuid().as_raw()
    }
}

impl Listener for Door {
    type Io = Placed<UnixStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Placed<UnixStream>, SocketAddr) {
        let place = self.places.free().await;
        loop {
            let inner = &self.socket.inner;
            let (stream, address) =
                lamppost_net::accept_next("the control socket", || inner.accept()).await;
            let uid = stream.peer_cred().map(|credentials| credentials.uid());
            match uid {
                Ok(uid) if self.is_open_to(uid) => {
                    return (self.places.give(place, stream), address);
                }
                Ok(uid) => warn!(uid, "a foreign user was turned away from the control socket"),
                Err(error) => warn!(reason = %error, "a control connection without a user"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.inner.local_addr()
    }
}

/// Who asks, by the user of the process at the other end (unix(7), `SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker(Option<u32>);

impl Connected<IncomingStream<'_, Door>> for Asker {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self(stream.io().stream().peer_cred().map(|credentials| credentials.uid()).ok())
    }
}

/// As the log names it.
impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(0) => f.write_str("root"),
            Some(uid) => write!(f, "user {uid}"),
            None => f.write_str("an unknown user"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        drop(ControlSocket::bind(&path).unwrap());
        let _live = ControlSocket::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = ControlSocket::bind(&path).unwrap_err().to_string();
        let expected = format!(
            "control.sock is answered by a running program, process {}",
            std::process::id()
        );
        assert!(error.contains(&expected), "{error}");
    }

    #[tokio::test]
    async fn a_group_may_connect_once_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        let own = rustix::process::getegid().as_raw();
        ControlSocket::admit(&path, own).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o777, found.gid()), (0o660, own));
        let another = rustix::process::geteuid().as_raw() + 1;
        let door = |has_group| {
            let socket = socket.try_clone().unwrap();
            Door::new(ControlSocket::from_std(socket).unwrap(), has_group)
        };
        assert!(door(true).is_open_to(another) && !door(false).is_open_to(another));
    }
}
