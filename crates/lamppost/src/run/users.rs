//! Whom the roles become when root starts the program.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};

use lamppost_config::Config;
use lamppost_sandbox::User;
use serde::{Deserialize, Serialize};

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
    /// A user for each role where this machine has all of them.
    pub(super) fn choose(state: &Path) -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self::Same;
        }
        let named = Role::ALL.map(|role| state_files::user_named(&user_name(role)));
        if let [Some(a), Some(b), Some(c), Some(d), Some(e)] = named {
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

    /// Gives each role the folders that it writes, with all that is in them, as far as they lie in the
    /// state. Those elsewhere, such as homes, are the administrator's matter.
    pub(super) fn own(&self, config: &Config, state: &Path) -> Result<(), Failure> {
        let Self::Each(_) = self else { return Ok(()) };
        let owned = || {
            // Nobody but root changes the folder itself; the roles pass through it.
            chown(state, Some(0), Some(0))?;
            std::fs::set_permissions(state, std::fs::Permissions::from_mode(0o711))?;
            for role in Role::ALL {
                let Some(user) = self.of(role) else { continue };
                for folder in folders(role, config, state) {
                    if folder.starts_with(state) && folder != state {
                        give(folder, user)?;
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

/// The user of a role.
pub(super) fn user_name(role: Role) -> String {
    format!("lamppost-{}", role.name())
}

/// Gives a folder and all that is in it to a user.
fn give(folder: PathBuf, User { uid, gid }: User) -> std::io::Result<()> {
    let mut waiting = vec![folder];
    while let Some(path) = waiting.pop() {
        let found = path.symlink_metadata()?;
        if (found.uid(), found.gid()) != (uid, gid) {
            lchown(&path, Some(uid), Some(gid))?;
        }
        if found.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        }
    }
    Ok(())
}
