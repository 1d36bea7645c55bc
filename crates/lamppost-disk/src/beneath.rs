//! A folder that somebody else may change at any moment, and nothing outside of it.
//!
//! Whoever owns a folder can put a symbolic link in the place of anything in it between two looks. Every name
//! is looked up in the folder that was opened before it, and none may be a link (`O_NOFOLLOW`). openat2(2) would
//! do that in one step; a unit with `RestrictSUIDSGID=` has none.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fstat, mkdirat, open, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::{Disk, DiskFile, Look};

/// The files beneath one folder.
#[derive(Debug)]
pub struct Beneath {
    folder: OwnedFd,
    path: PathBuf,
}

impl Beneath {
    /// Opens the folder. Links on the way to it are followed: they are not its owner's.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { folder: open(path, flags, Mode::empty())?, path: path.to_owned() })
    }

    /// The folder itself.
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Opens a folder beneath, to name it and nothing else.
    ///
    /// # Errors
    /// What the system says; `ELOOP` for a symbolic link.
    pub fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        let within = path.strip_prefix(&self.path).map_err(|_| ErrorKind::InvalidInput)?;
        let mut found = opened(&self.folder, OsStr::new("."), OFlags::PATH | OFlags::DIRECTORY)?;
        for part in within.components() {
            let Component::Normal(name) = part else { return Err(ErrorKind::InvalidInput.into()) };
            found = opened(&found, name, OFlags::PATH | OFlags::DIRECTORY)?;
        }
        Ok(found)
    }

    fn at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        if path == self.path {
            return Ok(opened(&self.folder, OsStr::new("."), flags)?);
        }
        let (above, name) = self.above(path)?;
        Ok(opened(&above, name, flags)?)
    }

    /// The folder that holds a path, and the path's name in it.
    fn above<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        Ok((self.find(above)?, name))
    }
}

/// Opens what has a name in a folder, unless that is a symbolic link.
fn opened(folder: &OwnedFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = loop {
        match openat(folder, name, flags, Mode::from_raw_mode(0o600)) {
            Err(Errno::INTR) => {}
            opened => break opened,
        }
    };
    // A link that was to be named or to be a folder is not told as one by itself.
    let is_link = |mode| FileType::from_raw_mode(mode) == FileType::Symlink;
    match opened {
        Ok(opened) if is_link(fstat(&opened)?.st_mode) => Err(Errno::LOOP),
        Err(Errno::NOTDIR) => match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if is_link(found.st_mode) => Err(Errno::LOOP),
            _ => Err(Errno::NOTDIR),
        },
        opened => opened,
    }
}

