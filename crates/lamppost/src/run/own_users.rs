//! Whom the roles would become, and whether root, who begins the program, has users for them: all of them, or
//! none.

use lamppost_delivery::MaildirTemplate;
use lamppost_sandbox::User;

use super::role::Role;
use super::settings;
use super::users::{Users, user_name};
use crate::place::Opened;
use crate::state_files;

/// The user as whom mail would be delivered if this user began the program.
pub(crate) fn delivery_user(opened: &Opened) -> User {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Users::choose(&opened.state, opened.file.is_none())
        .of(Role::Delivery)
        .unwrap_or(User { uid, gid })
}

/// Where Maildirs are; nothing when the program would not run so.
pub(crate) fn maildir_template(opened: &Opened) -> Option<MaildirTemplate> {
    MaildirTemplate::new(settings::maildir(&opened.config, &opened.state)).ok()
}

/// What it means that users of roles are missing, and what to do about it; nothing when all are there, or
/// when it is not root who asks, since then the roles are whoever begins them.
pub(crate) fn odd_users(opened: &Opened) -> Option<(String, String)> {
    // The demo never uses them.
    if !rustix::process::geteuid().is_root() || opened.file.is_none() {
        return None;
    }
    let names = Role::ALL.map(user_name);
    let missing: Vec<_> =
        names.iter().filter(|name| state_files::user_named(name).is_none()).collect();
    if missing.is_empty() {
        return None;
    }
    let shared = match state_files::other_owner(&opened.state) {
        Some(owner) => format!("all run as {}, whose the state is", state_files::name(owner.uid)),
        None => "all run as root, without its capabilities".to_owned(),
    };
    let listed = missing.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
    let what = if missing.len() == names.len() {
        format!(
            "the roles have no users of their own: when root begins them {shared}, and who takes over one \
             may reach the others' files and processes"
        )
    } else {
        format!(
            "of the five users of the roles {listed} {} missing: it takes all five, and when root begins \
             the roles {shared}, as if there were none",
            if missing.len() == 1 { "is" } else { "are" }
        )
    };
    let cure = "`lamppost setup` makes them: then start the program again; or start it as a user of its own";
    Some((what, cure.to_owned()))
}
