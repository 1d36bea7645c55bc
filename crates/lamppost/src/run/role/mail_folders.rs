//! Where delivery must write: the folder above all Maildirs, and what symbolic links in it lead to, such
//! as a home on another disk.
//!
//! Links are looked for once, before power is given up: where one leads to that is made later is known
//! after a restart. Delivery itself can make none.

use std::path::{Path, PathBuf};

/// The folders of a template whose `{state}` is replaced already.
pub(super) fn folders(template: &str) -> Vec<PathBuf> {
    let (above, below) = parts(template);
    let mut found = vec![above.clone()];
    let names: Vec<_> = below.split('/').filter(|name| !name.is_empty()).collect();
    follow(&above, &names, &mut found);
    found
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

/// Looks for links at each level that the template names, below those that were found too.
fn follow(folder: &Path, names: &[&str], found: &mut Vec<PathBuf>) {
    let Some((name, names)) = names.split_first() else { return };
    if name.contains('{') {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if let Ok(kind) = entry.file_type() {
                look_at(&entry.path(), kind, names, found);
            }
        }
    } else {
        let path = folder.join(name);
        if let Ok(entry) = path.symlink_metadata() {
            look_at(&path, entry.file_type(), names, found);
        }
    }
}

fn look_at(path: &Path, kind: std::fs::FileType, names: &[&str], found: &mut Vec<PathBuf>) {
    if kind.is_dir() {
        follow(path, names, found);
    } else if kind.is_symlink()
        && let Ok(target) = path.canonicalize()
        && target.is_dir()
    {
        if !found.iter().any(|known| target.starts_with(known)) {
            found.push(target.clone());
        }
        follow(&target, names, found);
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
        let mut found = folders(template.to_str().unwrap());
        found.retain(|one| one != &path("disk/b.test/cyd"));
        found.sort();
        assert_eq!(found, ["disk/b.test", "home", "mail", "maildir"].map(path));
        // Nothing is there yet.
        assert_eq!(folders("/no/such/{domain}/{local}"), [PathBuf::from("/no/such")]);
    }
}
