//! Whether a user's home may hold a mailbox: the rules of old (notqmail: qmail-getpw.c, qmail-local.c).

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use lamppost_config::SystemUsers;
use lamppost_net::ListedUser;

/// What a home is to a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// It may hold one.
    Fit,
    /// The user has none.
    Nowhere,
    /// It may not now.
    Unfit {
        /// What is the matter.
        what: String,
        /// What to do about it.
        cure: String,
    },
}

/// Homes that stand for none (hier(7) has none of them).
const NOWHERE: [&str; 4] = ["/", "/nonexistent", "/dev/null", "/var/empty"];

/// What tells which number the kernel shows for users that it has none for, and what it is as a rule.
const OVERFLOW_UID_FILE: &str = "/proc/sys/fs/overflowuid";
const OVERFLOW_UID: u32 = 65_534;

/// Whether the configuration lets a user have a mailbox.
pub(crate) fn is_served(user: &ListedUser, users: &SystemUsers) -> bool {
    !users.domains.is_empty()
        && user.uid != 0
        && user.uid >= users.uid_min
        && !users.except.iter().any(|name| name.eq_ignore_ascii_case(&user.name))
}

/// Looks at a user's home; this may take as long as its file system takes.
pub(crate) fn look(user: &ListedUser) -> Home {
    let ListedUser { name, home, .. } = user;
    let shown = home.display();
    if !home.is_absolute() || NOWHERE.iter().any(|none| Path::new(none) == home) {
        return Home::Nowhere;
    }
    let unfit = |what: String, cure: String| Home::Unfit { what, cure };
    match home.metadata() {
        Ok(found) if !found.is_dir() => Home::Nowhere,
        // What is beneath a file system that is not mounted belongs to root, as a rule.
        Ok(found) if found.uid() != user.uid && found.uid() == 0 => unfit(
            format!("the home {shown} of {name} belongs to root"),
            format!(
                "mount its file system, or give it to {name}: `chown {name}: {shown}`; or name {name} \
                 in `except`"
            ),
        ),
        // So NFS shows whatever it cannot name, as while its idmapd is down.
        Ok(found) if found.uid() != user.uid && found.uid() == overflow_uid() => unfit(
            format!("the home {shown} of {name} belongs to nobody (user {})", found.uid()),
            format!(
                "see to the names of its file server (idmapd(8)), or give it to {name}; or name {name} \
                 in `except`"
            ),
        ),
        Ok(found) if found.uid() != user.uid => Home::Nowhere,
        Ok(found) if found.mode() & 0o022 != 0 => unfit(
            format!("others than {name} may write into the home {shown}"),
            format!("`chmod go-w {shown}`"),
        ),
        Ok(_) => Home::Fit,
        Err(error) => unfit(
            format!("the home {shown} of {name} cannot be looked at: {error}"),
            match error.kind() {
                ErrorKind::NotFound => {
                    format!("mount its file system, or make it; or name {name} in `except`")
                }
                ErrorKind::PermissionDenied => format!(
                    "let everybody pass through the folders above it: `namei -l {shown}` shows which \
                     does not"
                ),
                _ => "see to its file system".to_owned(),
            },
        ),
    }
}

/// The number that the kernel shows for users that it has none for.
fn overflow_uid() -> u32 {
    let told = std::fs::read_to_string(OVERFLOW_UID_FILE);
    told.ok().and_then(|told| told.trim().parse().ok()).unwrap_or(OVERFLOW_UID)
}

/// A folder above a home that its user may not pass through, as far as its mode tells (access lists may allow more).
pub(crate) fn closed_above(user: &ListedUser) -> Option<PathBuf> {
    let is_closed = |folder: &&Path| {
        folder.metadata().is_ok_and(|found| {
            let passes = match () {
                () if found.uid() == user.uid => 0o100,
                () if found.gid() == user.gid => 0o010,
                () => 0o001,
            };
            found.mode() & passes == 0
        })
    };
    user.home.ancestors().skip(1).find(is_closed).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use lamppost_config::Config;

    use super::*;

    fn user(home: &Path) -> ListedUser {
        let uid = rustix::process::geteuid().as_raw();
        ListedUser { name: "alice".into(), uid, gid: 0, home: home.to_owned() }
    }

    fn unfit(home: Home) -> String {
        match home {
            Home::Unfit { what, cure } => format!("{what}; {cure}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_home_is_its_users_and_nobody_else_writes_it() {
        let folder = tempfile::tempdir().unwrap();
        let alice = user(folder.path());
        assert_eq!(look(&alice), Home::Fit);
        assert_eq!(look(&user(Path::new("/nonexistent"))), Home::Nowhere);
        assert_eq!(look(&user(Path::new("home"))), Home::Nowhere);
        assert!(unfit(look(&user(&folder.path().join("away")))).contains("mount its file system"));
        let other = ListedUser { uid: alice.uid + 1, ..alice.clone() };
        match alice.uid {
            0 => assert!(unfit(look(&other)).contains("belongs to root")),
            _ => assert_eq!(look(&other), Home::Nowhere),
        }
        // What a file server does not name may well be the user's.
        let unnamed = overflow_uid();
        if std::os::unix::fs::chown(folder.path(), Some(unnamed), None).is_ok() {
            assert!(unfit(look(&other)).contains("belongs to nobody (user 65534)"), "{unnamed}");
            std::os::unix::fs::chown(folder.path(), Some(alice.uid), None).unwrap();
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o775)).unwrap();
        assert!(
            unfit(look(&alice)).ends_with(&format!("`chmod go-w {}`", folder.path().display()))
        );
    }

    #[test]
    fn a_folder_that_keeps_a_user_from_its_home_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let alice = ListedUser { uid: 64_101, gid: 64_101, ..user(&folder.path().join("a/alice")) };
        std::fs::create_dir_all(&alice.home).unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(closed_above(&alice).as_deref(), Some(folder.path()));
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        std::fs::set_permissions(folder.path().join("a"), std::fs::Permissions::from_mode(0o755))
            .unwrap();
        assert_eq!(closed_above(&alice), None);
    }

    #[test]
    fn daemons_and_those_who_are_left_out_are_not_served() {
        let text = "[mail.system-users]\ndomains = [\"users.test\"]\n";
        let users = Config::parse(text, Path::new("lamppost.toml")).unwrap().mail.system_users;
        let user = |name: &str, uid| ListedUser {
            name: name.into(),
            uid,
            gid: 100,
            home: "/home/x".into(),
        };
        assert!(is_served(&user("alice", 1000), &users));
        for (name, uid) in [("alice", 999), ("nobody", 65_534), ("toor", 0), ("Root", 1000)] {
            assert!(!is_served(&user(name, uid), &users), "{name}");
        }
        let off = SystemUsers { domains: Vec::new(), ..users };
        assert!(!is_served(&user("alice", 1000), &off));
    }
}
