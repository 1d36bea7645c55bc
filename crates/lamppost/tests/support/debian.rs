//! A small Debian for a test, in which packages come and go; `cargo xtask setup` makes the first of each
//! release and each test has a copy.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::mounted::skipped;

/// What is at a path: its kind and mode, its owner and group, and for files the size and the time.
type Facts = String;

/// A Debian in a folder. It is gone when it is dropped.
pub(crate) struct Debian {
    folder: TempDir,
}

impl Debian {
    /// A fresh copy of a release, such as `debian12`; tells why when this machine gives none.
    pub(crate) fn new(release: &str) -> Option<Self> {
        let first = checkout().join("target/peers").join(release);
        if !rustix::process::geteuid().is_root() {
            skipped(&format!("only root can install a package in a {release} made for it"));
            return None;
        }
        if !first.exists() {
            skipped(&format!(
                "no {release} to install in: `cargo xtask setup` makes it from a mirror"
            ));
            return None;
        }
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let debian = Self { folder };
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto"]).arg(first).arg(debian.root());
        assert!(copy.status().unwrap().success());
        Some(debian)
    }

    /// The folder that is its root.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("debian")
    }

    /// A file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name.trim_start_matches('/'))
    }

    /// Runs a command in it, whatever comes of it.
    pub(crate) fn output(&self, command: &[&str]) -> Output {
        let mut inside = Command::new("chroot");
        inside.arg(self.root()).args(command).env_clear();
        inside.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        inside.env("DEBIAN_FRONTEND", "noninteractive").output().unwrap()
    }

    /// Runs a command in it that must succeed; gives all that it printed.
    pub(crate) fn run(&self, command: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.output(command);
        let text = [stdout, stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(status.success(), "{command:?}: {status}\n{text}");
        text
    }

    /// Every path in it with its facts.
    pub(crate) fn files(&self) -> BTreeMap<String, Facts> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.root()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let what = path.symlink_metadata().unwrap();
                let owner = format!("{:o} {}:{}", what.mode(), what.uid(), what.gid());
                let facts = if what.is_dir() {
                    folders.push(path.clone());
                    owner
                } else {
                    format!("{owner} {} {}.{}", what.size(), what.mtime(), what.mtime_nsec())
                };
                let name = path.strip_prefix(self.root()).unwrap();
                files.insert(format!("/{}", name.display()), facts);
            }
        }
        files
    }

    /// The number of a user.
    pub(crate) fn uid(&self, user: &str) -> u32 {
        let users = std::fs::read_to_string(self.path("etc/passwd")).unwrap();
        let line = users.lines().find(|line| line.starts_with(&format!("{user}:"))).unwrap();
        line.split(':').nth(2).unwrap().parse().unwrap()
    }

    /// Boots it with systemd and lets it do the steps of a script, after which it is switched off; gives
    /// what the script printed. Nothing where this machine boots no container.
    pub(crate) fn boot(&self, steps: &Path) -> Option<String> {
        let unit = "[Unit]\nAfter=multi-user.target\n\
                    SuccessAction=poweroff-force\nFailureAction=poweroff-force\n\
                    [Service]\nType=oneshot\nExecStart=/bin/bash /root/steps\n\
                    StandardOutput=file:/root/result\nStandardError=inherit\n";
        std::fs::copy(steps, self.path("root/steps")).unwrap();
        std::fs::write(self.path("etc/systemd/system/steps.service"), unit).unwrap();
        let wants = self.path("etc/systemd/system/default.target.wants");
        std::fs::create_dir_all(&wants).unwrap();
        std::os::unix::fs::symlink("../steps.service", wants.join("steps.service")).unwrap();
        let mut boot = Command::new("timeout");
        boot.args(["--kill-after=5", "180", "systemd-nspawn", "--quiet", "--boot", "--keep-unit"]);
        boot.args(["--register=no", "--private-network", "--resolv-conf=off", "--timezone=off"]);
        boot.args(["--link-journal=no", "--directory"]).arg(self.root());
        let output = boot.stdin(std::process::Stdio::null()).output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told).into_owned();
        if !told.contains("Welcome to") {
            skipped(&format!("no container can be booted here: {}", told.trim()));
            return None;
        }
        let result = std::fs::read_to_string(self.path("root/result"));
        assert!(result.is_ok(), "{told}");
        let result = result.unwrap();
        println!("{result}");
        Some(result)
    }
}

/// Makes a package of the program under test.
pub(crate) fn package(version: &str, folder: &Path) -> PathBuf {
    let mut dist = Command::new(env!("CARGO"));
    dist.args(["run", "--quiet", "--package", "xtask", "--", "dist", "--fast"]);
    dist.args(["--binary", env!("CARGO_BIN_EXE_lamppost"), "--deb-version", version]);
    let output = dist.arg("--output").arg(folder).current_dir(checkout()).output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&told));
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut packages = entries.filter(|path| path.to_string_lossy().contains(version));
    packages.next().expect("a package with that version")
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
