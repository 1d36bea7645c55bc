//! A backup of the running program, restored on a second one.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use support::mounted::{Kind, Mounted};
use support::{Server, Setup, Wire, files, free_addresses, lamppost, succeeded, until};

/// Mail for elsewhere waits, and who is not known must come back.
fn setup() -> Setup {
    let [nobody] = free_addresses();
    Setup {
        mail: format!("relay-to = \"{nobody}\"\n"),
        greylist: "delay = \"1s\"",
        queue: "segment-size = \"1MiB\"\nbody-aside-from = \"64KiB\"",
        accounts: &["demo@lamppost.test", "other@lamppost.test"],
        ..Setup::default()
    }
}

/// Imports a message of this size for elsewhere; returns its id.
fn import(server: &Server, size: usize) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("one.eml");
    let line = "a line of a message that waits\n";
    std::fs::write(&file, format!("Subject: {size}\n\n{}", line.repeat(size / line.len())))
        .unwrap();
    let arguments = ["queue", "import", "--json", "--from", "a@one.test", "--to", "x@far.test"];
    let told = server.must(&[&arguments[..], &[file.to_str().unwrap()]].concat());
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    told[0]["id"].as_str().unwrap().to_owned()
}

/// Hands in a message by SMTP; whether it was taken.
fn deliver(server: &Server) -> bool {
    let mut wire = Wire::greeted(server.mx);
    assert!(wire.ask("MAIL FROM:<sender@elsewhere.test>\r\n").starts_with("250"));
    if !wire.ask("RCPT TO:<demo@lamppost.test>\r\n").starts_with("250") {
        return false;
    }
    assert!(wire.ask("DATA\r\n").starts_with("354"));
    wire.ask("Subject: load\r\n\r\nload\r\n.\r\n").starts_with("250")
}

fn listed(server: &Server) -> Vec<serde_json::Value> {
    serde_json::from_str(&server.must(&["queue", "list", "--json"])).unwrap()
}

/// A message without what changes while it waits.
fn lasting(server: &Server, id: &str) -> serde_json::Value {
    let mut shown: serde_json::Value =
        serde_json::from_str(&server.must(&["queue", "show", id, "--json"])).unwrap();
    shown["held"] = false.into();
    for recipient in shown["recipients"].as_array_mut().unwrap() {
        for name in ["due", "attempts", "last", "state"] {
            recipient[name] = serde_json::Value::Null;
        }
    }
    shown
}

fn cat(server: &Server, id: &str) -> Vec<u8> {
    server.command(&["queue", "cat", id]).stdout
}

/// The code that a command ended with, and what it complained.
fn complained(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    format!("{}: {complaint}", output.status.code().unwrap())
}

/// A server that is not started, with an empty state, and a folder for backups.
fn second() -> Server {
    Server::prepare(&setup(), None)
}

