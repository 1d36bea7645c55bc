//! Where delivery must write: the folder above all Maildirs, and what symbolic links in it lead to, such
//! as a home on another disk.
//!
//! Links are looked for once, before power is given up: where one leads to that is made later is known
//! after a restart. Delivery itself can make none.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The folders of a template whose `{state}` is replaced already.
///
/// A link counts that root made, or the user who asks: local users may make others. One that leads into the
/// state, or to a folder around it, counts in no case: other roles keep their own there.
pub(super) fn folders(template: &str, state: &Path) -> Vec<PathBuf> {
    let (above, below) = parts(template);
    let state = state.canonicalize().unwrap_or_else(|_| state.to_owned());
    let mut found = Found { folders: vec![above.clone()], state };
    let names: Vec<_> = below.split('/').filter(|name| !name.is_empty()).collect();
    found.follow(&above, &names);
    found.folders
}

/// The folder above all Maildirs, which exists for whatever account.
pub(in crate::run) fn above(template: &str) -> PathBuf {
    parts(template).0
}

/// The part of a template that is the same for all accounts, and what comes below it.
fn parts(template: &str) -> (PathBuf, &str) {
    let fixed = template.split('{').next().unwrap_or_default();
    match fixed.rfind('/') {
        Some(end) if end > 0 => (template[..end].into(), &template[end..]),
        _ => ("/".into(), template),
    }
}

/// What was found so far.
struct Found {
    folders: Vec<PathBuf>,
    state: PathBuf,
}

impl Found {
    /// Looks for links at each level that the template names, below those that were found too.
    fn follow(&mut self, folder: &Path, names: &[&str]) {
        let Some((name, names)) = names.split_first() else { return };
        if name.contains('{') {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if let Ok(found) = entry.metadata() {
                    self.look_at(&entry.path(), &found, names);
                }
            }
        } else {
            let path = folder.join(name);
            if let Ok(found) = path.symlink_metadata() {
                self.look_at(&path, &found, names);
            }
        }
    }

    fn look_at(&mut self, path: &Path, found: &Metadata, names: &[&str]) {
        if found.is_dir() {
            self.follow(path, names);
        } else if found.is_symlink()
            && (found.uid() == 0 || found.uid() == rustix::process::geteuid().as_raw())
            && let Ok(target) = path.canonicalize()
            && target.is_dir()
            && !target.starts_with(&self.state)
            && !self.state.starts_with(&target)
        {
            if !self.folders.iter().any(|known| target.starts_with(known)) {
                self.folders.push(target.clone());
            }
            self.follow(&target, names);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_folder_above_all_is_what_all_share() {
        for (template, expected) in [
            ("/state/mail/{domain}/{local}/Maildir", "/state/mail"),
            ("/home/{local}@{domain}/Maildir", "/home"),
            ("/home/of-{local}/{domain}", "/home"),
            ("/{domain}/{local}", "/"),
        ] {
            assert_eq!(above(template), Path::new(expected), "{template}");
        }
    }

    #[test]
    fn links_are_followed_at_every_level() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let path = |name: &str| root.join(name);
        for name in ["mail/a.test/ada", "mail/a.test/bob/Maildir", "disk/b.test/cyd", "maildir"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        std::fs::create_dir(path("home")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        symlink(path("disk/b.test"), path("mail/b.test")).unwrap();
        symlink(path("home"), path("mail/a.test/dan")).unwrap();
        symlink("../../../maildir", path("mail/a.test/ada/Maildir")).unwrap();
        // Within what is allowed already, into nowhere, to no folder, and to where no Maildir is.
        symlink(path("disk/b.test/cyd"), path("mail/a.test/cyd")).unwrap();
        symlink("loop", path("mail/a.test/loop")).unwrap();
        symlink(path("nowhere"), path("mail/c.test")).unwrap();
        symlink(path("file"), path("mail/d.test")).unwrap();
        symlink("/etc", path("mail/a.test/bob/Maildir/new")).unwrap();
        let template = path("mail/{domain}/{local}/Maildir");
        let mut found = folders(template.to_str().unwrap(), &path("state"));
        found.retain(|one| one != &path("disk/b.test/cyd"));
        found.sort();
        assert_eq!(found, ["disk/b.test", "home", "mail", "maildir"].map(path));
        // Nothing is there yet.
        assert_eq!(
            folders("/no/such/{domain}/{local}", Path::new("/state")),
            [PathBuf::from("/no/such")]
        );
    }

    #[test]
    fn no_link_leads_into_the_state_or_around_it_and_none_of_others_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let path = |name: &str| root.join(name);
        for name in ["var/state/policy", "var/state/mail", "disk", "others"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        for (name, target) in [
            ("policy", path("var/state/policy")),
            ("state", path("var/state")),
            ("around", path("var")),
            ("root", "/".into()),
            ("disk", path("disk")),
            ("others", path("others")),
        ] {
            symlink(target, path("var/state/mail").join(name)).unwrap();
        }
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            let link = path("var/state/mail/others");
            std::os::unix::fs::lchown(link, Some(12_345), None).unwrap();
        }
        let template = path("var/state/mail/{local}");
        let mut found = folders(template.to_str().unwrap(), &path("var/state"));
        found.sort();
        let mut expected = vec![path("disk"), path("others"), path("var/state/mail")];
        expected.retain(|one| !(is_root && one.ends_with("others")));
        assert_eq!(found, expected);
    }
}
