//! Counts the sync calls of a server by strace, in runs that are not timed.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::process::{family, leashed};

/// The calls that are counted.
const CALLS: &str = "trace=fsync,fdatasync,syncfs,sync_file_range,sync,msync";

/// The words of a command that runs a server; with a log its sync calls are written down there.
///
/// All other system calls run at full speed. The server gains no privileges by set-user-id.
pub(crate) fn watched(program: &Path, log: Option<&Path>) -> Vec<OsString> {
    let mut words = log.map(strace).unwrap_or_default();
    if log.is_some() {
        words.push("--seccomp-bpf".into());
    }
    words.push(program.into());
    words
}

fn strace(log: &Path) -> Vec<OsString> {
    let options = ["strace", "-f", "-qq", "-e", CALLS, "-e", "signal=none", "-o"];
    let mut words: Vec<_> = options.map(OsString::from).into();
    words.push(log.into());
    words
}

/// Watches a program that already runs: for those that live by set-user-id.
pub(crate) struct Watcher(Child);

impl Watcher {
    pub(crate) fn attach(pid: u32, log: &Path) -> Result<Self> {
        let pids = family(pid);
        let mut words = strace(log);
        words
            .extend(pids.iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]).map(Into::into));
        let child = leashed(&words).stderr(Stdio::null()).spawn().context("cannot run strace")?;
        let watcher = Self(child);
        let begun = Instant::now();
        while !pids.iter().all(|&pid| is_traced(pid)) {
            ensure!(begun.elapsed() < Duration::from_secs(10), "strace cannot attach to {pids:?}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(watcher)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // strace lets go of what it watches when it is asked to end.
        drop(Command::new("kill").arg(self.0.id().to_string()).status());
        drop(self.0.wait());
    }
}

fn is_traced(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines()
        .any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
}

/// How many calls a log holds.
pub(crate) fn count(log: &Path) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    // A call that was interrupted by another thread's takes a second line, "<... resumed>".
    text.lines().filter(|line| line.contains('(') && !line.contains("resumed>")).count()
}
