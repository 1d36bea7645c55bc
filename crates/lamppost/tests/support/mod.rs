//! A private Lamppost for a test: its own ports, state and accounts, killed when the test ends.

#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::print_stdout,
    reason = "each test file uses a part of this, and a failed test shows the log"
)]

pub(crate) mod accounting;
#[cfg(feature = "peers")]
pub(crate) mod debian;
pub(crate) mod greylist;
pub(crate) mod kills;
pub(crate) mod mounted;
#[cfg(feature = "peers")]
pub(crate) mod nsd;
#[cfg(feature = "peers")]
pub(crate) mod perl_greylists;
#[cfg(feature = "peers")]
pub(crate) mod postfix;
pub(crate) mod qmail;
#[cfg(feature = "peers")]
pub(crate) mod rbldnsd;
pub(crate) mod reader;
pub(crate) mod relayed;
#[cfg(feature = "peers")]
pub(crate) mod tinydns;
pub(crate) mod trace;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The password of every account.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A server's configuration, as far as tests choose it.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Lines of `[log]`.
    pub(crate) log: &'static str,
    /// Lines of `[mail.greylist]`.
    pub(crate) greylist: &'static str,
    /// Lines of `[mail.limits]`.
    pub(crate) limits: &'static str,
    /// Lines of `[mail.auth]`.
    pub(crate) auth: &'static str,
    /// Lines of `[mail.queue]`.
    pub(crate) queue: &'static str,
    /// Lines of the first `[[mail.listen]]`.
    pub(crate) mx: &'static str,
    /// The domain whose mailboxes are here.
    pub(crate) domain: &'static str,
    /// More lines of `[mail]`, and sections after it.
    pub(crate) mail: String,
    /// Accounts to add.
    pub(crate) accounts: &'static [&'static str],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            log: "",
            greylist: "enabled = false",
            limits: "greeting-delay = \"0s\"",
            auth: "failure-delay = \"0s\"",
            queue: "",
            mx: "",
            domain: "lamppost.test",
            mail: String::new(),
            accounts: &["demo@lamppost.test"],
        }
    }
}

/// A running server.
pub(crate) struct Server {
    child: Option<Child>,
    directory: TempDir,
    state: PathBuf,
    /// Where mail comes in.
    pub(crate) mx: SocketAddr,
    /// Submission with STARTTLS.
    pub(crate) submission: SocketAddr,
    /// Submission with TLS at once.
    pub(crate) implicit: SocketAddr,
    /// The metrics endpoint.
    pub(crate) metrics: SocketAddr,
}

impl Server {
    /// Starts a server and waits until it is ready.
    pub(crate) fn start(setup: &Setup) -> Self {
        let mut server = Self::with_accounts(setup, None);
        server.launch();
        server
    }

    /// Starts a server whose state lies in this folder, such as one of a file system made for the
    /// test, and waits until it is ready.
    pub(crate) fn start_in(setup: &Setup, state: &Path) -> Self {
        let mut server = Self::with_accounts(setup, Some(state.to_owned()));
        server.launch();
        server
    }

    /// A server that is not started, with its file and its accounts.
    pub(crate) fn with_accounts(setup: &Setup, state: Option<PathBuf>) -> Self {
        let server = Self::prepare(setup, state);
        for account in setup.accounts {
            server.add_account(account);
        }
        server
    }

    /// A server that is not started, with its file; its accounts are those of the state.
    pub(crate) fn prepare(setup: &Setup, state: Option<PathBuf>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = state.unwrap_or_else(|| directory.path().join("state"));
        std::fs::create_dir_all(&state).unwrap();
        let [mx, submission, implicit, metrics] = free_addresses();
        let server = Self { child: None, directory, state, mx, submission, implicit, metrics };
        std::fs::write(server.config(), server.config_text(setup)).unwrap();
        server
    }

