//! Mail for users of this machine, each with a home of its own: whose it is, what it is, and what a user who
//! means ill can do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::allow_attributes,
    reason = "a test fails by panicking, and says what it could not test"
)]

mod support;

use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;
use support::mounted::{Kind, Mounted};
use support::{Server, Setup, Wire, files, is_stopped, signal, until};
use tempfile::TempDir;

const ROLES: [&str; 5] = ["front", "policy", "queue", "delivery", "control"];
const FIRST_ROLE: u32 = 64_001;
const ALICE: (&str, u32) = ("alice", 64_101);
const BOB: (&str, u32) = ("bob", 64_102);
/// Below the lowest number of those who get mail.
const CLOCK: (&str, u32) = ("clock", 901);

/// A list of users that a server sees in the place of the machine's, and their homes.
struct Machine {
    folder: TempDir,
    list: String,
}

impl Machine {
    /// A machine with these users; nothing where this process may not make one.
    fn new(users: &[(&str, u32)]) -> Option<Self> {
        let namespaces = Command::new("unshare").args(["--mount", "true"]).status();
        let has_them = namespaces.is_ok_and(|status| status.success());
        if !rustix::process::geteuid().is_root() || !has_them {
            println!(
                "NOT TESTED: only root can become another user, and show a process other users"
            );
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        mode(folder.path(), 0o755);
        let list = std::fs::read_to_string("/etc/passwd").unwrap();
        let mut machine = Self { folder, list };
        for (number, role) in ROLES.iter().enumerate() {
            let uid = FIRST_ROLE + u32::try_from(number).unwrap();
            machine.list(&format!("lamppost-{role}"), uid, Path::new("/"));
        }
        for &(name, uid) in users {
            let home = machine.home(name);
            std::fs::create_dir_all(&home).unwrap();
            mode(&home, 0o700);
            chown(&home, Some(uid), Some(uid)).unwrap();
            machine.list(name, uid, &home);
        }
        Some(machine)
    }

    fn list(&mut self, name: &str, uid: u32, home: &Path) {
        writeln!(self.list, "{name}:x:{uid}:{uid}::{}:/bin/sh", home.display()).unwrap();
    }

    fn home(&self, name: &str) -> PathBuf {
        self.folder.path().join("home").join(name)
    }

    fn maildir(&self, name: &str) -> PathBuf {
        self.home(name).join("Maildir")
    }

    /// Starts a server that serves the users, with more lines for them and for the queue.
    fn start(&self, users: &str, queue: &'static str) -> Server {
        let mut server = self.prepare(users, queue);
        server.launch_under(self.command(&[]));
        server
    }

    fn prepare(&self, users: &str, queue: &'static str) -> Server {
        let mail = format!("[mail.system-users]\ndomains = [\"users.test\"]\n{users}");
        let setup = Setup { queue, mail, ..Setup::default() };
        Server::with_accounts(&setup, Some(self.folder.path().join("state")))
    }

    /// The program where it sees these users, behind a command such as one that becomes another user.
    fn command(&self, behind: &[&str]) -> Command {
        let list = self.folder.path().join("passwd");
        std::fs::write(&list, &self.list).unwrap();
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$0\" /etc/passwd && exec \"$@\"";
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c", script]);
        command.arg(list).args(behind).arg(support::lamppost().get_program());
        command
    }

    /// What `check` says where it sees these users.
    fn check(&self, server: &Server, behind: &[&str]) -> String {
        let mut command = self.command(behind);
        command.args(["--config".as_ref(), server.config().as_os_str()]);
        command.args(["--state".as_ref(), server.state().as_os_str(), "check".as_ref()]);
        let output = command.output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&told).into_owned()
    }

