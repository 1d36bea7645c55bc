//! An account of CPU time by a control group (Linux, Documentation/admin-guide/cgroup-v2.rst): it also
//! holds processes that ended without anybody waiting for them, which proc(5) forgets.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) struct Account {
    folder: PathBuf,
}

impl Account {
    /// Opens an account; there is none where control groups cannot be made.
    pub(crate) fn open(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").ok()?;
        let mounted = mounts.lines().find_map(|line| {
            let mut columns = line.split(' ');
            let (place, system) = (columns.nth(1)?, columns.next()?);
            (system == "cgroup2").then(|| PathBuf::from(place))
        })?;
        // A run that was killed could not close its accounts; one with processes cannot be removed.
        for left in fs::read_dir(&mounted).ok()?.flatten() {
            if left.file_name().to_string_lossy().starts_with("lamppost-bench-") {
                drop(fs::remove_dir(left.path()));
            }
        }
        let folder = mounted.join(format!("lamppost-bench-{name}"));
        fs::create_dir(&folder).ok()?;
        folder.join("cpu.stat").exists().then_some(Self { folder })
    }

    /// The file that takes the ids of processes.
    pub(crate) fn members(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// Seconds of user and system time.
    pub(crate) fn cpu_s(&self) -> Option<f64> {
        let text = fs::read_to_string(self.folder.join("cpu.stat")).ok()?;
        let micros: f64 =
            text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.parse().ok()?;
        Some(micros / 1e6)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // The kernel takes a moment to bury the last process.
        let begun = Instant::now();
        while fs::remove_dir(&self.folder).is_err() && begun.elapsed() < Duration::from_secs(2) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}
