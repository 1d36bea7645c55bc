//! Each role is a process of its own that can do its work and no more.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::Value;
use support::mounted::skipped;
use support::{Server, Setup, Wire, until};

const ROLES: [&str; 5] = ["front", "policy", "queue", "delivery", "control"];
const ACCOUNT: &str = "demo@lamppost.test";

/// A line of `/proc/PID/status` or of a thread's.
fn line(path: &str, name: &str) -> String {
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn every_thread_of_every_role_has_given_up_its_power() {
    let server = Server::start(&Setup::default());
    for role in ROLES {
        let pid = server.role(role);
        let mut threads = 0;
        for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let status = format!("{}/status", thread.unwrap().path().display());
            assert_eq!(line(&status, "NoNewPrivs"), "1", "{role}");
            assert_eq!(line(&status, "Seccomp:"), "2", "{role}");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(line(&status, set), "0000000000000000", "{role} {set}");
            }
            threads += 1;
        }
        assert!(threads > 0);
    }
}

#[test]
fn the_front_has_no_file_open() {
    let server = Server::start(&Setup::default());
    let _session = Wire::greeted(server.mx);
    let descriptors = format!("/proc/{}/fd", server.role("front"));
    let Ok(descriptors) = std::fs::read_dir(descriptors) else {
        println!("NOT TESTED: only root may look at the descriptors of a process with secrets");
        return;
    };
    let mut files: Vec<_> = descriptors
        .map(|one| std::fs::read_link(one.unwrap().path()).unwrap().display().to_string())
        .filter(|path| path.starts_with('/') && path != "/dev/null")
        // The setup that it was handed is in memory and has no name.
        .filter(|path| !path.starts_with("/memfd:"))
        .collect();
    // Standard error, which the test sent there.
    files.retain(|path| !path.ends_with("/log"));
    assert_eq!(files, Vec::<String>::new());
}

/// What a role could do of all that was tried, and the version of Landlock that held.
fn probed(server: &Server, role: &str) -> (BTreeSet<String>, Option<u64>) {
    let told: Value = serde_json::from_str(&server.must(&["role", role, "--probe"])).unwrap();
    let tries = told["tries"].as_array().unwrap();
    assert!(tries.len() > 20, "{told}");
    let done = tries.iter().filter(|one| one["refused"] == false);
    let done = done.map(|one| one["what"].as_str().unwrap().to_owned()).collect();
    assert_eq!(told["force"]["no-new-privs"], true);
    assert_eq!(told["force"]["seccomp"], true);
    (done, told["force"]["landlock"].as_u64())
}

#[test]
fn a_role_can_do_its_work_and_nothing_else() {
    let server = Server::start(&Setup::default());
    for role in ROLES.into_iter().chain(["user"]) {
        let (done, landlock) = probed(&server, role);
        let mut expected = BTreeSet::new();
        // Seccomp alone decides on these, whatever the kernel.
        if role == "delivery" {
            // And not to the control socket, which would do whatever an administrator may.
            expected.extend(["connect by TCP", "send by UDP"]);
        }
        if landlock.is_none() {
            println!("NOT TESTED: this kernel has no Landlock, so files are not restricted");
            let is_of_files = |what: &str| {
                ["read ", "look ", "write ", "make "].iter().any(|verb| what.starts_with(verb))
            };
            let others: BTreeSet<_> =
                done.iter().map(String::as_str).filter(|what| !is_of_files(what)).collect();
            assert_eq!(others, expected, "{role}");
            continue;
        }
        let own =
            [format!("look into a folder of {role}"), format!("write into a folder of {role}")];
        if role != "front" && role != "user" {
            expected.extend(own.iter().map(String::as_str));
        }
        if role == "policy" {
            expected.insert("read accounts");
        }
        let done: BTreeSet<_> = done.iter().map(String::as_str).collect();
        assert_eq!(done, expected, "{role}");
    }
    // What was tried has hurt nobody.
    let mut wire = Wire::greeted(server.mx);
    assert!(wire.deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    server.delivered(ACCOUNT, 1);
}

#[test]
fn what_is_in_force_is_shown_for_each_process() {
    let server = Server::start(&Setup::default());
    let shown: Value =
        serde_json::from_str(&server.must(&["status", "--security", "--json"])).unwrap();
    let shown = shown.as_array().unwrap();
    let names: Vec<_> = shown.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, [&["supervisor"][..], &ROLES].concat());
    assert_eq!(shown[0]["pid"], server.pid());
    assert_eq!(shown[0]["kernel"]["no-new-privs"], true);
    for one in &shown[1..] {
        assert_eq!(one["pid"], server.role(one["name"].as_str().unwrap()));
        let kernel = &one["kernel"];
        assert_eq!(kernel["capabilities"], serde_json::json!([]), "{one}");
        assert_eq!((&kernel["no-new-privs"], &kernel["seccomp"]), (&true.into(), &true.into()));
        let has_landlock = one["landlock"].as_u64().is_some();
        assert_eq!(has_landlock, one["missing"].as_array().unwrap().is_empty(), "{one}");
    }
    let text = server.must(&["status", "--security"]);
    assert!(text.starts_with("PROCESS     PID"), "{text}");
    for role in ROLES {
        let row = text.lines().find(|line| line.starts_with(role)).unwrap();
        assert!(row.contains("none") && row.contains("yes"), "{row}");
    }
}

