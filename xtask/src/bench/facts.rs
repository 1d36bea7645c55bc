//! What figures depend on: the machine, the file system, the versions.

use super::disk::Disk;

/// Lines for people; the first two say most. No names of hosts and no paths.
pub(crate) fn gather(disk: &Disk, versions: &[String]) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    vec![
        format!("{cores} cores, {} of memory, Linux {}", memory(), kernel()),
        format!("file system: {}", disk.described),
        versions.join(", "),
    ]
}

fn memory() -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemTotal:")).unwrap_or_default();
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    format!("{} GiB", (kib + (1 << 19)) >> 20)
}

/// What else the machine does: that spoils figures.
pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("load average of the minute before: {}", text.split(' ').next().unwrap_or("unknown"))
}

/// Its first two numbers.
fn kernel() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().split('.').take(2).collect::<Vec<_>>().join(".")
}
