//! `lamppost doctor`: what it says of a host that is well, and that it finds what is not.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use support::mounted::skipped;
use support::{Server, Setup, free_addresses};

/// The lines of a report: how it stands, with what, and the cure.
fn report(output: &Output) -> Vec<(String, String, String)> {
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let line = |finding: &serde_json::Value| {
        let what = format!("{}: {}", text(&finding["area"]), text(&finding["what"]));
        (text(&finding["level"]), what, text(&finding["cure"]))
    };
    findings.as_array().unwrap().iter().map(line).collect()
}

fn doctor(server: &Server) -> Output {
    server.command(&["doctor", "--no-dns", "--json"])
}

#[track_caller]
fn says(output: &Output, level: &str, what: &str) {
    let lines = report(output);
    let found = lines.iter().find(|(l, w, _)| l == level && w.contains(what));
    assert!(found.is_some(), "no {level} {what} in {lines:#?}");
    let cure = &found.unwrap().2;
    assert_eq!(cure.is_empty(), level == "ok", "{what}: {cure}");
}

#[test]
fn a_host_that_is_well_is_told_so() {
    let server = Server::start(&Setup::default());
    let output = doctor(&server);
    let lines = report(&output);
    // The folder of temporary files may be in memory, and the certificate is made for the test.
    assert!(lines.iter().all(|(level, ..)| level != "fail"), "{lines:#?}");
    assert_eq!(output.status.code(), Some(0));
    for address in [server.mx, server.submission, server.implicit] {
        says(&output, "ok", &format!("ports: {address} answers"));
    }
    says(&output, "ok", "submit.sock answers");
    says(&output, "ok", "program: runs as process");
    says(&output, "ok", "free in ");
    says(&output, "ok", "clock: it is at 20");
    says(&output, "ok", "certificate.pem is for mail.lamppost.test, and ends in 36");
    says(&output, "warn", "made by this program itself");
    says(&output, "ok", "state.db, 1 account");
    says(&output, "ok", "greylist.db");
    let text = server.must(&["doctor", "--no-dns"]);
    assert!(text.contains("ok    ports: ") && text.contains("\n      help: "), "{text}");
}

#[test]
fn a_program_that_does_not_run_is_found() {
    let mut server = Server::start(&Setup::default());
    server.stop();
    let output = doctor(&server);
    assert_eq!(output.status.code(), Some(69));
    says(&output, "fail", "program: lamppost is not running");
    says(&output, "fail", &format!("ports: {} does not answer", server.mx));
}

#[test]
fn somebody_else_on_a_port_is_found() {
    let mut server = Server::start(&Setup::default());
    server.stop();
    #[expect(clippy::disallowed_methods, reason = "another program's listener")]
    let other = std::net::TcpListener::bind(server.mx).unwrap();
    let answering = std::thread::spawn(move || {
        other.accept().unwrap().0.write_all(b"220 other.test ESMTP Elsewise\r\n").unwrap();
        // It is looked for after its greeting.
        other
    });
    let output = doctor(&server);
    says(&output, "fail", "is answered by somebody else, ");
    // It tells whose it is: this test's.
    let it = format!("(pid {}), with `220 other.test ESMTP Elsewise`", std::process::id());
    says(&output, "fail", &it);
    answering.join().unwrap();
}

/// Whether the program runs or not, another Lamppost is no part of it.
#[test]
fn another_lamppost_on_a_port_is_found() {
    let other = Server::start(&Setup::default());
    let mut server = Server::start(&Setup::default());
    let text = std::fs::read_to_string(server.config()).unwrap();
    let text = text.replace(&server.mx.to_string(), &other.mx.to_string());
    std::fs::write(
        server.config(),
        text.replace(&server.metrics.to_string(), &other.metrics.to_string()),
    )
    .unwrap();
    let expected = format!("ports: {} is answered by another Lamppost, lamppost of ", other.mx);
    says(&doctor(&server), "fail", &expected);
    server.stop();
    says(&doctor(&server), "fail", &expected);
    says(&doctor(&server), "fail", &format!("ports: {} is answered by another", other.metrics));
}

#[test]
fn who_holds_a_port_and_says_nothing_is_found() {
    let mut server = Server::start(&Setup::default());
    server.stop();
    #[expect(clippy::disallowed_methods, reason = "another program's listener")]
    let _silent = std::net::TcpListener::bind(server.mx).unwrap();
    let expected = format!("(pid {}), and does not answer: nothing came", std::process::id());
    says(&doctor(&server), "fail", &expected);
}

