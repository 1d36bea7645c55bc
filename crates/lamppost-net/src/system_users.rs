//! The machine's own users and groups, as /etc/passwd and /etc/group list them (passwd(5), group(5)).
//!
//! The files are read and nothing else: what a directory service adds is not seen.

use std::path::Path;

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
    }
}
