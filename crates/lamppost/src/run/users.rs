//! Whom the roles become when root starts the program.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::Path;

use lamppost_config::Config;
use lamppost_sandbox::User;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chownat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::role::{Role, folders};
use crate::exit::{Code, Failure};
use crate::state_files;

/// The users of the roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Users {
    /// Whoever started the program.
    Same,
    /// The user whose the state is.
    Owner(User),
    /// One for each role, in the order of [`Role::ALL`].
    Each([User; 5]),
}

impl Users {
    /// A user for each role where this machine has all of them; not for the demo, whose state is in root's
    /// home, where none of them gets.
    pub(super) fn choose(state: &Path, is_demo: bool) -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self::Same;
        }
        let named = Role::ALL.map(|role| state_files::user_named(&user_name(role)));
        if let ([Some(a), Some(b), Some(c), Some(d), Some(e)], false) = (named, is_demo) {
            return Self::Each([a, b, c, d, e]);
        }
        state_files::other_owner(state).map_or(Self::Same, Self::Owner)
    }

    /// Whom a role becomes.
    pub(super) fn of(&self, role: Role) -> Option<User> {
        match self {
            Self::Same => None,
            Self::Owner(user) => Some(*user),
            Self::Each(users) => Role::ALL
                .into_iter()
                .zip(*users)
                .find_map(|(one, user)| (one == role).then_some(user)),
        }
    }

    /// The group whose members may use the control socket: the service's, and never that of somebody who
    /// tries the program out.
    pub(super) fn control_group(&self) -> Option<u32> {
        let group = lamppost_net::group_id(SERVICE)?;
        let is_service = match self {
            Self::Each(_) => true,
            Self::Owner(_) => false,
            Self::Same => {
                state_files::name(rustix::process::geteuid().as_raw()) == SERVICE
                    && rustix::process::getegid().as_raw() == group
            }
        };
        is_service.then_some(group)
    }

    /// Gives each role the folders that it writes, with all that is in them, as far as they lie in the
    /// state, or belong to the one user as whom all roles run where root starts none. Others elsewhere,
    /// such as homes, are the administrator's matter.
    pub(super) fn own(&self, config: &Config, state: &Path) -> Result<(), Failure> {
        let Self::Each(_) = self else { return Ok(()) };
        let owned = || {
            // Nobody but root changes the folder itself; the roles pass through it.
            chown(state, Some(0), Some(0))?;
            std::fs::set_permissions(state, std::fs::Permissions::from_mode(0o711))?;
            let one_user = state_files::user_named(SERVICE);
            for role in Role::ALL {
                let Some(user) = self.of(role) else { continue };
                for folder in folders(role, config, state) {
                    if folder.starts_with(state) && folder != state {
                        give(&folder, user)?;
                    }
                    let folder = folder.canonicalize()?;
                    let owner = folder.metadata()?.uid();
                    if one_user.is_some_and(|one| one.uid == owner) {
                        info!(folder = %folder.display(), role = role.name(), "a folder of the one user becomes the role's");
                        give(&folder, user)?;
                    }
                }
            }
            Ok(())
        };
        owned().map_err(|error: std::io::Error| {
            let step = format!("cannot give {} to the users of the roles", state.display());
            Failure::at(Code::Io, &step, &error)
        })
    }
}

/// The user as whom all roles run where root starts none, and the group of those who rule the service.
const SERVICE: &str = "lamppost";

/// The user of a role.
pub(crate) fn user_name(role: Role) -> String {
    format!("lamppost-{}", role.name())
}

/// Gives a folder and all that is in it to a user.
///
/// Roles may be at work in it, and one that was taken over could put a link in the place of a folder between
/// two looks at it: nothing is followed, and all is named from the folder that was opened.
fn give(folder: &Path, user: User) -> std::io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(folder, flags, Mode::empty()) {
        Ok(opened) => opened,
        // A link to another disk, which is the administrator's matter.
        Err(Errno::LOOP | Errno::NOTDIR) => return lchown(folder, Some(user.uid), Some(user.gid)),
        Err(error) => return Err(error.into()),
    };
    give_within(opened.as_fd(), user)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    Ok(rustix::fs::fchown(&opened, Some(uid), Some(gid))?)
}

/// Gives all that is in a folder. A folder is given after what is in it: whose it is tells that this was
/// done, also when the program ended in between.
fn give_within(folder: BorrowedFd<'_>, user: User) -> std::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let found = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            // A role has done with it.
            Err(Errno::NOENT) => continue,
            found => found?,
        };
        let is_its = (found.st_uid, found.st_gid) == (user.uid, user.gid);
        // The mail of a Maildir may be millions of files.
        let is_done = is_its && matches!(name.to_bytes(), b"new" | b"cur");
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory && !is_done {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(folder, name, flags, Mode::empty()) {
                Ok(within) => give_within(within.as_fd(), user)?,
                Err(error) => gone(error)?,
            }
        }
        if !is_its {
            let given = chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            given.or_else(gone)?;
        }
    }
    Ok(())
}

/// What is not there any more needs no owner.
fn gone(error: Errno) -> Result<(), Errno> {
    if error == Errno::NOENT { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn all_in_a_folder_is_given_and_nothing_that_a_link_leads_to() {
        if !rustix::process::geteuid().is_root() {
            println!("NOT TESTED: only root gives files away");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("given/deep/er")).unwrap();
        std::fs::create_dir(path("others")).unwrap();
        for name in ["given/deep/er/file", "others/file"] {
            std::fs::write(path(name), "").unwrap();
        }
        symlink(path("others"), path("given/link")).unwrap();
        for name in ["given", "given/link"] {
            give(&path(name), User { uid: 12_345, gid: 12_346 }).unwrap();
        }
        let owner = |name: &str| {
            let found = path(name).symlink_metadata().unwrap();
            (found.uid(), found.gid())
        };
        for name in ["given", "given/deep", "given/deep/er", "given/deep/er/file", "given/link"] {
            assert_eq!(owner(name), (12_345, 12_346), "{name}");
        }
        for name in ["others", "others/file"] {
            assert_eq!(owner(name), (0, 0), "{name}");
        }
        // What was put into a Maildir that is the user's already stays as it is; another Maildir is given.
        for name in ["given/new", "given/deep/cur"] {
            std::fs::create_dir(path(name)).unwrap();
            std::fs::write(path(name).join("mail"), "").unwrap();
        }
        chown(path("given/new"), Some(12_345), Some(12_346)).unwrap();
        give(&path("given"), User { uid: 12_345, gid: 12_346 }).unwrap();
        assert_eq!(owner("given/new/mail"), (0, 0));
        for name in ["given/deep/cur", "given/deep/cur/mail"] {
            assert_eq!(owner(name), (12_345, 12_346), "{name}");
        }
    }
}
