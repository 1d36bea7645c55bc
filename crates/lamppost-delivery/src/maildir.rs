//! File operations on a Maildir. All of them block.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use lamppost_disk::{Disk, DiskFile};
use lamppost_smtp::Status;
use rustix::io::Errno;

/// A Maildir on a disk.
#[derive(Clone)]
pub(crate) struct Maildir<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
}

/// Makes a Maildir, durably.
///
/// # Errors
/// Where something is in the way.
pub fn make_maildir(disk: &dyn Disk, path: &Path) -> Result<(), MaildirError> {
    Maildir::new(disk, path.to_owned()).create()
}

/// What could not be done to which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path}: {source}{cure}")]
pub struct MaildirError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
    cure: &'static str,
}

impl MaildirError {
    fn new(step: &'static str, path: &Path, source: io::Error) -> Self {
        let cure = match source.kind() {
            io::ErrorKind::PermissionDenied => {
                " (the user whom the Maildir is written as must own it)"
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                " (something that is no folder is in the way)"
            }
            io::ErrorKind::QuotaExceeded => " (the mailbox is over its quota)",
            io::ErrorKind::StorageFull => " (the file system of the mailbox is full)",
            _ if source.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                " (a symbolic link is in the way)"
            }
            _ => "",
        };
        Self { step, path: path.to_owned(), source, cure }
    }

    /// What a program is told of it. All of this may mend itself.
    pub(crate) fn status(&self) -> Status {
        match self.source.kind() {
            io::ErrorKind::QuotaExceeded => Status::MAILBOX_FULL,
            io::ErrorKind::StorageFull => Status::SYSTEM_FULL,
            _ => Status::SYSTEM,
        }
    }
}

impl<'a> Maildir<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, path: PathBuf) -> Self {
        Self { disk, path }
    }

    /// Makes the Maildir and what is missing above it, durably.
    fn create(&self) -> Result<(), MaildirError> {
        // `tmp` comes last: where it is, a crash has left the others too.
        for part in ["cur", "new", "tmp"] {
            self.create_folder(&self.path.join(part))?;
        }
        Ok(())
    }

    /// Makes a folder and those above it, each durable in the one above.
    fn create_folder(&self, path: &Path) -> Result<(), MaildirError> {
        let failed = |error| MaildirError::new("make the folder", path, error);
        match self.disk.look(path).map_err(failed)? {
            Some(look) if look.is_folder => return Ok(()),
            Some(_) => return Err(failed(io::ErrorKind::NotADirectory.into())),
            None => {}
        }
        if let Some(parent) = path.parent() {
            self.create_folder(parent)?;
            self.disk.create_folder(path).map_err(failed)?;
            self.sync_folder(parent)?;
        }
        Ok(())
    }

    /// Begins a file in `tmp/`, and makes the Maildir where there is none. What an earlier try left
    /// under the name is written over.
    pub(crate) fn begin(&self, name: &str) -> Result<Draft, MaildirError> {
        let path = self.path.join("tmp").join(name);
        let file = match self.disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.create()?;
                self.disk.create(&path)
            }
            // What is in the way is named by its own path.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                self.create()?;
                Err(error)
            }
            created => created,
        };
        let file = file.map_err(|error| MaildirError::new("make", &path, error))?;
        Ok(Draft { file, path, length: 0 })
    }

    /// Removes a file from `tmp/` that could not be written whole: it would keep the space from others.
    pub(crate) fn discard(&self, name: &str) {
        // One that cannot be removed now is written over by the next try.
        let _left = self.disk.remove(&self.path.join("tmp").join(name));
    }

    /// Makes the names in `tmp/` durable.
    pub(crate) fn sync_tmp(&self) -> Result<(), MaildirError> {
        self.sync_folder(&self.path.join("tmp"))
    }

    /// Renames a file from `tmp/` to `new/`; its new name is durable by [`Maildir::sync_new`].
    ///
    /// A file that is not in `tmp/` was renamed before: whatever the reader did with it since is the
    /// reader's business. Only a `tmp/` that is there can tell that, not one that is not mounted. A
    /// file system without a journal may bring back the old name beside the new one after a power
    /// cut: a file that has another name as well was renamed before, too.
    pub(crate) fn publish(&self, name: &str) -> Result<(), MaildirError> {
        let from = self.path.join("tmp").join(name);
        let failed = |error| MaildirError::new("rename", &from, error);
        match self.disk.look(&from).map_err(failed)? {
            Some(look) if look.names > 1 => self.disk.remove(&from).map_err(failed),
            Some(_) => {
                let to = self.path.join("new").join(name);
                match self.disk.rename(&from, &to) {
                    // The file is there, so what is missing is `new/`.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.create()?;
                        self.disk.rename(&from, &to).map_err(failed)
                    }
                    renamed => renamed.map_err(failed),
                }
            }
            None => ["tmp", "new"].iter().try_for_each(|part| self.find(part)),
        }
    }

    fn find(&self, part: &str) -> Result<(), MaildirError> {
        let path = self.path.join(part);
        match self.disk.look(&path) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(MaildirError::new("find", &path, io::ErrorKind::NotFound.into())),
            Err(error) => Err(MaildirError::new("find", &path, error)),
        }
    }

    /// Makes the names in `new/` durable, and then that they are gone from `tmp/`: in the other order
    /// a power cut between the two could take both names.
    pub(crate) fn sync_new(&self) -> Result<(), MaildirError> {
        self.sync_folder(&self.path.join("new"))?;
        self.sync_tmp()
    }

    /// Makes everything durable that was done on the Maildir's file system.
    pub(crate) fn sync_file_system(&self) -> Result<(), MaildirError> {
        let path = self.path.join("tmp");
        let synced = self.disk.sync_file_system(&path);
        synced.map_err(|error| MaildirError::new("sync the file system of", &path, error))
    }

    /// Tells the Maildir's file system from others; nothing when it is not there.
    pub(crate) fn device(&self) -> Option<u64> {
        Some(self.disk.look(&self.path.join("tmp")).ok()??.device)
    }

    fn sync_folder(&self, path: &Path) -> Result<(), MaildirError> {
        self.disk.sync_folder(path).map_err(|error| MaildirError::new("sync", path, error))
    }
}