fn path(folder: &tempfile::TempDir, name: &str) -> (PathBuf, String) {
    let path = folder.path().join(name);
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

/// What lies beside the state and in it.
fn around(server: &Server) -> (Vec<PathBuf>, Vec<PathBuf>) {
    (files(server.state().parent().unwrap()), files(&server.state()))
}

#[test]
fn a_backup_under_load_is_restored_on_a_second_instance() {
    let server = Server::start(&setup());
    let ids = [1000, 30_000, 200_000, 5000].map(|size| import(&server, size));
    server.must(&["queue", "hold", &ids[3]]);
    // Known to the greylist once it came back.
    assert!(until(|| deliver(&server)));
    let folder = tempfile::tempdir().unwrap();
    let (is_over, taken) = (AtomicBool::new(false), AtomicU32::new(0));
    let backups: Vec<_> = (0..4).map(|at| path(&folder, &format!("{at}.backup"))).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert!(deliver(&server), "mail is refused during a backup");
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for (backup, text) in &backups {
            let before = taken.load(Ordering::Relaxed);
            let told = server.must(&["backup", text]);
            assert!(told.contains("is written.") && told.contains("no Maildirs"), "{told}");
            assert!(until(|| taken.load(Ordering::Relaxed) > before + 5));
            assert_eq!(backup.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            assert!(server.must(&["backup", "--check", text]).contains("is whole."));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(files(folder.path()).len(), backups.len(), "{:?}", files(folder.path()));
    for (_, text) in &backups {
        let mut second = second();
        // As people write it who let the shell complete a name.
        let state = format!("{}/", second.state().display());
        let restore = lamppost().args(["restore", text, "--state", &state]).output().unwrap();
        let told = succeeded(&restore);
        assert!(told.contains("held, since the original may have delivered"), "{told}");
        // What is to be done next is about the same state.
        assert!(told.contains(&format!("  `lamppost run --state {state}`\n")), "{told}");
        let config = std::fs::read(second.state().join("restored.toml")).unwrap();
        assert_eq!(config, std::fs::read(server.config()).unwrap());
        for name in ["ca.pem", "key.pem"] {
            let read =
                |server: &Server| std::fs::read(server.state().join("tls").join(name)).unwrap();
            assert_eq!(read(&second), read(&server), "{name}");
        }
        assert!(second.must(&["queue", "check"]).contains("The spool is sound."));
        second.launch();
        assert_eq!(second.must(&["account", "list"]), server.must(&["account", "list"]));
        let messages = listed(&second);
        assert!(messages.iter().all(|message| message["held"] == true), "{messages:?}");
        for id in &ids {
            assert_eq!(lasting(&second, id), lasting(&server, id));
            assert_eq!(cat(&second, id), cat(&server, id));
        }
        // Whom the first one knows, the second knows.
        assert!(deliver(&second));
        assert!(second.must(&["log", &ids[0]]).contains("message imported"));
        second.must(&["queue", "release", "--all"]);
        second.await_local_deliveries();
    }
}

#[test]
fn a_killed_backup_leaves_no_file_and_the_server_goes_on() {
    let server = Server::start(&setup());
    let ids: Vec<_> = (0..8).map(|at| import(&server, 6_000_000 + 100 * at)).collect();
    let folder = tempfile::tempdir().unwrap();
    let (file, text) = path(&folder, "killed.backup");
    let partial = folder.path().join(".killed.backup.partial");
    let cut_off = (0..50).any(|_| {
        let mut child = lamppost()
            .args(["--config".as_ref(), server.config().as_os_str()])
            .args(["--state".as_ref(), server.state().as_os_str()])
            .args(["backup", &text])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begun =
            || partial.metadata().is_ok_and(|partial| partial.len() > 3_000_000) || file.exists();
        assert!(until(begun));
        child.kill().unwrap();
        child.wait().unwrap();
        let is_cut = !file.exists();
        drop(std::fs::remove_file(&file));
        is_cut
    });
    assert!(cut_off, "no backup was caught in the middle");
    assert!(until(|| deliver(&server)));
    assert!(!server.is_unwell());
    server.must(&["backup", &text]);
    assert_eq!(files(folder.path()), [file]);
    // One that goes through a pipe, to nobody: the queue lets its files go.
    let mut child = lamppost()
        .args(["--config".as_ref(), server.config().as_os_str()])
        .args(["--state".as_ref(), server.state().as_os_str()])
        .args(["backup", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut pipe, mut seen) = (child.stdout.take().unwrap(), Vec::new());
    while !seen.windows(12).any(|at| at == b"spool/bodies") {
        let mut piece = [0; 4096];
        let count = pipe.read(&mut piece).unwrap();
        assert!(count > 0);
        seen.drain(..seen.len().saturating_sub(12));
        seen.extend_from_slice(&piece[..count]);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let bodies = server.state().join("spool/bodies");
    assert_eq!(files(&bodies).len(), ids.len());
    server.must(&["queue", "delete", "--all", "--yes"]);
    assert!(until(|| files(&bodies).is_empty()));
}

#[test]
fn a_backup_that_is_not_whole_is_refused_and_nothing_changes() {
    let server = Server::start(&setup());
    import(&server, 1000);
    let folder = tempfile::tempdir().unwrap();
    let (file, text) = path(&folder, "good.backup");
    server.must(&["backup", &text]);
    let again = complained(&server.command(&["backup", &text]));
    assert!(again.starts_with("65: ") && again.contains("is there already"), "{again}");
    let whole = std::fs::read(&file).unwrap();
    let second = second();
    let before = around(&second);
    let (bad, bad_text) = path(&folder, "bad.backup");
    let refuse = |bytes: &[u8], why: &str| {
        std::fs::write(&bad, bytes).unwrap();
        for command in ["restore", "backup --check"] {
            let words: Vec<_> = command.split(' ').chain([&*bad_text]).collect();
            let told = complained(&second.command(&words));
            assert!(told.starts_with("65: ") && told.contains(why), "{command}, {why}: {told}");
        }
        assert_eq!(around(&second), before);
    };
    for at in [0, 100, whole.len() / 3, whole.len() / 2, whole.len() - 1500, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        let is_begin = at < 512;
        refuse(&flipped, if is_begin { "no backup of lamppost" } else { "it is damaged" });
    }
    for length in [600, whole.len() / 2, whole.len() - 1] {
        refuse(&whole[..length], "it is cut off");
    }
    refuse(b"", "no backup of lamppost");
    let mut newer = whole.clone();
    let at = newer.windows(16).position(|at| at == b"lamppost backup ").unwrap();
    newer[at + 16] = b'7';
    refuse(&newer, "use a newer version");
    let told = complained(&second.command(&["restore", "/nonexistent"]));
    assert!(told.starts_with("74: "), "{told}");
}

#[test]
fn a_state_that_is_there_is_put_aside_only_when_told_to() {
    let mut server = Server::start(&setup());
    let id = import(&server, 200_000);
    assert!(until(|| deliver(&server)));
    server.delivered("demo@lamppost.test", 1);
    let folder = tempfile::tempdir().unwrap();
    let (_, text) = path(&folder, "one.backup");
    server.must(&["backup", &text]);
    let running = complained(&server.command(&["restore", &text, "--force"]));
    assert!(running.starts_with("69: ") && running.contains("is running"), "{running}");
    server.kill();
    let before = around(&server);
    let told = complained(&server.command(&["restore", &text]));
    assert!(told.starts_with("65: ") && told.contains("--force"), "{told}");
    assert_eq!(around(&server), before);
    // Of a program that does not run, it is made too; and it is the same queue.
    let (_, offline) = path(&folder, "two.backup");
    server.must(&["backup", &offline]);
    let told = server.must(&["restore", &offline, "--force", "--go-on"]);
    assert!(told.contains("aside     what was there is in") && !told.contains("held"), "{told}");
    let aside: Vec<_> = files(server.state().parent().unwrap())
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("state.before-"))
        .collect();
    assert_eq!(aside.len(), 1);
    assert!(aside[0].join("spool/log").exists() && !aside[0].join("mail").exists());
    server.launch();
    server.delivered("demo@lamppost.test", 1);
    let messages = listed(&server);
    assert_eq!(messages.len(), 1);
    assert_eq!((&messages[0]["id"], &messages[0]["held"]), (&id.into(), &false.into()));
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let Some(disk) = Mounted::new(Kind::Tmpfs(2)) else { return };
    let server = Server::start(&setup());
    import(&server, 5_000_000);
    let file = disk.point().join("full.backup");
    let told = complained(&server.command(&["backup", file.to_str().unwrap()]));
    assert!(told.starts_with("74: ") && told.contains("No space left"), "{told}");
    assert_eq!(files(&disk.point()), Vec::<PathBuf>::new());
    // And a restore that finds no room leaves the place as it was.
    let folder = tempfile::tempdir().unwrap();
    let (_, text) = path(&folder, "good.backup");
    server.must(&["backup", &text]);
    let state = disk.point().join("state");
    let output = lamppost()
        .args(["--config".as_ref(), server.config().as_os_str(), "--state".as_ref()])
        .args([state.as_os_str(), "restore".as_ref(), text.as_ref()])
        .output()
        .unwrap();
    let told = complained(&output);
    assert!(told.starts_with("74: ") && told.contains("No space left"), "{told}");
    assert_eq!(files(&disk.point()), Vec::<PathBuf>::new());
}
