//! The system calls of a server, as `strace` tells them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Server, Setup, lamppost, signal};

/// Calls that make something durable.
const SYNCS: &str = "fsync,fdatasync,syncfs,sync,msync";
/// Calls that bring something out of the process.
const WRITES: &str = "write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg";

/// How much longer a sync takes on a slow disk.
pub(crate) const SLOW_SYNC_US: u64 = 50_000;

/// Which calls are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// Syncs only, so that the server runs nearly as fast as without.
    Syncs,
    /// Syncs only, each made longer by [`SLOW_SYNC_US`], as on a slow disk.
    SlowSyncs,
    /// Writes too, with all that is written.
    SyncsAndWrites,
}

/// A server that runs under strace.
pub(crate) struct Traced {
    pub(crate) server: Server,
    folder: tempfile::TempDir,
}

impl Traced {
    /// Starts a server and waits until it is ready.
    pub(crate) fn start(setup: &Setup, calls: Calls) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let writes = if calls == Calls::SyncsAndWrites { WRITES } else { "" };
        let mut command = Command::new("strace");
        command
            .args(["-f", "--seccomp-bpf", "-y", "-s", "2000000"])
            .args(["-e", &format!("trace={SYNCS},{writes}")])
            .args(["-e", "abbrev=none", "-e", "signal=none", "-o"])
            .arg(folder.path().join("trace"));
        if calls == Calls::SlowSyncs {
            command.args(["-e", &format!("inject={SYNCS}:delay_enter={SLOW_SYNC_US}")]);
        }
        command
            // A test that fails kills strace, and the server goes with it.
            .args(["setpriv", "--pdeathsig", "KILL"])
            .arg(lamppost().get_program());
        let mut server = Server::with_accounts(setup, None);
        server.launch_under(command);
        Self { server, folder }
    }

    /// Stops the server; returns what was seen.
    pub(crate) fn finish(mut self) -> Trace {
        let status = self.server.must(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let pid = status["host"]["pid"].as_u64().unwrap();
        signal(pid.try_into().unwrap(), "TERM");
        assert_eq!(self.server.wait(), Some(0));
        let text = std::fs::read(self.folder.path().join("trace")).unwrap();
        let events = events(&String::from_utf8_lossy(&text));
        Trace { events, state: self.server.state() }
    }
}

/// Something that happened, in the order in which it did.
#[derive(Debug)]
enum Event {
    /// A call began; the text holds its arguments.
    Began(Call),
    /// The call of this thread ended well.
    Ended(u32),
}

#[derive(Clone, Debug)]
struct Call {
    thread: u32,
    name: String,
    /// The file, or what the system calls a socket.
    file: String,
    arguments: String,
}

impl Call {
    fn is_sync(&self) -> bool {
        self.name.contains("sync")
    }

    /// Whether a write takes its own sync with it.
    fn is_synced_write(&self) -> bool {
        self.name == "pwritev2" && self.arguments.contains("SYNC")
    }

    /// Whether this sync covers what was written to the file.
    fn covers(&self, file: &str) -> bool {
        matches!(self.name.as_str(), "syncfs" | "sync") || self.file == file
    }
}

/// Begin and end of each call. strace holds a thread while it prints its line, so that the order of
/// lines is never against cause and effect.
fn events(text: &str) -> Vec<Event> {
    let mut events = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.trim_start().split_once(' ') else { continue };
        let Ok(thread) = thread.parse() else { continue };
        let rest = rest.trim_start();
        let is_well =
            || rest.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with('-'));
        if rest.starts_with("<...") {
            if is_well() {
                events.push(Event::Ended(thread));
            }
            continue;
        }
        let Some((name, arguments)) = rest.split_once('(') else { continue };
        let file = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
        let file = file.map(|(file, _)| file.to_owned()).unwrap_or_default();
        let arguments = arguments.to_owned();
        events.push(Event::Began(Call { thread, name: name.to_owned(), file, arguments }));
        if !rest.ends_with("<unfinished ...>") && is_well() {
            events.push(Event::Ended(thread));
        }
    }
    events
}

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Replies that went out before their message was durable, each with what was missing.
    pub(crate) early: Vec<String>,
    /// Replies that went out after.
    pub(crate) covered: usize,
}

