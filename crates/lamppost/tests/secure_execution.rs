//! A program of ours that somebody made setuid, setgid or gave capabilities refuses to run.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::mounted::skipped;

/// The user who calls (nobody on Debian), and the one whose rights the file would give.
const CALLER: u32 = 65_534;
const OTHER: u32 = 1;

/// Copies of all our programs in a folder where everybody may call them.
fn copies(folder: &Path) -> [PathBuf; 2] {
    std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    [env!("CARGO_BIN_EXE_lamppost"), env!("CARGO_BIN_EXE_lamppost-compat")].map(|program| {
        let copy = folder.join(Path::new(program).file_name().unwrap());
        std::fs::copy(program, &copy).unwrap();
        std::fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
        copy
    })
}

/// What a copy says to an ordinary user. Whatever it is asked: the refusal comes first.
fn call(copy: &Path) -> Output {
    let (uid, gid) = (CALLER.to_string(), CALLER.to_string());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "--"]).arg(copy);
    command.args(["newaliases", "--version"]).output().unwrap()
}

#[track_caller]
fn refuses(copy: &Path) {
    let output = call(copy);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{}: {complaint}", copy.display());
    assert!(complaint.contains("setuid, setgid or file capabilities"), "{complaint}");
    assert!(complaint.contains("chmod u-s,g-s"), "{complaint}");
    assert!(output.stdout.is_empty());
}

#[track_caller]
fn runs(copy: &Path) {
    assert_ne!(call(copy).status.code(), Some(77), "{}", copy.display());
}

#[test]
fn rights_of_others_are_refused() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can make a program setuid to somebody else");
    }
    let folder = tempfile::tempdir().unwrap();
    for copy in copies(folder.path()) {
        runs(&copy);
        for (mode, owner) in [(0o4755, OTHER), (0o4755, 0), (0o2755, OTHER)] {
            chown(&copy, Some(owner), Some(owner)).unwrap();
            std::fs::set_permissions(&copy, Permissions::from_mode(mode)).unwrap();
            if !is_honoured(folder.path()) {
                return skipped("the folder of temporary files is mounted nosuid");
            }
            refuses(&copy);
        }
        // The marks alone do nothing where they give nobody anything.
        std::fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
        runs(&copy);
        match Command::new("/usr/sbin/setcap").arg("cap_net_bind_service=ep").arg(&copy).status() {
            Ok(status) if status.success() => refuses(&copy),
            _ => skipped("file capabilities cannot be set here"),
        }
    }
}

/// What a unit of systemd gives (`AmbientCapabilities=`) the program's caller has too.
#[test]
fn rights_that_the_caller_has_are_no_reason_to_refuse() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can hand on capabilities");
    }
    let folder = tempfile::tempdir().unwrap();
    let [copy, _] = copies(folder.path());
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .args(["--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service", "--"])
        .args([copy.to_str().unwrap(), "--version"])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    if complaint.contains("setpriv") {
        return skipped("capabilities cannot be handed on here");
    }
    assert_eq!(output.status.code(), Some(0), "{complaint}");
    // A user who calls as somebody else, as a setuid program does, is not that somebody.
    let mut command = Command::new("setpriv");
    command.args(["--ruid", "65534", "--euid", "0", "--clear-groups", "--"]).arg(&copy);
    assert_eq!(command.arg("--version").output().unwrap().status.code(), Some(77));
}

/// Whether setuid does anything in a folder.
fn is_honoured(folder: &Path) -> bool {
    let flags = rustix::fs::statvfs(folder).unwrap().f_flag;
    !flags.contains(rustix::fs::StatVfsMountFlags::NOSUID)
}
