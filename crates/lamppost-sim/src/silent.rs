//! A disk on which some paths do not answer, as on a network file system whose server is gone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lamppost_disk::{Disk, DiskFile, Look};
use parking_lot::{Condvar, Mutex};

/// A disk on which some paths do not answer; clones are the same disk. Calls block their threads.
#[derive(Clone)]
pub struct SilentDisk {
    disk: Arc<dyn Disk>,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    silence: Mutex<Silence>,
    ended: Condvar,
}

#[derive(Default)]
struct Silence {
    /// A part of the paths that do not answer; nothing when all do.
    part: Option<&'static str>,
    /// Calls that wait.
    waiting: usize,
}

/// As long as it lives, a part of a disk does not answer; then whatever waits goes on, also when a test
/// has failed meanwhile.
pub struct Quiet {
    gate: Arc<Gate>,
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.gate.silence.lock().part = None;
        self.gate.ended.notify_all();
    }
}

impl SilentDisk {
    /// A disk that answers as another does.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, gate: Arc::default() }
    }

    /// Until what is returned is dropped nothing answers whose path holds this part.
    pub fn silence(&self, part: &'static str) -> Quiet {
        self.gate.silence.lock().part = Some(part);
        Quiet { gate: self.gate.clone() }
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.gate.silence.lock().waiting
    }

    fn pass(&self, path: &Path) -> &dyn Disk {
        let is_silent = |silence: &mut Silence| {
            silence.part.is_some_and(|part| path.to_string_lossy().contains(part))
        };
        let mut silence = self.gate.silence.lock();
        if is_silent(&mut silence) {
            silence.waiting += 1;
            self.gate.ended.wait_while(&mut silence, is_silent);
            silence.waiting -= 1;
        }
        &*self.disk
    }
}

impl Disk for SilentDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.pass(path).create_folder(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.pass(path).create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.pass(path).open(path)
    }

    fn read(&self, path: &Path, offset: u64, length_max: usize) -> io::Result<Vec<u8>> {
        self.pass(path).read(path, offset, length_max)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.pass(path).list(path)
    }

    fn look(&self, path: &Path) -> io::Result<Option<Look>> {
        self.pass(path).look(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass(from).rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pass(path).remove(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.pass(path).sync_folder(path)
    }

    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        self.pass(path).sync_file_system(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.pass(path).free_bytes(path)
    }
}