#[test]
fn a_role_that_is_killed_comes_again_and_all_goes_on() {
    let server = Server::start(&Setup::default());
    for (number, role) in ROLES.into_iter().enumerate() {
        let killed = server.role(role);
        server.kill_role(role);
        let is_new = || {
            let status = server.command(&["status", "--json"]);
            let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
            let roles = status["host"]["roles"].as_array().cloned().unwrap_or_default();
            roles.len() == ROLES.len() && roles.iter().all(|one| one["pid"] != killed)
        };
        assert!(until(is_new), "{role}: {}", server.log());
        assert!(server.log().contains(&format!("role=\"{role}\"")), "{}", server.log());
        // The address was listened on all the time.
        let mut wire = Wire::greeted(server.mx);
        assert!(wire.deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"), "{role}");
        server.delivered(ACCOUNT, number + 1);
    }
    let status = server.must(&["status"]);
    assert!(status.contains("WARN      roles: roles ended by themselves 5 times"), "{status}");
}

#[test]
fn a_role_is_nothing_that_people_start() {
    let output = support::lamppost().args(["role", "front"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("`lamppost run` starts all roles"), "{said}");
}

#[test]
fn as_root_the_roles_are_the_user_whose_the_state_is() {
    use std::os::unix::fs::chown;
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        println!("NOT TESTED: only root can become another user");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut server = Server::start_in(&Setup::default(), &state);
    for role in ROLES {
        let status = format!("/proc/{}/status", server.role(role));
        let whole = format!("{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}");
        assert_eq!((line(&status, "Uid"), line(&status, "Gid")), (whole.clone(), whole), "{role}");
        assert_eq!(line(&status, "CapBnd"), "0000000000000000", "{role}");
    }
    let mut wire = Wire::greeted(server.mx);
    assert!(wire.deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    let mail = server.delivered(ACCOUNT, 1);
    let mut waiting = vec![state, mail[0].clone()];
    while let Some(path) = waiting.pop() {
        let owner = path.symlink_metadata().unwrap();
        // The demo's certificate and its key are the supervisor's alone, and whoever may use the socket of
        // local users is told by its mode.
        let is_its = path.ends_with("tls") || path.parent().unwrap().ends_with("tls");
        let is_its = is_its || path.ends_with("submit.sock");
        assert_eq!(owner.uid(), if is_its { 0 } else { NOBODY }, "{}", path.display());
        if owner.is_dir() {
            waiting.extend(support::files(&path));
        }
    }
    // A supervisor that is killed ends roles that are another user's too.
    server.kill();
    server.launch();
    server.delivered(ACCOUNT, 1);
    assert_eq!(server.stop(), Some(0));
}

/// What runs a program that sees users of the roles, by lists of its own.
fn with_users(folder: &Path) -> std::process::Command {
    let mut users = std::fs::read_to_string("/etc/passwd").unwrap();
    for (number, role) in ROLES.iter().enumerate() {
        let uid = FIRST_UID + u32::try_from(number).unwrap();
        writeln!(users, "lamppost-{role}:x:{uid}:{uid}::/:/usr/sbin/nologin").unwrap();
    }
    writeln!(users, "lamppost:x:{ONE_USER}:{GROUP}::/:/usr/sbin/nologin").unwrap();
    let mut groups = std::fs::read_to_string("/etc/group").unwrap();
    writeln!(groups, "lamppost:x:{GROUP}:").unwrap();
    let lists = folder.join("lists");
    std::fs::create_dir(&lists).unwrap();
    std::fs::write(lists.join("passwd"), users).unwrap();
    std::fs::write(lists.join("group"), groups).unwrap();
    let mut command = std::process::Command::new("unshare");
    let script = "for list in \"$0\"/*; do mount --bind \"$list\" \"/etc/${list##*/}\" || exit; done; \
                  exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "--", "sh", "-c", script]);
    command.arg(lists).arg(support::lamppost().get_program());
    command
}

fn start_with_users(setup: &Setup, state: &Path, folder: &Path) -> Server {
    let mut server = Server::prepare(setup, Some(state.to_owned()));
    server.launch_under(with_users(folder));
    server
}

const FIRST_UID: u32 = 64_001;
/// The user as whom all roles would run where root starts none.
const ONE_USER: u32 = 64_009;
const GROUP: u32 = 64_010;

/// Whether this process can show another other users, in a folder that all may enter.
fn place_for_users() -> Option<tempfile::TempDir> {
    let namespaces = || std::process::Command::new("unshare").args(["--mount", "true"]).status();
    if !rustix::process::geteuid().is_root() || !namespaces().is_ok_and(|status| status.success()) {
        skipped("only root can become another user, and show a process other users");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    Some(folder)
}

#[test]
fn as_root_each_role_is_a_user_of_its_own_where_there_are_such() {
    let Some(folder) = place_for_users() else { return };
    let state = folder.path().join("state");
    // What another program left there, as root.
    drop(Server::start_in(&Setup::default(), &state));
    let mut server = start_with_users(&Setup::default(), &state, folder.path());
    let mut uids = BTreeSet::new();
    for role in ROLES {
        let status = format!("/proc/{}/status", server.role(role));
        let uid = line(&status, "Uid").split('\t').next().unwrap().parse::<u32>().unwrap();
        assert!((FIRST_UID..FIRST_UID + 5).contains(&uid), "{role} {uid}");
        assert_eq!(line(&status, "CapBnd"), "0000000000000000", "{role}");
        uids.insert(uid);
    }
    assert_eq!(uids.len(), ROLES.len());
    let mut wire = Wire::greeted(server.mx);
    assert!(wire.deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    server.delivered(ACCOUNT, 1);
    for (name, role) in [("policy", 1), ("spool", 2), ("mail", 3), ("log", 4)] {
        let mut waiting = vec![state.join(name)];
        while let Some(path) = waiting.pop() {
            let found = path.symlink_metadata().unwrap();
            assert_eq!(found.uid(), FIRST_UID + role, "{}", path.display());
            if found.is_dir() {
                waiting.extend(support::files(&path));
            }
        }
    }
    let socket = state.join("control.sock").metadata().unwrap();
    assert_eq!((socket.mode() & 0o777, socket.uid(), socket.gid()), (0o660, 0, GROUP));
    let folder = state.metadata().unwrap();
    assert_eq!((folder.mode() & 0o777, folder.uid()), (0o711, 0));
    let shown = server.must(&["status", "--security"]);
    assert!(shown.contains(&FIRST_UID.to_string()), "{shown}");
    // Commands of root go on as they did.
    server.must(&["account", "add", "new@lamppost.test", "--generate"]);
    assert!(server.must(&["account", "list"]).contains("new@lamppost.test"));
    assert_eq!(server.stop(), Some(0));
    server.must(&["queue", "check", "--repair"]);
}

#[test]
fn as_root_maildirs_elsewhere_that_one_user_had_become_the_roles() {
    use std::os::unix::fs::{chown, symlink};
    let Some(folder) = place_for_users() else { return };
    let disk = folder.path().join("disk");
    let others = folder.path().join("others");
    for made in [disk.join("lamppost.test/demo"), others.clone()] {
        std::fs::create_dir_all(made).unwrap();
    }
    std::fs::write(disk.join("lamppost.test/demo/file"), "").unwrap();
    symlink(&others, disk.join("link")).unwrap();
    for given in ["", "lamppost.test", "lamppost.test/demo", "lamppost.test/demo/file"] {
        chown(disk.join(given), Some(ONE_USER), Some(GROUP)).unwrap();
    }
    // The folder of all Maildirs may lie elsewhere by a link, too.
    let linked = folder.path().join("linked");
    symlink(&disk, &linked).unwrap();
    let mail = format!("maildir = \"{}/{{domain}}/{{local}}/Maildir\"", linked.display());
    let setup = Setup { mail, ..Setup::default() };
    let mut server = start_with_users(&setup, &folder.path().join("state"), folder.path());
    server.must(&["account", "add", ACCOUNT, "--generate"]);
    let mut wire = Wire::greeted(server.mx);
    assert!(wire.deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    let new = disk.join("lamppost.test/demo/Maildir/new");
    assert!(until(|| new.is_dir() && support::files(&new).len() == 1), "{}", server.log());
    let mut waiting = vec![disk];
    while let Some(path) = waiting.pop() {
        let found = path.symlink_metadata().unwrap();
        assert_eq!(found.uid(), FIRST_UID + 3, "{}", path.display());
        if found.is_dir() {
            waiting.extend(support::files(&path));
        }
    }
    assert_eq!(others.metadata().unwrap().uid(), 0, "what a link leads to is somebody else's");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_state_that_the_users_of_the_roles_cannot_reach_is_told() {
    let Some(folder) = place_for_users() else { return };
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut server = Server::prepare(&Setup::default(), Some(closed.join("state")));
    server.begin_under(with_users(folder.path()));
    assert_eq!(server.wait(), Some(70));
    let said = server.log();
    let expected = format!(
        "help: {} lets no other users pass, and this role is one of its own",
        closed.display()
    );
    assert!(said.contains(&expected), "{said}");
}
