//! Two ways to make a batch durable, chosen by what each was measured to take.
//!
//! Each file by itself (and each folder), or everything on the file system at once (syncfs(2)). The
//! first costs a sync a file; the second costs one, but waits for everything else that is dirty on
//! that file system, which nobody can know beforehand. The second is taken as long as its batches are
//! not much slower: every sync that is saved is time of the disk and of the processors that sessions
//! and the log get.

use std::time::Duration;

use parking_lot::Mutex;

/// A way to make a batch durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each file and each folder.
    Each,
    /// The file system as a whole.
    FileSystem,
}

impl Way {
    /// The way's name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Each => "each",
            Self::FileSystem => "file-system",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Each => Self::FileSystem,
            Self::FileSystem => Self::Each,
        }
    }
}

/// Classes of batches: of 1, 2, 3 to 4, 5 to 8 files and so on.
const CLASSES: usize = 10;
/// How much longer than syncs of each file a sync of everything may take.
const PATIENCE: f64 = 3.0;
/// Batches of a class after which the other way is measured again.
const LOOK_AGAIN: u32 = 32;

/// What the ways took so far.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    classes: Mutex<[Class; CLASSES]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Class {
    /// Moving averages in seconds a batch, by way.
    took: [Option<f64>; 2],
    since_look: u32,
}

impl Choice {
    /// The way for a batch of so many files.
    pub(crate) fn way(&self, files: usize) -> Way {
        let mut classes = self.classes.lock();
        let Some(class) = classes.get_mut(class(files)) else { return Way::Each };
        let better = match class.took {
            // A lone file gains nothing from a sync of everything.
            _ if files <= 1 => return Way::Each,
            [Some(each), Some(all)] if all >= each * PATIENCE => Way::Each,
            // What was not measured yet is measured when it is looked at again.
            _ => Way::FileSystem,
        };
        class.since_look += 1;
        if class.since_look > LOOK_AGAIN {
            class.since_look = 0;
            return better.other();
        }
        better
    }

    /// A batch of so many files took so long.
    pub(crate) fn measured(&self, way: Way, files: usize, took: Duration) {
        /// How much a new figure counts.
        const WEIGHT: f64 = 0.2;
        let mut classes = self.classes.lock();
        if let Some(class) = classes.get_mut(class(files)) {
            let known = &mut class.took[way as usize];
            let took = took.as_secs_f64();
            *known = Some(known.map_or(took, |known| known + (took - known) * WEIGHT));
        }
    }
}

fn class(files: usize) -> usize {
    (files.max(1) - 1).checked_ilog2().map_or(0, |log| log as usize + 1).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(each_ms: u64, all_ms: u64) -> Choice {
        let choice = Choice::default();
        choice.measured(Way::Each, 100, Duration::from_millis(each_ms));
        choice.measured(Way::FileSystem, 100, Duration::from_millis(all_ms));
        choice
    }

    #[test]
    fn one_sync_for_all_is_taken_unless_it_is_much_slower() {
        assert_eq!(measured(50, 5).way(100), Way::FileSystem);
        assert_eq!(measured(50, 140).way(100), Way::FileSystem);
        assert_eq!(measured(50, 160).way(100), Way::Each);
    }

    #[test]
    fn both_ways_are_measured_in_time() {
        let choice = Choice::default();
        assert_eq!(choice.way(100), Way::FileSystem);
        choice.measured(Way::FileSystem, 100, Duration::from_millis(10));
        assert!((0..100).any(|_| choice.way(100) == Way::Each));
        choice.measured(Way::Each, 100, Duration::from_millis(1));
        assert_eq!(choice.way(100), Way::Each);
    }

    #[test]
    fn a_lone_file_is_synced_by_itself() {
        let choice = measured(50, 5);
        choice.measured(Way::Each, 1, Duration::from_secs(1));
        choice.measured(Way::FileSystem, 1, Duration::ZERO);
        assert_eq!(choice.way(1), Way::Each);
    }

    #[test]
    fn the_slower_way_gets_another_chance() {
        let choice = measured(50, 5);
        let each = (0..1000).filter(|_| choice.way(100) == Way::Each).count();
        assert_eq!(each, 30);
        for _ in 0..100 {
            choice.measured(Way::FileSystem, 100, Duration::from_millis(500));
        }
        assert_eq!(choice.way(100), Way::Each);
    }

    #[test]
    fn classes_double() {
        for (files, expected) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (9, 4), (9999, 9)]
        {
            assert_eq!(class(files), expected, "{files}");
        }
    }
}
