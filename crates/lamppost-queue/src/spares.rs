//! Segment files made ahead: written once from end to end, so that a sync of the log neither changes
//! a length nor allocates, and so that their space is reserved.
//!
//! Segments that nothing needs any more are kept as spares too. The last one, the reserve, is for
//! changes of state alone: a full disk takes no new mail, and what is in the queue goes on.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lamppost_disk::{Blocking, Disk};
use parking_lot::Mutex;
use tracing::warn;

use crate::Settings;

/// Bytes that are written at once, and synced before the next, so that the log's own syncs don't
/// wait behind all of them.
const STRETCH: usize = 1024 * 1024;
/// What a spare's name begins with.
const PREFIX: &str = "spare-";

/// A file that may become a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    /// Its bytes, all of them written.
    pub(crate) capacity: u64,
}

/// The spares of a spool.
#[derive(Clone)]
pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    blocking: Blocking,
    /// More are given back to the file system.
    kept_max: usize,
    shelf: Arc<Mutex<Shelf>>,
}

#[derive(Debug, Default)]
struct Shelf {
    ready: Vec<Spare>,
    reserve: Option<Spare>,
    /// Whether one is being made.
    making: bool,
    last_name: u64,
}

impl Spares {
    /// Adopts the spares that are there; the first small one is the reserve.
    pub(crate) fn adopt(disk: Arc<dyn Disk>, settings: &Settings) -> io::Result<Self> {
        let folder = settings.log();
        let kept_max = settings.spare_segments_max;
        let mut shelf = Shelf::default();
        for path in disk.list(&folder)? {
            let Some(number) = number(&path) else { continue };
            shelf.last_name = shelf.last_name.max(number);
            let look = disk.look(&path)?;
            if look.is_some_and(|look| look.names > 1) {
                // A file system without a journal cut a rename in two: this is a segment too.
                disk.remove(&path)?;
                continue;
            }
            let capacity = look.map_or(0, |look| look.length);
            let spare = Spare { path, capacity };
            if shelf.reserve.is_none() && capacity == settings.reserve() {
                shelf.reserve = Some(spare);
            } else if capacity > settings.reserve() && shelf.ready.len() < kept_max {
                shelf.ready.push(spare);
            } else {
                // Half made when the program was killed, or too many.
                disk.remove(&spare.path)?;
            }
        }
        let shelf = Arc::new(Mutex::new(shelf));
        Ok(Self { disk, folder, blocking: settings.blocking, kept_max, shelf })
    }

    /// A spare with at least so many bytes; the reserve is not given.
    pub(crate) fn take(&self, capacity_min: u64) -> Option<Spare> {
        let mut shelf = self.shelf.lock();
        let fits = |spare: &Spare| spare.capacity >= capacity_min;
        let place = shelf.ready.iter().position(fits)?;
        Some(shelf.ready.swap_remove(place))
    }

    /// The reserve, for changes of state while the disk is full.
    pub(crate) fn take_reserve(&self, capacity_min: u64) -> Option<Spare> {
        self.shelf.lock().reserve.take_if(|spare| spare.capacity >= capacity_min)
    }

    /// Gives a spare back to the file system; false when there is none.
    pub(crate) fn shed(&self) -> io::Result<bool> {
        let Some(spare) = self.shelf.lock().ready.pop() else { return Ok(false) };
        self.disk.remove(&spare.path).map(|()| true)
    }

    /// Whether a spare is ready or under way.
    pub(crate) fn is_stocked(&self) -> bool {
        let shelf = self.shelf.lock();
        shelf.making || !shelf.ready.is_empty()
    }

    /// Whether the space for changes of state is there.
    pub(crate) fn has_reserve(&self) -> bool {
        self.shelf.lock().reserve.is_some()
    }

    /// Keeps a segment's file that nothing needs any more; false when there are enough.
    pub(crate) fn keep(&self, segment: &Path, capacity: u64) -> io::Result<bool> {
        if self.shelf.lock().ready.len() >= self.kept_max {
            return Ok(false);
        }
        let path = self.name();
        // Not durable by itself: a segment that keeps its name is found to be dead once more.
        self.disk.rename(segment, &path)?;
        self.shelf.lock().ready.push(Spare { path, capacity });
        Ok(true)
    }

    /// Makes a spare and waits for it.
    pub(crate) fn make(&self, capacity: u64) -> io::Result<Spare> {
        let path = self.name();
        let made = fill(&*self.disk, &path, capacity);
        if made.is_err() {
            // A full disk gets its space back.
            self.disk.remove(&path)?;
        }
        made.map(|()| Spare { path, capacity })
    }

    /// Makes the reserve if it is not there.
    pub(crate) fn make_reserve(&self, settings: &Settings) -> io::Result<()> {
        if !self.has_reserve() {
            let reserve = self.make(settings.reserve())?;
            self.shelf.lock().reserve = Some(reserve);
        }
        Ok(())
    }

    /// Has a spare made while others go on.
    pub(crate) fn order(&self, capacity: u64) {
        if std::mem::replace(&mut self.shelf.lock().making, true) {
            return;
        }
        let spares = self.clone();
        drop(tokio::spawn(async move {
            let maker = spares.clone();
            let made = spares.blocking.run(move || maker.make(capacity)).await;
            let mut shelf = spares.shelf.lock();
            shelf.making = false;
            match made {
                Ok(Ok(spare)) => shelf.ready.push(spare),
                Ok(Err(error)) => warn!(reason = %error, "no segment can be made ahead"),
                Err(_) => {}
            }
        }));
    }

    /// A path that no spare has.
    pub(crate) fn name(&self) -> PathBuf {
        let mut shelf = self.shelf.lock();
        shelf.last_name += 1;
        self.folder.join(format!("{PREFIX}{:06}", shelf.last_name))
    }
}

/// The number in a spare's name.
pub(crate) fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()
}

/// Writes a file from end to end.
fn fill(disk: &dyn Disk, path: &Path, capacity: u64) -> io::Result<()> {
    let zeros = vec![0; STRETCH.min(usize::try_from(capacity).unwrap_or(STRETCH))];
    let mut file = disk.create(path)?;
    let mut at = 0;
    while at < capacity {
        let length = usize::try_from(capacity - at).unwrap_or(STRETCH).min(zeros.len());
        file.write_at(at, &mut [IoSlice::new(&zeros[..length])])?;
        file.sync()?;
        at += length as u64;
    }
    Ok(())
}