    /// What came to a user, once there is as much as expected.
    #[track_caller]
    fn delivered(&self, server: &Server, name: &str, count: usize) -> Vec<PathBuf> {
        let new = self.maildir(name).join("new");
        let came = until(|| files(&new).len() >= count);
        let found = files(&new);
        assert!(came, "{} of {count} messages came to {name}:\n{}", found.len(), server.log());
        assert_eq!(found.len(), count, "more messages than expected in {}", new.display());
        found
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The reply to a recipient.
fn recipient(server: &Server, address: &str) -> String {
    let mut wire = Wire::greeted(server.mx);
    assert!(wire.ask("MAIL FROM:<sender@elsewhere.test>\r\n").starts_with("250"));
    wire.ask(format!("RCPT TO:<{address}>\r\n"))
}

/// Sends messages in one session, each told from the others.
fn send(server: &Server, to: &str, numbers: std::ops::Range<usize>) {
    let mut wire = Wire::greeted(server.mx);
    for number in numbers {
        let reply = wire.deliver(to, &format!("Subject: {number}\r\n\r\nnumber {number} end"));
        assert!(reply.starts_with("250"), "{reply}");
    }
}

/// Whether each of so many messages came once and whole.
#[track_caller]
fn check_each_once(found: &[PathBuf], count: usize) {
    let mut texts: Vec<_> = found.iter().map(|one| std::fs::read_to_string(one).unwrap()).collect();
    for number in 0..count {
        let end = format!("\nSubject: {number}\n\nnumber {number} end\n");
        let place = texts.iter().position(|text| text.ends_with(&end));
        let place = place.unwrap_or_else(|| panic!("number {number} is not there"));
        texts.swap_remove(place);
    }
    assert_eq!(texts, Vec::<String>::new());
}

/// Processes of users, as `status --security` shows them.
fn shown(server: &Server) -> Vec<Value> {
    let shown: Value =
        serde_json::from_str(&server.must(&["status", "--security", "--json"])).unwrap();
    let all = shown.as_array().unwrap().iter();
    all.filter(|one| one["name"].as_str().unwrap().starts_with("user ")).cloned().collect()
}

/// Why the mail of the queue waits.
fn reasons(server: &Server) -> String {
    server.must(&["queue", "list", "--json"])
}

#[test]
fn mail_lies_in_the_home_and_is_the_users() {
    let Some(machine) = Machine::new(&[ALICE, BOB, CLOCK]) else { return };
    let mut server = machine.start("process-idle = \"2s\"", "");
    let large = "x".repeat(70) + "\r\n";
    let large = format!("Subject: large\r\n\r\n{}", large.repeat(8000));
    let mut wire = Wire::greeted(server.mx);
    assert!(wire.deliver("Alice@Users.TEST", "Subject: x\r\n\r\nfor her").starts_with("250"));
    machine.delivered(&server, "alice", 1);
    assert!(wire.deliver("alice@users.test", &large).starts_with("250"));
    assert!(wire.deliver("demo@lamppost.test", "Subject: x\r\n\r\nx").starts_with("250"));
    let found = machine.delivered(&server, "alice", 2);
    server.delivered("demo@lamppost.test", 1);
    let text = std::fs::read_to_string(&found[0]).unwrap();
    let head = "Return-Path: <sender@elsewhere.test>\nDelivered-To: Alice@Users.TEST\nReceived: ";
    assert!(text.starts_with(head) && text.ends_with("\nSubject: x\n\nfor her\n"), "{text}");
    let text = std::fs::read_to_string(&found[1]).unwrap();
    assert!(text.ends_with(&(large.replace("\r\n", "\n") + "\n")), "{}", text.len());
    for path in
        [&machine.maildir("alice"), &machine.maildir("alice").join("tmp"), &found[0], &found[1]]
    {
        let found = path.metadata().unwrap();
        let expected = if found.is_dir() { 0o40700 } else { 0o100_600 };
        let is = (found.uid(), found.gid(), found.mode());
        assert_eq!(is, (ALICE.1, ALICE.1, expected), "{}", path.display());
    }
    // What the process of the user may do is what the kernel says.
    let processes = shown(&server);
    let [process] = &processes[..] else { panic!("{processes:?}") };
    assert_eq!(process["name"], "user alice");
    assert_eq!(process["pid"], server.role("user"));
    let kernel = &process["kernel"];
    assert_eq!(kernel["uid"], ALICE.1);
    assert_eq!(kernel["capabilities"], serde_json::json!([]));
    assert_eq!((&kernel["no-new-privs"], &kernel["seccomp"]), (&true.into(), &true.into()));
    let has_landlock = process["landlock"].as_u64().is_some();
    assert_eq!(has_landlock, process["missing"].as_array().unwrap().is_empty(), "{process}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", process["pid"])).unwrap();
    assert!(status.contains(&format!("\nGroups:\t{} \n", ALICE.1)), "{status}");
    assert!(status.contains("\nCapBnd:\t0000000000000000\n"), "{status}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process["pid"])).unwrap();
    let limits: Vec<Vec<_>> =
        limits.lines().map(|line| line.split_whitespace().collect()).collect();
    for limit in [
        &["Max", "data", "size", "268435456", "268435456"],
        &["Max", "open", "files", "128", "128"],
    ] {
        assert!(limits.iter().any(|line| line.starts_with(limit)), "{limit:?} {limits:?}");
    }
    let delivery = std::fs::read_to_string(format!("/proc/{}/status", server.role("delivery")));
    assert!(delivery.unwrap().contains(&format!("\nUid:\t{}\t", FIRST_ROLE + 3)));
    // It ends when there is no more mail.
    assert!(until(|| shown(&server).is_empty()));
    send(&server, "bob@users.test", 0..3);
    check_each_once(&machine.delivered(&server, "bob", 3), 3);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn only_a_user_with_a_home_of_its_own_gets_mail() {
    let Some(mut machine) = Machine::new(&[ALICE, BOB, CLOCK, ("root2", 0)]) else { return };
    let away = machine.home("away");
    machine.list("cyd", 64_103, &away);
    machine.list("dan", 64_104, Path::new("/nonexistent"));
    machine.list("alias", ALICE.1, &machine.home("bob"));
    let server = machine.start("except = [\"Bob\"]", "");
    let check = |address: &str, expected: &str| {
        let reply = recipient(&server, &format!("{address}@users.test"));
        assert!(reply.starts_with(expected), "{address}: {reply}");
    };
    check("alice", "250 ");
    // Left out, a daemon, root under two names, no home, the second name of a number, none at all.
    for nobody in ["bob", "clock", "root", "root2", "dan", "alias", "eve", "al/ice", "demo"] {
        check(nobody, "550 5.1.1 ");
    }
    check("cyd", "450 4.2.1 ");
    mode(&machine.home("alice"), 0o770);
    check("alice", "450 4.2.1 ");
    assert!(server.log().contains("chmod go-w"), "{}", server.log());
    mode(&machine.folder.path().join("home"), 0o700);
    let told = machine.check(&server, &[]);
    for words in ["of cyd cannot be looked at", "mount its file system", "chmod go-w"] {
        assert!(told.contains(words), "{told}");
    }
    mode(&machine.home("alice"), 0o700);
    let told = machine.check(&server, &[]);
    let closed =
        format!("alice may not pass through {}/home to its home", machine.folder.path().display());
    assert!(told.contains(&closed) && told.contains("chmod o+x"), "{told}");
    mode(&machine.folder.path().join("home"), 0o755);
    mode(&machine.home("alice"), 0o700);
    check("alice", "250 ");
    // A user who comes later is known at once.
    machine.list("eve", 64_105, &machine.home("eve"));
    std::fs::create_dir(machine.home("eve")).unwrap();
    chown(machine.home("eve"), Some(64_105), None).unwrap();
    std::fs::write(machine.folder.path().join("passwd"), &machine.list).unwrap();
    check("eve", "250 ");
    send(&server, "eve@users.test", 0..1);
    machine.delivered(&server, "eve", 1);
    check("postmaster", "250 ");
}

#[test]
fn no_link_of_a_user_leads_mail_elsewhere() {
    let Some(machine) = Machine::new(&[ALICE, BOB]) else { return };
    // Where everybody may write, so that nothing but the rules about links keeps mail out.
    let elsewhere = machine.folder.path().join("elsewhere");
    for part in ["", "cur", "new", "tmp"] {
        std::fs::create_dir_all(elsewhere.join(part)).unwrap();
        mode(&elsewhere.join(part), 0o777);
    }
    symlink(&elsewhere, machine.maildir("alice")).unwrap();
    std::fs::create_dir(machine.maildir("bob")).unwrap();
    chown(machine.maildir("bob"), Some(BOB.1), Some(BOB.1)).unwrap();
    symlink(elsewhere.join("tmp"), machine.maildir("bob").join("tmp")).unwrap();
    let server = machine.start("", "retry-first = \"1s\"\nretry-max = \"1s\"");
    for (name, _) in [ALICE, BOB] {
        send(&server, &format!("{name}@users.test"), 0..1);
        assert!(until(|| reasons(&server).contains("a symbolic link")), "{}", reasons(&server));
    }
    assert!(until(|| reasons(&server).matches("a symbolic link").count() >= 2));
    for part in ["cur", "new", "tmp"] {
        assert_eq!(files(&elsewhere.join(part)), Vec::<PathBuf>::new(), "{}", reasons(&server));
    }
    // What was in the way is taken away, and the mail comes.
    std::fs::remove_file(machine.maildir("alice")).unwrap();
    std::fs::remove_file(machine.maildir("bob").join("tmp")).unwrap();
    machine.delivered(&server, "alice", 1);
    machine.delivered(&server, "bob", 1);
    server.await_empty_queue();
}

#[test]
fn folders_that_become_links_and_folders_again_lose_and_leak_nothing() {
    const MESSAGES: usize = 120;
    let Some(machine) = Machine::new(&[ALICE]) else { return };
    let server = machine.start("", "retry-first = \"1s\"\nretry-max = \"1s\"");
    let elsewhere = machine.folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    mode(&elsewhere, 0o777);
    send(&server, "alice@users.test", 0..1);
    machine.delivered(&server, "alice", 1);
    let maildir = machine.maildir("alice");
    for part in ["tmp", "new"] {
        symlink(&elsewhere, machine.home("alice").join(part)).unwrap();
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Each name always leads somewhere: the two change places in one step.
            let exchange = |part: &str| {
                let (one, other) = (maildir.join(part), machine.home("alice").join(part));
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
            };
            while !is_over.load(Ordering::Relaxed) {
                for part in ["tmp", "new", "tmp", "new"] {
                    exchange(part);
                }
                std::thread::yield_now();
            }
        });
        send(&server, "alice@users.test", 1..MESSAGES);
        is_over.store(true, Ordering::Relaxed);
    });
    check_each_once(&machine.delivered(&server, "alice", MESSAGES), MESSAGES);
    assert_eq!(files(&elsewhere), Vec::<PathBuf>::new());
    server.await_empty_queue();
}

