//! UNIX sockets of the front: made with the access that the file gives, and handed to it.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lamppost_console::ListenerStatus;
use lamppost_net::{LocalBindError, LocalListener, SocketAccess};

use super::listeners::{LOOK_AGAIN, ORPHANS_LAST};
use crate::exit::{Code, Failure};
use crate::named_files::{self, Wrong};
use crate::place::Opened;

/// A UNIX socket of the front.
pub(super) struct Local {
    pub(super) purpose: Purpose,
    pub(super) path: PathBuf,
    pub(super) socket: UnixListener,
}

/// What a UNIX socket of the front is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Local users hand in mail.
    Submission,
    /// Mail servers ask the greylist.
    Greylist,
}

impl Purpose {
    const ALL: [Self; 2] = [Self::Submission, Self::Greylist];

    /// What the front is told that the socket is, among those that it listens on.
    pub(super) fn place(self) -> u32 {
        match self {
            Self::Submission => u32::MAX,
            Self::Greylist => u32::MAX - 1,
        }
    }

    /// What the socket at a place among those of the front is for; nothing for one of TCP.
    pub(super) fn at(place: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.place() == place)
    }

    /// What the banner calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Submission => "sendmail",
            Self::Greylist => "greylist",
        }
    }

    /// Where it is, and who may use it; nothing when it is off.
    fn named(self, opened: &Opened) -> Option<(PathBuf, u32, Option<&String>)> {
        let mail = &opened.config.mail;
        match self {
            Self::Submission => {
                let sendmail = &mail.sendmail;
                let group = sendmail.socket_group.as_ref();
                opened.submit_socket().map(|path| (path, sendmail.socket_mode, group))
            }
            Self::Greylist => {
                let service = &mail.greylist.service;
                let group = service.socket_group.as_ref();
                service.socket.clone().map(|path| (path, service.socket_mode, group))
            }
        }
    }

    fn cure(self, error: &LocalBindError) -> &'static str {
        match (self, error) {
            (_, LocalBindError::Group { .. }) => {
                "the program's user must be in that group, and may need leave: in a unit, \
                 SupplementaryGroups= and SystemCallFilter=@chown"
            }
            (Self::Submission, LocalBindError::InTheWay { .. }) => {
                "set another `socket` in [mail.sendmail]"
            }
            (Self::Submission, _) => {
                "set another `socket` in [mail.sendmail], or `enabled = false`"
            }
            (Self::Greylist, _) => {
                "set another `socket` in [mail.greylist.service], or an address in `listen` instead"
            }
        }
    }
}

impl Local {
    /// Makes the sockets that the file names, unless `held` has them: all or none.
    pub(super) fn bind_all(
        opened: &Opened,
        mut held: impl FnMut(&Path) -> Option<UnixListener>,
    ) -> Result<Vec<Self>, Failure> {
        let (mut all, mut made) = (Vec::new(), Vec::new());
        for purpose in Purpose::ALL {
            let Some((path, mode, group)) = purpose.named(opened) else { continue };
            let socket = held(&path);
            let is_new = socket.is_none();
            match bind(purpose, (&path, mode, group), socket) {
                Ok(socket) => all.push(Self { purpose, path: path.clone(), socket }),
                Err(failure) => {
                    for path in made {
                        drop(std::fs::remove_file(path));
                    }
                    return Err(failure);
                }
            }
            if is_new {
                made.push(path);
            }
        }
        Ok(all)
    }

    /// Makes the sockets of another configuration, or goes on with these.
    pub(super) fn again(these: &[Self], opened: &Opened) -> Result<Vec<Self>, Failure> {
        Self::bind_all(opened, |path| {
            let this = these.iter().find(|this| this.path == path)?;
            this.socket.try_clone().ok()
        })
    }

    /// Takes away the sockets of a configuration that another takes the place of.
    pub(super) fn remove(these: Vec<Self>, others: &[Self]) {
        for this in these {
            if others.iter().all(|other| other.path != this.path) {
                drop(std::fs::remove_file(this.path));
            }
        }
    }

    /// How it is shown.
    pub(super) fn status(&self) -> ListenerStatus {
        let address = self.path.display().to_string();
        let kind = match self.purpose {
            Purpose::Submission => "local",
            Purpose::Greylist => "greylist",
        };
        ListenerStatus { address, kind: kind.into(), tls: "off".into(), listening: true }
    }
}

/// Makes a socket, or goes on with one that there is.
fn bind(
    purpose: Purpose,
    (path, mode, group): (&Path, u32, Option<&String>),
    held: Option<UnixListener>,
) -> Result<UnixListener, Failure> {
    let group = match group {
        None => None,
        Some(name) => Some(lamppost_net::group_id(name).ok_or_else(|| {
            let Wrong { what, cure } = named_files::no_group(name);
            Failure::new(Code::Config, what).cure(cure)
        })?),
    };
    let access = SocketAccess { mode, group };
    let begun = Instant::now();
    let bound = match held {
        Some(socket) => LocalListener::allow(path, access).map(|()| socket),
        None => loop {
            match LocalListener::bind(path, access) {
                // The processes of a program that was killed a moment ago may still have it.
                Err(LocalBindError::Held { .. }) if begun.elapsed() < ORPHANS_LAST => {
                    std::thread::park_timeout(LOOK_AGAIN);
                }
                bound => break bound,
            }
        },
    };
    bound.map_err(|error| Failure::of(Code::Unavailable, &error).cure(purpose.cure(&error)))
}
