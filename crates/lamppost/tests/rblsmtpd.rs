//! `rblsmtpd` beside Debian's, over the same lists, command lines and dialogues; Debian's rbldnsd has the
//! lists.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::mounted::skipped;
use support::rbldnsd::{Bad, BadDay, Rbldnsd, TEST_ENTRY};
use support::{lamppost, signal, succeeded, unpacked, until};
use tempfile::TempDir;

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    Debians,
    /// That of the variant for IPv6.
    Debians6,
}

const THEIRS: [Whose; 2] = [Whose::Debians, Whose::Debians6];
/// What clients say.
const DIALOGUE: &[u8] =
    b"EHLO a.test\r\nehlo\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\n\r\nDATA\r\n\
    noop x\r\nstarttls\r\nhelo\0x\r\n  noop\r\nnoop\r \r\nRSET\r\nNoOp\r\nQUIT now\r\nnoop\r\n";
/// The program for those that are not refused; it tells that it has the connection.
const SERVED: [&str; 3] = ["sh", "-c", "echo served; cat"];

/// A call.
#[derive(Clone, Debug)]
struct Call<'c> {
    /// The options, with blanks between.
    options: &'c str,
    program: &'c [&'c str],
    /// `$TCPREMOTEIP`.
    client: Option<&'c str>,
    /// `$RBLSMTPD`.
    variable: Option<&'c str>,
    /// `$DNSCACHEIP`.
    dns: String,
    said: &'c [u8],
}

impl Default for Call<'_> {
    fn default() -> Self {
        Self {
            options: "",
            program: &SERVED,
            client: Some("192.0.2.1"),
            variable: None,
            dns: "127.0.0.1".into(),
            said: DIALOGUE,
        }
    }
}

/// The exit code, what the client reads, and what is told.
type Outcome = (Option<i32>, String, String);

impl Call<'_> {
    fn command(&self, whose: Whose) -> Command {
        let peer = |package: &str| Command::new(unpacked().join(package).join("usr/bin/rblsmtpd"));
        let mut command = match whose {
            Whose::Ours => {
                let mut command = lamppost();
                command.arg("rblsmtpd");
                command
            }
            Whose::Debians => peer("ucspi-tcp"),
            Whose::Debians6 => peer("ucspi-tcp-ipv6"),
        };
        command.args(self.options.split(' ').filter(|word| !word.is_empty())).args(self.program);
        for (name, value) in [("TCPREMOTEIP", self.client), ("RBLSMTPD", self.variable)] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("PROTO", "TCP").env("DNSCACHEIP", &self.dns);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end; a client that stays says no more.
    fn run(&self, whose: Whose, stays: bool) -> Outcome {
        let mut child = self.command(whose).spawn().unwrap();
        let pid = child.id().to_string();
        let mut input = child.stdin.take().unwrap();
        // Who ends early does not read it.
        let _written = input.write_all(self.said);
        let kept = stays.then_some(input);
        let output = child.wait_with_output().unwrap();
        drop(kept);
        let told =
            String::from_utf8_lossy(&output.stderr).replace(&format!("pid {pid}:"), "pid N:");
        // Only the usage differs: ours has more options.
        let told = told.lines().map(|line| if line.contains("usage: ") { "usage" } else { line });
        let told = told.collect::<Vec<_>>().join("\n");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), told)
    }

    /// Runs all three, and gives what all of them do.
    #[track_caller]
    fn same(&self) -> Outcome {
        let ours = self.run(Whose::Ours, false);
        for whose in THEIRS {
            assert_eq!(ours, self.run(whose, false), "{whose:?} does other: {self:?}");
        }
        ours
    }
}

/// Lists at this address, on the port that Debian's programs ask; only root can have it.
fn lists(last: u8) -> Option<Rbldnsd> {
    if !rustix::process::geteuid().is_root() {
        skipped("rblsmtpd beside Debian's: only root can have a name server on port 53");
        return None;
    }
    Some(lists_at(SocketAddr::from((Ipv4Addr::new(127, 0, 5, last), 53))))
}

fn lists_at(address: SocketAddr) -> Rbldnsd {
    let long = "long ".repeat(45);
    let first = format!(
        "{TEST_ENTRY}192.0.2.1 :127.0.0.2:see https://bl.test/?$\n192.0.2.2 :127.0.0.2:{long}\n\
         192.0.2.4 :127.0.0.2:\u{f6}\t%\n192.0.2.5\n"
    );
    let second = format!("{TEST_ENTRY}192.0.2.1 :127.0.0.3:second\n192.0.2.3 :127.0.0.3:two\n");
    let allow = format!("{TEST_ENTRY}192.0.2.2\n192.0.2.3 :127.0.0.2:a friend\n");
    let v6 = "2001:db8:bad::/48 :127.0.0.3:no $\n";
    Rbldnsd::start_at(
        address,
        &[
            ("bl.test", "ip4set", &first),
            ("bl.test", "ip6trie", v6),
            ("two.test", "ip4set", &second),
            ("al.test", "ip4set", &allow),
        ],
    )
}

