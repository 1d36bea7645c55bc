//! The old recipe's init script, unchanged, while its programs are replaced one at a time as the guide has it:
//! with Debian's ucspi-tcp and start-stop-daemon, and real clients, on a machine of its own.
#![cfg(feature = "peers")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::allow_attributes,
    reason = "a test fails by panicking, and then shows the machine's log"
)]

mod support;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use support::mounted::skipped;
use support::{Server, Setup, peer, succeeded, unpacked, until};

const DEMO: &str = "demo@lamppost.test";
/// Folders of the machine in which this one has files of its own.
const OWN: [&str; 6] = ["/etc", "/usr/bin", "/usr/sbin", "/usr/local", "/var", "/run"];
/// Knows one user by a password (checkpassword's interface).
const VCHKPW: &str = "#!/bin/sh\n[ \"$(tr '\\0' '\\n' <&3 | head -n 2 | tr '\\n' :)\" = \
    joe@lamppost.test:sesame: ] || exit 3\nexec \"$@\"\n";

/// A machine of its own: files, addresses and processes that are the test's alone.
struct Machine {
    first: Child,
}

impl Machine {
    /// As the recipe leaves one, but for qmail itself; nothing where this process may not make one.
    fn new() -> Option<Self> {
        let command = || {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
            command
        };
        let made = command().arg("true").stderr(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            skipped("the recipe's init script: only root can make a machine of its own");
            return None;
        }
        // It lives as long as its standard input is open.
        let first =
            command().arg("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let machine = Self { first };
        assert!(until(|| machine.pid().is_some()));
        let mut overlay = String::from("mount -t tmpfs own /mnt\n");
        for folder in OWN {
            let upper = format!("/mnt{folder}");
            writeln!(
                overlay,
                "mkdir -p {upper}/upper {upper}/work\nmount -t overlay own -o \
                 lowerdir={folder},upperdir={upper}/upper,workdir={upper}/work {folder}"
            )
            .unwrap();
        }
        if !machine.shell(&overlay).status.success() {
            skipped("the recipe's init script: folders cannot be overlaid here");
            return None;
        }
        machine.must("ip link set lo up\nip addr add 192.0.2.0/24 dev lo");
        machine.write("/etc/init.d/qmail", &std::fs::read_to_string(peer("qmail.init")).unwrap());
        machine.write("/usr/sbin/vchkpw", VCHKPW);
        machine.write("/usr/sbin/splogger", "#!/bin/sh\nexec cat >> /var/log/qmail\n");
        machine.write("/usr/local/sbin/scanner", "#!/bin/sh\nexit 101\n");
        machine.write(
            "/etc/tcp.smtp",
            "192.0.2.10:allow,RELAYCLIENT=\"\"\n192.0.2.66:deny\n\
             192.0.2.55:allow,RBLSMTPD=\"-not from you\"\n:allow\n",
        );
        machine.must("mkdir -p /var/qmail/control");
        machine.write("/var/qmail/control/me", "mail.lamppost.test\n");
        machine.write("/var/qmail/control/rcpthosts", "lamppost.test\n");
        machine.must("echo qmaild:x:64011:65534::/var/qmail:/bin/false >> /etc/passwd");
        let debians = unpacked().join("ucspi-tcp/usr/bin");
        machine.must(&format!("cp {}/* /usr/bin", debians.display()));
        let lamppost = Path::new(env!("CARGO_BIN_EXE_lamppost"));
        machine.must(&format!("ln -s {} /usr/bin/lamppost", lamppost.display()));
        Some(machine)
    }

    /// The first process of the machine, as this one knows it.
    fn pid(&self) -> Option<String> {
        let own = self.first.id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        children.ok()?.split_whitespace().next().map(ToOwned::to_owned)
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--pid", "--target", &self.pid().unwrap(), "--"]);
        command
    }

    /// Runs commands; what they leave running may go on.
    fn shell(&self, script: &str) -> Output {
        let folder = tempfile::tempdir().unwrap();
        let (said, told) = (folder.path().join("said"), folder.path().join("told"));
        let mut command = self.enter();
        command.args(["sh", "-ec", script]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env_remove("LAMPPOST_SUBMIT_SOCKET").stdin(Stdio::null());
        let file = |path| std::fs::File::create(path).unwrap();
        // A pipe would be held open by them.
        let status = command.stdout(file(&said)).stderr(file(&told)).status().unwrap();
        let read = |path| std::fs::read(path).unwrap();
        Output { status, stdout: read(said), stderr: read(told) }
    }

    #[track_caller]
    fn must(&self, script: &str) -> String {
        succeeded(&self.shell(script))
    }

    /// Writes a file that everybody may read and call.
    fn write(&self, path: &str, text: &str) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, text).unwrap();
        self.must(&format!("cp {} {path}; chmod 755 {path}", file.display()));
    }

    /// Where it listens for mail.
    fn listens(&self) -> Vec<String> {
        let sockets = self.must("ss -Hltn");
        let addresses = sockets.lines().map(|line| line.split_whitespace().nth(3).unwrap());
        addresses.filter(|address| address.ends_with(":25")).map(ToOwned::to_owned).collect()
    }

