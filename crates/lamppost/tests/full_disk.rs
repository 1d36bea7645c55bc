//! A disk that is full, read-only or broken: nothing is acknowledged that is not kept, the program
//! says what is the matter, and goes on by itself when it can.
//!
//! A file system cannot be made read-only by a remount while the queue has a file open for writing:
//! the kernel refuses. What a running queue meets is a journal that was aborted, as after an error of
//! the device; that is what is tried here. Single failed writes and syncs are tried on the queue's
//! simulated disk.
#![allow(
    clippy::unwrap_used,
    clippy::allow_attributes,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

mod support;

use std::collections::BTreeSet;

use lamppost_load::{Load, Running};
use support::kills::ACCOUNTS;
use support::mounted::{Kind, Mounted};
use support::reader::Reader;
use support::{Server, Setup, Wire, accounting, until};

const MIB: u64 = 1024 * 1024;
/// Space is kept free, and mail refused before the disk is full.
const RESERVED: &str = "retry-first = \"1s\"\nsegment-size = \"1MiB\"\nfree-space-min = \"4MiB\"";
/// Nothing is kept free, so that writes fail.
const UNRESERVED: &str = "retry-first = \"1s\"\nsegment-size = \"1MiB\"\nfree-space-min = \"1KiB\"";

fn setup(queue: &'static str) -> Setup {
    Setup { accounts: &ACCOUNTS, queue, ..Setup::default() }
}

fn load(server: &Server) -> Running {
    let mut load = Load::new(server.mx, &ACCOUNTS);
    load.sessions = 4;
    load.sizes = vec![1000, 4096, 20_000, 300_000];
    load.recipients_per_message = 1..=2;
    load.reconnect = true;
    load.start().unwrap()
}

/// What a client is told now.
fn told(server: &Server) -> String {
    let mut wire = Wire::greeted(server.mx);
    for command in [
        "MAIL FROM:<x@elsewhere.test>\r\n",
        "RCPT TO:<demo@lamppost.test>\r\n",
        "DATA\r\n",
        "Subject: probe\r\n\r\nprobe\r\n.\r\n",
    ] {
        let reply = wire.ask(command);
        if !reply.starts_with('2') && !reply.starts_with('3') {
            return reply;
        }
    }
    "250".to_owned()
}

/// A load that meets refusals.
struct Trouble {
    server: Server,
    running: Running,
    /// What clients may be told.
    codes: &'static [u16],
    /// Whether what was refused may come nevertheless.
    is_dead: bool,
}

impl Trouble {
    /// Waits for refusals, ends the load, lets the server go on by `mend`, and accounts for what was
    /// acknowledged.
    fn passes(self, mend: impl FnOnce(&mut Server)) {
        let Self { mut server, running, codes, is_dead } = self;
        assert!(until(|| running.refused() >= 20), "nothing is refused");
        assert!(until(|| server.is_unwell()), "status says nothing of the disk");
        let has = |figure: &str| until(|| server.metrics_text().contains(figure));
        assert!(has("lamppost_spool_fault 1\n") && has("lamppost_messages_refused_total{reason="));
        running.stop();
        let mut report = running.finish();
        let told_codes: BTreeSet<_> = report.refused().collect();
        assert!(told_codes.iter().all(|code| codes.contains(code)), "{told_codes:?}");
        let reply = told(&server);
        // The queue may have made room by itself meanwhile.
        assert!(reply.starts_with("45") || (!is_dead && reply == "250"), "{reply}");
        println!(
            "{} acknowledged, {} refused with {told_codes:?}, at last with {}",
            report.acknowledged().count(),
            report.refused().count(),
            reply.trim_end(),
        );
        mend(&mut server);
        let mut reply = String::new();
        let goes_on = until(|| {
            reply = told(&server);
            reply == "250"
        });
        assert!(goes_on, "mail is still refused: {reply}");
        server.await_empty_queue();
        assert!(until(|| !server.is_unwell()), "the disk is still said to be bad");
        let is_well = || server.metrics_text().contains("lamppost_spool_fault 0\n");
        assert!(until(is_well), "{}", server.metrics_text());
        let mut notes = Reader::start(&server, &ACCOUNTS, 1).finish();
        // The probes are not of the load.
        notes.problems.retain(|problem| !problem.contains("no token"));
        if is_dead {
            accounting::forgive_refusals(&mut report);
        }
        let mut problems = accounting::problems(std::slice::from_ref(&report), &notes.arrivals);
        problems.extend(notes.problems);
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }
}

