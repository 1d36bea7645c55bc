//! Whether local users reach the socket by which they hand in mail: its mode says who may write to it, and a
//! folder above it may keep them from it all the same.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::place::Opened;

/// All others, and the group, in the mode of a file.
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_PASS: u32 = 0o001;
const GROUP_PASSES: u32 = 0o010;

/// Whom the mode of a socket lets write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meant {
    Everybody,
    /// A group that is named.
    Group(u32),
}

/// The first folder through which those may not pass for whom the socket is; nothing when all may, or the
/// socket is for its owner alone.
pub(crate) fn barrier(opened: &Opened) -> Option<PathBuf> {
    let meant = meant(opened)?;
    let socket = opened.submit_socket()?;
    let mut folders: Vec<_> = socket.ancestors().skip(1).collect();
    folders.reverse();
    folders.into_iter().find(|folder| !passes(folder, meant)).map(Path::to_owned)
}

/// The mode of a state folder that is made: all may pass through it where local users hand in mail by a socket
/// in it. What is in it is each role's alone.
pub(crate) fn state_mode(opened: &Opened) -> u32 {
    let is_inside = opened.submit_socket().is_some_and(|socket| socket.starts_with(&opened.state));
    if is_inside && meant(opened) == Some(Meant::Everybody) { 0o711 } else { 0o700 }
}

fn meant(opened: &Opened) -> Option<Meant> {
    let sendmail = &opened.config.mail.sendmail;
    if sendmail.socket_mode & OTHERS_WRITE != 0 {
        return Some(Meant::Everybody);
    }
    let group = sendmail.socket_group.as_ref().filter(|_| sendmail.socket_mode & GROUP_WRITES != 0);
    group.and_then(|name| lamppost_net::group_id(name)).map(Meant::Group)
}

fn passes(folder: &Path, meant: Meant) -> bool {
    // One that is not there yet is made so that they may.
    let Ok(found) = folder.metadata() else { return true };
    let mode = found.permissions().mode();
    let is_its = |found: &Metadata, group: u32| found.gid() == group && mode & GROUP_PASSES != 0;
    mode & OTHERS_PASS != 0 || matches!(meant, Meant::Group(group) if is_its(&found, group))
}
