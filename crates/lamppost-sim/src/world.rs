//! Files and folders as a program sees them, and what a power cut leaves of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::names::{Names, Node, Tree, whole};
use crate::{FileSystemKind, Lot, Operation};

/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;

/// The state of a disk: made of operations, one after the other, and cut off after any of them.
#[derive(Clone, Debug)]
pub struct World {
    files: BTreeMap<u64, Inode>,
    names: Tree,
    /// The folders at which other file systems begin.
    mounts: Vec<PathBuf>,
    /// The names of each file system, as one with a journal, and as one without one, has them.
    kept: Vec<[Names; 2]>,
    next_file: u64,
    operations: u64,
}

/// A file, whatever its names are.
#[derive(Clone, Debug, Default)]
struct Inode {
    /// The number of its file system.
    device: usize,
    /// As programs read it.
    bytes: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Piece>,
}

/// A change of a file that may survive by itself.
#[derive(Clone, Debug)]
struct Piece {
    offset: u64,
    /// At most a sector; nothing when the file was emptied.
    bytes: Option<Vec<u8>>,
    /// A sync failed that should have made it durable: no later sync does.
    is_doubtful: bool,
}

impl World {
    /// A disk on which this folder is, durably, and those above it; and others at which file systems
    /// of their own begin.
    pub(crate) fn with_folder(folder: &Path, mounts: &[PathBuf]) -> Self {
        let folders = mounts.iter().map(PathBuf::as_path).chain([folder]);
        let names = folders.flat_map(Path::ancestors).map(|path| (path.to_owned(), Node::Folder));
        Self::of(BTreeMap::new(), names.collect(), mounts.to_vec())
    }

    fn of(files: BTreeMap<u64, Inode>, names: Tree, mounts: Vec<PathBuf>) -> Self {
        let kinds = [FileSystemKind::Journalled, FileSystemKind::Unordered];
        let next_file = files.keys().next_back().map_or(1, |last| last + 1);
        let mut trees = vec![Tree::new(); mounts.len() + 1];
        for (path, node) in &names {
            trees[device(&mounts, path)].insert(path.clone(), *node);
        }
        let kept = trees.iter().map(|tree| kinds.map(|kind| Names::new(kind, tree.clone())));
        let kept = kept.collect();
        Self { files, names, mounts, kept, next_file, operations: 0 }
    }

    /// The number of the file system that holds a path.
    pub(crate) fn device(&self, path: &Path) -> usize {
        device(&self.mounts, path)
    }

    /// The number of the file system that holds a file.
    pub(crate) fn device_of(&self, file: u64) -> usize {
        self.files.get(&file).map_or(0, |inode| inode.device)
    }

    /// Applies what was done.
    pub fn apply(&mut self, operation: &Operation) {
        self.operations += 1;
        match operation {
            Operation::CreateFolder { path } => self.set(path, Some(Node::Folder)),
            Operation::Create { path } => {
                if let Some(Node::File(file)) = self.names.get(path) {
                    if let Some(inode) = self.files.get_mut(file) {
                        inode.empty();
                    }
                    return;
                }
                let file = self.next_file;
                self.next_file += 1;
                let device = self.device(path);
                self.files.insert(file, Inode { device, ..Inode::default() });
                self.set(path, Some(Node::File(file)));
            }
            Operation::Write { file, offset, bytes } => {
                if let Some(inode) = self.files.get_mut(file) {
                    inode.write(*offset, bytes);
                }
            }
            Operation::SyncFile { file, good } => {
                if let Some(inode) = self.files.get_mut(file) {
                    inode.sync(*good);
                }
            }
            Operation::Rename { from, to } => {
                let node = self.names.get(from).copied();
                self.set(from, None);
                self.set(to, node);
            }
            Operation::Remove { path } => self.set(path, None),
            Operation::SyncFolder { path, good } => {
                if *good {
                    let device = self.device(path);
                    self.kept[device].iter_mut().for_each(|names| names.sync(path));
                }
            }
            Operation::SyncFileSystem { path, good } => {
                let device = self.device(path);
                let files = self.files.values_mut().filter(|inode| inode.device == device);
                files.for_each(|inode| inode.sync(*good));
                if *good {
                    self.kept[device].iter_mut().for_each(Names::sync_all);
                }
            }
        }
    }

    fn set(&mut self, path: &Path, node: Option<Node>) {
        match node {
            Some(node) => drop(self.names.insert(path.to_owned(), node)),
            None => drop(self.names.remove(path)),
        }
        let device = self.device(path);
        for names in &mut self.kept[device] {
            names.change(self.operations, path, node);
        }
    }

    /// What a power cut now leaves, drawn by lot: which kind of file system it is, and what of that
    /// which no sync covers survives.
    pub fn after_crash(&self, seed: u64) -> (Self, FileSystemKind) {
        let mut lot = Lot::new(seed);
        let kind =
            if lot.one_in(2) { FileSystemKind::Journalled } else { FileSystemKind::Unordered };
        let trees = self.kept.iter().flat_map(|kept| kept[kind as usize].after_crash(&mut lot));
        let names = whole(&trees.collect());
        // Often all or nothing survives; a mixture is drawn piece by piece.
        let survival = lot.below(4);
        let mut files = BTreeMap::new();
        for node in names.values() {
            if let Node::File(file) = node
                && let Some(inode) = self.files.get(file)
                && !files.contains_key(file)
            {
                files.insert(*file, inode.after_crash(survival, &mut lot));
            }
        }
        let mut world = Self::of(files, names, self.mounts.clone());
        // Numbers of files are not used again, so that logs can be told apart.
        world.next_file = self.next_file;
        (world, kind)
    }