#[test]
fn a_disk_that_fills_up_is_full_in_time() {
    let Some(disk) = Mounted::new(Kind::Tmpfs(32)) else { return };
    let filler = disk.fill(16 * MIB);
    let server = Server::start_in(&setup(RESERVED), &disk.point().join("state"));
    let running = load(&server);
    let trouble = Trouble { server, running, codes: &[452], is_dead: false };
    trouble.passes(|_| std::fs::remove_file(filler).unwrap());
}

#[test]
fn a_disk_that_somebody_else_fills_loses_nothing() {
    let Some(disk) = Mounted::new(Kind::Tmpfs(32)) else { return };
    let server = Server::start_in(&setup(UNRESERVED), &disk.point().join("state"));
    let running = load(&server);
    assert!(until(|| running.acknowledged() >= 20));
    let filler = disk.fill(u64::MAX);
    let trouble = Trouble { server, running, codes: &[451, 452], is_dead: false };
    trouble.passes(|_| std::fs::remove_file(filler).unwrap());
}

#[test]
fn a_file_system_that_turns_read_only_loses_nothing() {
    let Some(disk) = Mounted::new(Kind::Ext4) else { return };
    let server = Server::start_in(&setup(RESERVED), &disk.point().join("state"));
    let running = load(&server);
    assert!(until(|| running.acknowledged() >= 20));
    server.halt();
    disk.abort();
    server.go_on();
    let trouble = Trouble { server, running, codes: &[451, 452], is_dead: true };
    trouble.passes(|server| {
        // A journal that was aborted is mended only by mounting anew.
        server.kill();
        disk.mount_again();
        server.launch();
    });
}

#[test]
fn a_read_only_state_folder_is_refused_with_words() {
    let Some(disk) = Mounted::new(Kind::Tmpfs(32)) else { return };
    let mut server = Server::start_in(&setup(RESERVED), &disk.point().join("state"));
    assert_eq!(server.stop(), Some(0));
    disk.remount("ro").unwrap();
    let output = server.command(&["run"]);
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(complained.contains("Read-only file system"), "{complained}");
    disk.remount("rw").unwrap();
    server.launch();
    assert_eq!(told(&server), "250");
}

#[test]
fn a_mailbox_on_a_full_file_system_holds_up_no_other() {
    let Some(disk) = Mounted::new(Kind::Tmpfs(8)) else { return };
    let server = Server::with_accounts(&setup(RESERVED), None);
    // The home of one account alone is on the small file system.
    let maildir = server.maildir(ACCOUNTS[1]);
    let home = maildir.parent().unwrap();
    std::fs::create_dir_all(home.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(disk.point(), home).unwrap();
    let filler = disk.fill(u64::MAX);
    let mut server = server;
    server.launch();
    let mut wire = Wire::greeted(server.mx);
    let filling = "0123456789abcdef\r\n".repeat(1000);
    let small = format!("Subject: small\r\n\r\n{filling}");
    let large = format!("Subject: large\r\n\r\n{}", filling.repeat(25));
    for content in [&small, &large] {
        assert!(wire.deliver(ACCOUNTS[1], content).starts_with("250"));
    }
    let list = || server.must(&["queue", "list", "--json"]);
    let waits = || list().matches("the file system of the mailbox is full").count() == 2;
    assert!(until(waits), "{}", list());
    assert!(list().contains("\"status\": \"4.3.1\""), "{}", list());
    for content in [&small, &large] {
        assert!(wire.deliver(ACCOUNTS[0], content).starts_with("250"));
    }
    server.delivered(ACCOUNTS[0], 2);
    // No piece of what does not fit takes the space of something smaller.
    assert!(support::files(&maildir.join("tmp")).is_empty());
    std::fs::remove_file(filler).unwrap();
    server.delivered(ACCOUNTS[1], 2);
    server.await_empty_queue();
}

#[test]
fn an_account_that_a_full_disk_has_no_room_for_is_told_so() {
    let Some(mounted) = Mounted::new(Kind::Tmpfs(2)) else { return };
    let server = Server::prepare(&Setup::default(), Some(mounted.point().join("state")));
    let full = mounted.fill(u64::MAX);
    let add = ["account", "add", "demo@lamppost.test", "--generate"];
    let output = server.command(&add);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{told}");
    assert!(told.contains("the disk of ") && told.contains(" is full\n  help: "), "{told}");
    std::fs::remove_file(full).unwrap();
    server.must(&add);
    mounted.fill(u64::MAX);
    assert_eq!(server.must(&["account", "list"]), "demo@lamppost.test\n");
}
