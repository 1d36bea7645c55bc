//! The Debian package in a Debian: installed, upgraded, removed and purged, with and without a systemd
//! that runs (feature `peers`, set up by `cargo xtask setup` as root).
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use support::debian::{self, Debian};

const FILE: &str = "etc/lamppost/lamppost.toml";
/// What a new user changes.
const USERS: [&str; 8] = [
    "/etc/group",
    "/etc/group-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/passwd",
    "/etc/passwd-",
    "/etc/shadow",
    "/etc/shadow-",
];

/// What differs between two lists of files, but for what dpkg keeps for itself, and for what systemd's
/// tools leave in memory.
fn differing(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    // A folder of the helper that switches units on; Debian 13 makes it with the first unit.
    const HELPER: &str = "/var/lib/systemd/deb-systemd-helper-enabled/multi-user.target.wants";
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    let new = after.iter().filter(|(path, facts)| before.get(*path) != Some(*facts));
    let all = gone.chain(new.map(|(path, _)| path));
    let is_own = |path: &str| {
        path.starts_with("/var/lib/dpkg/") || path.starts_with("/run/") || path == HELPER
    };
    all.filter(|path| !is_own(path)).cloned().collect()
}

#[test]
fn a_package_comes_and_goes() {
    // All that are there; a release that is missing is told.
    let debians: Vec<_> = ["debian12", "debian13"].into_iter().filter_map(Debian::new).collect();
    if debians.is_empty() {
        return;
    }
    let made = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for (version, name) in [("0.0.0-1~test1", "first"), ("0.0.0-1~test2", "second")] {
        let package = debian::package(version, made.path());
        for debian in &debians {
            std::fs::copy(&package, debian.path(&format!("root/{name}.deb"))).unwrap();
        }
    }
    for debian in &debians {
        println!("in {}", debian.root().display());
        let before = debian.files();
        install(debian, &before);
        the_unit_is_right(debian);
        upgrade(debian);
        remove_and_purge(debian, &before);
        under_systemd(debian);
    }
}

fn install(debian: &Debian, before: &BTreeMap<String, String>) {
    debian.run(&["dpkg", "--install", "/root/first.deb"]);
    let own = debian.run(&["dpkg", "--listfiles", "lamppost"]);
    let own: Vec<_> = own.lines().collect();
    let mut others = differing(before, &debian.files());
    others.retain(|path| !own.contains(&path.as_str()));
    others.sort();
    let expected = [
        &USERS[..],
        &[
            "/etc/systemd/system/multi-user.target.wants/lamppost.service",
            "/var/lib/lamppost",
            "/var/lib/systemd/deb-systemd-helper-enabled/lamppost.service.dsh-also",
            "/var/lib/systemd/deb-systemd-helper-enabled/multi-user.target.wants/lamppost.service",
            "/var/log/dpkg.log",
        ],
    ];
    assert_eq!(others, expected.concat());

    let file = debian.path(FILE).metadata().unwrap();
    assert_eq!((file.permissions().mode() & 0o7777, file.uid()), (0o640, 0));
    assert_eq!(file.gid(), debian.uid("lamppost"), "the group has the number of its user");
    let state = debian.path("var/lib/lamppost").metadata().unwrap();
    assert_eq!((state.permissions().mode() & 0o7777, state.uid()), (0o711, 0));
    for role in ["front", "policy", "queue", "delivery", "control"] {
        assert!(debian.uid(&format!("lamppost-{role}")) > 0);
    }

    let pages = std::fs::read_dir(debian.path("usr/share/man/man1")).unwrap();
    let pages = pages.filter(|page| {
        let name = page.as_ref().unwrap().file_name().into_string().unwrap();
        name.starts_with("lamppost") && name.ends_with(".1.gz")
    });
    assert!(pages.count() > 25);
    for path in [
        "usr/lib/lamppost/lamppost-compat",
        "usr/share/man/man5/lamppost.toml.5.gz",
        "usr/share/bash-completion/completions/lamppost",
        "usr/share/zsh/vendor-completions/_lamppost",
        "usr/share/fish/vendor_completions.d/lamppost.fish",
        "usr/share/doc/lamppost/changelog.gz",
        "usr/share/doc/lamppost/changelog.Debian.gz",
        "usr/share/doc/lamppost/copyright",
    ] {
        assert!(debian.path(path).exists(), "{path}");
    }
    let said = debian.run(&["lamppost", "check"]);
    assert!(said.contains("/etc/lamppost/lamppost.toml can be used"), "{said}");
}

