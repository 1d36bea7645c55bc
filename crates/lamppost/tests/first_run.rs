//! What a newcomer sees: `lamppost run` without a file, without root, without set-up.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use support::{Wire, succeeded, until};

/// The demo's ports are fixed, so all of it is one test.
#[test]
fn the_demo_runs_as_the_readme_says() {
    let state = tempfile::tempdir().unwrap();
    let lamppost = |arguments: &[&str]| {
        let mut command = support::lamppost();
        command.env_remove("LAMPPOST_CONFIG").arg("--state").arg(state.path()).args(arguments);
        command
    };
    let folder = tempfile::tempdir().unwrap();
    let complaints = folder.path().join("log");
    let said = std::fs::File::create(&complaints).unwrap();
    let mut child = lamppost(&["run"]).stdout(Stdio::piped()).stderr(said).spawn().unwrap();
    let mut banner = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let ready = line.contains("ready");
        banner.push_str(&line);
        banner.push('\n');
        if ready {
            break;
        }
    }
    for expected in [
        "127.0.0.1:2525",
        "127.0.0.1:2587",
        "127.0.0.1:2465",
        "demo@lamppost.test",
        "curl -sS smtp://",
        "swaks ",
        "ca.pem",
        state.path().to_str().unwrap(),
    ] {
        assert!(banner.contains(expected), "no {expected} in:\n{banner}");
    }
    let pasted = banner.lines().find(|line| line.contains("curl -sS smtp://")).unwrap().trim();
    let send = || Command::new("sh").args(["-c", pasted]).output().unwrap();
    let first = send();
    assert!(!first.status.success());
    assert!(until(|| send().status.success()));
    let new = state.path().join("mail/lamppost.test/demo/Maildir/new");
    assert!(until(|| support::files(&new).len() == 1));
    assert!(succeeded(&lamppost(&["status"]).output().unwrap()).contains("127.0.0.1:2525"));
    succeeded(&lamppost(&["queue"]).output().unwrap());
    let name = support::files(&new)[0].file_name().unwrap().to_str().unwrap().to_owned();
    let id = name.split(['.', '-']).nth(1).unwrap().to_owned();
    let log = succeeded(&lamppost(&["log", &id]).output().unwrap());
    assert!(log.contains("message accepted") && log.contains("message delivered"), "{log}");
    assert!(Wire::connect("127.0.0.1:2525".parse().unwrap()).reply().starts_with("220 "));
    // There is nothing to read again, which is no fault of anybody.
    let reload = lamppost(&["reload"]).output().unwrap();
    let told = String::from_utf8(reload.stderr).unwrap();
    assert!(told.contains("no file to read again") && told.contains("`lamppost init "), "{told}");
    let said = std::fs::read_to_string(&complaints).unwrap();
    assert!(said.contains("INFO there is no file to read again"), "{said}");
    assert!(!said.contains("ERROR"), "{said}");
    let listed = lamppost(&["account", "list"]).output().unwrap();
    let told = String::from_utf8(listed.stderr).unwrap();
    assert!(told.contains("so this is about the built-in demo; --config FILE names"), "{told}");
    support::signal(child.id(), "TERM");
    assert!(child.wait().unwrap().success());
}
