//! Connections and deliveries wait while they are paused, and nothing else does; the status can be watched.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use support::{Server, Setup, Wire, files, lamppost, signal, until};

const ACCOUNT: &str = "demo@lamppost.test";

fn status(server: &Server) -> serde_json::Value {
    serde_json::from_str(&server.must(&["status", "--json"])).unwrap()
}

/// Nothing while the roles begin.
fn pid_of(server: &Server, name: &str) -> Option<u64> {
    let output = server.command(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let roles = status["host"]["roles"].as_array().unwrap().clone();
    roles.iter().find(|role| role["name"] == name && role["answers"] == true)?["pid"].as_u64()
}

#[test]
fn connections_wait_while_the_front_is_paused() {
    let server = Server::start(&Setup::default());
    let mut open = Wire::greeted(server.mx);
    assert!(server.must(&["pause", "front"]).contains("connections wait"));
    let mut waiting = Wire::connect(server.mx);
    assert!(open.deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    assert!(server.must(&["status"]).contains("paused    front"));
    // Neither a new front nor one that was killed takes them.
    let text = std::fs::read_to_string(server.config()).unwrap();
    let text = text.replace("[mail.limits]\n", "[mail.limits]\nerrors-max = 7\n");
    std::fs::write(server.config(), text).unwrap();
    server.must(&["reload"]);
    drop(open);
    let before = pid_of(&server, "queue").unwrap();
    signal(u32::try_from(before).unwrap(), "KILL");
    assert!(until(|| pid_of(&server, "queue").is_some_and(|pid| pid != before)));
    assert_eq!(status(&server)["host"]["sessions"], 0);
    assert_eq!(status(&server)["host"]["paused"], serde_json::json!(["front"]));
    server.must(&["resume", "front"]);
    assert!(waiting.reply().starts_with("220"));
    assert!(!server.must(&["status"]).contains("paused"));
}

/// It was right when the program began, and is read again by nobody who only looks at it or has it wait.
#[test]
fn a_file_made_wrong_keeps_nobody_from_the_running_program() {
    let server = Server::start(&Setup::default());
    std::fs::write(server.config(), "[mail]\ndomain = 1\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let export = ["queue", "export", folder.path().to_str().unwrap()];
    for arguments in
        [&["status"][..], &["queue"], &export, &["pause", "front"], &["resume", "front"]]
    {
        let output = server.command(arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {told}");
        assert!(told.contains("is wrong (`lamppost check` tells all of it)"), "{told}");
    }
    let unknown = server.command(&["log", "nothing"]);
    assert_eq!(unknown.status.code(), Some(65));
}

#[test]
fn mail_waits_in_the_queue_while_deliveries_are_paused() {
    let server = Server::start(&Setup::default());
    server.must(&["pause", "delivery"]);
    let mut wire = Wire::greeted(server.mx);
    for _ in 0..3 {
        assert!(wire.deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    }
    let queue = status(&server)["queue"].clone();
    assert_eq!((&queue["messages"], &queue["waiting"]), (&3.into(), &3.into()), "{queue}");
    assert!(files(&server.maildir(ACCOUNT).join("new")).is_empty());
    server.must(&["resume", "delivery"]);
    server.delivered(ACCOUNT, 3);
}

/// Whoever had deliveries wait, since something is wrong with a disk, does not want them to go on after a boot.
#[test]
fn a_pause_outlasts_upgrades_and_restarts() {
    let mut server = Server::start(&Setup::default());
    server.must(&["pause", "delivery"]);
    let mut wire = Wire::greeted(server.mx);
    assert!(wire.deliver(ACCOUNT, "Subject: x\r\n\r\nx").starts_with("250"));
    drop(wire);
    let is_paused = |server: &Server| {
        assert_eq!(status(server)["host"]["paused"], serde_json::json!(["delivery"]));
        assert!(server.must(&["status"]).contains("an administrator has paused a part"));
        assert_eq!(status(server)["queue"]["waiting"], 1);
        assert!(files(&server.maildir(ACCOUNT).join("new")).is_empty());
    };
    is_paused(&server);
    server.must(&["upgrade"]);
    is_paused(&server);
    assert_eq!(server.stop(), Some(0));
    server.launch();
    is_paused(&server);
    assert!(server.log().contains("a part is paused since before the start"));
    server.must(&["resume", "delivery"]);
    server.delivered(ACCOUNT, 1);
    assert_eq!(server.stop(), Some(0));
    server.launch();
    assert_eq!(status(&server)["host"]["paused"], serde_json::json!([]));
}

#[test]
fn the_status_is_shown_again_and_again() {
    let server = Server::start(&Setup::default());
    let watch = |arguments: &[&str]| {
        let mut command = lamppost();
        command.args(["--state".as_ref(), server.state().as_os_str()]).args(arguments);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut child = watch(&["status", "--watch", "1", "--json"]);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.take(2) {
        let status: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(status["host"]["pid"], server.pid());
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut child = watch(&["status", "--watch", "1"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let rates = lines.find_map(|line| line.unwrap().strip_prefix("a second  ").map(str::to_owned));
    assert!(rates.unwrap().contains("0.0 messages accepted"));
    child.kill().unwrap();
    child.wait().unwrap();
}
