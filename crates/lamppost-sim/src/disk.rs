//! A disk in memory that records what is done to it.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lamppost_disk::{Disk, DiskFile, Look};
use parking_lot::Mutex;

use crate::names::Node;
use crate::{FileSystemKind, Lot, Operation, World};

/// A disk in memory; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
    /// Whoever holds it holds up all syncs of files.
    pub gate: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct State {
    world: World,
    /// As it was before the first operation.
    begin: World,
    log: Vec<Operation>,
    /// Writes and syncs that still succeed; after that all fail until it is set again.
    good: Option<u64>,
    /// Draws how much of a write that fails is written.
    lot: Lot,
    /// Bytes that all files of a file system may take, and what is said of more.
    limits: BTreeMap<usize, (u64, io::ErrorKind)>,
    /// Which syncs do nothing and say that they did.
    lie: Option<Lie>,
    syncs: u64,
    bytes_read: u64,
    /// Parts of files that cannot be read: the file, from where, to where.
    bad: Vec<(u64, u64, u64)>,
}

/// Which syncs do nothing and say that they did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Syncs of files below a folder, of each by itself and of all.
    Files(PathBuf),
    /// Syncs of folders with one of these names.
    Folders(&'static [&'static str]),
}

impl SimulatedDisk {
    /// An empty disk on which this folder is.
    pub fn new(folder: &Path) -> Self {
        Self::with_mounts(folder, &[])
    }

    /// An empty disk on which this folder is, and others at which file systems of their own begin.
    pub fn with_mounts(folder: &Path, mounts: &[PathBuf]) -> Self {
        Self::with_world(World::with_folder(folder, mounts))
    }

    /// A disk in this state, all of it durable.
    pub fn with_world(world: World) -> Self {
        let state = State {
            begin: world.clone(),
            world,
            log: Vec::new(),
            good: None,
            lot: Lot::new(0),
            limits: BTreeMap::new(),
            lie: None,
            syncs: 0,
            bytes_read: 0,
            bad: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), gate: Arc::default() }
    }

    /// What was done so far.
    pub fn log(&self) -> Vec<Operation> {
        self.state.lock().log.clone()
    }

    /// How much was done so far.
    pub fn operations(&self) -> usize {
        self.state.lock().log.len()
    }

    /// As it was before anything was done: applying the log to it, one operation after the other,
    /// gives every state that the disk was in.
    pub fn begin(&self) -> World {
        self.state.lock().begin.clone()
    }

    /// As it is now.
    pub fn world(&self) -> World {
        self.state.lock().world.clone()
    }

    /// The disk that a power cut after so many operations leaves, and what kind of file system it
    /// has; the seed draws both.
    pub fn after_crash(&self, operations: usize, seed: u64) -> (Self, FileSystemKind) {
        let mut world = self.begin();
        for operation in self.state.lock().log.iter().take(operations) {
            world.apply(operation);
        }
        let (world, kind) = world.after_crash(seed);
        (Self::with_world(world), kind)
    }

    /// The disk after a power cut now that leaves nothing but what is durable.
    #[must_use]
    pub fn after_power_cut(&self) -> Self {
        Self::with_world(self.state.lock().world.durable())
    }

    /// The disk after a kill: everything is there, since the system goes on.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        Self::with_world(self.world())
    }

    /// All writes and syncs after the next `good` ones fail; the seed draws how much of each write is
    /// written all the same.
    pub fn fail_after(&self, good: u64, seed: u64) {
        let mut state = self.state.lock();
        state.good = Some(good);
        state.lot = Lot::new(seed);
    }

    /// Writes and syncs succeed again.
    pub fn mend(&self) {
        self.state.lock().good = None;
    }

    /// All files on the first file system may take so many bytes.
    pub fn set_quota(&self, bytes: Option<u64>) {
        self.limit(Path::new("/"), bytes.map(|bytes| (bytes, io::ErrorKind::StorageFull)));
    }

    /// All files on the file system that holds a path may take so many bytes; more is refused with
    /// this error. Of a quota (`QuotaExceeded`) nothing is seen beforehand.
    pub fn limit(&self, path: &Path, limit: Option<(u64, io::ErrorKind)>) {
        let mut state = self.state.lock();
        let device = state.world.device(path);
        match limit {
            Some(limit) => drop(state.limits.insert(device, limit)),
            None => drop(state.limits.remove(&device)),
        }
    }

    /// Bytes that all files on the first file system take.
    pub fn used(&self) -> u64 {
        self.state.lock().world.used(0)
    }

    /// Bytes that all files take on the file system that holds a path.
    pub fn used_at(&self, path: &Path) -> u64 {
        let state = self.state.lock();
        state.world.used(state.world.device(path))
    }

    /// From now on these syncs do nothing and say that they did.
    pub fn lie(&self, lie: Lie) {
        self.state.lock().lie = Some(lie);
    }

    /// How often a file was synced.
    pub fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// Bytes that were read so far.
    pub fn bytes_read(&self) -> u64 {
        self.state.lock().bytes_read
    }

    /// The files whose path holds a text.
    pub fn files(&self, text: &str) -> Vec<PathBuf> {
        let state = self.state.lock();
        let paths = state.world.paths();
        paths.filter(|path| path.to_string_lossy().contains(text)).cloned().collect()
    }

    /// Writes over a part of a file, durably and unseen, as a disk does that goes bad.
    pub fn damage(&self, path: &Path, offset: u64, bytes: &[u8]) {
        let mut state = self.state.lock();
        if let Some(Node::File(file)) = state.world.node(path) {
            state.apply(Operation::Write { file, offset, bytes: bytes.into() });
            state.apply(Operation::SyncFile { file, good: true });
        }
    }

    /// From now on a part of a file cannot be read (EIO), whatever the file is called.
    pub fn spoil(&self, path: &Path, offset: u64, length: u64) {
        let mut state = self.state.lock();
        if let Some(Node::File(file)) = state.world.node(path) {
            state.bad.push((file, offset, offset.saturating_add(length)));
        }
    }
}