    fn config_text(&self, setup: &Setup) -> String {
        let Setup { log, greylist, limits, auth, queue, mx, domain, mail, .. } = setup;
        let volatile = mounted::volatile_line(&self.state);
        format!(
            "[server]\nhostname = \"mail.lamppost.test\"\n[log]\n{log}\n\
             [metrics]\nlisten = [\"{}\"]\n\
             [tls]\nself-signed = true\n\
             [mail]\ndomains = [\"{domain}\"]\npostmaster = \"demo@{domain}\"\n{mail}\n\
             [mail.greylist]\n{greylist}\n[mail.limits]\n{limits}\n[mail.auth]\n{auth}\n\
             [mail.queue]\n{queue}\n{volatile}\n\
             [[mail.listen]]\naddress = [\"{}\"]\nkind = \"mx\"\ntls = \"starttls\"\n{mx}\n\
             [[mail.listen]]\naddress = [\"{}\"]\nkind = \"submission\"\ntls = \"starttls\"\n\
             [[mail.listen]]\naddress = [\"{}\"]\nkind = \"submission\"\ntls = \"implicit\"\n",
            self.metrics, self.mx, self.submission, self.implicit
        )
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("lamppost.toml")
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.state.clone()
    }

    /// The certificate of the authority that signed the server's.
    pub(crate) fn ca(&self) -> PathBuf {
        self.state().join("tls/ca.pem")
    }

    /// The Maildir of an account.
    pub(crate) fn maildir(&self, account: &str) -> PathBuf {
        let (local, domain) = account.split_once('@').unwrap();
        self.state().join("mail").join(domain).join(local).join("Maildir")
    }

    /// Starts the process and waits until it says that it is ready.
    pub(crate) fn launch(&mut self) {
        self.launch_under(lamppost());
    }

