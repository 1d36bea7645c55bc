//! `lamppost setup` on machines without the package: a Debian with systemd's tool for users, with useradd,
//! and with neither (feature `peers`, set up by `cargo xtask setup` as root).
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use support::debian::Debian;

const FILE: &str = "etc/lamppost/lamppost.toml";
const STATE: &str = "var/lib/lamppost";
const SYSUSERS: &str = "usr/bin/systemd-sysusers";
const USERADD: &str = "usr/sbin/useradd";

/// A Debian with the program and nothing else of it.
fn with_program() -> Option<Debian> {
    let debian = ["debian12", "debian13"].into_iter().find_map(Debian::new)?;
    std::fs::copy(env!("CARGO_BIN_EXE_lamppost"), debian.path("usr/bin/lamppost")).unwrap();
    Some(debian)
}

/// The exit code and what was complained about.
fn complained(debian: &Debian, command: &[&str]) -> String {
    let output = debian.output(command);
    format!("{}: {}", output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr))
}

/// What was made is as the service wants it.
fn is_prepared(debian: &Debian) {
    for role in ["front", "policy", "queue", "delivery", "control"] {
        let user = format!("lamppost-{role}");
        assert_eq!(debian.run(&["id", "--name", "--groups", &user]), format!("{user}\n"));
    }
    let users = std::fs::read_to_string(debian.path("etc/passwd")).unwrap();
    let of = |name: &str| users.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
    assert_eq!(of("lamppost").len(), 6);
    for user in of("lamppost-") {
        assert!(user.ends_with(":/nonexistent:/usr/sbin/nologin"), "{user}");
        assert!(user.contains(":Lamppost "), "{user}");
    }
    let file = debian.path(FILE).metadata().unwrap();
    let group = debian.run(&["stat", "--format", "%G", "/etc/lamppost/lamppost.toml"]);
    assert_eq!((file.permissions().mode() & 0o7777, file.uid()), (0o640, 0));
    assert_eq!(group, "lamppost\n");
    let state = debian.path(STATE).metadata().unwrap();
    assert_eq!((state.permissions().mode() & 0o7777, state.uid()), (0o711, 0));
    debian.run(&["lamppost", "check"]);
}

#[test]
fn a_machine_is_prepared_once_and_nothing_is_touched_again() {
    let Some(debian) = with_program() else { return };
    let nobody =
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "lamppost", "setup"];
    insta::assert_snapshot!(complained(&debian, &nobody), @r"
        77: error: only root can make users and folders of the system
          help: run `sudo lamppost setup`; `lamppost setup --dry-run` tells what that would do
        ");
    let before = debian.files();
    let planned = debian.run(&[&nobody[..], &["--dry-run"]].concat());
    insta::assert_snapshot!(planned, @r"
        would make  the user lamppost
        would make  the user lamppost-front
        would make  the user lamppost-policy
        would make  the user lamppost-queue
        would make  the user lamppost-delivery
        would make  the user lamppost-control
        would make  /var/lib/lamppost
        would make  /etc/lamppost/lamppost.toml
        ");
    assert_eq!(debian.files(), before, "nothing was done");

    insta::assert_snapshot!(debian.run(&["lamppost", "setup"]), @r"
        made        the user lamppost
        made        the user lamppost-front
        made        the user lamppost-policy
        made        the user lamppost-queue
        made        the user lamppost-delivery
        made        the user lamppost-control
        made        /var/lib/lamppost
        made        /etc/lamppost/lamppost.toml

        Now:
          edit /etc/lamppost/lamppost.toml; `lamppost check` tells what is wrong with it
          `lamppost run` as root: each role becomes a user of its own
        ");
    is_prepared(&debian);
    // What the administrator changed stays, as all does.
    let own = std::fs::read_to_string(debian.path(FILE)).unwrap() + "# mine\n";
    std::fs::write(debian.path(FILE), own).unwrap();
    debian.run(&["userdel", "lamppost-queue"]);
    let before = debian.files();
    let again = debian.run(&["lamppost", "setup"]);
    let made: Vec<_> = again.lines().filter(|line| line.starts_with("made")).collect();
    assert_eq!(made, ["made        the user lamppost-queue"]);
    let others = |files: std::collections::BTreeMap<String, String>| {
        files.into_iter().filter(|(path, _)| !path.starts_with("/etc/")).collect::<Vec<_>>()
    };
    let file = before[&format!("/{FILE}")].clone();
    assert_eq!(debian.files()[&format!("/{FILE}")], file);
    assert_eq!(others(debian.files()), others(before));
    let before = debian.files();
    assert!(!debian.run(&["lamppost", "setup"]).contains("made"));
    assert_eq!(debian.files(), before);
}

#[test]
fn without_systemds_tool_useradd_does_and_without_that_people_do() {
    let Some(debian) = with_program() else { return };
    std::fs::remove_file(debian.path(SYSUSERS)).unwrap();
    let aside = debian.path("root/useradd");
    std::fs::rename(debian.path(USERADD), &aside).unwrap();
    let before = debian.files();
    insta::assert_snapshot!(complained(&debian, &["lamppost", "setup"]), @r#"
        71: error: neither systemd-sysusers nor useradd is on this machine
          help: make these system users, each with a group of its own name, then do this again:
            lamppost: home /var/lib/lamppost, shell /usr/sbin/nologin, comment "Lamppost services"
            lamppost-front: home /nonexistent, shell /usr/sbin/nologin, comment "Lamppost SMTP sessions"
            lamppost-policy: home /nonexistent, shell /usr/sbin/nologin, comment "Lamppost accounts and greylist"
            lamppost-queue: home /nonexistent, shell /usr/sbin/nologin, comment "Lamppost queue"
            lamppost-delivery: home /nonexistent, shell /usr/sbin/nologin, comment "Lamppost mailboxes"
            lamppost-control: home /nonexistent, shell /usr/sbin/nologin, comment "Lamppost control socket"
        "#);
    assert_eq!(debian.files(), before, "half of it is not done");

    std::fs::rename(&aside, debian.path(USERADD)).unwrap();
    // Somebody began to do it by hand.
    debian.run(&["groupadd", "--system", "lamppost-front"]);
    debian.run(&["lamppost", "setup"]);
    is_prepared(&debian);
}

#[test]
fn a_file_that_cannot_be_used_is_told_before_anything_is_made() {
    let Some(debian) = with_program() else { return };
    std::fs::create_dir(debian.path("etc/lamppost")).unwrap();
    std::fs::write(debian.path(FILE), "nonsense = 1\n").unwrap();
    let before = debian.files();
    let told = complained(&debian, &["lamppost", "setup"]);
    assert!(told.starts_with("78: error: ") && told.contains("lamppost.toml:1:1"), "{told}");
    assert_eq!(debian.files(), before);
}