    /// What is durable, and nothing else.
    pub(crate) fn durable(&self) -> Self {
        let kept = |kept: &[Names; 2]| kept[FileSystemKind::Journalled as usize].durable().clone();
        let names = whole(&self.kept.iter().flat_map(kept).collect());
        let files = self.files.iter().map(|(&file, inode)| {
            let (bytes, durable) = (inode.durable.clone(), inode.durable.clone());
            (file, Inode { device: inode.device, bytes, durable, unsynced: Vec::new() })
        });
        Self::of(files.collect(), names, self.mounts.clone())
    }

    /// The bytes of a file.
    pub fn file(&self, path: &Path) -> Option<&[u8]> {
        match self.names.get(path)? {
            Node::File(file) => Some(&self.files.get(file)?.bytes),
            Node::Folder => None,
        }
    }

    /// The paths of all files, in order.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.names.iter().filter(|(_, node)| matches!(node, Node::File(_))).map(|(path, _)| path)
    }

    pub(crate) fn node(&self, path: &Path) -> Option<Node> {
        self.names.get(path).copied()
    }

    pub(crate) fn names_of(&self, file: u64) -> u64 {
        self.names.values().filter(|node| **node == Node::File(file)).count() as u64
    }

    pub(crate) fn paths_of(&self, file: u64) -> impl Iterator<Item = &PathBuf> {
        let names = self.names.iter().filter(move |(_, node)| **node == Node::File(file));
        names.map(|(path, _)| path)
    }

    pub(crate) fn length(&self, file: u64) -> u64 {
        self.files.get(&file).map_or(0, |inode| inode.bytes.len() as u64)
    }

    pub(crate) fn children(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        match self.names.get(folder) {
            Some(Node::Folder) => {}
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        let below = self.names.range(folder.to_owned()..).map(|(path, _)| path);
        let below = below.take_while(|path| path.starts_with(folder));
        Ok(below.filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    /// Bytes that all files with a name take on a file system.
    pub(crate) fn used(&self, device: usize) -> u64 {
        let files: BTreeSet<_> = self.names.values().collect();
        let lengths = files.into_iter().map(|node| match node {
            Node::File(file) if self.device_of(*file) == device => self.length(*file),
            _ => 0,
        });
        lengths.sum()
    }
}

/// The number of the file system that holds a path: the first is what nothing is mounted on.
fn device(mounts: &[PathBuf], path: &Path) -> usize {
    let holds = |(_, mount): &(usize, &PathBuf)| path.starts_with(mount);
    let mounts = (1..).zip(mounts).filter(holds);
    mounts.max_by_key(|(_, mount)| mount.as_os_str().len()).map_or(0, |(number, _)| number)
}

impl Inode {
    fn empty(&mut self) {
        self.bytes.clear();
        self.unsynced.push(Piece { offset: 0, bytes: None, is_doubtful: false });
    }

    fn write(&mut self, offset: u64, bytes: &Arc<[u8]>) {
        put(&mut self.bytes, offset, bytes);
        let mut at = offset;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = usize::try_from(SECTOR - at % SECTOR).unwrap_or(1).min(rest.len());
            let (piece, behind) = rest.split_at(length);
            self.unsynced.push(Piece {
                offset: at,
                bytes: Some(piece.to_vec()),
                is_doubtful: false,
            });
            at += length as u64;
            rest = behind;
        }
    }

    fn sync(&mut self, good: bool) {
        if !good {
            self.unsynced.iter_mut().for_each(|piece| piece.is_doubtful = true);
            return;
        }
        let mut doubtful: Vec<Piece> = Vec::new();
        for piece in std::mem::take(&mut self.unsynced) {
            if piece.is_doubtful {
                doubtful.push(piece);
                continue;
            }
            match &piece.bytes {
                None => doubtful.clear(),
                // What is written over is as it is now, whatever became of it before.
                Some(bytes) => {
                    for old in &mut doubtful {
                        old.overwrite(piece.offset, bytes);
                    }
                }
            }
            piece.put(&mut self.durable);
        }
        self.unsynced = doubtful;
    }

    fn after_crash(&self, survival: u64, lot: &mut Lot) -> Self {
        let mut bytes = self.durable.clone();
        let survivors = lot.index(self.unsynced.len() + 1);
        for (place, piece) in self.unsynced.iter().enumerate() {
            let survives = match survival {
                0 => false,
                1 => true,
                2 => place < survivors,
                _ => lot.one_in(2),
            };
            if survives {
                piece.put(&mut bytes);
            }
        }
        // The length may have been written without what it is the length of.
        if bytes.len() < self.bytes.len() && lot.one_in(3) {
            bytes.resize(self.bytes.len(), 0);
        }
        Self { device: self.device, durable: bytes.clone(), bytes, unsynced: Vec::new() }
    }
}

impl Piece {
    fn put(&self, into: &mut Vec<u8>) {
        match &self.bytes {
            Some(bytes) => put(into, self.offset, bytes),
            None => into.clear(),
        }
    }

    fn overwrite(&mut self, offset: u64, newer: &[u8]) {
        let Some(bytes) = &mut self.bytes else { return };
        let (from, to) = (
            self.offset.max(offset),
            (self.offset + bytes.len() as u64).min(offset + newer.len() as u64),
        );
        for at in from..to {
            let place = |begin: u64| usize::try_from(at - begin).unwrap_or(usize::MAX);
            if let (Some(old), Some(new)) =
                (bytes.get_mut(place(self.offset)), newer.get(place(offset)))
            {
                *old = *new;
            }
        }
    }
}

fn put(into: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let to = from.saturating_add(bytes.len());
    if into.len() < to {
        into.resize(to, 0);
    }
    into[from..to].copy_from_slice(bytes);
}
