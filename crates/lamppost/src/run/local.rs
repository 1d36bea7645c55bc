//! The socket of local users: made with the access that the file gives, and listened on.

use std::sync::Arc;

use lamppost_mail::Front;
use lamppost_net::{LocalListener, SocketAccess};

use super::settings;
use crate::exit::{Code, Failure};
use crate::place::Opened;

/// Makes the socket; nothing when it is off.
pub(super) fn bind(opened: &Opened) -> Result<Option<LocalListener>, Failure> {
    let Some(path) = opened.submit_socket() else { return Ok(None) };
    let sendmail = &opened.config.mail.sendmail;
    let group = match &sendmail.socket_group {
        None => None,
        Some(name) => Some(lamppost_net::group_id(name).ok_or_else(|| {
            let what = format!("mail.sendmail.socket-group: there is no group {name}");
            Failure::new(Code::Config, what).cure("name a group of /etc/group")
        })?),
    };
    let access = SocketAccess { mode: sendmail.socket_mode, group };
    LocalListener::bind(&path, access).map(Some).map_err(|error| {
        Failure::of(Code::Unavailable, &error)
            .cure("set another `socket` in [mail.sendmail], or `enabled = false`")
    })
}

/// Serves the socket.
pub(super) fn listen(front: &Arc<Front>, listener: LocalListener, opened: &Opened) {
    let name = listener.path().display().to_string();
    let settings = settings::local_listener(&opened.config, &name, &opened.hostname());
    tokio::spawn(front.clone().listen_local(listener, settings));
}
