//! The machine's own users and groups, as /etc/passwd and /etc/group list them (passwd(5), group(5)).
//!
//! The files are read and nothing else: what a directory service adds is not seen.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
/// The superuser's name, which needs no file.
const ROOT: &str = "root";

/// The name of a user, if the machine lists it.
pub fn user_name(uid: u32) -> Option<String> {
    let found = find(USERS.as_ref(), |_, number| number == uid).map(|(name, _)| name);
    found.or_else(|| (uid == 0).then(|| ROOT.to_owned()))
}

/// Whether the machine lists a user of this name.
pub fn is_user(name: &str) -> bool {
    name == ROOT || find(USERS.as_ref(), |found, _| found == name).is_some()
}

/// A user as the machine lists it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListedUser {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// Its home.
    pub home: PathBuf,
}

/// All users that the machine lists, in the file's order.
///
/// # Errors
/// When the file cannot be read.
pub fn listed_users() -> io::Result<Vec<ListedUser>> {
    let text = std::fs::read(USERS)?;
    Ok(String::from_utf8_lossy(&text).lines().filter_map(listed_user).collect())
}

fn listed_user(line: &str) -> Option<ListedUser> {
    let mut columns = line.split(':');
    let name = columns.next().filter(|name| !name.is_empty())?.to_owned();
    let uid = columns.nth(1)?.parse().ok()?;
    let gid = columns.next()?.parse().ok()?;
    let home = columns.nth(1)?.into();
    Some(ListedUser { name, uid, gid, home })
}

/// Tells the list of users from what it is once somebody has changed it.
///
/// # Errors
/// When the file is not there.
pub fn users_changed() -> io::Result<(u64, u64, i64, i64)> {
    let found = std::fs::metadata(USERS)?;
    Ok((found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
}

/// The number of a group, if the machine lists it.
pub fn group_id(name: &str) -> Option<u32> {
    find(GROUPS.as_ref(), |found, _| found == name).map(|(_, number)| number)
}

/// The first line that is right: name and number stand first and third in both files.
fn find(path: &Path, is_right: impl Fn(&str, u32) -> bool) -> Option<(String, u32)> {
    let text = std::fs::read(path).ok()?;
    String::from_utf8_lossy(&text).lines().find_map(|line| {
        let mut columns = line.split(':');
        let name = columns.next()?;
        let number = columns.nth(1)?.parse().ok()?;
        is_right(name, number).then(|| (name.to_owned(), number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_their_columns() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert!(is_user("root") && !is_user("no such user"));
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("no such group"), None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        std::fs::write(&path, "# note\nbad:x\nweb:x:33:34:Web:/var/www:/bin/sh\n+::\n").unwrap();
        assert_eq!(find(&path, |_, number| number == 33), Some(("web".into(), 33)));
        assert_eq!(find(&path, |name, _| name == "bad"), None);
        let home = PathBuf::from("/var/www");
        let web = ListedUser { name: "web".into(), uid: 33, gid: 34, home };
        assert_eq!(listed_user("web:x:33:34:Web:/var/www:/bin/sh"), Some(web));
        for none in ["", "# note", "bad:x", "+::", "x:x:-1:0::/:"] {
            assert_eq!(listed_user(none), None, "{none}");
        }
    }
}
