//! `sendmail`, as programs call it: put into a folder, called as several users, with what it answers.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use support::mounted::skipped;
use support::{Server, Setup, succeeded, until};

/// A user without rights (nobody on Debian).
const NOBODY: u32 = 65_534;
const DEMO: &str = "demo@lamppost.test";

/// A server with our programs in a folder that everybody may enter.
struct Machine {
    server: Server,
    folder: tempfile::TempDir,
}

impl Machine {
    fn start(sendmail: &str) -> Self {
        Self::start_with(sendmail, &Setup::default())
    }

    fn start_with(sendmail: &str, setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let socket = folder.path().join("run/submit.sock");
        let mail = format!("[mail.sendmail]\nsocket = \"{}\"\n{sendmail}", socket.display());
        let server = Server::start(&Setup { mail, ..setup.clone() });
        let machine = Self { server, folder };
        machine.server.must(&["compat", "install", machine.folder.path().to_str().unwrap()]);
        machine
    }

    fn program(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Calls sendmail as this user.
    fn send(&self, uid: u32, arguments: &[&str], input: &str) -> Output {
        call(as_user(uid, &self.program("sendmail")).args(arguments), input)
    }

    /// Calls sendmail as the user of the test, who owns the program.
    fn send_own(&self, arguments: &[&str], input: &str) -> Output {
        call(Command::new(self.program("sendmail")).args(arguments), input)
    }
}

fn as_user(uid: u32, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    let uid = uid.to_string();
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--no-new-privs", "--"]);
    command.arg(program).current_dir("/");
    command
}

fn call(command: &mut Command, input: &str) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses its options does not read.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

#[track_caller]
fn fails(output: &Output, code: i32, expected: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{complaint}");
    assert!(complaint.contains(expected), "{complaint}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The address that the test's own user has.
fn own_address() -> String {
    let name = succeeded(&Command::new("id").arg("-un").output().unwrap());
    format!("{}@mail.lamppost.test", name.trim())
}

#[test]
fn a_message_with_its_recipients_in_the_header_arrives() {
    let machine = Machine::start("");
    let input = "To: Demo <demo@lamppost.test>\r\nBcc: demo@lamppost.test\nSubject: x\n\n\
                 .\nThe dot above is content.\n";
    succeeded(&machine.send_own(&["-t", "-i"], input));
    let message = machine.server.only_message(DEMO);
    let own = own_address();
    assert!(message.contains(&format!("Return-Path: <{own}>")), "{message}");
    assert!(message.contains(&format!("\nFrom: {own}\n")), "{message}");
    assert!(message.contains("\nDate: ") && message.contains("\nMessage-ID: "), "{message}");
    assert!(!message.contains("Bcc") && !message.contains('\r'), "{message}");
    assert!(message.ends_with("\n\n.\nThe dot above is content.\n"), "{message}");
}

#[test]
fn a_large_message_arrives_as_it_is() {
    let machine = Machine::start("");
    let line = format!("{}\n", "x".repeat(99));
    let text = line.repeat(50_000);
    let sent =
        machine.send_own(&["-v", "-FSome One", DEMO], &format!("Subject: x\n\n{text}.\n..\n"));
    // The dot alone ends it, without -i.
    assert!(succeeded(&sent).contains("stored as "));
    let message = machine.server.only_message(DEMO);
    assert!(message.contains(&format!("\nFrom: \"Some One\" <{}>\n", own_address())));
    assert!(message.ends_with(&format!("\n\n{text}")), "{}", message.len());
}

#[test]
fn a_refused_message_is_told_to_the_caller() {
    let machine = Machine::start("");
    let text = "Subject: x\n\nText\n";
    let unknown = machine.send_own(&["nobody@lamppost.test", DEMO], text);
    fails(&unknown, 67, "nobody@lamppost.test: 550 5.1.1");
    fails(&machine.send_own(&["a@elsewhere.test"], text), 69, "a@elsewhere.test: 550 5.7.1");
    fails(&machine.send_own(&["-t"], text), 64, "no To, Cc or Bcc");
    fails(&machine.send_own(&["one two@b.test"], text), 65, "no address");
    fails(&machine.send_own(&["-bd"], ""), 64, "`lamppost run` is the server");
    fails(&machine.send_own(&[DEMO, "-fa@b.test"], text), 64, "options come first");
    // Nobody got anything of all that.
    succeeded(&machine.send_own(&[DEMO], text));
    machine.server.only_message(DEMO);
}

#[test]
fn a_recipient_without_a_domain_is_told_with_the_key() {
    let machine = Machine::start("");
    let refused = machine.send_own(&["root", DEMO], "Text\n");
    fails(&refused, 69, "root@mail.lamppost.test: 550 5.7.1");
    let cure = "root has no domain, so it is taken to be at mail.lamppost.test: `domain` in [mail.sendmail]";
    fails(&refused, 69, cure);
    let named = machine.send_own(&["root@mail.lamppost.test"], "Text\n");
    assert!(!String::from_utf8_lossy(&named.stderr).contains("has no domain"));
}

/// Nothing of it came by a network.
#[test]
fn mail_of_a_user_of_this_machine_is_told_as_that() {
    let machine = Machine::start("");
    let uid = rustix::process::geteuid().as_raw();
    let own = own_address();
    let name = own.split('@').next().unwrap();
    machine.server.must(&["pause", "delivery"]);
    succeeded(&machine.send_own(&[DEMO], "Text\n"));
    let listed: serde_json::Value =
        serde_json::from_str(&machine.server.must(&["queue", "list", "--json"])).unwrap();
    assert_eq!(listed[0]["origin"]["peer"], format!("uid:{uid}"));
    let id = listed[0]["id"].as_str().unwrap();
    let shown = machine.server.must(&["queue", "show", id]);
    let expected = format!("client    {name}, user {uid} of this machine, by `sendmail`");
    assert!(shown.contains(&expected) && !shown.contains("127.0.0.1"), "{shown}");
    let expected = format!("peer=\"{name} (uid {uid})\"");
    let log = machine.server.log();
    let accepted = log.lines().find(|line| line.contains("message accepted")).unwrap();
    assert!(accepted.contains(&expected) && !accepted.contains("127.0.0.1"), "{accepted}");
    machine.server.must(&["resume", "delivery"]);
    let message = machine.server.only_message(DEMO);
    let expected = format!("Received: by mail.lamppost.test (from userid {uid})\n\tid {id} ");
    assert!(message.contains(&expected), "{message}");
}

#[test]
fn a_message_that_is_too_large_is_refused_however_large_it_is() {
    let limits = "greeting-delay = \"0s\"\nmessage-size-max = \"64KiB\"";
    let machine = Machine::start_with("", &Setup { limits, ..Setup::default() });
    let line = format!("{}\n", "x".repeat(1023));
    // The second is sent while it is still read.
    for kib in [100, 34 * 1024] {
        let text = format!("Subject: x\n\n{}", line.repeat(kib));
        fails(&machine.send_own(&[DEMO], &text), 65, "552 5.3.4 a message may have 65536 bytes");
    }
    // What no mail may hold travels as text: line ends are made whole, and nothing ends it early.
    succeeded(&machine.send_own(&["-i", DEMO], "Subject: x\n\na\rb\r\n.\rc\n"));
    assert!(machine.server.only_message(DEMO).ends_with("\n\na\nb\n.\nc\n"));
}

#[test]
fn help_names_the_options_and_others_are_refused() {
    let machine = Machine::start("");
    let help = succeeded(&machine.send_own(&["--help"], ""));
    assert!(help.contains("Usage: sendmail") && help.contains("\n  -t\n"), "{help}");
    for option in ["--frobnicate", "-Z", "-bv"] {
        fails(&machine.send_own(&[option], ""), 64, &format!("there is no option {option};"));
    }
}

#[test]
fn mail_waits_with_its_sender_while_lamppost_does_not_run() {
    let mut machine = Machine::start("");
    assert_eq!(machine.server.stop(), Some(0));
    fails(&machine.send_own(&[DEMO], "Text\n"), 75, "is `lamppost run` at work?");
    let smtp = machine.send_own(&["-bs"], "EHLO x\r\n");
    assert!(String::from_utf8_lossy(&smtp.stdout).starts_with("421 "));
    assert_eq!(smtp.status.code(), Some(75));
    machine.server.launch();
    succeeded(&machine.send_own(&[DEMO], "Text\n"));
    machine.server.only_message(DEMO);
}

#[test]
fn users_send_under_their_own_address_and_trusted_ones_under_any() {
    if !is_root() {
        return skipped("only root can call as other users");
    }
    let machine = Machine::start("trusted-users = [\"root\", \"www-data\"]");
    let (web, text) = (33, "Subject: x\n\nText\n");
    let forged = machine.send(NOBODY, &["-f", "boss@elsewhere.test", DEMO], text);
    fails(&forged, 77, "trusted-users");
    for own in ["nobody", "nobody@mail.lamppost.test"] {
        succeeded(&machine.send(NOBODY, &["-f", own, DEMO], text));
    }
    succeeded(&machine.send(NOBODY, &[DEMO], text));
    // Notices have no sender, whoever writes them.
    succeeded(&machine.send(NOBODY, &["-f", "", DEMO], text));
    succeeded(&machine.send(0, &["-fboss@elsewhere.test", DEMO], text));
    succeeded(&machine.send(web, &["-fboss@elsewhere.test", DEMO], text));
    let unnamed = machine.send(54_321, &[DEMO], text);
    succeeded(&unnamed);
    let senders = machine.server.delivered(DEMO, 7).into_iter().map(|file| {
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().next().unwrap().to_owned()
    });
    let count = |sender: &str| {
        let line = format!("Return-Path: <{sender}>");
        senders.clone().filter(|one| *one == line).count()
    };
    assert_eq!(count("nobody@mail.lamppost.test"), 3);
    assert_eq!(count("boss@elsewhere.test"), 2);
    assert_eq!((count(""), count("uid-54321@mail.lamppost.test")), (1, 1));
}

#[test]
fn a_user_has_a_quota_and_a_trusted_one_has_none() {
    if !is_root() {
        return skipped("only root can call as other users");
    }
    let setup = Setup { auth: "messages-per-hour-max = 1", ..Setup::default() };
    let machine = Machine::start_with("domain = \"lamppost.test\"", &setup);
    succeeded(&machine.send(NOBODY, &[DEMO], "Text\n"));
    fails(&machine.send(NOBODY, &[DEMO], "Text\n"), 75, "452 4.7.1");
    // A name without a domain is in the one of local users.
    for _ in 0..2 {
        succeeded(&machine.send(0, &["demo"], "Text\n"));
    }
    machine.server.delivered(DEMO, 3);
}

#[test]
fn the_socket_is_for_whom_its_mode_says() {
    if !is_root() {
        return skipped("only root can call as other users");
    }
    let machine = Machine::start("socket-mode = \"0660\"\nsocket-group = \"www-data\"");
    fails(&machine.send(NOBODY, &[DEMO], "Text\n"), 75, "socket-mode and socket-group");
    succeeded(&machine.send(33, &[DEMO], "Text\n"));
    machine.server.only_message(DEMO);
}

/// Its mode lets everybody write to the socket, and a folder above it lets nobody get there.
#[test]
fn a_folder_that_keeps_users_from_the_socket_is_told() {
    let machine = Machine::start("");
    let told = |command: &str| {
        let output = machine.server.command(&[command]);
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let run = machine.folder.path().join("run");
    std::fs::set_permissions(&run, Permissions::from_mode(0o711)).unwrap();
    assert!(!told("check").contains("nobody else may pass"), "{}", told("check"));
    std::fs::set_permissions(&run, Permissions::from_mode(0o700)).unwrap();
    let what = format!("nobody else may pass through that folder to {}/submit.sock", run.display());
    let cure = format!("`chmod a+x {}`", run.display());
    for command in ["check", "doctor", "reload"] {
        let told = told(command);
        assert!(told.contains(&what) && told.contains(&cure), "{command}: {told}");
    }
    if !is_root() {
        return skipped("only root can call as other users");
    }
    let expected = format!("may not pass through the folder {}: `chmod a+x ", run.display());
    fails(&machine.send(NOBODY, &[DEMO], "Text\n"), 75, &expected);
    std::fs::set_permissions(&run, Permissions::from_mode(0o711)).unwrap();
    succeeded(&machine.send(NOBODY, &[DEMO], "Text\n"));
}

/// What is in it is for the roles alone.
#[test]
fn a_new_state_folder_is_one_to_pass_through() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lamppost.toml");
    let made = |sendmail: &str, name: &str| {
        let text = format!("[mail]\ndomains = [\"a.test\"]\n[mail.sendmail]\n{sendmail}\n");
        std::fs::write(&file, text).unwrap();
        let state = folder.path().join(name);
        let mut add = support::lamppost();
        add.arg("--config").arg(&file).arg("--state").arg(&state);
        succeeded(&add.args(["account", "add", "a@a.test", "--generate"]).output().unwrap());
        std::fs::metadata(state).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(made("", "a"), 0o711);
    assert_eq!(made("enabled = false", "b"), 0o700);
    assert_eq!(made("socket = \"/run/elsewhere/submit.sock\"", "c"), 0o700);
    assert_eq!(made("socket-mode = \"0600\"", "d"), 0o700);
}

#[test]
fn smtp_is_spoken_on_standard_input() {
    let machine = Machine::start("");
    let own = own_address();
    let dialogue = format!(
        "EHLO [127.0.0.1]\r\nMAIL FROM:<{own}>\r\nRCPT TO:<{DEMO}>\r\nDATA\r\n\
         Subject: x\r\n\r\nText\r\n.\r\nQUIT\r\n"
    );
    let said = succeeded(&machine.send_own(&["-bs"], &dialogue));
    assert!(said.contains(&format!("250 XACCOUNT {own}\r\n")), "{said}");
    assert!(said.contains("250 2.0.0 stored as ") && said.contains("221 "), "{said}");
    machine.server.only_message(DEMO);
}

#[test]
fn the_other_names_do_what_they_are_for() {
    let machine = Machine::start("");
    let listed = succeeded(&Command::new(machine.program("mailq")).output().unwrap());
    assert!(listed.contains("queue"), "{listed}");
    let listed = succeeded(&machine.send_own(&["-bp"], ""));
    assert!(listed.contains("queue"), "{listed}");
    succeeded(&Command::new(machine.program("newaliases")).output().unwrap());
    // Which program to ask is remembered, however it was named.
    let mut install = support::lamppost();
    install.args(["compat", "install"]).arg(machine.folder.path()).arg("mailq");
    let (config, state) = (machine.server.config(), machine.server.state());
    let installed = install.env("LAMPPOST_CONFIG", config).arg("--state").arg(state).output();
    succeeded(&installed.unwrap());
    let mut mailq = Command::new(machine.program("mailq"));
    let listed = succeeded(&mailq.env_remove("LAMPPOST_CONFIG").output().unwrap());
    assert!(listed.contains("queue"), "{listed}");
    succeeded(&machine.send_own(&["-q"], ""));
}

#[test]
fn what_is_ours_is_put_shown_and_removed_and_nothing_else() {
    let machine = Machine::start("");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let to = folder.path().to_str().unwrap();
    let compat = |arguments: &[&str]| machine.server.command(&[&["compat"], arguments].concat());
    let nowhere = path("nowhere");
    for arguments in [&["install"][..], &["install", "--remove"], &["list"]] {
        let answer = compat(&[arguments, &[nowhere.to_str().unwrap()]].concat());
        fails(&answer, 65, "help: make it first, or name another");
    }
    std::fs::write(path("mailq"), "#!/bin/sh\n").unwrap();
    // All or none.
    fails(&compat(&["install", to]), 65, "mailq is not Lamppost's and stays: a file of 10 bytes");
    assert!(!path("sendmail").exists());
    succeeded(&compat(&["install", to, "sendmail"]));
    succeeded(&compat(&["install", to, "sendmail"]));
    let mode = std::fs::metadata(path("sendmail")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    let listed = succeeded(&compat(&["list", to]));
    assert!(listed.contains("sendmail  lamppost  hands in at "), "{listed}");
    assert!(listed.contains("mailq     foreign   a file of 10 bytes"), "{listed}");
    let listed = succeeded(&compat(&["list", "--json", to]));
    assert!(listed.contains("\"state\": \"free\""), "{listed}");
    fails(&compat(&["install", "--remove", to, "mailq"]), 65, "is not Lamppost's and stays");
    fails(&compat(&["install", to, "rmail"]), 64, "the names are sendmail, mailq, newaliases");
    let removed = succeeded(&compat(&["install", "--remove", to]));
    assert!(
        removed.contains("sendmail removed")
            && removed.contains("mailq is not Lamppost's and stays"),
        "{removed}"
    );
    assert_eq!(std::fs::read(path("mailq")).unwrap(), b"#!/bin/sh\n");
    assert_eq!(support::files(folder.path()), [path("mailq")]);
}

#[test]
fn a_flood_of_one_user_leaves_room_for_others() {
    let machine = Machine::start("");
    let socket = machine.folder.path().join("run/submit.sock");
    let connect = || {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        // Once it is answered it has its place, or has none.
        stream.read_exact(&mut [0; 4]).unwrap();
        stream
    };
    let held: Vec<_> = (0..60).map(|_| connect()).collect();
    fails(&machine.send_own(&[DEMO], "Text\n"), 75, "421 4.7.0 too many sessions");
    // Who comes from this machine's address is somebody else.
    let mut wire = support::Wire::greeted(machine.server.mx);
    assert!(wire.deliver(DEMO, "Subject: x\r\n\r\nText").starts_with("250"));
    drop(held);
    assert!(until(|| machine.send_own(&[DEMO], "Text\n").status.success()));
}
