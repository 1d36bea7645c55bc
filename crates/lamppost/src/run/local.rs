//! The socket of local users: made with the access that the file gives, and listened on.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lamppost_console::ListenerStatus;
use lamppost_mail::Front;
use lamppost_net::{LocalBindError, LocalListener, SocketAccess};

use super::settings;
use crate::exit::{Code, Failure};
use crate::named_files::{self, Wrong};
use crate::place::Opened;

/// Makes the socket; nothing when it is off.
pub(super) fn bind(opened: &Opened) -> Result<Option<LocalListener>, Failure> {
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
    LocalListener::bind(&path, access).map(Some).map_err(|error| {
        let cure = match &error {
            LocalBindError::Group { .. } => {
                "the program's user must be in that group, and may need leave: in a unit, \
                 SupplementaryGroups= and SystemCallFilter=@chown"
            }
            LocalBindError::InTheWay { .. } => "set another `socket` in [mail.sendmail]",
            _ => "set another `socket` in [mail.sendmail], or `enabled = false`",
        };
        Failure::of(Code::Unavailable, &error).cure(cure)
    })
}

/// Serves the socket, and tells how it is to be shown.
pub(super) fn listen(
    front: &Arc<Front>,
    listener: LocalListener,
    opened: &Opened,
) -> (ListenerStatus, Arc<AtomicBool>) {
    let name = listener.path().display().to_string();
    let settings = settings::local_listener(&opened.config, &name, &opened.hostname());
    tokio::spawn(front.clone().listen_local(listener, settings));
    let (kind, tls) = ("local".into(), "off".into());
    let status = ListenerStatus { address: name, kind, tls, listening: true };
    (status, Arc::new(AtomicBool::new(true)))
}