#[test]
fn a_process_that_is_killed_at_any_moment_loses_and_doubles_nothing() {
    const MESSAGES: usize = 300;
    let Some(machine) = Machine::new(&[ALICE, BOB]) else { return };
    let mut server =
        machine.start("", "retry-first = \"1s\"\nretry-max = \"1s\"\ndelivery-lag = \"1ms\"");
    let is_over = AtomicBool::new(false);
    let mut killed = 0;
    std::thread::scope(|scope| {
        for (name, _) in [ALICE, BOB] {
            let server = &server;
            scope.spawn(move || send(server, &format!("{name}@users.test"), 0..MESSAGES));
        }
        let killer = scope.spawn(|| {
            let mut killed = 0;
            while !is_over.load(Ordering::Relaxed) {
                for pid in server.processes() {
                    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
                    if line.is_ok_and(|line| line.contains("role\0user\0")) {
                        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
                        let kill = rustix::process::Signal::KILL;
                        killed += u32::from(rustix::process::kill_process(pid, kill).is_ok());
                    }
                }
                // Now before a process has begun, now in the middle, now after its work.
                let pause = 5 + killed * 13 % 70;
                std::thread::park_timeout(std::time::Duration::from_millis(pause.into()));
            }
            killed
        });
        let have_some = || files(&machine.maildir("alice").join("new")).len() > MESSAGES / 3;
        let came = until(have_some);
        is_over.store(true, Ordering::Relaxed);
        assert!(came, "{}", server.log());
        killed = killer.join().unwrap();
    });
    assert!(killed > 5, "{killed}");
    // And the whole program, in the middle of what is left.
    server.strike();
    server.launch_after_exit_under(machine.command(&[]));
    for (name, _) in [ALICE, BOB] {
        check_each_once(&machine.delivered(&server, name, MESSAGES), MESSAGES);
        assert_eq!(files(&machine.maildir(name).join("tmp")), Vec::<PathBuf>::new());
    }
    server.await_empty_queue();
}