/// Numbers that a seed tells (xorshift64*).
struct Dice(u64);

impl Dice {
    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        all[usize::try_from(high).unwrap() % all.len()]
    }
}

#[test]
fn command_lines_do_the_same() {
    const OPTIONS: [&str; 16] = [
        "-b",
        "-B",
        "-c",
        "-C",
        "-bc",
        "-r bl.test",
        "-rbl.test",
        "-r two.test",
        "-r bl..test.",
        "-br bl.test",
        "-a al.test",
        "-aal.test",
        "-a two.test",
        "-t 0",
        "-t 5x",
        "-Bt9",
    ];
    let clients =
        ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "127.0.0.2", "a.b", ""];
    let variables = [None, None, None, None, Some(""), Some("-no"), Some("no\r\n%"), Some("-")];
    let Some(dns) = lists(1) else { return };
    let mut dice = Dice(42);
    let mut seen = [0; 3];
    for _ in 0..150 {
        let count = dice.one_of(&[0, 1, 2, 3, 4, 5, 6]);
        let options: Vec<_> = (0..count).map(|_| dice.one_of(&OPTIONS)).collect();
        let options = format!("{} {}", options.join(" "), dice.one_of(&["", "", "--"]));
        let call = Call {
            options: &options,
            client: Some(dice.one_of(&clients)),
            variable: dice.one_of(&variables),
            dns: dns.address.ip().to_string(),
            ..Call::default()
        };
        let (_, read, _) = call.same();
        let place = ["served\n", "553 ", "451 "].iter().position(|it| read.contains(it));
        seen[place.unwrap()] += 1;
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
}

