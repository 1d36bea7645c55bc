//! What a process and its descendants use (proc(5)), and how they are ended.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::process::{Child, Command, Stdio};

/// Programs that only hold a server and are no part of it.
const HOLDERS: [&str; 3] = ["sh", "strace", "unshare"];

/// CPU time and memory.
pub(crate) struct Usage {
    /// Seconds of user and system time, those of ended children included.
    pub(crate) cpu_s: f64,
    /// The sum of the proportional set sizes.
    pub(crate) memory_mib: f64,
}

impl Usage {
    /// Of a process and all its descendants.
    pub(crate) fn of(pid: u32) -> Self {
        /// Ticks of a second: fixed in Linux' interface (sysconf(3), `_SC_CLK_TCK`).
        const TICKS: f64 = 100.0;
        let pids = family(pid);
        let ticks: f64 = pids.iter().map(|&pid| ticks(pid)).sum();
        let memory_kib: f64 = pids.iter().map(|&pid| pss_kib(pid)).sum();
        Self { cpu_s: ticks / TICKS, memory_mib: memory_kib / 1024.0 }
    }
}

/// A process and all its descendants.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(one) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(parent) = stat(one).get(1).and_then(|parent| parent.parse().ok()) {
            children.entry(parent).or_default().push(one);
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next) {
        family.extend(children.remove(parent).unwrap_or_default());
        next += 1;
    }
    family
}

/// A command that ends when this program ends, however that happens.
pub(crate) fn leashed(words: &[OsString]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).args(words);
    command
}

/// A command whose descendants end with it, too: what changes its user slips the leash.
///
/// `more` are options of unshare(1), and a script that comes before the command.
pub(crate) fn caged(words: &[OsString], (more, script): (&[&str], &str)) -> Command {
    let mut cage = vec![OsString::from("unshare")];
    cage.extend(more.iter().map(OsString::from));
    cage.extend(["--pid", "--fork", "--kill-child", "sh", "-c"].map(OsString::from));
    // The shell stays: it is the first process of the namespace, with which all others end.
    cage.extend([format!("set -e\n{script}\n\"$@\"\nexit $?").into(), OsString::from("sh")]);
    cage.extend_from_slice(words);
    leashed(&cage)
}

/// Kills a process and all its descendants.
pub(crate) fn end(child: &mut Child) {
    let pids = family(child.id());
    let mut kill = Command::new("kill");
    kill.arg("-9").args(pids.iter().map(u32::to_string));
    drop(kill.stdout(Stdio::null()).stderr(Stdio::null()).status());
    drop(child.wait());
}

/// The columns of /proc/PID/stat behind the name, which may hold spaces.
fn stat(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let columns = text.rsplit(") ").next().unwrap_or_default();
    columns.split(' ').map(str::to_owned).collect()
}

/// utime, stime, cutime and cstime.
fn ticks(pid: u32) -> f64 {
    if is_holder(pid) {
        return 0.0;
    }
    stat(pid).iter().skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok()).sum()
}

fn pss_kib(pid: u32) -> f64 {
    if is_holder(pid) {
        return 0.0;
    }
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Pss:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0.0)
}

fn is_holder(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    HOLDERS.contains(&name.trim())
}