#[test]
fn a_process_that_hangs_hurts_its_own_user_alone() {
    let Some(machine) = Machine::new(&[ALICE, BOB]) else { return };
    let queue = "maildir-timeout = \"1s\"\nretry-first = \"2s\"\nretry-max = \"2s\"";
    let server = machine.start("", queue);
    send(&server, "alice@users.test", 0..1);
    machine.delivered(&server, "alice", 1);
    let hung = server.role("user");
    signal(hung, "STOP");
    assert!(until(|| is_stopped(hung)));
    send(&server, "alice@users.test", 1..2);
    send(&server, "bob@users.test", 0..2);
    send(&server, "demo@lamppost.test", 0..2);
    machine.delivered(&server, "bob", 2);
    server.delivered("demo@lamppost.test", 2);
    let mut status = String::new();
    let is_told = until(|| {
        status = server.must(&["status"]);
        status.contains("system-users: the process of alice does not answer")
            || files(&machine.maildir("alice").join("new")).len() == 2
    });
    assert!(is_told, "{status}");
    // Another takes its place when the mail is tried again.
    check_each_once(&machine.delivered(&server, "alice", 2), 2);
    assert_ne!(server.role("user"), hung);
    assert!(server.log().contains("the process of a user does not answer"), "{}", server.log());
    assert!(until(|| !server.is_unwell()), "{}", server.must(&["status"]));
}

