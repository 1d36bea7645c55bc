//! Reloads and upgrades under load: what is changed takes hold at once, and no session is lost.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use lamppost_load::{Load, Running};
use support::{Server, Setup, Wire, free_addresses, until};

const ACCOUNT: &str = "demo@lamppost.test";
/// Sessions of the load, each with a message of its own.
const SESSIONS: u64 = 10_000;

/// Sessions that send a message each.
fn load(server: &Server) -> Running {
    let mut load = Load::new(server.mx, &[ACCOUNT]);
    load.sessions = 20;
    load.count = Some(SESSIONS);
    load.sizes = vec![4096];
    load.keep_connections = false;
    load.start().unwrap()
}

/// Every session ended well, and every message came.
fn all_came(server: &Server, running: Running) {
    let report = running.finish();
    assert_eq!(report.acknowledged().count() as u64, SESSIONS, "{:?}", report.complaints);
    assert!(report.complaints.is_empty() && report.cuts == 0, "{:?}", report.complaints);
    server.await_empty_queue();
    server.delivered(ACCOUNT, usize::try_from(SESSIONS).unwrap());
}

/// Changes the file again and again while the load runs; `change` gives its text, an address, and whether
/// somebody answers there then. Returns how often.
fn reload_meanwhile(
    server: &Server,
    running: &Running,
    change: impl Fn(u64) -> (String, SocketAddr, bool),
) -> u64 {
    let mut reloads = 0;
    while running.acknowledged() < SESSIONS * 9 / 10 {
        reloads += 1;
        let (text, address, answers) = change(reloads);
        std::fs::write(server.config(), text).unwrap();
        let told = server.must(&["reload"]);
        assert!(told.contains("is in force"), "{told}");
        assert_eq!(TcpStream::connect(address).is_ok(), answers);
    }
    reloads
}

/// Writes the server's file anew.
fn rewrite(server: &Server, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(server.config()).unwrap();
    std::fs::write(server.config(), change(text)).unwrap();
}

fn with_listener(text: &str, address: SocketAddr) -> String {
    format!("{text}\n[[mail.listen]]\naddress = [\"{address}\"]\nkind = \"mx\"\ntls = \"off\"\n")
}

#[test]
fn no_session_is_lost_when_listeners_and_limits_change_again_and_again() {
    let server = Server::start(&Setup::default());
    let begun = std::fs::read_to_string(server.config()).unwrap();
    let [another] = free_addresses();
    let running = load(&server);
    let reloads = reload_meanwhile(&server, &running, |reloads| {
        let limited = begun.replace(
            "greeting-delay = \"0s\"",
            &format!("greeting-delay = \"0s\"\nerrors-max = {}", 10 + reloads),
        );
        let has_another = !reloads.is_multiple_of(2);
        let text = if has_another { with_listener(&limited, another) } else { limited };
        (text, another, has_another)
    });
    assert!(reloads >= 3, "only {reloads} reloads while the load ran");
    all_came(&server, running);
}

/// What the queue, the log and the metrics endpoint are like is settled when their processes begin.
#[test]
fn no_session_is_lost_when_all_roles_begin_anew() {
    let server = Server::start(&Setup::default());
    let begun = std::fs::read_to_string(server.config()).unwrap();
    let [another] = free_addresses();
    let running = load(&server);
    let reloads = reload_meanwhile(&server, &running, |reloads| {
        let has_another = !reloads.is_multiple_of(2);
        let metrics = if has_another { another } else { server.metrics };
        let text = begun
            .replace(&server.metrics.to_string(), &metrics.to_string())
            .replace("[mail.queue]\n", &format!("[mail.queue]\nbatch-max = {}\n", 100 + reloads));
        (text, another, has_another)
    });
    assert!(reloads >= 2, "only {reloads} reloads while the load ran");
    all_came(&server, running);
}

