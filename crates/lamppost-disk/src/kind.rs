//! What kind of file system a folder is on (statfs(2)).

use std::io;
use std::path::Path;

/// A kind of file system, as far as it matters for what must be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// On a disk of this machine, or something like it.
    Disk,
    /// In memory: gone with the power.
    Memory,
    /// On another machine, whose promises this one cannot know.
    Network,
    /// Layers of a container: what is written may go with it.
    Overlay,
}

/// The kind of the file system that holds a path.
///
/// # Errors
/// What the system says.
pub fn file_system(path: &Path) -> io::Result<FileSystem> {
    // Magic numbers of statfs(2) and linux/magic.h.
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    const NFS: u64 = 0x6969;
    const SMB: u64 = 0x517b;
    const CIFS: u64 = 0xff53_4d42;
    const SMB2: u64 = 0xfe53_4d42;
    const CEPH: u64 = 0x00c3_6400;
    const AFS: u64 = 0x5346_414f;
    const OVERLAY: u64 = 0x794c_7630;
    let magic = u64::try_from(rustix::fs::statfs(path)?.f_type).unwrap_or(0) & 0xffff_ffff;
    Ok(match magic {
        TMPFS | RAMFS => FileSystem::Memory,
        NFS | SMB | CIFS | SMB2 | CEPH | AFS => FileSystem::Network,
        OVERLAY => FileSystem::Overlay,
        _ => FileSystem::Disk,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_from_disk() {
        // Every Linux mounts the kernel's own file systems; neither is in memory or far away.
        assert_eq!(file_system(Path::new("/proc")).unwrap(), FileSystem::Disk);
        if std::fs::read_to_string("/proc/mounts").unwrap().contains(" /dev/shm tmpfs ") {
            assert_eq!(file_system(Path::new("/dev/shm")).unwrap(), FileSystem::Memory);
        }
        assert!(file_system(Path::new("/nowhere")).is_err());
    }
}