impl State {
    fn apply(&mut self, operation: Operation) {
        self.world.apply(&operation);
        self.log.push(operation);
    }

    /// A write or a sync: whether it succeeds.
    fn step(&mut self) -> io::Result<()> {
        match &mut self.good {
            Some(0) => Err(io::Error::other("simulated input/output error")),
            Some(good) => {
                *good -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn parent_is_there(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|parent| self.world.node(parent)) {
            Some(Node::Folder) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        match self.world.node(path) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Bytes that a write beyond the end of files may add, and what is said when there are none.
    fn free(&self, device: usize) -> (u64, io::ErrorKind) {
        let limit = self.limits.get(&device).copied();
        limit.map_or((u64::MAX, io::ErrorKind::StorageFull), |(bytes, kind)| {
            (bytes.saturating_sub(self.world.used(device)), kind)
        })
    }

    /// Whether a sync of a file, or of everything below a path, is a lie.
    fn lies_of_file(&self, path: Option<&Path>, file: u64) -> bool {
        let Some(Lie::Files(folder)) = &self.lie else { return false };
        path.map_or_else(
            || self.world.paths_of(file).any(|path| path.starts_with(folder)),
            |path| path.starts_with(folder),
        )
    }

    fn write(&mut self, file: u64, offset: u64, mut bytes: Vec<u8>) -> io::Result<()> {
        let mut written = self.step();
        let mut length = bytes.len() as u64;
        let device = self.world.device_of(file);
        if written.is_err() {
            length = self.lot.below(length + 1);
        } else if self.limits.contains_key(&device) {
            let (free, kind) = self.free(device);
            let most = (self.world.length(file).saturating_add(free)).saturating_sub(offset);
            if length > most {
                length = most;
                written = Err(kind.into());
            }
        }
        bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        self.apply(Operation::Write { file, offset, bytes: bytes.into() });
        written
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
}

impl Disk for SimulatedDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let missing: Vec<_> =
            path.ancestors().take_while(|path| state.world.node(path).is_none()).collect();
        for path in missing.into_iter().rev() {
            state.step()?;
            state.apply(Operation::CreateFolder { path: path.to_owned() });
        }
        match state.world.node(path) {
            Some(Node::File(_)) => Err(io::ErrorKind::AlreadyExists.into()),
            _ => Ok(()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.step()?;
        state.parent_is_there(path)?;
        state.apply(Operation::Create { path: path.to_owned() });
        let file = state.file(path)?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.state.lock().file(path)?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), file }))
    }

    fn read(&self, path: &Path, offset: u64, length_max: usize) -> io::Result<Vec<u8>> {
        /// EIO, as the kernel numbers it.
        const INPUT_OUTPUT_ERROR: i32 = 5;
        let mut state = self.state.lock();
        let file = state.file(path)?;
        let bytes = state.world.file(path).unwrap_or_default();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let to = from.saturating_add(length_max).min(bytes.len());
        let (begin, end) = (from as u64, to as u64);
        if state.bad.iter().any(|&(bad, from, to)| bad == file && from < end && begin < to) {
            return Err(io::Error::from_raw_os_error(INPUT_OUTPUT_ERROR));
        }
        let bytes = bytes[from..to].to_vec();
        state.bytes_read += bytes.len() as u64;
        Ok(bytes)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.state.lock().world.children(path)
    }

    fn look(&self, path: &Path) -> io::Result<Option<Look>> {
        let state = self.state.lock();
        Ok(state.world.node(path).map(|node| match node {
            Node::File(file) => Look {
                length: state.world.length(file),
                names: state.world.names_of(file),
                device: state.world.device(path) as u64 + 1,
                is_folder: false,
            },
            Node::Folder => {
                let device = state.world.device(path) as u64 + 1;
                Look { length: 0, names: 1, device, is_folder: true }
            }
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let file = state.file(from)?;
        state.parent_is_there(to)?;
        if state.world.device(from) != state.world.device(to) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        state.step()?;
        // As rename(2): two names of one file stay as they are.
        if state.world.node(to) != Some(Node::File(file)) {
            state.apply(Operation::Rename { from: from.to_owned(), to: to.to_owned() });
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.world.node(path).is_some() {
            state.apply(Operation::Remove { path: path.to_owned() });
        }
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.world.node(path).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let synced = state.step();
        if let Some(Lie::Folders(names)) = state.lie
            && names.iter().any(|name| path.ends_with(name))
        {
            return synced;
        }
        state.apply(Operation::SyncFolder { path: path.to_owned(), good: synced.is_ok() });
        synced
    }

    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.world.node(path).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let synced = state.step();
        if state.lies_of_file(Some(path), 0) {
            return synced;
        }
        let (path, good) = (path.to_owned(), synced.is_ok());
        state.apply(Operation::SyncFileSystem { path, good });
        synced
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        Ok(match state.free(state.world.device(path)) {
            (_, io::ErrorKind::QuotaExceeded) => u64::MAX,
            (free, _) => free,
        })
    }
}

impl DiskFile for SimulatedFile {
    fn write_at(&mut self, offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.disk.state.lock().write(self.file, offset, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        drop(self.disk.gate.lock());
        let mut state = self.disk.state.lock();
        let synced = state.step();
        if state.lies_of_file(None, self.file) {
            return synced;
        }
        state.syncs += 1;
        state.apply(Operation::SyncFile { file: self.file, good: synced.is_ok() });
        synced
    }
}