#[test]
fn a_batch_does_not_wait_for_a_process_that_hangs() {
    let Some(machine) = Machine::new(&[ALICE, BOB]) else { return };
    // As long as one mailbox may take, which is far longer than a batch with mail of others waits.
    let queue = "maildir-timeout = \"50s\"\nretry-first = \"1h\"\nretry-max = \"1h\"\ndelivery-lag = \"500ms\"";
    let server = machine.start("", queue);
    for (name, _) in [ALICE, BOB] {
        send(&server, &format!("{name}@users.test"), 0..1);
        machine.delivered(&server, name, 1);
    }
    let of_alice = shown(&server)[0]["pid"].as_u64().unwrap();
    let of_alice = u32::try_from(of_alice).unwrap();
    signal(of_alice, "STOP");
    assert!(until(|| is_stopped(of_alice)));
    let begun = std::time::Instant::now();
    let mut wire = Wire::greeted(server.mx);
    assert!(wire.ask("MAIL FROM:<sender@elsewhere.test>\r\n").starts_with("250"));
    for to in ["alice@users.test", "bob@users.test", "demo@lamppost.test"] {
        assert!(wire.ask(format!("RCPT TO:<{to}>\r\n")).starts_with("250"));
    }
    assert!(wire.ask("DATA\r\n").starts_with("354"));
    assert!(wire.ask("Subject: 1\r\n\r\nnumber 1 end\r\n.\r\n").starts_with("250"));
    machine.delivered(&server, "bob", 2);
    server.delivered("demo@lamppost.test", 1);
    assert!(begun.elapsed() < std::time::Duration::from_secs(25), "{:?}", begun.elapsed());
    let told = || server.must(&["status"]).contains("the process of alice does not answer");
    assert!(until(told), "{}", server.must(&["status"]));
    // It is ended before its mail is tried again.
    assert!(until(|| !server.processes().contains(&of_alice)), "{}", server.log());
    assert_eq!(files(&machine.maildir("alice").join("new")).len(), 1);
}

