//! What triplets cost Lamppost: its memory and its file with none of them, with all of them waiting,
//! and with all of them known.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use lamppost_load::{Mix, PolicyLoad};

use super::subject::{Running, Subject};
use crate::bench::table::{Table, figure};

/// How long asking about all of them may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// The delay, and what clocks may cut off.
const DELAY: Duration = Duration::from_millis(2100);
/// Connections by which they are asked about.
const CONNECTIONS: usize = 50;

/// MiB of memory and of the store's files.
#[derive(Clone, Copy)]
struct Size {
    memory_mib: f64,
    file_mib: f64,
}

/// Sizes with so many triplets.
pub(super) struct Memory {
    triplets: f64,
    none: Size,
    waiting: Size,
    known: Size,
}

impl Memory {
    pub(super) fn measure(folder: &Path, triplets: u64) -> Result<Self> {
        let running = Subject::Lamppost.start(folder)?;
        let store = folder.join("state/policy");
        let none = size(&running, &store);
        let waiting = asked(&running, triplets, triplets).map(|()| size(&running, &store))?;
        std::thread::park_timeout(DELAY);
        asked(&running, triplets, 0)?;
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 triplets")]
        let triplets = triplets as f64;
        Ok(Self { triplets, none, waiting, known: size(&running, &store) })
    }

    /// Bytes of memory of a triplet that passed.
    pub(super) fn bytes_per_known(&self) -> f64 {
        self.bytes(self.known.memory_mib - self.none.memory_mib)
    }

    fn bytes(&self, mib: f64) -> f64 {
        mib * f64::from(1 << 20) / self.triplets
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new([
            format!("{} triplets", self.triplets),
            "memory, MiB (PSS)".to_owned(),
            "bytes per triplet".to_owned(),
            "files, MiB".to_owned(),
            "bytes per triplet".to_owned(),
        ]);
        for (name, size) in
            [("none yet", self.none), ("all waiting", self.waiting), ("all known", self.known)]
        {
            table.row([
                name.to_owned(),
                figure(size.memory_mib),
                figure(self.bytes(size.memory_mib - self.none.memory_mib)),
                figure(size.file_mib),
                figure(self.bytes(size.file_mib - self.none.file_mib)),
            ]);
        }
        table
    }
}

/// Asks about all triplets once, of which so many must be deferred.
fn asked(running: &Running, triplets: u64, deferred: u64) -> Result<()> {
    let mix = Mix { known: triplets, new_percent: 0, new_from: triplets };
    let (address, connections) = (running.address, CONNECTIONS);
    let load =
        PolicyLoad { address, connections, mix, questions_max: triplets, duration: PATIENCE };
    let report = load.run()?;
    println!("  {} decisions in {:.0} s", report.questions(), report.elapsed.as_secs_f64());
    ensure!(report.questions() == triplets, "only {} were answered", report.questions());
    ensure!(report.deferred == deferred, "{} were deferred", report.deferred);
    Ok(())
}

fn size(running: &Running, store: &Path) -> Size {
    let files = std::fs::read_dir(store).into_iter().flatten().flatten();
    let bytes: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 bytes")]
    let file_mib = bytes as f64 / f64::from(1 << 20);
    Size { memory_mib: running.memory_mib(), file_mib }
}