    /// Starts the process with a command that ends with the program, and waits until it is ready.
    pub(crate) fn launch_under(&mut self, command: Command) {
        self.begin_under(command);
        let stdout = self.child.as_mut().and_then(|child| child.stdout.take());
        let mut lines = BufReader::new(stdout.unwrap()).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line.contains("ready")));
        assert!(ready, "the server did not become ready:\n{}", self.log());
    }

    /// Starts the process and waits for nothing.
    pub(crate) fn begin(&mut self) {
        self.begin_under(lamppost());
    }

    pub(crate) fn begin_under(&mut self, mut command: Command) {
        let log = self.directory.path().join("log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        command
            .args(["--config".as_ref(), self.config().as_os_str()])
            .args(["--state".as_ref(), self.state().as_os_str()])
            .arg("run")
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log));
        self.child = Some(command.spawn().unwrap());
    }

    /// The id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// All processes of the program, the supervisor first.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.pid()];
        all.extend(children(self.pid()));
        all
    }

    /// The process of a role.
    #[track_caller]
    pub(crate) fn role(&self, name: &str) -> u32 {
        let find = || children(self.pid()).into_iter().find(|pid| role_of(*pid) == name);
        assert!(until(|| find().is_some()), "no role {name}: {}", self.log());
        find().unwrap()
    }

    /// Halts all processes while something is done to what is below them. A call that is under way ends
    /// first, as far as it can, and what it brings is in the client's hands.
    pub(crate) fn halt(&self) {
        for pid in self.processes() {
            signal(pid, "STOP");
            assert!(until(|| is_stopped(pid)));
        }
    }

    /// Lets the processes go on.
    pub(crate) fn go_on(&self) {
        for pid in self.processes() {
            signal(pid, "CONT");
        }
    }

    /// Kills the supervisor as `kill -9` does, and waits until no role is left.
    pub(crate) fn kill(&mut self) {
        self.strike();
        self.child.take().unwrap().wait().unwrap();
    }

    /// As [`Server::kill`], while others look at the server too.
    pub(crate) fn strike(&self) {
        // One that is halted begins no other role.
        signal(self.pid(), "STOP");
        assert!(until(|| is_stopped(self.pid())));
        let roles = children(self.pid());
        signal(self.pid(), "KILL");
        let are_gone = until(|| roles.iter().all(|role| is_gone(*role)));
        assert!(are_gone, "roles outlive their supervisor: {}", self.log());
    }

    /// Kills one role as `kill -9` does; the supervisor starts all again.
    pub(crate) fn kill_role(&self, name: &str) {
        // It may be on its way to another end.
        let pid = self.role(name).to_string();
        Command::new("kill").args(["-KILL", &pid]).stderr(Stdio::null()).status().unwrap();
    }

    /// Waits until the process has ended by itself; returns its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.take().unwrap().wait().unwrap().code()
    }

    /// Ends the process as `kill` does; returns its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        signal(child.id(), "TERM");
        child.wait().unwrap().code()
    }

    /// Whether the program says that something is not as it should be with its spool.
    pub(crate) fn is_unwell(&self) -> bool {
        let status = self.must(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let facts = status["host"]["health"].as_array().unwrap();
        !status["queue"]["fault"].is_null() || facts.iter().any(|fact| fact["state"] != "ok")
    }

    /// Waits until every message has left the queue.
    #[track_caller]
    pub(crate) fn await_empty_queue(&self) {
        let mut listed = String::new();
        let is_empty = until(|| {
            listed = self.must(&["queue", "list", "--json"]);
            listed.split_whitespace().collect::<String>() == "[]"
        });
        let shown = listed.get(..2000).unwrap_or(&listed);
        assert!(is_empty, "the queue does not become empty:\n{shown}");
    }

    /// Waits until no mailbox of ours waits for mail; what else is in the queue, such as a bounce that
    /// finds no way out, stays.
    #[track_caller]
    pub(crate) fn await_local_deliveries(&self) {
        let is_due = |recipient: &serde_json::Value| {
            let is_ours = recipient["address"].as_str().unwrap().ends_with("@lamppost.test");
            let state = &recipient["state"];
            is_ours && ["new", "deferred", "delivering"].iter().any(|word| state == word)
        };
        let mut listed = String::new();
        let is_done = until(|| {
            listed = self.must(&["queue", "list", "--json"]);
            let messages: serde_json::Value = serde_json::from_str(&listed).unwrap();
            let mut recipients = messages.as_array().unwrap().iter();
            !recipients.any(|message| message["recipients"].as_array().unwrap().iter().any(is_due))
        });
        let shown = listed.get(..2000).unwrap_or(&listed);
        assert!(is_done, "mail is not delivered:\n{shown}");
    }

    /// Waits until the process has ended, and starts it again.
    pub(crate) fn launch_after_exit(&mut self) {
        self.launch_after_exit_under(lamppost());
    }

    /// As [`Server::launch_after_exit`], with a command that ends with the program.
    pub(crate) fn launch_after_exit_under(&mut self, command: Command) {
        self.child.take().unwrap().wait().unwrap();
        self.launch_under(command);
    }

    /// What the process wrote to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Runs a command of the program against this server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        self.command_with_input(arguments, "")
    }

    /// A command of the program against this server, to be run.
    pub(crate) fn prepared(&self, arguments: &[&str]) -> Command {
        let mut command = lamppost();
        command.args(["--config".as_ref(), self.config().as_os_str()]);
        command.args(["--state".as_ref(), self.state().as_os_str()]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command of the program against this server with standard input.
    pub(crate) fn command_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.prepared(arguments).spawn().unwrap();
        // A command that refuses what it was asked ends without reading it.
        let written = child.stdin.take().unwrap().write_all(input.as_bytes());
        if let Err(error) = written {
            assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        }
        child.wait_with_output().unwrap()
    }

    /// Runs a command that must succeed; returns what it printed.
    #[track_caller]
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        succeeded(&self.command(arguments))
    }

    fn add_account(&self, account: &str) {
        let arguments = ["account", "add", account, "--password-file", "-"];
        succeeded(&self.command_with_input(&arguments, PASSWORD));
    }

    /// The files in `new/` of an account, once there are as many as expected.
    #[track_caller]
    pub(crate) fn delivered(&self, account: &str, count: usize) -> Vec<PathBuf> {
        let new = self.maildir(account).join("new");
        let mut found = Vec::new();
        let came = until(|| {
            found = files(&new);
            found.len() >= count
        });
        assert!(came, "{} of {count} messages came:\n{}", found.len(), self.log());
        assert_eq!(found.len(), count, "more messages than expected in {}", new.display());
        found
    }

    /// The content of the only message of an account.
    #[track_caller]
    pub(crate) fn only_message(&self, account: &str) -> String {
        let bytes = std::fs::read(&self.delivered(account, 1)[0]).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the metrics endpoint tells.
    pub(crate) fn metrics_text(&self) -> String {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let roles = children(child.id());
            drop(child.kill());
            drop(child.wait());
            // What lies below them, such as a file system, is taken away next.
            until(|| roles.iter().all(|role| is_gone(*role)));
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(4000);
            println!("the server's log ends so:\n{}", log.get(tail..).unwrap_or(&log));
        }
    }
}