#[test]
fn a_client_that_is_refused_hears_why() {
    let Some(dns) = lists(2) else { return };
    let dns = dns.address.ip().to_string();
    let call = Call { options: "-b -r bl.test", dns, ..Call::default() };
    let (code, read, told) = call.same();
    insta::assert_snapshot!(format!("{code:?}\n{}{told}", read.replace('\r', "")), @r"
    Some(0)
    220 rblsmtpd.local
    250 rblsmtpd.local
    250 rblsmtpd.local
    250 rblsmtpd.local
    553 see https://bl.test/?192.0.2.1
    553 see https://bl.test/?192.0.2.1
    553 see https://bl.test/?192.0.2.1
    250 rblsmtpd.local
    553 see https://bl.test/?192.0.2.1
    553 see https://bl.test/?192.0.2.1
    553 see https://bl.test/?192.0.2.1
    553 see https://bl.test/?192.0.2.1
    250 rblsmtpd.local
    250 rblsmtpd.local
    221 rblsmtpd.local
    rblsmtpd: 192.0.2.1 pid N: 553 see https://bl.test/?192.0.2.1
    ");
    let variable = Call { variable: Some("come later"), said: b"noop\r\n", ..call.clone() };
    assert_eq!(variable.same().1, "220 rblsmtpd.local\r\n250 rblsmtpd.local\r\n");
    // One that says no more is left alone when its time is over, and so is one that says nothing.
    for said in [&b"RCPT\r\nMAI"[..], b""] {
        let call = Call { options: "-t 1 -r bl.test", said, ..call.clone() };
        let begun = Instant::now();
        let ours = call.run(Whose::Ours, true);
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
        assert_eq!(ours, call.run(Whose::Debians, true));
        assert_eq!(ours.0, Some(0));
    }
}

/// It asks for more than it reads, which holds up nothing but itself.
#[test]
fn a_client_that_does_not_read_ends_in_time() {
    let call = Call { options: "-t 1", variable: Some("no"), ..Call::default() };
    let mut endless = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
    let mut command = call.command(Whose::Ours);
    command.stdin(endless.stdout.take().unwrap()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    let unread = child.stdout.take();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(5), "{took:?}");
    drop((unread, command));
    drop(endless.kill());
    drop(endless.wait());
}

#[test]
fn what_cannot_be_is_told_in_the_same_words() {
    for options in ["", "-b", "-z x", "-bz x", "-t", "-r", "-r x -a", "--"] {
        let call = Call { options, program: &[], variable: Some(""), ..Call::default() };
        assert_eq!(call.same().0, Some(100), "{options}");
    }
    for program in ["./nowhere", "nowhere.at.all", "/etc/passwd", "/"] {
        let call = Call { program: &[program], client: None, ..Call::default() };
        let (code, _, told) = call.same();
        assert_eq!(code, Some(111));
        assert!(told.starts_with("rblsmtpd: fatal: unable to run "), "{told}");
    }
}

/// The name server knows no such list, which costs Debian's 11 seconds each.
#[test]
fn a_list_that_fails_opens_or_closes_as_there() {
    let Some(dns) = lists(3) else { return };
    let dns = dns.address.ip().to_string();
    let lines = [
        ("-b -r gone.test -r bl.test", "451 see"),
        ("-r gone.test", "served"),
        ("-bc -r gone.test", "451 temporary RBL lookup error"),
        ("-c -r bl.test -r gone.test", "451 see"),
        ("-a gone.test -r bl.test", "served"),
        ("-bc -a gone.test -r bl.test", "451 see"),
        ("-b -r bl.test -c -a gone.test", "553 see"),
    ];
    std::thread::scope(|scope| {
        for (options, expected) in lines {
            for theirs in THEIRS {
                let (options, dns) = (format!("-t 0 {options}"), dns.clone());
                scope.spawn(move || {
                    let call = Call { options: &options, dns, ..Call::default() };
                    let ours = call.run(Whose::Ours, false);
                    assert_eq!(ours, call.run(theirs, false), "{options}");
                    assert!(ours.1.starts_with(expected), "{options}: {ours:?}");
                });
            }
        }
    });
}

#[test]
fn all_lists_have_one_deadline_together() {
    let silence = BadDay::begin(Bad::Silent);
    let dns = silence.address.to_string();
    let options = "-v -T 1 -r a.test -r b.test -r c.test -r d.test";
    let call = Call { options, dns: dns.clone(), said: b"", ..Call::default() };
    let begun = Instant::now();
    let outcome = call.run(Whose::Ours, false);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
    let told = ["a", "b", "c", "d"].map(|list| {
        format!(
            "rblsmtpd: 192.0.2.1 pid N: warning: {list}.test fails: no name server answered in time"
        )
    });
    assert_eq!(outcome, (Some(0), "served\n".into(), told.join("\n")));
    // Three seconds where none are named, and not a word as with the original.
    let call = Call { options: "-c -t 0 -r a.test -r b.test", dns, said: b"", ..Call::default() };
    let begun = Instant::now();
    let (code, read, told) = call.run(Whose::Ours, false);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!((code, &read[..]), (Some(0), "451 temporary RBL lookup error\r\n"));
    assert_eq!(told, "rblsmtpd: 192.0.2.1 pid N: 451 temporary RBL lookup error");
}

#[test]
fn clients_of_ipv6_are_looked_up_as_the_standard_says() {
    let dns = lists_at(support::rbldnsd::free_udp());
    let read = |client| {
        let dns = dns.address.to_string();
        let options = "-t 0 -r bl.test";
        let call = Call { options, client: Some(client), dns, said: b"", ..Call::default() };
        call.run(Whose::Ours, false).1
    };
    assert_eq!(read("2001:db8:bad::7"), "451 no 2001:db8:bad::7\r\n");
    assert_eq!(read("2001:db8::7"), "served\n");
    assert_eq!(read("::ffff:192.0.2.1"), "451 see https://bl.test/?192.0.2.1\r\n");
}

/// A domain that was sold answers everything, and a list that one may not ask says so by an answer.
#[test]
fn answers_that_no_list_gives_count_as_a_failure() {
    let sold = "0.0.0.0/1 :203.0.113.80:v=spf1 -all\n128.0.0.0/1 :203.0.113.80:v=spf1 -all\n";
    let refusing = "192.0.2.1 :127.255.255.254:ask by a resolver of your own\n";
    let dns = Rbldnsd::start(&[("sold.test", "ip4set", sold), ("shy.test", "ip4set", refusing)]);
    let check = |options: &str, expected: &str, why: &str| {
        let dns = dns.address.to_string();
        let call = Call { options, dns, said: b"", ..Call::default() };
        let (_, read, told) = call.run(Whose::Ours, false);
        assert!(read.starts_with(expected) && told.contains(why), "{options}: {read}{told}");
    };
    check("-v -t 0 -r sold.test", "served", "sold.test fails: it answers 203.0.113.80");
    check("-v -t 0 -r shy.test", "served", "shy.test fails: it refuses to answer this server");
    check("-c -t 0 -r shy.test", "451 temporary RBL lookup error", "");
}

/// A folder with rules, and our programs by their names in `bin`.
fn recipe() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    // Whom tcpserver becomes can read what is in it.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let programs = folder.path().join("bin");
    std::fs::create_dir(&programs).unwrap();
    let mut install = lamppost();
    install.args(["compat", "install"]).arg(&programs).args(["tcpserver", "rblsmtpd"]);
    succeeded(&install.arg("--state").arg(folder.path()).output().unwrap());
    let mut make = lamppost();
    make.current_dir(&folder).args(["tcprules", "cdb", "tmp"]).stdin(Stdio::piped());
    let mut make = make.spawn().unwrap();
    let rules = "127.0.0.5:allow,RBLSMTPD=\"\"\n127.0.0.6:allow,RBLSMTPD=\"-No mail\"\n:allow\n";
    make.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(make.wait().unwrap().success());
    folder
}