/// The unit as it comes, and with what the guide adds for those who want no root.
fn the_unit_is_right(debian: &Debian) {
    let unit = "/usr/lib/systemd/system/lamppost.service";
    // In tenths; it was 2.5 when this was written.
    is_exposed(debian, unit, 30);
    let (drop_in, socket) =
        ("etc/systemd/system/lamppost.service.d", "etc/systemd/system/lamppost.socket");
    let example = |name: &str| debian.path(&format!("usr/share/doc/lamppost/examples/{name}"));
    std::fs::create_dir(debian.path(drop_in)).unwrap();
    let added = debian.path(drop_in).join("unprivileged.conf");
    std::fs::copy(example("unprivileged.conf"), added).unwrap();
    std::fs::copy(example("lamppost.socket"), debian.path(socket)).unwrap();
    // It was 1.2.
    is_exposed(debian, unit, 20);
    let complaints = debian.run(&["systemd-analyze", "verify", "--man=no", &format!("/{socket}")]);
    assert_eq!(complaints, "");
    std::fs::remove_dir_all(debian.path(drop_in)).unwrap();
    std::fs::remove_file(debian.path(socket)).unwrap();
}

/// A unit that systemd has nothing to say against, and that is exposed no more than so.
fn is_exposed(debian: &Debian, unit: &str, tenths: u8) {
    assert_eq!(debian.run(&["systemd-analyze", "verify", "--man=no", unit]), "");
    let limit = |tenths| format!("--threshold={tenths}");
    let security = ["systemd-analyze", "security", "--offline=yes"];
    debian.run(&[&security[..], &[&limit(tenths), unit]].concat());
    let output = debian.output(&[&security[..], &[&limit(5), unit]].concat());
    assert!(!output.status.success(), "the threshold decides");
}

fn upgrade(debian: &Debian) {
    let mut text = std::fs::read_to_string(debian.path(FILE)).unwrap();
    text = text.replacen("#domains = []", "domains = [\"lamppost.test\"]", 1);
    std::fs::write(debian.path(FILE), &text).unwrap();
    debian.run(&["chmod", "0600", "/etc/lamppost/lamppost.toml"]);
    debian.run(&["lamppost", "account", "add", "you@lamppost.test", "--generate"]);

    debian.run(&["dpkg", "--install", "/root/second.deb"]);
    assert!(debian.run(&["dpkg", "--status", "lamppost"]).contains("Version: 0.0.0-1~test2\n"));
    assert_eq!(std::fs::read_to_string(debian.path(FILE)).unwrap(), text, "a changed file stays");
    assert_eq!(debian.path(FILE).metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(!debian.path("etc/lamppost/lamppost.toml.dpkg-new").exists());
    assert_eq!(debian.run(&["lamppost", "account", "list"]), "you@lamppost.test\n");
    // A second time it changes nothing.
    let before = debian.files();
    debian.run(&["dpkg", "--install", "/root/second.deb"]);
    assert_eq!(debian.files().keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    // Nothing is left to do for the command that prepares a machine without the package.
    let before = debian.files();
    assert!(!debian.run(&["lamppost", "setup"]).contains("made"));
    assert_eq!(debian.files(), before);
}

fn remove_and_purge(debian: &Debian, before: &BTreeMap<String, String>) {
    debian.run(&["dpkg", "--remove", "lamppost"]);
    assert!(!debian.path("usr/bin/lamppost").exists());
    assert!(debian.path(FILE).exists() && debian.path("var/lib/lamppost/policy/state.db").exists());
    debian.run(&["dpkg", "--purge", "lamppost"]);
    // The users stay: Debian gives no number twice.
    let mut left = differing(before, &debian.files());
    left.sort();
    assert_eq!(left, [&USERS[..], &["/var/log/dpkg.log"]].concat());
}

/// What the steps printed after a mark.
fn printed<'a>(result: &'a str, mark: &str) -> &'a str {
    let (_, rest) = result.split_once(&format!("== {mark}\n")).unwrap_or_default();
    rest.split("\n== ").next().unwrap_or_default()
}

/// What a message that is delivered once prints.
const DELIVERED: &str = "250 250 250 354 250 221 1";
const ROLES: [&str; 5] = ["control", "delivery", "front", "policy", "queue"];

/// The five processes, each as a user: without capabilities, with `no_new_privs` and seccomp's filters.
fn running(user: impl Fn(&str) -> String) -> String {
    let lines = ROLES.map(|role| format!("lamppost role {role} {} 0 1 2", user(role)));
    lines.join("\n")
}

/// Whose the folders of the state are, and the control socket.
fn folders_of_roles() -> String {
    let folders =
        [("log", "control"), ("mail", "delivery"), ("policy", "policy"), ("spool", "queue")];
    let folders = folders.map(|(folder, role)| {
        format!("\ndrwx------ lamppost-{role}:lamppost-{role} /var/lib/lamppost/{folder}")
    });
    format!("srw-rw---- root:lamppost /var/lib/lamppost/control.sock{}", folders.concat())
}

