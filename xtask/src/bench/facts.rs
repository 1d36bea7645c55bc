//! What figures depend on: the machine, the file system, the versions.

use super::disk::Disk;
use super::peer::Peer;

/// Lines for people; the first two say most. No names of hosts and no paths.
pub(crate) fn gather(disk: &Disk, peers: &[Peer]) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let versions: Vec<_> = peers.iter().map(|peer| peer.version()).collect();
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

/// Its first two numbers.
fn kernel() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().split('.').take(2).collect::<Vec<_>>().join(".")
}