#[test]
fn a_process_that_is_slow_on_purpose_loses_and_doubles_nothing() {
    const MESSAGES: usize = 6;
    let Some(machine) = Machine::new(&[ALICE, BOB]) else { return };
    let server =
        machine.start("", "retry-first = \"1s\"\nretry-max = \"1s\"\nmaildir-timeout = \"3s\"");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // It goes on before it would be taken for one that does not answer, and never for long.
            while !is_over.load(Ordering::Relaxed) {
                let of_alice = shown(&server).into_iter().find(|one| one["name"] == "user alice");
                let pid = of_alice.and_then(|one| one["pid"].as_u64()?.try_into().ok());
                let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else { continue };
                for (kind, pause) in
                    [(rustix::process::Signal::STOP, 800), (rustix::process::Signal::CONT, 1)]
                {
                    // It may have ended by itself.
                    let _ended = rustix::process::kill_process(pid, kind);
                    std::thread::park_timeout(std::time::Duration::from_millis(pause));
                }
            }
        });
        let large = ("x".repeat(70) + "\r\n").repeat(80_000);
        let mut wire = Wire::greeted(server.mx);
        for number in 0..MESSAGES {
            assert!(wire.ask("MAIL FROM:<sender@elsewhere.test>\r\n").starts_with("250"));
            for name in ["alice", "bob"] {
                let reply = wire.ask(format!("RCPT TO:<{name}@users.test>\r\n"));
                assert!(reply.starts_with("250"), "{reply}");
            }
            assert!(wire.ask("DATA\r\n").starts_with("354"));
            // Her process reads so much piece by piece.
            let content = format!("Subject: x\r\n\r\n{large}number {number} end\r\n.\r\n");
            assert!(wire.ask(content).starts_with("250"));
        }
        let came = until(|| {
            server.log().contains("the batch went on")
                && files(&machine.maildir("bob").join("new")).len() == MESSAGES
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(came, "{}", server.log());
    });
    for (name, _) in [ALICE, BOB] {
        let found = machine.delivered(&server, name, MESSAGES);
        let mut ends: Vec<_> = found
            .iter()
            .map(|one| {
                let text = std::fs::read_to_string(one).unwrap();
                assert!(text.len() > 80_000 * 71, "{}", text.len());
                text.lines().last().unwrap().to_owned()
            })
            .collect();
        ends.sort();
        let expected = (0..MESSAGES).map(|number| format!("number {number} end"));
        assert_eq!(ends, expected.collect::<Vec<_>>(), "{name}");
        assert_eq!(files(&machine.maildir(name).join("tmp")), Vec::<PathBuf>::new());
    }
    server.await_empty_queue();
}

#[test]
fn a_process_that_was_stopped_keeps_no_place_from_others() {
    let Some(machine) = Machine::new(&[ALICE, BOB]) else { return };
    let server = machine.start("processes-max = 1", "retry-first = \"1h\"\nretry-max = \"1h\"");
    send(&server, "alice@users.test", 0..1);
    machine.delivered(&server, "alice", 1);
    let stopped = server.role("user");
    signal(stopped, "STOP");
    assert!(until(|| is_stopped(stopped)));
    send(&server, "bob@users.test", 0..1);
    machine.delivered(&server, "bob", 1);
    assert!(!server.processes().contains(&stopped));
    assert!(!server.log().contains("delivery deferred"), "{}", server.log());
}