#[test]
fn a_maildir_that_delivery_cannot_write_is_found() {
    let server = Server::start(&Setup::default());
    let mail = server.state().join("mail");
    says(&doctor(&server), "ok", "can write the Maildirs of 1 account");
    // Whoever delivery is, it has no capability that would let it write all the same.
    std::fs::set_permissions(&mail, Permissions::from_mode(0o500)).unwrap();
    let output = doctor(&server);
    std::fs::set_permissions(&mail, Permissions::from_mode(0o700)).unwrap();
    says(&output, "fail", &format!("cannot write into {} (", mail.display()));
    says(&output, "fail", "mail to demo@lamppost.test waits");
}

#[test]
fn name_servers_that_do_not_answer_are_no_missing_record() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can be without a network");
    }
    let server = Server::with_accounts(&Setup::default(), None);
    let mut alone = std::process::Command::new("unshare");
    alone.args(["--net", "--"]).arg(env!("CARGO_BIN_EXE_lamppost")).arg("--config");
    alone.arg(server.config()).arg("--state").arg(server.state()).args(["doctor", "--json"]);
    says(&alone.output().unwrap(), "warn", "dns: no name server answers");
}

/// All five users of the roles, or none: some are of no use.
#[test]
fn users_of_roles_that_are_missing_are_told() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can have other users listed");
    }
    let server = Server::with_accounts(&Setup::default(), None);
    let list = server.state().join("passwd");
    let tell = |users: &[&str], command: &str| {
        let line = |(number, user): (usize, &&str)| {
            format!("lamppost-{user}:x:{0}:{0}::/:/bin/false\n", 54_000 + number)
        };
        let users: String = users.iter().enumerate().map(line).collect();
        std::fs::write(&list, format!("root:x:0:0:root:/root:/bin/sh\n{users}")).unwrap();
        let script = format!(
            "mount --bind {} /etc/passwd && exec {} --config {} --state {} {command}",
            list.display(),
            env!("CARGO_BIN_EXE_lamppost"),
            server.config().display(),
            server.state().display()
        );
        let mut other = std::process::Command::new("unshare");
        let output = other.args(["--mount", "--", "sh", "-c", &script]).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let all = ["front", "policy", "queue", "delivery", "control"];
    for command in ["check", "doctor --no-dns"] {
        let none = tell(&[], command);
        assert!(none.contains("the roles have no users of their own"), "{none}");
        assert!(none.contains("`lamppost setup` makes them"), "{none}");
        let some = tell(&all[..3], command);
        let expected = "five users of the roles lamppost-delivery lamppost-control are missing";
        assert!(some.contains(expected), "{some}");
        let all = tell(&all, command);
        assert!(!all.contains("users of the") && !all.contains("users of their"), "{all}");
    }
}

#[test]
fn open_secrets_and_broken_files_are_found() {
    let mut server = Server::start(&Setup::default());
    server.stop();
    let set = |name: &str, mode| {
        let path = server.state().join(name);
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    set("", 0o755);
    // What is in its write-ahead log would be put right.
    drop(std::fs::remove_file(server.state().join("policy/greylist.db-wal")));
    let nonsense = "this is no database at all\n".repeat(1000);
    std::fs::write(server.state().join("policy/greylist.db"), nonsense).unwrap();
    std::fs::write(server.state().join("tls/certificate.pem"), "nor a certificate").unwrap();
    let output = doctor(&server);
    says(&output, "warn", "everybody on this machine may look into the state folder");
    says(&output, "fail", "greylist.db");
    says(&output, "warn", "is not there, or cannot be read");
    // What nobody else may enter hides what is in it.
    set("", 0o700);
    says(&doctor(&server), "ok", "permissions: secrets and state are kept from others");
}

#[test]
fn a_full_disk_is_found() {
    let server =
        Server::start(&Setup { queue: "free-space-min = \"1000TiB\"", ..Setup::default() });
    says(&doctor(&server), "fail", "no new mail is taken (free-space-min)");
}

#[test]
fn a_name_that_nobody_knows_is_told_with_its_cure() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can have this machine's own list alone be asked for names");
    }
    let [address] = free_addresses();
    let folder = tempfile::tempdir().unwrap();
    let (config, names) =
        (folder.path().join("lamppost.toml"), folder.path().join("nsswitch.conf"));
    std::fs::write(&names, "hosts: files\n").unwrap();
    let look = |hostname: &str| {
        let text = format!(
            "[server]\nhostname = \"{hostname}\"\nstate = \"{}/state\"\n\
             [[mail.listen]]\naddress = [\"{address}\"]\ntls = \"off\"\n",
            folder.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let script = format!(
            "mount --bind {} /etc/nsswitch.conf && exec {} --config {} doctor --json",
            names.display(),
            env!("CARGO_BIN_EXE_lamppost"),
            config.display()
        );
        let mut alone = std::process::Command::new("unshare");
        alone.args(["--mount", "--", "sh", "-c", &script]).output().unwrap()
    };
    says(&look("host.invalid"), "warn", "dns: host.invalid is not found");
    says(&look("localhost"), "ok", "dns: localhost is at ");
}