    /// What a client at an address sees.
    fn swaks(&self, from: &str, to: &str, more: &str) -> Output {
        self.shell(&format!(
            "swaks --server 192.0.2.1 --local-interface {from} --ehlo client.test --timeout 20s \
             --from someone@elsewhere.test --to {to} {more}"
        ))
    }

    #[track_caller]
    fn refused(&self, from: &str, to: &str, more: &str, expected: &str) {
        let output = self.swaks(from, to, more);
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(!output.status.success() && told.contains(expected), "{expected}: {told}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.shell("cat /var/log/qmail").stdout;
            println!("the machine's log:\n{}", String::from_utf8_lossy(&log));
        }
        // All of its processes end with it.
        drop(self.first.kill());
        drop(self.first.wait());
    }
}

/// The commands of a section of the guide, each block of them.
fn guide(section: &str) -> Vec<String> {
    let guide = include_str!("../../../docs/guides/from-qmail.md");
    let (_, rest) = guide.split_once(&format!("\n## {section}\n")).unwrap();
    let text = rest.split("\n## ").next().unwrap();
    let blocks = text.split("```sh\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// The machine comes first: its end is that of the server, too.
struct Recipe {
    machine: Machine,
    server: Server,
    delivered: usize,
}

impl Recipe {
    fn start() -> Option<Self> {
        let machine = Machine::new()?;
        let mail = "[mail.sendmail]\nsocket = \"/run/lamppost/submit.sock\"\n\
                    trusted-users = [\"root\", \"qmaild\"]\n";
        let setup = Setup { mail: mail.into(), ..Setup::default() };
        let mut server = Server::with_accounts(&setup, None);
        let mut run = machine.enter();
        run.arg(env!("CARGO_BIN_EXE_lamppost"));
        server.launch_under(run);
        // Where the guide says that it is.
        let to = "/etc/lamppost/lamppost.toml";
        machine.must(&format!("mkdir -p /etc/lamppost; cp {} {to}", server.config().display()));
        Some(Self { machine, server, delivered: 0 })
    }

    /// Does what a section of the guide says, then has the recipe work as ever.
    #[track_caller]
    fn follow(&mut self, section: &str) {
        for block in guide(section) {
            self.machine.must(&block);
        }
        self.works();
    }

    #[track_caller]
    fn works(&mut self) {
        let machine = &self.machine;
        assert!(until(|| !machine.listens().is_empty()));
        assert_eq!(machine.listens(), ["192.0.2.1:25"]);
        let sent = machine.swaks("192.0.2.20", DEMO, "");
        let told = succeeded(&sent);
        assert!(told.contains("<-  220 mail.lamppost.test ESMTP\n"), "{told}");
        self.delivered += 1;
        self.server.delivered(DEMO, self.delivered);
        let no = "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)";
        machine.refused("192.0.2.20", "a@there.test", "", no);
        // Those who may relay are told by Lamppost that it has no way out.
        let auth = "--auth PLAIN --auth-user joe@lamppost.test --auth-password";
        let no_way = "550 this server sends no mail to other hosts";
        machine.refused("192.0.2.10", "a@there.test", "", no_way);
        machine.refused("192.0.2.20", "a@there.test", &format!("{auth} sesame"), no_way);
        machine.refused("192.0.2.66", DEMO, "", "*** Remote host closed connection unexpectedly.");
        machine.refused("192.0.2.55", DEMO, "", "553 not from you");
    }
}

#[test]
fn the_init_script_of_old_runs_with_each_program_replaced_alone() {
    let Some(mut recipe) = Recipe::start() else { return };
    recipe.machine.must("/etc/init.d/qmail cdb");
    let cdb = recipe.machine.must("sha256sum /etc/tcp.smtp.cdb");
    for block in guide("qmail-smtpd") {
        recipe.machine.must(&block);
    }
    recipe.machine.must("/etc/init.d/qmail start");
    recipe.works();
    recipe.follow("tcprules");
    assert_eq!(recipe.machine.must("sha256sum /etc/tcp.smtp.cdb"), cdb);
    recipe.follow("tcpserver");
    recipe.follow("rblsmtpd");
    let whose = recipe.machine.must("lamppost compat list /usr/bin /usr/sbin");
    for name in ["qmail-smtpd", "rblsmtpd", "tcprules", "tcprulescheck", "tcpserver"] {
        let row = |line: &str| line.contains(&format!("/{name} ")) && line.contains(" lamppost ");
        assert!(whose.lines().any(row), "{name}: {whose}");
    }
    recipe.machine.must("/etc/init.d/qmail restart");
    recipe.works();
    // Forty at once, as many as there may be, fit into what the script allows it.
    let crowd = "import socket\n\
        clients = [socket.create_connection(('192.0.2.1', 25), 20) for _ in range(40)]\n\
        assert all(client.recv(9).startswith(b'220') for client in clients)\n";
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), crowd).unwrap();
    recipe.machine.must(&format!("python3 {}", file.path().display()));
    let mail = &recipe.server.delivered(DEMO, recipe.delivered)[0];
    let mail = std::fs::read_to_string(mail).unwrap();
    let field = "Received: from unknown (HELO client.test) (192.0.2.20)\n  by 0 with SMTP; ";
    assert!(mail.contains(field), "{mail}");
    // The script's other ways.
    recipe.machine.must("/etc/init.d/qmail stop");
    assert!(until(|| recipe.machine.listens().is_empty()));
    recipe.machine.must("/etc/init.d/qmail start");
    recipe.follow("The way back");
}