#[test]
fn accepted_mail_waits_for_a_user_who_is_not_there_for_the_moment() {
    let Some(machine) = Machine::new(&[ALICE, BOB]) else { return };
    let server = machine.start("", "retry-first = \"1s\"\nretry-max = \"1s\"");
    let list = machine.folder.path().join("passwd");
    server.must(&["pause", "delivery"]);
    for (name, _) in [ALICE, BOB] {
        send(&server, &format!("{name}@users.test"), 0..1);
    }
    // The home of one is as a file server shows it that knows no names; the other is not listed.
    chown(machine.home("alice"), Some(65_534), None).unwrap();
    let others = machine.list.lines().filter(|line| !line.starts_with("bob:"));
    std::fs::write(&list, others.collect::<Vec<_>>().join("\n")).unwrap();
    assert!(recipient(&server, "alice@users.test").starts_with("450 4.2.1 "));
    assert!(recipient(&server, "bob@users.test").starts_with("550 5.1.1 "));
    server.must(&["resume", "delivery"]);
    for words in ["belongs to nobody (user 65534)", "the user bob gets no mail any more"] {
        assert!(until(|| reasons(&server).contains(words)), "{words}: {}", reasons(&server));
    }
    // A list that somebody is writing tells of nobody that there is none.
    std::fs::write(&list, "").unwrap();
    for (name, _) in [ALICE, BOB] {
        let reply = recipient(&server, &format!("{name}@users.test"));
        assert!(reply.starts_with("450 4.2.1 "), "{reply}");
    }
    std::fs::write(&list, &machine.list).unwrap();
    chown(machine.home("alice"), Some(ALICE.1), None).unwrap();
    for (name, _) in [ALICE, BOB] {
        check_each_once(&machine.delivered(&server, name, 1), 1);
    }
    server.await_empty_queue();
}

#[test]
fn as_many_processes_as_may_be_serve_more_users() {
    const USERS: usize = 12;
    let names: Vec<_> = (0..USERS).map(|number| format!("user{number}")).collect();
    let users: Vec<_> = names.iter().map(String::as_str).zip(64_200..).collect();
    let Some(machine) = Machine::new(&users) else { return };
    let server = machine.start("processes-max = 2", "");
    let mut wire = Wire::greeted(server.mx);
    for number in 0..3 {
        assert!(wire.ask("MAIL FROM:<sender@elsewhere.test>\r\n").starts_with("250"));
        for name in &names {
            assert!(wire.ask(format!("RCPT TO:<{name}@users.test>\r\n")).starts_with("250"));
        }
        assert!(wire.ask("DATA\r\n").starts_with("354"));
        let content = format!("Subject: {number}\r\n\r\nnumber {number} end\r\n.\r\n");
        assert!(wire.ask(content).starts_with("250"));
        let users = || {
            let processes = server.processes().into_iter();
            let lines =
                processes.map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")));
            lines.filter(|line| line.as_ref().is_ok_and(|line| line.contains("user\0"))).count()
        };
        assert!(users() <= 2);
    }
    for name in &names {
        check_each_once(&machine.delivered(&server, name, 3), 3);
    }
}