#[test]
fn no_session_is_lost_when_the_program_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("lamppost");
    let put = |bytes: &[u8]| {
        let new = folder.path().join("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &program).unwrap();
    };
    let bytes = std::fs::read(env!("CARGO_BIN_EXE_lamppost")).unwrap();
    put(&bytes);
    let mut server = Server::with_accounts(&Setup::default(), None);
    server.launch_under(Command::new(&program));
    let roles = || {
        let status: serde_json::Value =
            serde_json::from_str(&server.must(&["status", "--json"])).unwrap();
        let roles = status["host"]["roles"].as_array().unwrap().clone();
        roles.iter().map(|role| role["pid"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let running = load(&server);
    put(b"#!/bin/sh\necho 'this machine is too old' >&2\nexit 1\n");
    let before = roles();
    let refused = server.command(&["upgrade"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("this machine is too old"), "{told}");
    put(b"#!/bin/sh\necho another program\n");
    let refused = server.command(&["upgrade"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("is no Lamppost"), "{told}");
    assert_eq!(roles(), before);
    put(&bytes);
    let mut upgrades = 0;
    while running.acknowledged() < SESSIONS * 9 / 10 {
        upgrades += 1;
        let before = roles();
        let told = server.must(&["upgrade"]);
        assert!(told.contains("takes over.") && told.contains("is at work."), "{told}");
        assert!(roles().iter().all(|pid| !before.contains(pid)));
    }
    assert!(upgrades >= 2, "only {upgrades} upgrades while the load ran");
    all_came(&server, running);
    assert_eq!(server.stop(), Some(0));
}

/// It tells its version, and finds the configuration right; that it cannot begin shows when it does.
#[test]
fn no_session_is_lost_when_the_new_program_cannot_begin() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("lamppost");
    let real = env!("CARGO_BIN_EXE_lamppost");
    let put = |bytes: &[u8]| {
        let new = folder.path().join("new");
        std::fs::write(&new, bytes).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &program).unwrap();
    };
    put(&std::fs::read(real).unwrap());
    let mut server = Server::with_accounts(&Setup::default(), None);
    server.launch_under(Command::new(&program));
    let pid = server.pid();
    let running = load(&server);
    assert!(until(|| running.acknowledged() > 100));
    let fails = |complaint: &str| {
        put(format!(
            "#!/bin/sh\ncase \"$*\" in *--rehearse) {complaint};; esac\nexec {real} \"$@\"\n"
        )
        .as_bytes());
        let refused = server.command(&["upgrade"]);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(65), "{told}");
        told
    };
    let told = fails("echo a line of the log >&2; echo 'error: too new a spool' >&2; exit 74");
    assert!(told.contains("(it ended with exit code 74: error: too new a spool)"), "{told}");
    assert!(told.contains("what ran before goes on"), "{told}");
    assert!(server.must(&["status"]).contains("FAIL      upgrade: "));
    let told = fails("kill -SEGV $$");
    assert!(told.contains("signal 11 ended it"), "{told}");
    put(&std::fs::read(real).unwrap());
    assert!(server.must(&["upgrade"]).contains("is at work."));
    assert!(!server.must(&["status"]).contains("upgrade: "));
    assert_eq!(server.pid(), pid);
    all_came(&server, running);
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_session_that_runs_goes_on_as_it_began_and_new_ones_are_served_anew() {
    let server = Server::start(&Setup::default());
    let mut old = Wire::greeted(server.mx);
    old.begin_content(ACCOUNT);
    rewrite(&server, |text| {
        text.replace(
            "greeting-delay = \"0s\"",
            "greeting-delay = \"0s\"\nmessage-size-max = \"2MiB\"",
        )
    });
    server.must(&["reload"]);
    assert!(Wire::connect(server.mx).reply().starts_with("220"));
    let mut new = Wire::connect(server.mx);
    new.reply();
    assert!(new.ask("EHLO client.test\r\n").contains("SIZE 2097152"));
    assert!(old.ask("Subject: x\r\n\r\nx\r\n.\r\n").starts_with("250"));
    assert!(old.deliver(ACCOUNT, "Subject: y\r\n\r\ny").starts_with("250"));
    assert!(old.ask("QUIT\r\n").starts_with("221"));
    server.delivered(ACCOUNT, 2);
    // The process of the old front ends with its last session.
    drop(new);
    let fronts = || {
        let status: serde_json::Value =
            serde_json::from_str(&server.must(&["status", "--json"])).unwrap();
        let roles = status["host"]["roles"].as_array().unwrap().clone();
        roles.iter().filter(|role| role["name"] == "front").count()
    };
    assert!(until(|| fronts() == 1));
}

/// Whoever draws them takes a counter that goes back for one that began at 0, and counts what it shows once more.
#[test]
fn counters_do_not_go_back_when_fronts_are_replaced() {
    let server = Server::start(&Setup::default());
    let accepted = || {
        let text = server.metrics_text();
        let line =
            text.lines().find_map(|line| line.strip_prefix("lamppost_messages_accepted_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    for round in 1..=4 {
        let mut wire = Wire::greeted(server.mx);
        assert!(wire.deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
        let before = server.role("front");
        rewrite(&server, |text| {
            let limit = |number: u64| format!("[mail.limits]\nerrors-max = {number}\n");
            let old = if round == 1 { "[mail.limits]\n".into() } else { limit(10 + round - 1) };
            text.replace(&old, &limit(10 + round))
        });
        server.must(&["reload"]);
        // It is there as long as its session, which counts on.
        assert!(wire.deliver(ACCOUNT, "Subject: y\r\n\r\ny").starts_with("250"));
        assert_eq!(accepted(), 2 * round);
        assert!(wire.ask("QUIT\r\n").starts_with("221"));
        drop(wire);
        assert!(until(|| {
            assert_eq!(accepted(), 2 * round);
            !Path::new(&format!("/proc/{before}")).exists()
        }));
        assert_eq!(accepted(), 2 * round);
    }
}

#[test]
fn a_file_that_cannot_be_in_force_changes_nothing() {
    let server = Server::start(&Setup::default());
    let [another, taken] = free_addresses();
    #[expect(clippy::disallowed_methods, reason = "somebody else has the address")]
    let _held = std::net::TcpListener::bind(taken).unwrap();
    let begun = std::fs::read_to_string(server.config()).unwrap();
    let text = with_listener(&with_listener(&begun, another), taken);
    std::fs::write(server.config(), text).unwrap();
    let failed = server.command(&["reload"]);
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(!failed.status.success());
    assert!(told.contains(&format!("cannot listen on {taken}")), "{told}");
    assert!(told.contains("The old configuration stays in force."), "{told}");
    assert!(TcpStream::connect(another).is_err());
    assert!(Wire::greeted(server.mx).deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    std::fs::write(server.config(), begun).unwrap();
    server.must(&["reload"]);
}

/// What `check` finds odd is told to whoever reloads, in the log, and over the API.
#[test]
fn a_reload_tells_what_is_odd_about_the_file() {
    let server = Server::start(&Setup::default());
    let doubled = "domains = [\"lamppost.test\", \"LAMPPOST.test\"]";
    rewrite(&server, |text| text.replace("domains = [\"lamppost.test\"]", doubled));
    let reloaded = server.command(&["reload"]);
    let told = String::from_utf8(reloaded.stderr).unwrap();
    assert!(reloaded.status.success());
    let line = std::fs::read_to_string(server.config()).unwrap();
    let line = line.lines().position(|line| line.contains("LAMPPOST.test")).unwrap() + 1;
    let place = format!(" --> {}:{line}:", server.config().display());
    assert!(told.contains("warning: `lamppost.test` is named twice"), "{told}");
    assert!(told.contains(&place) && told.contains("  help: remove one of the two"), "{told}");
    assert!(until(|| server.log().contains("is named twice")), "{}", server.log());
    // The accounts are looked at too.
    rewrite(&server, |text| text.replace("postmaster = \"demo@", "postmaster = \"nobody@"));
    let told = String::from_utf8(server.command(&["reload"]).stderr).unwrap();
    assert!(told.contains("there is no account nobody@lamppost.test"), "{told}");
}

/// What is in the old one would stay behind.
#[test]
fn the_state_stays_where_it_is() {
    let server = Server::with_accounts(&Setup::default(), None);
    let named = |state: &Path| format!("[server]\nstate = \"{}\"\n", state.display());
    rewrite(&server, |text| text.replace("[server]\n", &named(&server.state())));
    let mut program = support::lamppost();
    program.arg("--config").arg(server.config()).arg("run").stdout(Stdio::piped());
    let mut program = program.spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("ready"))));
    let other = server.state().join("other");
    rewrite(&server, |text| text.replace(&named(&server.state()), &named(&other)));
    // Asked on the socket that it has: the file leads elsewhere.
    let mut asked = UnixStream::connect(server.state().join("control.sock")).unwrap();
    asked.write_all(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut told = String::new();
    asked.read_to_string(&mut told).unwrap();
    program.kill().unwrap();
    program.wait().unwrap();
    assert!(told.starts_with("HTTP/1.1 422 ") && told.contains("cannot become"), "{told}");
    assert!(!other.exists());
}