#[test]
fn the_scanner_is_switched_by_its_link() {
    let Some(mut recipe) = Recipe::start() else { return };
    recipe.machine.must("/etc/init.d/qmail cdb");
    recipe.machine.must("lamppost compat install /usr/sbin qmail-smtpd; /etc/init.d/qmail start");
    recipe.works();
    let [on, off] = &guide("The scanner on and off")[..] else { panic!("two blocks") };
    recipe.machine.must(on);
    let later = "450 temporary envelope failure (#4.3.0)";
    recipe.machine.refused("192.0.2.20", DEMO, "", later);
    succeeded(&recipe.machine.swaks("192.0.2.10", DEMO, ""));
    recipe.delivered += 1;
    recipe.machine.must(off);
    recipe.works();
}

/// Messages of all sizes, to several, by every mechanism, by a client that pipelines or does not.
#[test]
fn lamppost_takes_what_real_clients_send() {
    let Some(mut recipe) = Recipe::start() else { return };
    let machine = &recipe.machine;
    machine.must("/etc/init.d/qmail cdb");
    machine.must("lamppost compat install /usr/sbin qmail-smtpd; /etc/init.d/qmail start");
    assert!(until(|| !machine.listens().is_empty()));
    let auth = "--auth-user joe@lamppost.test --auth-password";
    for more in ["--auth LOGIN", "--auth PLAIN"] {
        let told = succeeded(&machine.swaks("192.0.2.20", DEMO, &format!("{more} {auth} sesame")));
        assert!(told.contains("235 ok, go ahead (#2.0.0)"), "{told}");
        machine.refused(
            "192.0.2.20",
            DEMO,
            &format!("{more} {auth} x"),
            "535 authentication failed",
        );
    }
    succeeded(&machine.swaks("192.0.2.20", DEMO, "--pipeline"));
    // One of several is not here, and is refused before the message comes.
    let several = format!("{DEMO},nobody@lamppost.test,Demo@LAMPPOST.test");
    let told = succeeded(&machine.swaks("192.0.2.20", &several, ""));
    assert!(told.contains("<** 550 no such mailbox here (#5.1.1)"), "{told}");
    let taken = told.lines().find(|line| line.contains(" qp ")).unwrap();
    let id = taken.split_whitespace().next_back().unwrap();
    let mut log = String::new();
    let is_found = until(|| {
        log = recipe.server.must(&["log", id]);
        log.contains(DEMO)
    });
    assert!(is_found, "{taken}: {log}");
    machine.must("seq -w 1 1000000 > /var/large; printf '.\\n..\\n.x\\n' >> /var/large");
    succeeded(&machine.swaks("192.0.2.20", DEMO, "--body @/var/large"));
    let files = recipe.server.delivered(DEMO, 6);
    let sizes = files.iter().map(|file| std::fs::metadata(file).unwrap().len());
    assert!(sizes.max().unwrap() > 8_000_000);
    machine.must("echo 1000 > /var/qmail/control/databytes");
    let big = "552 sorry, that message size exceeds my databytes limit (#5.3.4)";
    machine.refused("192.0.2.20", DEMO, "--body @/var/large", big);
    // Away, and back: a user that is not trusted is told as our fault, and Lamppost's absence too.
    machine.must("rm /var/qmail/control/databytes");
    machine.must("kill $(pgrep -o -x lamppost)");
    assert_eq!(recipe.server.wait(), Some(0));
    machine.refused("192.0.2.20", DEMO, "", "451 the queue does not answer (#4.3.0)");
    let told = machine.must("cat /var/log/qmail");
    assert!(told.contains("qmail-smtpd: warning: ") && told.contains("is `lamppost run` at work?"));
    let config = std::fs::read_to_string(recipe.server.config()).unwrap();
    let config = config.replace("\"root\", \"qmaild\"", "\"root\"");
    std::fs::write(recipe.server.config(), config).unwrap();
    let mut run = machine.enter();
    run.arg(env!("CARGO_BIN_EXE_lamppost"));
    recipe.server.launch_under(run);
    let machine = &recipe.machine;
    machine.refused("192.0.2.20", DEMO, "", "451 qq unable to read configuration (#4.3.0)");
    assert!(
        machine.must("cat /var/log/qmail").contains("let trusted-users in [mail.sendmail] name it")
    );
}
