//! What a process and its children use (proc(5)).

use std::fs;

/// CPU time and memory.
pub(super) struct Usage {
    /// Seconds of user and system time, those of ended children included.
    pub(super) cpu_s: f64,
    /// The sum of the proportional set sizes.
    pub(super) memory_kib: f64,
}

impl Usage {
    /// Of a process and all its descendants.
    pub(super) fn of(pid: u32) -> Self {
        /// Ticks of a second: fixed in Linux' interface (sysconf(3), `_SC_CLK_TCK`).
        const TICKS: f64 = 100.0;
        let pids = family(pid);
        let ticks: f64 = pids.iter().map(|&pid| ticks(pid)).sum();
        let memory_kib = pids.iter().map(|&pid| pss_kib(pid)).sum();
        Self { cpu_s: ticks / TICKS, memory_kib }
    }
}

/// The columns of /proc/PID/stat behind the name, which may hold spaces.
fn stat(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let columns = text.rsplit(") ").next().unwrap_or_default();
    columns.split(' ').map(str::to_owned).collect()
}

/// utime, stime, cutime and cstime.
fn ticks(pid: u32) -> f64 {
    stat(pid).iter().skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum()
}

fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let all: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        let children = all
            .iter()
            .filter(|&&one| stat(one).get(1).and_then(|ppid| ppid.parse().ok()) == Some(parent));
        family.extend(children.copied().collect::<Vec<_>>());
        next += 1;
    }
    family
}

fn pss_kib(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0.0)
}