/// The program under test.
pub(crate) fn lamppost() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lamppost"))
}

/// A script or data file of the tests with real clients.
pub(crate) fn peer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

/// The folder into which `cargo xtask setup` unpacked what the tests need.
pub(crate) fn unpacked() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers")
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Which role a process is, by its command line.
fn role_of(pid: u32) -> String {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split('\0').nth(2).unwrap_or_default().to_owned()
}

/// Whether nothing is left of a process but, perhaps, its exit code.
fn is_gone(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_zombie = stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'));
    threads <= 1 && is_zombie
}

/// Whether every thread of a process has come to a halt.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.all(|task| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
    })
}

/// What a command printed; fails the test when the command failed.
#[track_caller]
pub(crate) fn succeeded(output: &Output) -> String {
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{printed}\n{complained}", output.status);
    printed
}

/// Looks again and again until the condition holds; false when patience ends.
pub(crate) fn until(mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if holds() {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    holds()
}

/// The files in a folder, sorted; none when there is no folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// Loopback addresses whose ports are free.
///
/// They are below those that the system gives to clients, so that no client takes the port of a server
/// that is being restarted, and each process of tests begins elsewhere.
pub(crate) fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let free = || {
        let place = std::process::id() * 64 + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(10_000 + place % 20_000).unwrap();
        #[expect(clippy::disallowed_methods, reason = "only to learn which ports are free")]
        std::net::TcpListener::bind(("127.0.0.1", port)).ok()
    };
    let listeners: [_; N] = std::array::from_fn(|_| std::iter::repeat_with(free).flatten().next());
    listeners.map(|listener| listener.unwrap().local_addr().unwrap())
}

/// A bare SMTP client that sends exactly the bytes that a test gives.
pub(crate) struct Wire {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Wire {
    /// Connects without reading the greeting.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        Self { stream, lines }
    }

    /// Connects, and says EHLO.
    pub(crate) fn greeted(address: SocketAddr) -> Self {
        let mut wire = Self::connect(address);
        assert!(wire.reply().starts_with("220 "));
        assert!(wire.ask("EHLO client.test\r\n").starts_with("250"));
        wire
    }

    /// Sends bytes; false when the server no longer takes any.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// The next reply with all its lines; empty when the connection is closed.
    pub(crate) fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap_or(0) == 0 {
                return reply;
            }
            let last = line.as_bytes().get(3) != Some(&b'-');
            write!(reply, "{}", line.replace("\r\n", "\n")).unwrap();
            if last {
                return reply;
            }
        }
    }

    /// Sends bytes and returns the reply.
    pub(crate) fn ask(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.send(bytes);
        self.reply()
    }

    /// Names sender and recipient and asks to send content.
    pub(crate) fn begin_content(&mut self, to: &str) {
        assert!(self.ask("MAIL FROM:<sender@elsewhere.test>\r\n").starts_with("250"));
        assert!(self.ask(format!("RCPT TO:<{to}>\r\n")).starts_with("250"));
        assert!(self.ask("DATA\r\n").starts_with("354"));
    }

    /// Sends a message; returns the reply to its content.
    pub(crate) fn deliver(&mut self, to: &str, content: &str) -> String {
        self.begin_content(to);
        self.ask(format!("{content}\r\n.\r\n"))
    }

    /// Whether the server closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.reply().is_empty()
    }
}