/// The supervisor is root with few capabilities, each role a user of its own that has no file of another.
fn with_root(printed: &impl Fn(&str) -> String) {
    // CHOWN, DAC_READ_SEARCH, KILL, SETGID, SETUID, SETPCAP and NET_BIND_SERVICE (capabilities(7)). Some
    // versions of systemd make them inheritable too.
    const POWER: u64 = 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10;
    let powers = ["CapPrm", "CapEff", "CapBnd"].map(|set| format!("{set}:\t{POWER:016x}\n"));
    let users = running(|role| format!("lamppost-{role}"));
    assert_eq!(
        printed("powers"),
        format!(
            "restart 0\n{}CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nroot\n{users}\n\
             → Overall exposure level for lamppost.service: 2.5 OK :-)",
            powers.concat()
        )
    );
    // And who is in the group uses the control socket, but no file.
    assert_eq!(
        printed("apart"),
        "policy policy/state.db\nqueue spool/lock\n\
         delivery mail/lamppost.test/you/Maildir/new/\ncontrol log/outcomes.jsonl\n\
         ann 78\neve 0\nThe queue is empty.\naccounts 77"
    );
}

/// One user without any capability, sockets from systemd; and the way back, which takes over what was one
/// user's.
fn without_root(printed: &impl Fn(&str) -> String) {
    let none = "0000000000000000 ".repeat(5);
    let users = running(|_| "lamppost".into());
    assert_eq!(
        printed("without root"),
        format!(
            "verify 0\nsocket 0\nstart 0\n{none}1 2 lamppost\n{users}\n\
             → Overall exposure level for lamppost.service: 1.2 OK :-)\n\
             drwx--x--- lamppost:lamppost /var/lib/lamppost\n\
             srw-rw---- lamppost:lamppost /var/lib/lamppost/control.sock\n\
             drwxr-xr-x lamppost:lamppost /run/lamppost\n\
             srw-rw-rw- lamppost:lamppost /run/lamppost/submit.sock\n\
             {DELIVERED}\neve 0\nreload 0\nrestart 0\n1\ndpkg 0\nlamppost"
        )
    );
    let users = running(|role| format!("lamppost-{role}"));
    let folders = folders_of_roles();
    assert_eq!(
        printed("with root again"),
        format!(
            "start 0\n{users}\ndrwx--x--x root:root /var/lib/lamppost\n{folders}\n\
             drwx------ root:root /var/lib/lamppost/tls\n{DELIVERED}"
        )
    );
}

fn under_systemd(debian: &Debian) {
    let steps = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/debian_steps.sh");
    let Some(result) = debian.boot(&steps) else { return };
    let printed = |mark: &str| printed(&result, mark).to_owned();
    assert_eq!(printed("installed"), "dpkg 0\nactive\nenabled");
    with_root(&printed);
    assert_eq!(printed("reload"), "good 0\nwrong 1\nactive\ntold");
    assert_eq!(printed("mail"), format!("you@lamppost.test is added;\n{DELIVERED}"));
    assert_eq!(printed("hanging"), format!("ended\n{DELIVERED}"));
    assert_eq!(
        printed("backup"),
        format!(
            "backup 0\ncheck 0\nrestore 0\nstart 0\nyou@lamppost.test\n{}\n1",
            folders_of_roles()
        )
    );
    assert_eq!(
        printed("sendmail"),
        "compat 0\ndrwxr-xr-x root /run/lamppost\nsrw-rw-rw- root /run/lamppost/submit.sock\n\
         sent 0\n1\nstopped 75\nann 75\nbob 0"
    );
    assert_eq!(printed("doctor"), "doctor 0");
    assert_eq!(
        printed("credentials"),
        "restart 0\nwithout 1\nwith 0\nreload 0\n1\nfiles 0\nback 0"
    );
    assert_eq!(
        printed("elsewhere"),
        format!(
            "restart 0\n{DELIVERED}\n\
             lamppost-delivery /home/mail/lamppost.test\nlamppost-delivery /home/mail/old"
        )
    );
    assert_eq!(
        printed("homes"),
        format!(
            "restart 0\n{DELIVERED}\ndora:dora 700\ndora:dora 600\nlamppost role user dora 0 1 2\n1"
        )
    );
    without_root(&printed);
    assert_eq!(
        printed("refused"),
        "restart 0\ndpkg 0\nrestarted\nlamppost 0.0.0 takes over.\nlamppost 0.0.0 is at work.\n\
         the same process\ntaken"
    );
    assert_eq!(printed("upgraded"), "dpkg 0\nactive\nrestarted\n# mine\nyou@lamppost.test\n6");
    assert_eq!(printed("switched off"), "dpkg 0\ninactive\ndisabled\nactive");
    assert_eq!(printed("removed"), "dpkg 0\ninactive\n/etc/lamppost/lamppost.toml\n6");
    assert_eq!(printed("back"), "dpkg 0\nactive\nyou@lamppost.test");
    assert_eq!(printed("purged"), "dpkg 0\ninactive");
    assert_eq!(printed("again"), "dpkg 0\nactive");
    assert!(result.ends_with("== end\n"));
}