/// A file in `tmp/` that is being written.
pub(crate) struct Draft {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    length: u64,
}

impl Draft {
    /// Appends pieces.
    pub(crate) fn append(&mut self, pieces: &[&[u8]]) -> Result<(), MaildirError> {
        let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let written = self.file.write_at(self.length, &mut slices);
        written.map_err(|error| MaildirError::new("write", &self.path, error))?;
        self.length += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        Ok(())
    }

    /// Makes the content durable; its name is by [`Maildir::sync_tmp`].
    pub(crate) fn sync(&mut self) -> Result<(), MaildirError> {
        self.file.sync().map_err(|error| MaildirError::new("write", &self.path, error))
    }
}

#[cfg(test)]
mod tests {
    use lamppost_disk::RealDisk;

    use super::*;

    fn maildir() -> (tempfile::TempDir, Maildir<'static>) {
        let folder = tempfile::tempdir().unwrap();
        let maildir = Maildir::new(&RealDisk, folder.path().join("lamppost.test/demo/Maildir"));
        maildir.create().unwrap();
        (folder, maildir)
    }

    fn write(maildir: &Maildir<'_>, name: &str) -> Result<(), MaildirError> {
        let mut draft = maildir.begin(name)?;
        draft.append(&[b"con", b"", b"te"])?;
        draft.append(&[b"nt"])?;
        draft.sync()?;
        maildir.sync_tmp()
    }

    #[test]
    fn a_file_goes_from_tmp_to_new() {
        let (_folder, maildir) = maildir();
        write(&maildir, "1.a").unwrap();
        maildir.publish("1.a").unwrap();
        maildir.sync_new().unwrap();
        assert_eq!(std::fs::read(maildir.path.join("new/1.a")).unwrap(), b"content");
        assert!(!maildir.path.join("tmp/1.a").exists());
    }

    #[test]
    fn what_the_reader_took_does_not_come_back() {
        let (_folder, maildir) = maildir();
        write(&maildir, "1.a").unwrap();
        maildir.publish("1.a").unwrap();
        std::fs::rename(maildir.path.join("new/1.a"), maildir.path.join("cur/1.a:2,S")).unwrap();
        maildir.publish("1.a").unwrap();
        assert!(!maildir.path.join("new/1.a").exists());
    }

    #[test]
    fn an_old_name_that_came_back_beside_the_new_one_is_no_second_delivery() {
        let (_folder, maildir) = maildir();
        write(&maildir, "1.a").unwrap();
        let (tmp, cur) = (maildir.path.join("tmp/1.a"), maildir.path.join("cur/1.a:2,S"));
        std::fs::hard_link(&tmp, &cur).unwrap();
        maildir.publish("1.a").unwrap();
        assert!(!tmp.exists() && cur.exists() && !maildir.path.join("new/1.a").exists());
    }

    #[test]
    fn a_maildir_that_is_gone_is_not_a_delivery() {
        let (_folder, maildir) = maildir();
        write(&maildir, "1.a").unwrap();
        std::fs::rename(&maildir.path, maildir.path.with_extension("moved")).unwrap();
        let error = maildir.publish("1.a").unwrap_err().to_string();
        assert!(error.starts_with("cannot find /") && error.contains("Maildir/tmp"), "{error}");
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Maildir");
        std::fs::write(&path, "a file").unwrap();
        let error = write(&Maildir::new(&RealDisk, path), "1.a").unwrap_err().to_string();
        assert!(error.contains("Maildir") && error.contains("no folder is in the way"), "{error}");
    }

    #[test]
    fn no_symbolic_link_is_followed() {
        let (folder, maildir) = maildir();
        let target = folder.path().join("target");
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, maildir.path.join("tmp/1.a")).unwrap();
        assert!(write(&maildir, "1.a").is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }
}