/// A write into the spool.
struct Write {
    file: String,
    text: String,
    is_durable: bool,
}

/// All that was seen.
pub(crate) struct Trace {
    events: Vec<Event>,
    state: PathBuf,
}

impl Trace {
    /// Holds each reply against the writes and syncs before it. `markers` gives, for the words of a
    /// reply after its code, a text that the writes of its message hold.
    pub(crate) fn check(&self, markers: &HashMap<String, String>) -> Checked {
        let mut checked = Checked::default();
        let mut writes: Vec<Write> = Vec::new();
        let mut running: HashMap<u32, Call> = HashMap::new();
        let mut covering: HashMap<u32, Vec<usize>> = HashMap::new();
        for event in &self.events {
            match event {
                Event::Began(call) => {
                    if call.is_sync() {
                        let covered = writes.iter().enumerate();
                        let covered = covered.filter(|(_, write)| call.covers(&write.file));
                        covering.insert(call.thread, covered.map(|(index, _)| index).collect());
                    } else if call.file.starts_with("socket:") {
                        checked.replies(&call.arguments, &writes, markers);
                    }
                    running.insert(call.thread, call.clone());
                }
                Event::Ended(thread) => {
                    let Some(call) = running.remove(thread) else { continue };
                    if call.is_sync() {
                        for index in covering.remove(thread).unwrap_or_default() {
                            writes[index].is_durable = true;
                        }
                    } else if is_of_spool(&call.file, &self.state) {
                        let is_durable = call.is_synced_write();
                        writes.push(Write { file: call.file, text: call.arguments, is_durable });
                    }
                }
            }
        }
        checked
    }

    /// The syncs after the write into the spool that holds a marker, up to that of the next, in their
    /// order and each with its file below the state folder; the first row is what came before.
    pub(crate) fn syncs_between(&self, markers: &[String]) -> Vec<Vec<String>> {
        let mut rows = vec![Vec::new()];
        for event in &self.events {
            let Event::Began(call) = event else { continue };
            let next = markers.get(rows.len() - 1);
            if next.is_some_and(|marker| call.arguments.contains(marker))
                && is_of_spool(&call.file, &self.state)
            {
                rows.push(Vec::new());
            }
            if call.is_sync()
                && let Some(row) = rows.last_mut()
            {
                let file = Path::new(&call.file);
                let file = file.strip_prefix(&self.state).unwrap_or(file);
                row.push(format!("{} {}", call.name, file.display()));
            }
        }
        rows
    }

    /// How many syncs were begun: those of the spool, and all.
    pub(crate) fn syncs(&self) -> (usize, usize) {
        let syncs = self.events.iter().filter_map(|event| match event {
            Event::Began(call) if call.is_sync() => Some(call),
            _ => None,
        });
        let syncs: Vec<_> = syncs.collect();
        (syncs.iter().filter(|call| is_of_spool(&call.file, &self.state)).count(), syncs.len())
    }
}

impl Checked {
    fn replies(&mut self, arguments: &str, writes: &[Write], markers: &HashMap<String, String>) {
        for reply in arguments.split("250 ").skip(1) {
            let Some((words, _)) = reply.split_once("\\r\\n") else { continue };
            let Some(marker) = markers.get(words) else { continue };
            let mut written = writes.iter().filter(|write| write.text.contains(marker)).peekable();
            if written.peek().is_none() {
                self.early.push(format!("{marker} was not written before its reply"));
            } else if let Some(write) = written.find(|write| !write.is_durable) {
                self.early.push(format!("{marker} in {} was not synced", write.file));
            } else {
                self.covered += 1;
            }
        }
    }
}

/// The spool is what lies in the state folder, except mailboxes and the state database.
fn is_of_spool(file: &str, state: &Path) -> bool {
    Path::new(file).strip_prefix(state).is_ok_and(|below| below.starts_with("spool"))
}
