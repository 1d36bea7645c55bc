//! The socket of local users: made with the access that the file gives, and handed to the front.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lamppost_console::ListenerStatus;
use lamppost_net::{LocalBindError, LocalListener, SocketAccess};

use super::listeners::{LOOK_AGAIN, ORPHANS_LAST};
use crate::exit::{Code, Failure};
use crate::named_files::{self, Wrong};
use crate::place::Opened;

/// The socket of local users.
pub(super) struct Local {
    pub(super) path: PathBuf,
    pub(super) socket: UnixListener,
}

/// What the front is told that the socket is, among those that it listens on.
pub(super) const PLACE: u32 = u32::MAX;

impl Local {
    /// Makes the socket, unless `held` has it; nothing when it is off.
    pub(super) fn bind(
        opened: &Opened,
        held: impl FnOnce(&Path) -> Option<UnixListener>,
    ) -> Result<Option<Self>, Failure> {
        let Some(path) = opened.submit_socket() else { return Ok(None) };
        let sendmail = &opened.config.mail.sendmail;
        let group = match &sendmail.socket_group {
            None => None,
            Some(name) => Some(lamppost_net::group_id(name).ok_or_else(|| {
                let Wrong { what, cure } = named_files::no_group(name);
                Failure::new(Code::Config, what).cure(cure)
            })?),
        };
        let access = SocketAccess { mode: sendmail.socket_mode, group };
        let begun = Instant::now();
        let bound = match held(&path) {
            Some(socket) => LocalListener::allow(&path, access).map(|()| socket),
            None => loop {
                match LocalListener::bind(&path, access) {
                    // The processes of a program that was killed a moment ago may still have it.
                    Err(LocalBindError::Held { .. }) if begun.elapsed() < ORPHANS_LAST => {
                        std::thread::park_timeout(LOOK_AGAIN);
                    }
                    bound => break bound,
                }
            },
        };
        let socket = bound.map_err(|error| {
            let cure = match &error {
                LocalBindError::Group { .. } => {
                    "the program's user must be in that group, and may need leave: in a unit, \
                     SupplementaryGroups= and SystemCallFilter=@chown"
                }
                LocalBindError::InTheWay { .. } => "set another `socket` in [mail.sendmail]",
                _ => "set another `socket` in [mail.sendmail], or `enabled = false`",
            };
            Failure::of(Code::Unavailable, &error).cure(cure)
        })?;
        Ok(Some(Self { path, socket }))
    }

    /// Makes the socket of another configuration, or goes on with this one.
    pub(super) fn again(this: Option<&Self>, opened: &Opened) -> Result<Option<Self>, Failure> {
        Self::bind(opened, |path| {
            let this = this.filter(|this| this.path == path)?;
            this.socket.try_clone().ok()
        })
    }

    /// Takes away the socket of a configuration that another takes the place of.
    pub(super) fn remove(this: Option<Self>, other: Option<&Self>) {
        if let Some(this) = this
            && other.is_none_or(|other| other.path != this.path)
        {
            drop(std::fs::remove_file(this.path));
        }
    }

    /// How it is shown.
    pub(super) fn status(&self) -> ListenerStatus {
        let address = self.path.display().to_string();
        ListenerStatus { address, kind: "local".into(), tls: "off".into(), listening: true }
    }
}
