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

    let uid = debian.uid("lamppost");
    let file = debian.path(FILE).metadata().unwrap();
    assert_eq!((file.permissions().mode() & 0o7777, file.uid()), (0o640, 0));
    assert_eq!(file.gid(), debian.path("var/lib/lamppost").metadata().unwrap().gid());
    let state = debian.path("var/lib/lamppost").metadata().unwrap();
    assert_eq!((state.permissions().mode() & 0o7777, state.uid()), (0o700, uid));

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

fn the_unit_is_right(debian: &Debian) {
    let complaints = debian.run(&[
        "systemd-analyze",
        "verify",
        "--man=no",
        "/lib/systemd/system/lamppost.service",
    ]);
    assert_eq!(complaints, "");
    // Exposure of 2.0 at most; it was 1.4 when this was written.
    let unit = "/usr/lib/systemd/system/lamppost.service";
    debian.run(&["systemd-analyze", "security", "--offline=yes", "--threshold=20", unit]);
    let output =
        debian.output(&["systemd-analyze", "security", "--offline=yes", "--threshold=5", unit]);
    assert!(!output.status.success(), "the threshold decides");
}

fn upgrade(debian: &Debian) {
    let mut text = std::fs::read_to_string(debian.path(FILE)).unwrap();
    text = text.replace("#domains = []", "domains = [\"lamppost.test\"]");
    std::fs::write(debian.path(FILE), &text).unwrap();
    debian.run(&["chmod", "0600", "/etc/lamppost/lamppost.toml"]);
    debian.run(&["lamppost", "account", "add", "you@lamppost.test", "--generate"]);
    let uid = debian.uid("lamppost");
    for made in std::fs::read_dir(debian.path("var/lib/lamppost")).unwrap() {
        let made = made.unwrap();
        assert_eq!(made.metadata().unwrap().uid(), uid, "{made:?} is not the service's");
    }

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
}

fn remove_and_purge(debian: &Debian, before: &BTreeMap<String, String>) {
    debian.run(&["dpkg", "--remove", "lamppost"]);
    assert!(!debian.path("usr/bin/lamppost").exists());
    assert!(debian.path(FILE).exists() && debian.path("var/lib/lamppost/policy/state.db").exists());
    debian.run(&["dpkg", "--purge", "lamppost"]);
    // The user stays: Debian gives no number twice.
    let mut left = differing(before, &debian.files());
    left.sort();
    assert_eq!(left, [&USERS[..], &["/var/log/dpkg.log"]].concat());
}

/// What the steps printed after a mark.
fn printed<'a>(result: &'a str, mark: &str) -> &'a str {
    let (_, rest) = result.split_once(&format!("== {mark}\n")).unwrap_or_default();
    rest.split("\n== ").next().unwrap_or_default()
}

fn under_systemd(debian: &Debian) {
    let steps = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/debian_steps.sh");
    let Some(result) = debian.boot(&steps) else { return };
    let printed = |mark| printed(&result, mark);
    assert_eq!(printed("installed"), "dpkg 0\nactive\nenabled");
    // Capability 10 is CAP_NET_BIND_SERVICE, which the supervisor keeps to itself: its roles are given none.
    let powers = ["CapInh", "CapPrm", "CapEff", "CapBnd"]
        .map(|set| format!("{set}:\t0000000000000400\n"))
        .concat();
    let powers = format!("{powers}CapAmb:\t0000000000000000\n");
    let exposure = "→ Overall exposure level for lamppost.service: 1.4 OK :-)";
    assert_eq!(
        printed("powers"),
        format!("restart 0\n{powers}NoNewPrivs:\t1\nSeccomp:\t2\nlamppost\n{exposure}")
    );
    assert_eq!(printed("reload"), "good 0\nwrong 1\nactive\ntold");
    assert_eq!(printed("mail"), "you@lamppost.test is added;\n250\n250\n250\n354\n250\n221\n1");
    assert_eq!(
        printed("sendmail"),
        "compat 0\ndrwxr-xr-x lamppost /run/lamppost\nsrw-rw-rw- lamppost /run/lamppost/submit.sock\n\
         sent 0\n1\nstopped 75\nann 75\nbob 0"
    );
    assert_eq!(printed("doctor"), "doctor 0");
    assert_eq!(printed("credentials"), "restart 0\nwithout 1\nwith 0\nreload 0\n1\nback 0");
    assert_eq!(
        printed("refused"),
        "restart 0\ndpkg 0\nrestarted\nlamppost 0.0.0 takes over.\nlamppost 0.0.0 is at work.\n\
         the same process\ntaken"
    );
    assert_eq!(printed("upgraded"), "dpkg 0\nactive\nrestarted\n# mine\nyou@lamppost.test\n3");
    assert_eq!(printed("switched off"), "dpkg 0\ninactive\ndisabled\nactive");
    assert_eq!(printed("removed"), "dpkg 0\ninactive\n/etc/lamppost/lamppost.toml\n3");
    assert_eq!(printed("back"), "dpkg 0\nactive\nyou@lamppost.test");
    assert_eq!(printed("purged"), "dpkg 0\ninactive");
    assert_eq!(printed("again"), "dpkg 0\nactive");
    assert!(result.ends_with("== end\n"));
}
