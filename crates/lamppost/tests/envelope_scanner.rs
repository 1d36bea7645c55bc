//! `qmail-envelope-scanner` and `greylisting-delete-expired`, as programs put into a folder, and the running
//! greylist that they ask.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use lamppost_database::{Database, Survives};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::Value;
use support::greylist::Alone;
use support::mounted::{self, skipped};
use support::qmail::{Dialogue, Home};
use support::{Server, Setup, lamppost, succeeded, until};
use tempfile::TempDir;

const GUIDE: &str = include_str!("../../../docs/guides/greylist-for-qmail.md");
const FROM: &str = "someone@elsewhere.test";
const TO: &str = "demo@there.test";
const LATER: Option<i32> = Some(101);
const NOW: Option<i32> = Some(0);
/// What the recipe's environment, and tcpserver's, may have in it.
const VARIABLES: [&str; 12] = [
    "TCPREMOTEIP",
    "TCP6REMOTEIP",
    "PROTO",
    "RELAYCLIENT",
    "GREYLISTING",
    "MYSQLHOST",
    "MYSQLUSER",
    "MYSQLPASS",
    "MYSQLDB",
    "BLOCK_EXPIRE",
    "RECORD_EXPIRE",
    "RECORD_EXPIRE_GOOD",
];

/// A greylist, and the programs of the recipe in a folder.
struct Recipe {
    alone: Alone,
    folder: TempDir,
}

impl Recipe {
    fn start(greylist: &str) -> Self {
        let recipe = Self {
            alone: Alone::start(greylist, "socket-mode = \"0600\""),
            folder: tempfile::tempdir().unwrap(),
        };
        let folder = recipe.folder.path().to_str().unwrap();
        let names = ["qmail-envelope-scanner", "greylisting-delete-expired"];
        let install = [&["compat", "install", folder][..], &names].concat();
        let told = recipe.alone.server.must(&install);
        let asked = format!("The greylist is asked at {}.\n", recipe.alone.socket.display());
        assert!(told.ends_with(&asked) && !told.contains("Mail is handed in"), "{told}");
        recipe
    }