/// The recipe's own line, with one of the programs replaced, the other, and both.
#[test]
fn the_recipe_runs_with_it_by_name() {
    let Some(dns) = lists(4) else { return };
    let folder = recipe();
    let ours = folder.path().join("bin");
    let theirs = unpacked().join("ucspi-tcp/usr/bin");
    let dns = dns.address.ip().to_string();
    for (tcpserver, rblsmtpd) in [(&ours, &ours), (&ours, &theirs), (&theirs, &ours)] {
        let line = format!(
            "exec {}/tcpserver -1 -H -P -R -l 0 -x cdb 127.0.0.1 0 {}/rblsmtpd -r bl.test sh -c \
             'echo served $TCPREMOTEIP'",
            tcpserver.display(),
            rblsmtpd.display()
        );
        check_recipe(folder.path(), &line, &dns);
    }
}

fn check_recipe(folder: &Path, line: &str, dns: &str) {
    let mut recipe = Command::new("sh");
    recipe.current_dir(folder).args(["-c", line]).env("DNSCACHEIP", dns).env_remove("RBLSMTPD");
    let mut child = recipe.stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port.trim().parse().unwrap()));
    let read = |last| read_from(last, to);
    let refused = |code: &str| format!("220 rblsmtpd.local\r\n{code}\r\n221 rblsmtpd.local\r\n");
    assert_eq!(read(2), refused("451 a test entry"), "{line}");
    assert_eq!(read(3), "served 127.0.0.3\n", "{line}");
    assert_eq!(read(5), "served 127.0.0.5\n", "{line}");
    assert_eq!(read(6), refused("553 No mail"), "{line}");
    signal(child.id(), "TERM");
    assert!(child.wait().unwrap().success());
}

/// What a client reads that wants to send mail; the number is the last of its address.
fn read_from(last: u8, to: SocketAddr) -> String {
    let mut stream = connected(Ipv4Addr::new(127, 0, 0, last), to);
    stream.write_all(b"RCPT\r\nQUIT\r\n").unwrap();
    let mut read = String::new();
    // Who is served has said too much.
    let _length = stream.read_to_string(&mut read);
    read
}

/// The commands of the recipe's init script, by Debian's start-stop-daemon, on the named address alone.
#[test]
fn an_init_script_of_old_starts_and_stops_them() {
    let (folder, dns) = (recipe(), lists_at(support::rbldnsd::free_udp()));
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (pidfile, tcpserver, cdb) = (path("pid"), path("bin/tcpserver"), path("cdb"));
    let port = support::free_addresses::<1>()[0].port();
    let daemon = |arguments: &[&str]| {
        let mut command = Command::new("/sbin/start-stop-daemon");
        command.args(arguments).args(["--quiet", "--pidfile", &pidfile, "--exec", &tcpserver]);
        command.env("DNSCACHEIP", dns.address.to_string()).env_remove("RBLSMTPD");
        command
    };
    let mut start = daemon(&["--start", "--background", "--make-pidfile"]);
    start.args(["--", "-H", "-P", "-R", "-l", "0", "-x", &cdb]);
    if rustix::process::geteuid().is_root() {
        start.args(["-u", "65534", "-g", "65534"]);
    }
    start.args(["127.0.0.8", &port.to_string(), &path("bin/rblsmtpd"), "-b", "-r", "bl.test"]);
    succeeded(&start.args(["sh", "-c", "echo served $TCPREMOTEIP"]).output().unwrap());
    let _stops = Stops(daemon(&["--stop", "--oknodo"]));
    let to = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 8), port));
    assert!(until(|| TcpStream::connect(to).is_ok()));
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    assert!(read_from(2, to).contains("\r\n553 a test entry\r\n"));
    assert_eq!(read_from(3, to), "served 127.0.0.3\n");
    succeeded(&daemon(&["--stop", "--retry", "5"]).output().unwrap());
    // Its last thread may be at its end a moment later.
    assert!(until(|| TcpStream::connect(to).is_err()));
}

/// Stops a program whatever becomes of a test.
struct Stops(Command);

impl Drop for Stops {
    fn drop(&mut self) {
        drop(self.0.output());
    }
}

fn connected(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&client, &SocketAddr::from((from, 0))).unwrap();
    connect(&client, &to).unwrap();
    let stream = TcpStream::from(client);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}
