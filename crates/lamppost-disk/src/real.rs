//! The machine's own file systems.

use std::fs::{File, Metadata};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::{Disk, DiskFile, Look};

/// The machine's own file systems.
#[derive(Clone, Copy, Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = File::options();
        options.create(true).truncate(true).write(true).mode(0o600);
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        Ok(Box::new(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::options().write(true).open(path)?))
    }

    fn read(&self, path: &Path, offset: u64, length_max: usize) -> io::Result<Vec<u8>> {
        read_at(&File::open(path)?, offset, length_max)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
        let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn look(&self, path: &Path) -> io::Result<Option<Look>> {
        match std::fs::metadata(path) {
            Ok(found) => Ok(Some(looked(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Reads at most `length_max` bytes of a file from `offset` on.
pub(crate) fn read_at(file: &File, offset: u64, length_max: usize) -> io::Result<Vec<u8>> {
    let there = file.metadata()?.len().saturating_sub(offset);
    let length = usize::try_from(there).unwrap_or(usize::MAX).min(length_max);
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// What the system tells of a file.
pub(crate) fn looked(found: &Metadata) -> Look {
    Look {
        length: found.len(),
        names: found.nlink(),
        device: found.dev(),
        is_folder: found.is_dir(),
    }
}

impl DiskFile for File {
    fn write_at(&mut self, mut offset: u64, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        // An empty slice would look like a file that takes no more.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match rustix::io::pwritev(&*self, slices, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/file");
        RealDisk.create_folder(path.parent().unwrap()).unwrap();
        let mut file = RealDisk.create(&path).unwrap();
        file.write_at(2, &mut [IoSlice::new(b""), IoSlice::new(b"cd"), IoSlice::new(b"ef")])
            .unwrap();
        file.write_at(0, &mut [IoSlice::new(b"ab")]).unwrap();
        file.sync().unwrap();
        RealDisk.open(&path).unwrap().write_at(1, &mut [IoSlice::new(b"B")]).unwrap();
        assert_eq!(RealDisk.read(&path, 1, 3).unwrap(), b"Bcd");
        assert_eq!(RealDisk.read(&path, 5, 100).unwrap(), b"f");
        assert_eq!(RealDisk.look(&path).unwrap().unwrap().length, 6);
        RealDisk.rename(&path, &path.with_extension("moved")).unwrap();
        assert_eq!(RealDisk.look(&path).unwrap(), None);
        RealDisk.sync_folder(path.parent().unwrap()).unwrap();
        RealDisk.sync_file_system(folder.path()).unwrap();
        assert_eq!(RealDisk.list(path.parent().unwrap()).unwrap(), [path.with_extension("moved")]);
        RealDisk.remove(&path.with_extension("moved")).unwrap();
        RealDisk.remove(&path).unwrap();
    }

    #[test]
    fn more_slices_than_the_system_takes_at_once_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut slices = vec![IoSlice::new(b"x"); 5000];
        RealDisk.create(&path).unwrap().write_at(0, &mut slices).unwrap();
        assert_eq!(RealDisk.read(&path, 0, 9999).unwrap(), [b'x'; 5000]);
    }

    #[test]
    fn no_symbolic_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(RealDisk.create(&link).is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }
}