    fn program(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As qmail-smtpd calls it for a client at 192.0.2.1.
    fn scanner(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> Command {
        let mut command = bare(Command::new(self.program("qmail-envelope-scanner")));
        command.arg(from).arg(to).env("TCPREMOTEIP", "192.0.2.1").env("PROTO", "TCP");
        command
    }

    /// The triplets that are known.
    fn known(&self) -> Vec<Value> {
        let listed = self.alone.server.must(&["greylist", "list", "--json"]);
        serde_json::from_str::<Value>(&listed).unwrap().as_array().unwrap().clone()
    }
}

/// Without what the environment of the tests may say.
fn bare(mut command: Command) -> Command {
    for name in VARIABLES.iter().chain(&["LAMPPOST_GREYLIST_SOCKET", "LAMPPOST_CONFIG"]) {
        command.env_remove(name);
    }
    command
}

/// The exit code, and what is told; nothing is ever said on standard output, where the client is.
#[track_caller]
fn told(output: &Output) -> (Option<i32>, String) {
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[track_caller]
fn check(command: &mut Command, expected: Option<i32>) {
    assert_eq!(told(&command.output().unwrap()), (expected, String::new()));
}

/// The recipient is accepted, and a line tells why that may not be right.
#[track_caller]
fn accepts(command: &mut Command, expected: &str) {
    let (code, line) = told(&command.output().unwrap());
    assert!(line.starts_with("qmail-envelope-scanner: warning: "), "{line}");
    assert!(code == NOW && line.contains(expected) && line.lines().count() == 1, "{line}");
}

#[test]
fn a_sender_waits_once() {
    let recipe = Recipe::start("policy = \"relaydelay\"\ndelay = \"1s\"");
    check(&mut recipe.scanner(FROM, TO), LATER);
    check(&mut recipe.scanner("", TO), LATER);
    // A neighbour comes back, and the tag of the day does not matter.
    let mut neighbour = recipe.scanner(format!("prvs=0123456789={FROM}"), TO);
    neighbour.env("TCPREMOTEIP", "192.0.2.9");
    assert!(until(|| neighbour.output().unwrap().status.success()));
    check(&mut recipe.scanner(FROM, TO), NOW);
    check(&mut recipe.scanner("other@elsewhere.test", TO), LATER);
    let known = recipe.known();
    assert_eq!(known.len(), 3, "{known:?}");
}

#[test]
fn clients_have_addresses_of_both_kinds() {
    let recipe = Recipe::start("");
    let of = |variables: &[(&str, &str)]| {
        let mut command = recipe.scanner(FROM, TO);
        command.env_remove("TCPREMOTEIP").env_remove("PROTO").envs(variables.iter().copied());
        check(&mut command, LATER);
    };
    let networks = || {
        let known = recipe.known();
        known.iter().map(|one| one["network"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // All of one network, however tcpserver and its variant for IPv6 write it.
    of(&[("TCPREMOTEIP", "::ffff:192.0.2.1")]);
    of(&[("PROTO", "TCP"), ("TCPREMOTEIP", "192.0.2.1"), ("TCP6REMOTEIP", "::ffff:192.0.2.1")]);
    of(&[("PROTO", "TCP6"), ("TCP6REMOTEIP", "::ffff:192.0.2.1"), ("TCPREMOTEIP", "10.0.0.1")]);
    assert_eq!(networks(), ["192.0.2.0"]);
    recipe.alone.server.must(&["greylist", "forget", "--all"]);
    of(&[("PROTO", "TCP6"), ("TCPREMOTEIP", "2001:db8::1")]);
    of(&[("PROTO", "TCP6"), ("TCP6REMOTEIP", "2001:db8::2%eth0")]);
    assert_eq!(networks(), ["2001:db8::"]);
}

#[test]
fn who_may_relay_or_is_excepted_is_not_asked_about() {
    let recipe = Recipe::start("");
    for (name, value) in
        [("RELAYCLIENT", ""), ("RELAYCLIENT", "@fix"), ("GREYLISTING", "off"), ("GREYLISTING", "0")]
    {
        let mut command = recipe.scanner(FROM, TO);
        // Were it asked, it would tell that it cannot be.
        check(command.env(name, value).env("LAMPPOST_GREYLIST_SOCKET", "nowhere"), NOW);
    }
    assert!(recipe.known().is_empty());
    check(recipe.scanner(FROM, TO).env("GREYLISTING", ""), LATER);
}

#[test]
fn what_cannot_be_asked_accepts() {
    let mut recipe = Recipe::start("");
    accepts(recipe.scanner(FROM, TO).env_remove("TCPREMOTEIP"), "tcpserver sets them");
    accepts(recipe.scanner(FROM, TO).env("TCPREMOTEIP", "unknown"), "is an address");
    let at = |place: &str| {
        let mut command = recipe.scanner(FROM, TO);
        command.env("LAMPPOST_GREYLIST_SOCKET", place);
        command
    };
    accepts(&mut at("nowhere"), "`nowhere` is no socket's path and no ADDRESS:PORT");
    accepts(&mut at("/nonexistent/socket"), "no answer on /nonexistent/socket: No such file");
    accepts(&mut at(&format!("/{}", "x".repeat(200))), "no answer on /xxx");
    check(&mut at(&recipe.alone.address.to_string()), LATER);
    for arguments in [&[][..], &[FROM], &[FROM, TO, TO]] {
        let program = recipe.program("qmail-envelope-scanner");
        let output = Command::new(program).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64));
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("usage: "));
    }
    assert_eq!(recipe.alone.server.stop(), Some(0));
    let expected = format!("no answer on {}: ", recipe.alone.socket.display());
    accepts(&mut recipe.scanner(FROM, TO), &expected);
    accepts(&mut recipe.scanner(FROM, TO), "is `lamppost run` at work");
}

#[test]
fn what_answers_something_else_or_nothing_accepts() {
    let recipe = Recipe::start("");
    let path = recipe.folder.path().join("other.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = recipe.scanner(FROM, TO);
    command.env("LAMPPOST_GREYLIST_SOCKET", &path).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut answered = |answer: &[u8], expected: &str| {
        let child = command.spawn().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut question = [0; 4096];
        assert!(stream.read(&mut question).unwrap() > 0);
        // One that has read enough is gone.
        drop(stream.write_all(answer));
        // Who says nothing stays.
        let _stays = answer.is_empty().then_some(stream);
        let (code, line) = told(&child.wait_with_output().unwrap());
        assert!(code == NOW && line.contains(expected), "{line}");
    };
    answered(b"220 mail.test ESMTP\r\n", "unexpected end of file; its log tells why");
    answered(b"\n\n", "unexpected end of file");
    answered(&b"action=DEFER".repeat(1000), "what answers is no greylist");
    answered(b"", "within 5 s");
    // Others wait already until they are taken.
    let address = SocketAddrUnix::new(&path).unwrap();
    let wait = || {
        let socket =
            net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None);
        let socket = socket.unwrap();
        net::connect(&socket, &address).is_ok().then_some(socket)
    };
    let _waiting: Vec<_> = std::iter::from_fn(wait).take(10_000).collect();
    accepts(&mut command, "within 5 s");
}

/// Addresses that hold whatever a client may send are asked about like any other.
#[test]
fn nothing_in_an_address_gets_it_past() {
    let recipe = Recipe::start("");
    let long = vec![b'\xff'; 100_000];
    let addresses: [&[u8]; 12] = [
        b"a\nsender=x@y\n\nrequest=smtpd_access_policy@elsewhere.test",
        b"a\r\nclient_address=127.0.0.1@elsewhere.test",
        b"\n",
        b"a=b=c@elsewhere.test",
        b"o'neill\"; DROP TABLE relaytofrom; --@elsewhere.test",
        "gr\u{fc}\u{df}e@\u{4f8b}.test".as_bytes(),
        b"\xff\xfe\x80@elsewhere.test",
        b"--help",
        b"--state",
        b"sasl_username=root",
        &[b'a'; 300],
        &long,
    ];
    let mut main = bare(lamppost());
    main.args(["qmail-envelope-scanner", "--state", "--config"]).env("TCPREMOTEIP", "192.0.2.1");
    check(main.env("LAMPPOST_GREYLIST_SOCKET", &recipe.alone.socket), LATER);
    for address in addresses {
        let address = OsString::from_vec(address.to_owned());
        let shown = &address.as_bytes()[..address.len().min(60)];
        for (from, to) in [(address.as_os_str(), TO.as_ref()), (FROM.as_ref(), address.as_os_str())]
        {
            // Each kind of sender comes from a network of its own, so that none is known already.
            let output = recipe.scanner(from, to).output().unwrap();
            assert_eq!(told(&output), (LATER, String::new()), "{}", shown.escape_ascii());
        }
    }
    assert_eq!(recipe.known().len(), 2 * addresses.len() + 1);
    let log = recipe.alone.server.log();
    assert!(!log.contains("was closed"), "{log}");
}

#[test]
fn an_environment_that_says_otherwise_is_told_once() {
    let recipe = Recipe::start("");
    let agrees = [("BLOCK_EXPIRE", "5"), ("RECORD_EXPIRE", "600"), ("RECORD_EXPIRE_GOOD", "36")];
    check(recipe.scanner(FROM, TO).envs(agrees), LATER);
    let differs = [
        ("MYSQLHOST", "db.there.test"),
        ("MYSQLUSER", "greylisting"),
        ("MYSQLPASS", "sesame-3917"),
        ("MYSQLDB", "greylisting"),
        ("BLOCK_EXPIRE", "55"),
    ];
    let (code, line) = told(&recipe.scanner(FROM, TO).envs(differs).output().unwrap());
    assert_eq!(code, LATER);
    insta::assert_snapshot!(line, @"qmail-envelope-scanner: warning: MYSQLHOST is db.there.test but `database` is a file of its own, MYSQLDB is greylisting but `database` is a file of its own, BLOCK_EXPIRE is 55 but `delay` is 5m; what stands in [mail.greylist] of lamppost.toml holds: change it there, or take the variables out of the environment");
    check(recipe.scanner(FROM, TO).envs(differs), LATER);
    let log = recipe.alone.server.log();
    assert_eq!(log.matches("BLOCK_EXPIRE is 55 but `delay` is 5m").count(), 1, "{log}");
    assert!(!log.contains("sesame") && !line.contains("sesame"), "{log}");
    // The cron job has nowhere else to tell it.
    let mut job = bare(Command::new(recipe.program("greylisting-delete-expired")));
    let (code, line) = told(&job.envs(differs).output().unwrap());
    assert!(code == NOW && line.starts_with("warning: MYSQLHOST is db.there.test but"), "{line}");
    assert!(!line.contains("sesame"), "{line}");
}

#[test]
fn the_cron_job_forgets_without_a_word() {
    let mut recipe = Recipe::start("");
    check(&mut recipe.scanner(FROM, TO), LATER);
    check(&mut recipe.scanner("other@elsewhere.test", TO), LATER);
    let path = recipe.alone.server.state().join("policy/greylist.db");
    let late =
        "UPDATE relaytofrom SET record_expires = 1 WHERE mail_from = 'someone@elsewhere.test'";
    // It is written a little later than it is answered.
    assert!(until(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let database = Database::open(&path, Survives::Kill).unwrap();
        let run = database.run("age", move |connection| connection.execute(late, []));
        runtime.block_on(run).unwrap() == 1
    }));
    let mut job = bare(Command::new(recipe.program("greylisting-delete-expired")));
    check(&mut job, NOW);
    assert_eq!(recipe.known().len(), 1);
    assert_eq!(recipe.alone.server.stop(), Some(0));
    let (code, line) = told(&job.output().unwrap());
    assert!(code == Some(69) && line.contains("start it with `lamppost run`"), "{line}");
}

#[test]
fn where_standard_error_leads_nowhere_the_system_log_has_it() {
    let recipe = Recipe::start("");
    let devices = recipe.folder.path().join("dev");
    std::fs::create_dir(&devices).unwrap();
    let log = UnixDatagram::bind(devices.join("log")).unwrap();
    log.set_nonblocking(true).unwrap();
    let null = Command::new("mknod").arg(devices.join("null")).args(["c", "1", "3"]).status();
    if !null.is_ok_and(|status| status.success()) {
        return skipped("a log of the system: only root can make a device");
    }
    let mut command = recipe.scanner(FROM, TO);
    let scanner = command.get_program().to_owned();
    let mut apart = Command::new("unshare");
    apart.args(["--mount", "sh", "-c", "mount --bind \"$0\" /dev && exec \"$@\" 2>/dev/null"]);
    apart.arg(&devices).arg(&scanner).args([FROM, TO]);
    apart.envs(command.env_remove("x").get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = apart.env_remove("TCPREMOTEIP").output().unwrap();
    assert_eq!(told(&output), (NOW, String::new()));
    let mut line = [0; 1024];
    let count = log.recv(&mut line).unwrap();
    let line = String::from_utf8_lossy(&line[..count]);
    assert!(line.starts_with("<20>qmail-envelope-scanner["), "{line}");
    assert!(line.contains("]: warning: neither TCPREMOTEIP nor"), "{line}");
}

/// The user of qmail-smtpd asks by the group of the socket, and nobody else does.
#[test]
fn the_group_of_the_socket_may_ask() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can call as other users");
    }
    let recipe = Recipe::start("");
    let (qmaild, group) = (64_011, 33);
    let open = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711)).unwrap();
    };
    open(recipe.folder.path());
    let state = recipe.alone.server.state();
    state.ancestors().take(2).for_each(open);
    let mut command = recipe.scanner(FROM, TO);
    command.uid(qmaild).gid(group);
    accepts(&mut command, "this user may not use it (socket-mode and socket-group");
    recipe.alone.write("", "socket-group = \"www-data\"");
    recipe.alone.server.must(&["reload"]);
    check(&mut command, LATER);
}

