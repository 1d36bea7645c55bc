//! File operations on a Maildir. All of them block.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// A Maildir on disk.
#[derive(Clone, Debug)]
pub(crate) struct Maildir {
    path: PathBuf,
}

/// What could not be done to which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path}: {source}{cure}")]
pub(crate) struct MaildirError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
    cure: &'static str,
}

impl MaildirError {
    fn new(step: &'static str, path: &Path, source: io::Error) -> Self {
        let cure = match source.kind() {
            io::ErrorKind::PermissionDenied => {
                " (the user that lamppost runs as must own the Maildir)"
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                " (something that is no folder is in the way)"
            }
            _ => "",
        };
        Self { step, path: path.to_owned(), source, cure }
    }
}

impl Maildir {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Makes the Maildir and what is missing above it, durably.
    pub(crate) fn create(&self) -> Result<(), MaildirError> {
        for part in ["tmp", "new", "cur"] {
            create_folder(&self.path.join(part))?;
        }
        Ok(())
    }

    /// Writes a file into `tmp/` and makes its content durable; its name is by [`Maildir::sync_tmp`].
    /// What an earlier try left under the name is written over.
    pub(crate) fn write(
        &self,
        name: &str,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), MaildirError> {
        let path = self.path.join("tmp").join(name);
        let mut options = File::options();
        options.create(true).truncate(true).write(true).mode(0o600);
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let mut file = options.open(&path).map_err(|e| MaildirError::new("make", &path, e))?;
        let written = write(&mut file).and_then(|()| file.flush()).and_then(|()| file.sync_data());
        written.map_err(|error| MaildirError::new("write", &path, error))
    }

    /// Makes the names in `tmp/` durable.
    pub(crate) fn sync_tmp(&self) -> Result<(), MaildirError> {
        sync_folder(&self.path.join("tmp"))
    }

    /// Renames a file from `tmp/` to `new/`; its new name is durable by [`Maildir::sync_new`].
    ///
    /// A file that is not in `tmp/` was renamed before: whatever the reader did with it since is the
    /// reader's business. Only a `tmp/` that is there can tell that, not one that is not mounted.
    pub(crate) fn publish(&self, name: &str) -> Result<(), MaildirError> {
        let from = self.path.join("tmp").join(name);
        match std::fs::rename(&from, self.path.join("new").join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let tmp = self.path.join("tmp");
                let there = std::fs::metadata(&tmp).and(std::fs::metadata(self.path.join("new")));
                there.map(drop).map_err(|error| MaildirError::new("find", &tmp, error))
            }
            renamed => renamed.map_err(|error| MaildirError::new("rename", &from, error)),
        }
    }

    /// Makes the names in `new/` durable.
    pub(crate) fn sync_new(&self) -> Result<(), MaildirError> {
        sync_folder(&self.path.join("new"))
    }
}

/// Makes a folder and those above it, each durable in the one above.
fn create_folder(path: &Path) -> Result<(), MaildirError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_folder(parent)?;
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            // Another delivery made it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            created => {
                created.map_err(|error| MaildirError::new("make the folder", path, error))?;
            }
        }
        sync_folder(parent)?;
    }
    Ok(())
}

fn sync_folder(path: &Path) -> Result<(), MaildirError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(|error| MaildirError::new("sync", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maildir() -> (tempfile::TempDir, Maildir) {
        let folder = tempfile::tempdir().unwrap();
        let maildir = Maildir::new(folder.path().join("lamppost.test/demo/Maildir"));
        maildir.create().unwrap();
        (folder, maildir)
    }

    fn write(maildir: &Maildir, name: &str) {
        maildir.write(name, |file| file.write_all(b"content")).unwrap();
        maildir.sync_tmp().unwrap();
    }

    #[test]
    fn a_file_goes_from_tmp_to_new() {
        let (_folder, maildir) = maildir();
        write(&maildir, "1.a");
        maildir.publish("1.a").unwrap();
        maildir.sync_new().unwrap();
        assert_eq!(std::fs::read(maildir.path.join("new/1.a")).unwrap(), b"content");
        assert!(!maildir.path.join("tmp/1.a").exists());
    }

    #[test]
    fn what_the_reader_took_does_not_come_back() {
        let (_folder, maildir) = maildir();
        write(&maildir, "1.a");
        maildir.publish("1.a").unwrap();
        std::fs::rename(maildir.path.join("new/1.a"), maildir.path.join("cur/1.a:2,S")).unwrap();
        maildir.publish("1.a").unwrap();
        assert!(!maildir.path.join("new/1.a").exists());
    }

    #[test]
    fn a_maildir_that_is_gone_is_not_a_delivery() {
        let (_folder, maildir) = maildir();
        write(&maildir, "1.a");
        std::fs::rename(&maildir.path, maildir.path.with_extension("moved")).unwrap();
        let error = maildir.publish("1.a").unwrap_err().to_string();
        assert!(error.starts_with("cannot find /") && error.contains("Maildir/tmp"), "{error}");
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Maildir");
        std::fs::write(&path, "a file").unwrap();
        let error = Maildir::new(path).create().unwrap_err().to_string();
        assert!(error.contains("Maildir") && error.contains("no folder is in the way"), "{error}");
    }

    #[test]
    fn no_symbolic_link_is_followed() {
        let (folder, maildir) = maildir();
        let target = folder.path().join("target");
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, maildir.path.join("tmp/1.a")).unwrap();
        assert!(maildir.write("1.a", |file| file.write_all(b"content")).is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }
}