impl Disk for Beneath {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let (above, name) = self.above(path)?;
        match mkdirat(above, name, Mode::from_raw_mode(0o700)) {
            Err(Errno::EXIST) => self.find(path).map(drop),
            made => Ok(made?),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        // What is no file, such as a pipe that nobody reads, must not make us wait.
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NONBLOCK;
        let file = self.at(path, flags)?;
        match FileType::from_raw_mode(fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(Box::new(File::from(file))),
            _ => Err(ErrorKind::AlreadyExists.into()),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::from(self.at(path, OFlags::WRONLY | OFlags::NONBLOCK)?)))
    }

    fn read(&self, path: &Path, offset: u64, length_max: usize) -> io::Result<Vec<u8>> {
        let file = File::from(self.at(path, OFlags::RDONLY | OFlags::NONBLOCK)?);
        crate::real::read_at(&file, offset, length_max)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in rustix::fs::Dir::new(self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)?)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != OsStr::new(".") && name != OsStr::new("..") {
                paths.push(path.join(name));
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn look(&self, path: &Path) -> io::Result<Option<Look>> {
        match self.at(path, OFlags::PATH) {
            Ok(found) => Ok(Some(crate::real::looked(&File::from(found).metadata()?))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, old) = self.above(from)?;
        let (to, new) = self.above(to)?;
        Ok(renameat(from, old, to, new)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (above, name) = self.above(path)?;
        match unlinkat(above, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => Ok(removed?),
        }
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::from(self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)?).sync_all()
    }

    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)?)?)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(self.at(path, OFlags::PATH)?)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::unix::fs::symlink;

    use super::*;

    fn beneath() -> (tempfile::TempDir, Beneath, PathBuf) {
        let around = tempfile::tempdir().unwrap();
        let home = around.path().join("home");
        std::fs::create_dir(&home).unwrap();
        std::fs::create_dir(around.path().join("elsewhere")).unwrap();
        let disk = Beneath::open(&home).unwrap();
        (around, disk, home)
    }

    #[test]
    fn what_is_beneath_is_a_disk_like_any() {
        let (_around, disk, home) = beneath();
        disk.create_folder(&home.join("tmp")).unwrap();
        disk.create_folder(&home.join("tmp")).unwrap();
        disk.create_folder(&home.join("new")).unwrap();
        let (from, to) = (home.join("tmp/a"), home.join("new/a"));
        let mut file = disk.create(&from).unwrap();
        file.write_at(0, &mut [IoSlice::new(b"abc")]).unwrap();
        file.sync().unwrap();
        assert_eq!(disk.read(&from, 1, 9).unwrap(), b"bc");
        disk.open(&from).unwrap().write_at(0, &mut [IoSlice::new(b"A")]).unwrap();
        assert_eq!(disk.list(&home.join("tmp")).unwrap(), std::slice::from_ref(&from));
        disk.rename(&from, &to).unwrap();
        disk.sync_folder(&home.join("new")).unwrap();
        disk.sync_file_system(&home).unwrap();
        assert!(disk.free_bytes(&home).unwrap() > 0);
        assert_eq!(disk.look(&from).unwrap(), None);
        let look = disk.look(&to).unwrap().unwrap();
        assert_eq!((look.length, look.names, look.is_folder), (3, 1, false));
        assert!(disk.look(&home).unwrap().unwrap().is_folder);
        disk.remove(&to).unwrap();
        disk.remove(&to).unwrap();
    }

    #[test]
    fn nothing_leads_outside() {
        let (around, disk, home) = beneath();
        let elsewhere = around.path().join("elsewhere");
        std::fs::write(elsewhere.join("a"), "precious").unwrap();
        symlink(&elsewhere, home.join("new")).unwrap();
        symlink("../elsewhere", home.join("tmp")).unwrap();
        symlink(elsewhere.join("a"), home.join("a")).unwrap();
        std::fs::write(home.join("mine"), "").unwrap();
        let outside = [home.join("new/a"), home.join("tmp/a"), home.join("a"), elsewhere.join("a")];
        for path in outside.iter().chain([&home.join("../elsewhere/a")]) {
            assert!(disk.create(path).is_err(), "{}", path.display());
            assert!(disk.open(path).is_err(), "{}", path.display());
            assert!(disk.read(path, 0, 1).is_err(), "{}", path.display());
            assert!(disk.look(path).is_err(), "{}", path.display());
        }
        for path in [&outside[0], &outside[1], &outside[3]] {
            assert!(disk.rename(&home.join("mine"), path).is_err(), "{}", path.display());
            assert!(disk.remove(path).is_err(), "{}", path.display());
            assert!(disk.create_folder(&path.with_extension("d")).is_err(), "{}", path.display());
            assert!(disk.sync_folder(path.parent().unwrap()).is_err(), "{}", path.display());
        }
        assert_eq!(std::fs::read(elsewhere.join("a")).unwrap(), b"precious");
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);
    }

    #[test]
    fn a_pipe_in_the_place_of_a_file_makes_nobody_wait() {
        let (_around, disk, home) = beneath();
        let pipe = home.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .unwrap();
        assert!(disk.create(&pipe).is_err());
        // Even one that somebody reads is no file.
        let _reader = open(&pipe, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
        assert!(disk.create(&pipe).is_err());
    }
}