#[test]
fn it_is_put_where_the_greylist_is_asked() {
    let recipe = Recipe::start("");
    let folder = recipe.folder.path().to_str().unwrap();
    let install = ["compat", "install", folder, "qmail-envelope-scanner"];
    let listed = recipe.alone.server.must(&["compat", "list", folder]);
    let expected = format!("asks at {}", recipe.alone.socket.display());
    assert!(listed.contains(&expected), "{listed}");
    let text = std::fs::read_to_string(recipe.alone.server.config()).unwrap();
    let change = |text: String| std::fs::write(recipe.alone.server.config(), text).unwrap();
    let by_path = format!("socket = \"{}\"", recipe.alone.socket.display());
    let by_tcp = text.replace(&by_path, "");
    change(by_tcp.clone());
    let told = succeeded(&recipe.alone.server.command(&install));
    assert!(told.contains(&format!("asked at {}", recipe.alone.address)), "{told}");
    check(&mut recipe.scanner(FROM, TO), LATER);
    change(by_tcp.replace(&format!("listen = [\"{}\"]\n", recipe.alone.address), ""));
    let refused = recipe.alone.server.command(&install);
    assert_eq!(refused.status.code(), Some(78));
    insta::assert_snapshot!(String::from_utf8_lossy(&refused.stderr), @r#"
    error: the greylist is asked nowhere: [mail.greylist.service] names no socket and no address
      help: set `socket = "/run/lamppost/greylist.sock"` there, and `socket-group` to the group that qmail-smtpd runs as; then `lamppost reload`
    "#);
}

/// The blocks of one kind in the guide.
fn guided(kind: &str) -> Vec<&'static str> {
    let blocks = GUIDE.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(kind)?.strip_prefix('\n')).collect()
}