#[test]
fn a_full_home_is_told_and_takes_nothing_from_others() {
    let Some(machine) = Machine::new(&[ALICE, BOB]) else { return };
    let Some(small) = Mounted::new(Kind::Tmpfs(1)) else { return };
    let home = machine.home("alice");
    std::fs::remove_dir(&home).unwrap();
    // A home on another disk: the link above it is the administrator's.
    symlink(small.point(), &home).unwrap();
    mode(small.point().parent().unwrap(), 0o755);
    mode(&small.point(), 0o700);
    chown(small.point(), Some(ALICE.1), Some(ALICE.1)).unwrap();
    let filling = small.point().join("filling");
    std::fs::write(&filling, vec![0; 1020 * 1024]).unwrap();
    let server = machine.start("", "retry-first = \"1s\"\nretry-max = \"1s\"");
    let large = format!("Subject: large\r\n\r\n{}", "x\r\n".repeat(60_000));
    for (name, _) in [ALICE, BOB] {
        let mut wire = Wire::greeted(server.mx);
        assert!(wire.deliver(&format!("{name}@users.test"), &large).starts_with("250"));
    }
    machine.delivered(&server, "bob", 1);
    let is_told = || reasons(&server).contains("the file system of the mailbox is full");
    assert!(until(is_told), "{}", reasons(&server));
    std::fs::remove_file(filling).unwrap();
    let new = small.point().join("Maildir/new");
    assert!(until(|| files(&new).len() == 1), "{}", server.log());
    server.await_empty_queue();
}

#[test]
fn a_home_that_is_not_there_is_not_taken_for_one_that_was_delivered_to() {
    let Some(machine) = Machine::new(&[ALICE]) else { return };
    let server = machine.start("", "retry-first = \"1s\"\nretry-max = \"1s\"");
    send(&server, "alice@users.test", 0..1);
    machine.delivered(&server, "alice", 1);
    let (home, aside) = (machine.home("alice"), machine.home("aside"));
    server.must(&["pause", "delivery"]);
    send(&server, "alice@users.test", 1..4);
    std::fs::rename(&home, &aside).unwrap();
    server.must(&["resume", "delivery"]);
    assert!(until(|| reasons(&server).contains("cannot be looked at")), "{}", reasons(&server));
    assert!(recipient(&server, "alice@users.test").starts_with("450 4.2.1 "));
    std::fs::rename(&aside, &home).unwrap();
    check_each_once(&machine.delivered(&server, "alice", 4), 4);
}

#[test]
fn a_maildir_that_is_moved_gets_no_more_mail_where_it_went() {
    let Some(machine) = Machine::new(&[ALICE]) else { return };
    let server = machine.start("", "retry-first = \"1s\"\nretry-max = \"1s\"");
    send(&server, "alice@users.test", 0..1);
    machine.delivered(&server, "alice", 1);
    std::fs::rename(machine.maildir("alice"), machine.home("alice").join("old")).unwrap();
    let made = machine.maildir("alice");
    for part in ["", "cur", "new", "tmp"] {
        std::fs::create_dir(made.join(part)).unwrap();
        chown(made.join(part), Some(ALICE.1), Some(ALICE.1)).unwrap();
    }
    send(&server, "alice@users.test", 1..2);
    machine.delivered(&server, "alice", 1);
    assert_eq!(files(&machine.home("alice").join("old/new")).len(), 1);
}

#[test]
fn who_is_not_root_serves_its_own_home_alone() {
    let Some(machine) = Machine::new(&[ALICE, BOB]) else { return };
    let mut server = machine.prepare("", "");
    // All that the program keeps is alice's too.
    for path in [server.state(), server.config(), server.config().parent().unwrap().to_owned()] {
        let given = Command::new("chown").args(["-R", "64101:64101"]).arg(path).status();
        assert!(given.unwrap().success());
    }
    let uid = ALICE.1.to_string();
    let become_her = ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"];
    let told = machine.check(&server, &become_her);
    assert!(told.contains("only root can write into homes of others"), "{told}");
    server.launch_under(machine.command(&become_her));
    send(&server, "alice@users.test", 0..2);
    check_each_once(&machine.delivered(&server, "alice", 2), 2);
    assert!(recipient(&server, "bob@users.test").starts_with("450 4.2.1 "));
    let told = || server.log().contains("only root can write into the home of bob");
    assert!(until(told), "{}", server.log());
}
