//! What every role does when the machine has no more of something: descriptors, processes, or what an older
//! kernel never had. Nothing ends, it is told, and all goes on once there is more.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::chown;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit};
use seccompiler::{SeccompAction, SeccompFilter, apply_filter};
use serde_json::Value;
use support::{Server, Setup, Wire, until};

const ACCOUNT: &str = "demo@lamppost.test";
const ROLES: [&str; 5] = ["front", "policy", "queue", "delivery", "control"];
const NOBODY: u32 = 65_534;

/// Lets a process have so many of something; tells how many it could have.
fn allow(pid: u32, resource: Resource, current: Option<u64>) -> Option<u64> {
    let pid = Pid::from_raw(pid.try_into().unwrap());
    let limit = Rlimit { current, ..rustix::process::getrlimit(resource) };
    rustix::process::prlimit(pid, resource, limit).unwrap().current
}

/// The least limit under which a process opens nothing more: descriptors are given from the lowest that is
/// free.
fn first_free(pid: u32) -> Option<u64> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let open = descriptors.map(|one| one.unwrap().file_name().into_string().unwrap());
    let open: Vec<u64> = open.map(|one| one.parse().unwrap()).collect();
    (0..=1024).find(|number| !open.contains(number))
}

fn deliver(server: &Server, subject: &str) -> String {
    Wire::greeted(server.mx).deliver(ACCOUNT, &format!("Subject: {subject}\r\n\r\nx"))
}

#[test]
fn a_front_without_descriptors_lets_clients_wait() {
    const DESCRIPTORS: u64 = 60;
    let setup = Setup {
        limits: "greeting-delay = \"0s\"\nsessions-per-address-max = 100",
        ..Setup::default()
    };
    let server = Server::start(&setup);
    let front = server.role("front");
    let mut first = Wire::greeted(server.mx);
    let before = allow(front, Resource::Nofile, Some(DESCRIPTORS));
    let mut clients: Vec<_> = (0..DESCRIPTORS).map(|_| Wire::connect(server.mx)).collect();
    assert!(until(|| server.log().contains("accepting pauses")), "{}", server.log());
    assert!(first.deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    server.delivered(ACCOUNT, 1);
    // Who leaves makes room for who waits.
    let mut last = clients.pop().unwrap();
    drop(clients);
    assert!(last.reply().starts_with("220"));
    assert!(last.ask("HELO client.test\r\n").starts_with("250"));
    assert!(last.deliver(ACCOUNT, "Subject: y\r\n\r\ny").starts_with("250"));
    allow(front, Resource::Nofile, before);
    server.delivered(ACCOUNT, 2);
    assert_eq!(server.role("front"), front);
}

#[test]
fn a_role_without_descriptors_loses_nothing() {
    let server = Server::start(&Setup::default());
    if first_free(server.role("queue")).is_none() {
        println!("NOT TESTED: only root may look at the descriptors of a process with secrets");
        return;
    }
    let pids: BTreeMap<_, _> = ROLES.iter().map(|&role| (role, server.role(role))).collect();
    let mut accepted = 0;
    for role in ["policy", "queue", "delivery"] {
        let pid = pids[role];
        let before = allow(pid, Resource::Nofile, first_free(pid));
        let reply = deliver(&server, role);
        assert!(reply.starts_with("250") || reply.starts_with('4'), "{role}: {reply}");
        accepted += usize::from(reply.starts_with("250"));
        allow(pid, Resource::Nofile, before);
        assert!(deliver(&server, role).starts_with("250"), "{role}");
        accepted += 1;
        server.must(&["queue", "retry", "--all"]);
        server.delivered(ACCOUNT, accepted);
    }
    // Who asks meanwhile is answered later.
    let before = allow(pids["control"], Resource::Nofile, first_free(pids["control"]));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| server.must(&["status"]));
        assert!(until(|| server.log().contains("accepting pauses")), "{}", server.log());
        allow(pids["control"], Resource::Nofile, before);
        assert!(asking.join().unwrap().contains("listening"));
    });
    for (role, pid) in pids {
        assert_eq!(server.role(role), pid, "{role} began anew:\n{}", server.log());
    }
}

fn become_nobody(setpriv: &mut Command) {
    let nobody = NOBODY.to_string();
    setpriv.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]);
}

/// Lets the supervisor's user have so many processes while this one starts another.
fn allow_processes(server: &Server, count: &str) {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        become_nobody(&mut command);
    }
    command.args([
        "--",
        "prlimit",
        "--pid",
        &server.pid().to_string(),
        &format!("--nproc={count}:"),
    ]);
    assert!(command.status().unwrap().success());
}

#[test]
fn roles_come_again_once_the_system_gives_processes() {
    let mut server = Server::with_accounts(&Setup::default(), None);
    // Root has as many processes as it wants.
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        become_nobody(&mut command);
        let mut folders = vec![server.config().parent().unwrap().to_owned()];
        while let Some(path) = folders.pop() {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            if path.is_dir() && !path.is_symlink() {
                folders.extend(support::files(&path));
            }
        }
    }
    command.arg("--").arg(support::lamppost().get_program());
    server.launch_under(command);
    allow_processes(&server, "1");
    server.kill_role("queue");
    let told = || server.log().contains("cannot start the roles");
    assert!(until(told), "{}", server.log());
    allow_processes(&server, "10000");
    assert!(until(|| server.log().contains("all roles work again")), "{}", server.log());
    assert!(deliver(&server, "x").starts_with("250"));
    server.delivered(ACCOUNT, 1);
    assert_eq!(server.stop(), Some(0));
}

/// Starts a server on a kernel that does not know some system calls.
fn start_without(calls: &[libc::c_long]) -> Server {
    let refused = calls.iter().map(|&call| (call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        refused,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.try_into().unwrap()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    // A filter holds for a thread and for what that starts.
    let start = move || {
        apply_filter(&program).unwrap();
        Server::start(&Setup::default())
    };
    std::thread::spawn(start).join().unwrap()
}

#[test]
fn a_kernel_without_landlock_runs_all_and_what_is_missing_is_told() {
    let server = start_without(&[
        libc::SYS_landlock_create_ruleset,
        libc::SYS_landlock_add_rule,
        libc::SYS_landlock_restrict_self,
    ]);
    assert!(deliver(&server, "x").starts_with("250"));
    server.delivered(ACCOUNT, 1);
    let shown: Value =
        serde_json::from_str(&server.must(&["status", "--security", "--json"])).unwrap();
    for role in &shown.as_array().unwrap()[1..] {
        assert!(role["landlock"].is_null(), "{role}");
        assert_eq!(role["kernel"]["seccomp"], true, "{role}");
        assert_eq!(role["kernel"]["no-new-privs"], true, "{role}");
        let missing = role["missing"].to_string();
        assert!(
            missing.contains("the kernel has no Landlock: files are not restricted"),
            "{missing}"
        );
    }
    assert!(server.log().contains("the kernel has no Landlock"), "{}", server.log());
}
