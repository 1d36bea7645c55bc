//! Counts the sync calls of a server, in runs that are not timed: by the kernel's own trace where it
//! may be used, otherwise by strace, which slows the calls that it counts.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::process::{family, leashed};

/// The calls that are counted.
const CALLS: [&str; 6] = ["fsync", "fdatasync", "syncfs", "sync_file_range", "sync", "msync"];
/// Where the kernel's trace is told what to do (Documentation/trace/ftrace.rst).
const TRACING: &str = "/sys/kernel/tracing";
/// KiB of the trace for each processor: some hundred thousand calls.
const TRACE_KIB: &str = "32768";
/// The machine's own process namespace, whose numbers the trace goes by (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

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
    let mut words: Vec<OsString> = ["strace", "-f", "-qq", "-e"].map(OsString::from).into();
    words.push(format!("trace={}", CALLS.join(",")).into());
    words.extend(["-e", "signal=none", "-o"].map(OsString::from));
    words.push(log.into());
    words
}

/// The kernel's trace of the sync calls of a server and all its children.
pub(crate) struct Trace(PathBuf);

impl Trace {
    /// A trace of its own that is off; nothing where this user or this kernel has none.
    pub(crate) fn open() -> Option<Self> {
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        let instance = Path::new(TRACING).join("instances/lamppost-bench");
        if namespace.as_os_str() != FIRST_NAMESPACE {
            return None;
        }
        // One may be left of a run that was killed.
        drop(fs::remove_dir(&instance));
        fs::create_dir(&instance).ok()?;
        let trace = Self(instance);
        trace.set("tracing_on", "0").ok()?;
        trace.set("buffer_size_kb", TRACE_KIB).ok()?;
        trace.set("options/event-fork", "1").ok()?;
        for call in CALLS {
            trace.set(&format!("events/syscalls/sys_enter_{call}/enable"), "1").ok()?;
        }
        Some(trace)
    }

    /// Begins to count the calls of a server.
    pub(crate) fn begin(&self, server: u32) -> Result<()> {
        let pids: Vec<_> = family(server).into_iter().flat_map(threads).collect();
        self.set("set_event_pid", &pids.join(" "))?;
        self.set("trace", "")?;
        self.set("tracing_on", "1")
    }

    /// How many calls there were since it began.
    pub(crate) fn end(&self) -> Result<usize> {
        self.set("tracing_on", "0")?;
        let path = self.0.join("trace");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.lines().filter(|line| !line.starts_with('#')).count())
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        let path = self.0.join(name);
        fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        drop(fs::remove_dir(&self.0));
    }
}

/// The numbers of a process' threads.
fn threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.map(|task| task.file_name().to_string_lossy().into_owned()).collect()
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
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines()
        .any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
}

/// How many calls a log holds.
pub(crate) fn count(log: &Path) -> usize {
    let text = fs::read_to_string(log).unwrap_or_default();
    // A call that was interrupted by another thread's takes a second line, "<... resumed>".
    text.lines().filter(|line| line.contains('(') && !line.contains("resumed>")).count()
}
