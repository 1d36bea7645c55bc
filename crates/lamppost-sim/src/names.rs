//! Names of files and folders, those that are durable, and what a power cut leaves of the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Lot;

/// How a file system keeps its names in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystemKind {
    /// With a journal: changes of names survive in the order in which they were made, each whole.
    /// A sync of a folder makes all changes before its own last one durable too.
    Journalled,
    /// Without a journal: each name survives by itself, so that a file that was renamed may have
    /// both names or none.
    Unordered,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    Folder,
    /// The number of a file.
    File(u64),
}

/// All names by path.
pub(crate) type Tree = BTreeMap<PathBuf, Node>;

/// A change of one name.
#[derive(Clone, Debug)]
struct Change {
    path: PathBuf,
    /// What it stands for from now on.
    node: Option<Node>,
    /// Changes that one operation made have the same number.
    operation: u64,
}

/// The durable names of a file system of one kind, and the changes since.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    kind: FileSystemKind,
    durable: Tree,
    unsynced: Vec<Change>,
}

impl Names {
    pub(crate) fn new(kind: FileSystemKind, durable: Tree) -> Self {
        Self { kind, durable, unsynced: Vec::new() }
    }

    pub(crate) fn change(&mut self, operation: u64, path: &Path, node: Option<Node>) {
        self.unsynced.push(Change { path: path.to_owned(), node, operation });
    }

    /// The names in a folder are durable from now on.
    pub(crate) fn sync(&mut self, folder: &Path) {
        let is_in = |change: &Change| change.path.parent() == Some(folder);
        match self.kind {
            FileSystemKind::Journalled => {
                let last = self.unsynced.iter().rev().find(|change| is_in(change));
                let Some(last) = last.map(|change| change.operation) else { return };
                self.settle(|change| change.operation <= last);
            }
            FileSystemKind::Unordered => self.settle(is_in),
        }
    }

    /// All names are durable from now on.
    pub(crate) fn sync_all(&mut self) {
        self.settle(|_| true);
    }

    fn settle(&mut self, is_durable: impl Fn(&Change) -> bool) {
        let (durable, unsynced) =
            std::mem::take(&mut self.unsynced).into_iter().partition(|change| is_durable(change));
        self.unsynced = unsynced;
        for change in durable {
            put(&mut self.durable, change);
        }
    }

    /// The names that are durable.
    pub(crate) fn durable(&self) -> &Tree {
        &self.durable
    }

    /// What a power cut leaves; names whose folder is gone are still in it.
    pub(crate) fn after_crash(&self, lot: &mut Lot) -> Tree {
        let mut tree = self.durable.clone();
        match self.kind {
            FileSystemKind::Journalled => {
                let mut operations: Vec<_> =
                    self.unsynced.iter().map(|change| change.operation).collect();
                operations.dedup();
                let kept = lot.index(operations.len() + 1);
                let kept = &operations[..kept];
                let changes = self.unsynced.iter();
                for change in changes.filter(|change| kept.contains(&change.operation)) {
                    put(&mut tree, change.clone());
                }
            }
            FileSystemKind::Unordered => {
                let mut by_path: BTreeMap<&Path, Vec<&Change>> = BTreeMap::new();
                for change in &self.unsynced {
                    by_path.entry(&change.path).or_default().push(change);
                }
                for changes in by_path.values() {
                    // Each name is as it was at some moment since its folder was synced.
                    if let Some(last) = lot.index(changes.len() + 1).checked_sub(1) {
                        put(&mut tree, changes[last].clone());
                    }
                }
            }
        }
        tree
    }
}

/// What was in a folder that is gone is gone.
pub(crate) fn whole(tree: &Tree) -> Tree {
    let is_whole =
        |path: &Path| path.ancestors().skip(1).all(|above| tree.get(above) == Some(&Node::Folder));
    let whole = tree.iter().filter(|(path, _)| is_whole(path));
    whole.map(|(path, node)| (path.clone(), *node)).collect()
}

fn put(tree: &mut Tree, change: Change) {
    match change.node {
        Some(node) => drop(tree.insert(change.path, node)),
        None => drop(tree.remove(&change.path)),
    }
}