/// The link switches it, and what it cannot ask is told to whoever reads tcpserver's log.
#[test]
fn our_qmail_smtpd_asks_it_while_it_is_there() {
    let mut recipe = Recipe::start("delay = \"1s\"");
    let home = Home::new();
    let switch = home.path().join("qmail-envelope-scanner");
    let rcpt = |sender: &str| {
        let mut smtpd = home.smtpd(&[]);
        let smtpd = smtpd.env_remove("LAMPPOST_GREYLIST_SOCKET").env("ENVELOPESCANNER", &switch);
        let mut dialogue = Dialogue::begin(smtpd);
        dialogue.reply();
        dialogue.ask(&format!("MAIL FROM:<{sender}>"));
        let reply = dialogue.ask("RCPT TO:<c@here.test>");
        (reply, dialogue.end().told)
    };
    let (accepted, silent) = ("250 ok".to_owned(), String::new);
    assert_eq!(rcpt("a@b.test"), (accepted.clone(), silent()));
    std::os::unix::fs::symlink(recipe.program("qmail-envelope-scanner"), &switch).unwrap();
    for sender in ["a@b.test", "", "\"a b=c\"@d.test"] {
        let later = "450 temporary envelope failure (#4.3.0)".to_owned();
        assert_eq!(rcpt(sender), (later, silent()));
        assert!(until(|| rcpt(sender) == (accepted.clone(), silent())));
    }
    assert_eq!(recipe.alone.server.stop(), Some(0));
    let (reply, told) = rcpt("other@b.test");
    assert_eq!(reply, accepted);
    assert!(
        told.contains("qmail-envelope-scanner: warning: the greylist cannot be asked"),
        "{told}"
    );
    std::fs::remove_file(&switch).unwrap();
    assert_eq!(rcpt("other@b.test"), (accepted, silent()));
}

