//! A UNIX socket for programs of this machine, which tells who is at its other end.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::accept::accept_next;

/// A listening UNIX socket.
#[derive(Debug)]
pub struct LocalListener {
    inner: UnixListener,
    path: PathBuf,
}

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// The mode of the socket's file.
    pub mode: u32,
    /// The group of the socket's file, if it is not the program's own.
    pub group: Option<u32>,
}

/// Why a UNIX socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum LocalBindError {
    /// A running program answers on it.
    #[error("{path} is answered by a running program")]
    Held {
        /// The socket.
        path: PathBuf,
    },
    /// It cannot be given to the group.
    #[error("cannot give the socket {path} to its group")]
    Group {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that is no socket has this name.
    #[error("{path} is there, and is no socket")]
    InTheWay {
        /// What is there.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot make the socket {path}")]
    Make {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LocalListener {
    /// Makes the socket, for whoever is given it, and the folder that it is in; a socket that a dead program left is replaced.
    ///
    /// # Errors
    /// When a running program has it, or it cannot be made.
    pub fn bind(
        path: &Path,
        access: SocketAccess,
    ) -> Result<std::os::unix::net::UnixListener, LocalBindError> {
        let failed = |source| LocalBindError::Make { path: path.to_owned(), source };
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(LocalBindError::Held { path: path.to_owned() });
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            std::fs::create_dir_all(folder).map_err(failed)?;
            // Whatever the umask is: the socket's own mode says who may connect.
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(folder, open).map_err(failed)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(LocalBindError::InTheWay { path: path.to_owned() });
            }
            Ok(_) => std::fs::remove_file(path).map_err(failed)?,
            Err(_) => {}
        }
        let inner = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
        Self::allow(path, access)?;
        Ok(inner)
    }

    /// Lets those connect to a socket whom the access names.
    ///
    /// # Errors
    /// When its group or its mode cannot be set.
    pub fn allow(path: &Path, access: SocketAccess) -> Result<(), LocalBindError> {
        // Hardened units forbid the call itself, also where it would change nothing.
        if let Some(group) = access.group.map(rustix::fs::Gid::from_raw) {
            rustix::fs::chown(path, None, Some(group)).map_err(|error| LocalBindError::Group {
                path: path.to_owned(),
                source: error.into(),
            })?;
        }
        let mode = std::fs::Permissions::from_mode(access.mode);
        std::fs::set_permissions(path, mode)
            .map_err(|source| LocalBindError::Make { path: path.to_owned(), source })
    }

    /// Takes over a socket that listens already.
    ///
    /// # Errors
    /// When the socket is none that listens.
    pub fn from_std(socket: std::os::unix::net::UnixListener, path: &Path) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { inner: UnixListener::from_std(socket)?, path: path.to_owned() })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next connection, and the user of the process that made it (unix(7), `SO_PEERCRED`).
    /// It is taken by [`accept_next`].
    pub async fn accept(&self) -> (UnixStream, u32) {
        let path = self.path.display();
        accept_next(path, || async {
            let (stream, _) = self.inner.accept().await?;
            // The process at its other end is gone.
            let user = stream.peer_cred()?.uid();
            Ok((stream, user))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_connects_is_known_and_a_live_socket_is_not_stolen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/submit.sock");
        let access = SocketAccess { mode: 0o622, group: None };
        drop(LocalListener::bind(&path, access).unwrap());
        let live = LocalListener::bind(&path, access).unwrap();
        let live = LocalListener::from_std(live, &path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o622);
        let error = LocalListener::bind(&path, access).unwrap_err().to_string();
        assert!(error.contains("submit.sock is answered by a running program"), "{error}");
        let file = folder.path().join("file");
        std::fs::write(&file, "theirs").unwrap();
        let error = LocalListener::bind(&file, access).unwrap_err().to_string();
        assert!(error.contains("file is there, and is no socket"), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), b"theirs");
        // The try itself connected once.
        for _ in 0..2 {
            let _client = UnixStream::connect(&path).await.unwrap();
            let (_, uid) = live.accept().await;
            assert_eq!(uid, rustix::process::getuid().as_raw());
        }
    }
}
