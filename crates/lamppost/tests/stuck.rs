//! Roles, programs and files that hang or fail at the worst moment hold up neither the supervisor nor the
//! end.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit};
use support::{Server, Setup, Wire, is_stopped, signal, until};

const ACCOUNT: &str = "demo@lamppost.test";

/// Halts a role for good.
fn hang(server: &Server, role: &str) {
    let pid = server.role(role);
    signal(pid, "STOP");
    assert!(until(|| is_stopped(pid)));
}

/// A server that gives sessions and the queue little time to finish.
fn hasty() -> Server {
    let mut server = Server::with_accounts(&Setup::default(), None);
    rewrite(&server, "[server]\n", "[server]\nstop-grace = \"1s\"\n");
    server.launch();
    server
}

/// Writes the server's file anew.
fn rewrite(server: &Server, from: &str, to: &str) {
    let text = std::fs::read_to_string(server.config()).unwrap();
    assert!(text.contains(from));
    std::fs::write(server.config(), text.replace(from, to)).unwrap();
}

/// What a command complained of.
fn complaint(server: &Server, arguments: &[&str]) -> String {
    let failed = server.command(arguments);
    assert!(!failed.status.success());
    String::from_utf8_lossy(&failed.stderr).into_owned()
}

#[test]
fn a_role_that_hangs_holds_up_neither_a_reload_nor_the_end() {
    let mut server = hasty();
    hang(&server, "policy");
    rewrite(&server, "[mail.greylist]\n", "[mail.greylist]\ndelay = \"2m\"\n");
    let told = complaint(&server, &["reload"]);
    assert!(told.contains("the role `policy` does not answer"), "{told}");
    assert!(told.contains("The old configuration stays in force."), "{told}");
    let status = server.command(&["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("listening"));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_role_that_hangs_is_named_by_the_status() {
    for role in ["policy", "queue"] {
        let mut server = hasty();
        hang(&server, role);
        let output = server.command(&["status", "--json"]);
        assert_eq!(output.status.code(), Some(69));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(complaint.contains(&format!("does not answer: {role}\n")), "{complaint}");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(status["queue"].is_null(), role == "queue");
        let roles = status["host"]["roles"].as_array().unwrap();
        assert_eq!(roles.len(), 5);
        for one in roles {
            assert_eq!(one["answers"], one["name"] != role, "{one}");
            assert!(one["pid"].as_u64().unwrap() > 0);
        }
        let told = String::from_utf8(server.command(&["status"]).stdout).unwrap();
        assert!(told.contains(&format!("FAIL      roles: the role `{role}`, process ")), "{told}");
        assert_eq!(server.stop(), Some(0));
    }
}

#[test]
fn a_control_role_that_hangs_is_told() {
    let mut server = hasty();
    hang(&server, "control");
    let told = complaint(&server, &["status"]);
    assert!(told.contains("its control role says nothing for "), "{told}");
    assert_eq!(server.stop(), Some(0));
}

/// The processes of a role that are there now.
fn processes(server: &Server, role: &str) -> Vec<u32> {
    let line =
        |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_its = |pid: &u32| line(pid).split('\0').nth(2) == Some(role);
    server.processes().into_iter().filter(is_its).collect()
}

#[test]
fn what_a_reload_waits_for_is_told_while_it_waits() {
    let server = Server::start(&Setup::default());
    let mut session = Wire::greeted(server.mx);
    let first = server.role("queue");
    rewrite(&server, "[mail.queue]\n", "[mail.queue]\nbatch-max = 7\n");
    let status = || {
        let status = server.must(&["status", "--json"]);
        serde_json::from_str::<serde_json::Value>(&status).unwrap()
    };
    let is_in = |phase: &str| until(|| status()["host"]["phase"] == phase);
    let mut reload = support::lamppost();
    reload.arg("--config").arg(server.config()).arg("--state").arg(server.state()).arg("reload");
    let mut reload = reload.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(reload.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.is_ok_and(|line| line.contains("new connections wait until"))));
    assert!(is_in("ending-sessions"));
    let now = status();
    assert!(now["host"]["phase-left-s"].as_u64().unwrap() <= 30, "{now}");
    assert_eq!(now["host"]["listeners"].as_array().unwrap().len(), 4);
    let told = server.must(&["status"]);
    assert!(told.contains("have ended (1 session, for "), "{told}");
    // The next roles wait already; one of them will take its time.
    let next = || processes(&server, "queue").into_iter().find(|pid| *pid != first);
    assert!(until(|| next().is_some()));
    let next = next().unwrap();
    signal(next, "STOP");
    assert!(until(|| is_stopped(next)));
    assert!(session.ask("QUIT\r\n").starts_with("221"));
    drop(session);
    assert!(is_in("beginning"));
    let now = status();
    assert!(now["queue"].is_null() && now["host"]["phase-left-s"].is_null(), "{now}");
    assert_eq!(now["host"]["listeners"].as_array().unwrap().len(), 4);
    let told = server.must(&["status"]);
    assert!(told.contains("now       all roles begin") && told.contains("listening"), "{told}");
    assert!(said.any(|line| line.is_ok_and(|line| line.contains("all roles begin"))));
    signal(next, "CONT");
    assert!(reload.wait().unwrap().success());
    assert_eq!(status()["host"]["phase"], "at-work");
    assert!(!server.must(&["status"]).contains("now  "));
}

#[test]
fn a_front_that_hangs_is_told_and_all_goes_on_when_it_is_gone() {
    let server = Server::start(&Setup::default());
    let first = server.role("front");
    rewrite(&server, "greeting-delay = \"0s\"\n", "greeting-delay = \"0s\"\nerrors-max = 11\n");
    hang(&server, "front");
    let told = complaint(&server, &["reload"]);
    assert!(told.contains("the role `front` does not answer"), "{told}");
    signal(first, "KILL");
    assert!(until(|| server.role("front") != first));
    assert!(Wire::greeted(server.mx).deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    server.must(&["reload"]);
}

#[test]
fn the_program_ends_while_a_role_takes_for_ever_to_begin() {
    let mut server = Server::with_accounts(&Setup::default(), None);
    server.begin();
    hang(&server, "queue");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn the_program_ends_while_a_reload_finds_no_way_forth_and_none_back() {
    let mut server = Server::start(&Setup::default());
    let log = server.state().join("spool/log");
    std::fs::rename(&log, server.state().join("spool/elsewhere")).unwrap();
    std::fs::write(&log, "in the way").unwrap();
    rewrite(&server, "[mail.queue]\n", "[mail.queue]\nbatch-max = 7\n");
    signal(server.pid(), "HUP");
    assert!(until(|| server.log().contains("the roles cannot be started")), "{}", server.log());
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_program_that_hangs_takes_no_place() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("lamppost");
    std::fs::copy(env!("CARGO_BIN_EXE_lamppost"), &program).unwrap();
    let mut server = Server::with_accounts(&Setup::default(), None);
    server.launch_under(Command::new(&program));
    let hangs = folder.path().join("new");
    std::fs::write(&hangs, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&hangs, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&hangs, &program).unwrap();
    let told = complaint(&server, &["upgrade"]);
    assert!(told.contains("does not end within"), "{told}");
    assert!(Wire::greeted(server.mx).deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn mail_is_taken_while_an_upgrade_waits_for_who_does_not_ask_to_the_end() {
    let server = Server::start(&Setup::default());
    let mut silent = UnixStream::connect(server.state().join("control.sock")).unwrap();
    let begun = b"POST /v1/queue/import HTTP/1.1\r\nhost: here\r\ncontent-length: 100\r\n\r\n{";
    silent.write_all(begun).unwrap();
    // Connections are taken in turn: the one before this has been.
    server.must(&["status"]);
    let before = server.role("front");
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| server.must(&["upgrade"]));
        assert!(until(|| server.log().contains("the program is begun anew")));
        let delivered = Wire::greeted(server.mx).deliver(ACCOUNT, "Subject: x\r\n\r\nx");
        assert!(delivered.starts_with("250"), "{delivered}");
        assert_eq!(server.role("front"), before);
        drop(silent);
        assert!(upgrade.join().unwrap().contains("is at work."));
    });
}

#[test]
fn two_reloads_at_once_are_both_answered() {
    let server = Server::start(&Setup::default());
    let mut session = Wire::greeted(server.mx);
    session.begin_content(ACCOUNT);
    rewrite(&server, "[mail.queue]\n", "[mail.queue]\nbatch-max = 7\n");
    std::thread::scope(|scope| {
        let reloads = [(); 2].map(|()| scope.spawn(|| server.must(&["reload"])));
        assert!(session.ask("Subject: x\r\n\r\nx\r\n.\r\n").starts_with("250"));
        drop(session);
        for reload in reloads {
            let told = reload.join().unwrap();
            assert!(told.contains("is in force"), "{told}");
        }
    });
    server.delivered(ACCOUNT, 1);
}

/// The client reads the new file too, and would ask nobody.
#[test]
fn the_control_socket_moves_with_the_file() {
    let mut server = Server::start(&Setup::default());
    let [old, new] = ["control.sock", "other.sock"].map(|name| server.state().join(name));
    let line = format!("[server]\ncontrol-socket = \"{}\"\n", new.display());
    rewrite(&server, "[server]\n", &line);
    signal(server.pid(), "HUP");
    let answers = |path: &Path| UnixStream::connect(path).is_ok();
    assert!(until(|| answers(&new) && !old.exists()), "{}", server.log());
    assert!(server.must(&["status"]).contains("listening"));
    assert_eq!(std::fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(server.stop(), Some(0));
    assert!(!new.exists());
}

#[test]
fn roles_work_on_while_the_system_has_no_room_for_others() {
    let server = Server::start(&Setup::default());
    let first = server.role("queue");
    let pid = Pid::from_raw(server.pid().try_into().unwrap());
    let room = |current| {
        let limit = Rlimit { current, ..rustix::process::getrlimit(Resource::Nofile) };
        rustix::process::prlimit(pid, Resource::Nofile, limit).unwrap()
    };
    // What it has open already, and a little more.
    let before = room(Some(27));
    rewrite(&server, "[mail.queue]\n", "[mail.queue]\nbatch-max = 7\n");
    let told = complaint(&server, &["reload"]);
    assert!(told.contains("cannot start the roles"), "{told}");
    assert_eq!(server.role("queue"), first);
    assert!(Wire::greeted(server.mx).deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    room(before.current);
    server.must(&["reload"]);
    assert_ne!(server.role("queue"), first);
}

/// A command that has some files open slowly, so long each time, as those of a file system that does not answer.
fn with_slow_files(files: &[PathBuf], delay: Duration) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=openat", "-e"]);
    command.arg(format!("inject=openat:delay_enter={}", delay.as_micros()));
    for file in files {
        command.arg("-P").arg(file);
    }
    // A test that fails kills strace, and the server goes with it.
    command.args(["setpriv", "--pdeathsig", "KILL"]).arg(support::lamppost().get_program());
    command
}

#[test]
fn files_that_hang_hold_up_neither_the_status_nor_the_end() {
    let mut server = Server::with_accounts(&Setup::default(), None);
    let rules = server.state().join("tcp.smtp");
    std::fs::write(&rules, ":allow\n").unwrap();
    server.launch_under(with_slow_files(std::slice::from_ref(&rules), Duration::from_secs(14)));
    let status = || {
        let status = server.must(&["status", "--json"]);
        serde_json::from_str::<serde_json::Value>(&status).unwrap()["host"].clone()
    };
    let supervisor = u32::try_from(status()["pid"].as_u64().unwrap()).unwrap();
    let named = format!("[mail.rules]\nfile = \"{}\"\n[mail.greylist]\n", rules.display());
    rewrite(&server, "[mail.greylist]\n", &named);
    signal(supervisor, "HUP");
    let late = "could not be read within 10 s";
    assert!(until(|| server.log().contains(late)), "{}", server.log());
    // The thread that hangs is not joined by another.
    let before = Instant::now();
    signal(supervisor, "HUP");
    assert!(until(|| server.log().matches(late).count() == 2), "{}", server.log());
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
    assert_eq!(status()["phase"], "at-work");
    assert!(Wire::greeted(server.mx).deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    signal(supervisor, "TERM");
    assert_eq!(server.wait(), Some(0));
}

/// A service manager that hears nothing takes it for a program that hangs.
#[test]
fn a_queue_that_takes_long_to_read_tells_how_far_it_is() {
    let queue = "segment-size = \"1MiB\"";
    let mut server = Server::start(&Setup { queue, ..Setup::default() });
    server.must(&["pause", "delivery"]);
    let mut wire = Wire::greeted(server.mx);
    let line = format!("{}\r\n", "x".repeat(98));
    for _ in 0..40 {
        let content = format!("Subject: x\r\n\r\n{}", line.repeat(1_000));
        assert!(wire.deliver(ACCOUNT, &content).starts_with("250"));
    }
    assert!(wire.ask("QUIT\r\n").starts_with("221"));
    assert_eq!(server.stop(), Some(0));
    let segments = support::files(&server.state().join("spool/log"));
    let segments: Vec<_> = segments
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .collect();
    assert!(segments.len() >= 4, "{segments:?}");
    let folder = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut command = with_slow_files(&segments, Duration::from_millis(800));
    command.env("NOTIFY_SOCKET", folder.path().join("notify"));
    server.begin_under(command);
    let is_told = || {
        let output = server.command(&["status"]);
        String::from_utf8_lossy(&output.stdout).contains(" segments are read")
    };
    assert!(until(is_told), "{}", server.log());
    let mut words = Vec::new();
    while !words.iter().any(|word: &String| word.contains("READY=1")) {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).unwrap();
        words.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    let of = segments.len();
    let told: Vec<_> =
        words.iter().filter(|word| word.contains("STATUS=the queue is read: ")).collect();
    assert!(told.len() >= 2, "{words:?}");
    for word in told {
        assert!(word.contains(&format!(" of {of} segments\n")), "{word}");
        assert!(
            word.contains("EXTEND_TIMEOUT_USEC=240000000") && word.contains("WATCHDOG=1"),
            "{word}"
        );
    }
    let status = server.must(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(status["host"]["reading"].is_null());
    assert_eq!(status["queue"]["messages"], 40);
    signal(u32::try_from(status["host"]["pid"].as_u64().unwrap()).unwrap(), "TERM");
    assert_eq!(server.wait(), Some(0));
}