/// Every command of the guide, in its order, on a machine's folders of the test's own.
#[test]
fn the_guide_replaces_one_program_at_a_time_and_leads_back() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::prepare(&Setup::default(), None);
    let socket = server.state().join("greylist.sock");
    let group = succeeded(&Command::new("id").arg("-gn").output().unwrap());
    let [text] = guided("toml")[..] else { panic!("one file") };
    let text = text.replace("/run/lamppost/greylist.sock", socket.to_str().unwrap());
    let text = text.replace("\"nogroup\"", &format!("\"{}\"", group.trim()));
    let volatile = mounted::volatile_line(&server.state());
    let state = server.state().display().to_string();
    let text = format!("{text}[server]\nstate = \"{state}\"\n[mail.queue]\n{volatile}\n");
    std::fs::write(server.config(), text).unwrap();
    server.launch();
    for folder in ["usr/local/sbin", "usr/sbin", "bin", "diverted"] {
        std::fs::create_dir_all(root.path().join(folder)).unwrap();
    }
    let at = |path: &str| root.path().join(path);
    std::os::unix::fs::symlink(lamppost().get_program(), at("bin/lamppost")).unwrap();
    let (switch, job) = ("usr/sbin/qmail-envelope-scanner", "usr/sbin/greylisting-delete-expired");
    for old in [switch, job] {
        std::fs::write(at(old), "#!/bin/sh\nexit 42\n").unwrap();
        std::fs::set_permissions(at(old), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let run = |script: &str| {
        let own = root.path().display();
        let script = script.replace("/usr/", &format!("{own}/usr/"));
        let divert = format!("dpkg-divert --admindir {own}/diverted ");
        let script = script.replace("dpkg-divert ", &divert);
        let mut shell = bare(Command::new("sh"));
        shell.args(["-ec", &script]).env("LAMPPOST_CONFIG", server.config());
        let path = std::env::var("PATH").unwrap();
        shell.env("PATH", format!("{own}/bin:{path}"));
        succeeded(&shell.output().unwrap())
    };
    let code = |program: &str| {
        let mut command = bare(Command::new(at(program)));
        command.args([FROM, TO]).env("TCPREMOTEIP", "192.0.2.1").output().unwrap().status.code()
    };
    let [install, divert, on, off, cron, back] = guided("sh")[..] else { panic!("six blocks") };
    let told = run(install);
    assert!(told.ends_with(&format!("{}.\n101\n", socket.display())), "{told}");
    assert_eq!(code(switch), Some(42));
    run(divert);
    assert!(!at(switch).exists());
    run(on);
    assert_eq!(code(switch), LATER);
    run(off);
    assert!(!at(switch).exists());
    run(on);
    assert_eq!(code(switch), LATER);
    assert_eq!(code(job), Some(42));
    let told = run(cron);
    assert!(told.ends_with("greylisting-delete-expired is Lamppost's now\n"), "{told}");
    run(back);
    assert_eq!((code(switch), code(job)), (Some(42), Some(42)));
    assert!(support::files(&at("usr/local/sbin")).is_empty());
}
