//! `tcpserver` beside Debian's, over the same connections: what clients read, variables, lines, exit codes.
#![cfg(feature = "peers")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use support::mounted::skipped;
use support::tinydns::{Tinydns, lamppost_asking};
use support::{lamppost, signal, succeeded, unpacked, until};

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    Debians,
    /// That of the variant for IPv6.
    Debians6,
}

/// A running tcpserver on a port that the system chose.
struct Running {
    child: Child,
    port: u16,
    log: std::path::PathBuf,
    rest: BufReader<ChildStdout>,
}

fn program(whose: Whose) -> Command {
    let peer = |package: &str| Command::new(unpacked().join(package).join("usr/bin/tcpserver"));
    match whose {
        Whose::Ours => {
            let mut command = lamppost();
            command.arg("tcpserver");
            command
        }
        Whose::Debians => peer("ucspi-tcp"),
        Whose::Debians6 => peer("ucspi-tcp-ipv6"),
    }
}

impl Running {
    fn start(whose: Whose, folder: &Path, options: &str, served: &[&str]) -> Self {
        Self::start_by(program(whose), folder, options, served)
    }

    fn start_by(mut command: Command, folder: &Path, options: &str, served: &[&str]) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
        command.current_dir(folder).args(options.split_whitespace().collect::<Vec<_>>());
        command
            .args(served)
            .env("TCPREMOTEHOST", "old")
            .env("TCPREMOTEINFO", "old")
            .env("MARK", "1");
        command.stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut rest = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        rest.read_line(&mut port).unwrap();
        let port = port
            .trim()
            .parse()
            .unwrap_or_else(|_| panic!("{}", std::fs::read_to_string(&log).unwrap()));
        Self { child, port, log, rest }
    }

    /// What a client from this address reads until the end.
    fn read_from(&self, from: &str, to: &str) -> String {
        let mut stream = self.connect(from, to);
        let mut read = String::new();
        // Who is denied with something unread is reset.
        let _length = stream.read_to_string(&mut read);
        read
    }

    fn connect(&self, from: &str, to: &str) -> TcpStream {
        let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let family = if from.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let client = socket(family, SocketType::STREAM, None).unwrap();
        bind(&client, &SocketAddr::new(from, 0)).unwrap();
        connect(&client, &SocketAddr::new(to, self.port)).unwrap();
        let stream = TcpStream::from(client);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The lines without what differs from run to run: numbers of processes and ports.
    fn told(&self) -> String {
        let log = self.log();
        let mut names = Vec::<String>::new();
        let mut told = String::new();
        for line in log.lines() {
            let mut words: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
            if matches!(words[1].as_str(), "pid" | "ok" | "deny" | "end") {
                let place = names.iter().position(|name| *name == words[2]).unwrap_or_else(|| {
                    names.push(words[2].clone());
                    names.len() - 1
                });
                words[2] = format!("P{place}");
            }
            if matches!(words[1].as_str(), "ok" | "deny") {
                words[3] = words[3].replace(&format!(":{}", self.port), ":LOCAL");
                let port = words[4].rfind(':').unwrap();
                words[4].truncate(port);
            }
            told.push_str(&words.join(" "));
            told.push('\n');
        }
        told
    }

    fn stop(&mut self) -> Option<i32> {
        signal(self.child.id(), "TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_file(&self.log));
    }
}

/// A folder with rules and a program that tells its variables.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tells = folder.path().join("tells");
    std::fs::write(&tells, "#!/bin/sh\nenv | grep -E '^(TCP|PROTO|MARK|A=|B=)' | sort\n").unwrap();
    std::fs::set_permissions(&tells, std::fs::Permissions::from_mode(0o755)).unwrap();
    rules(
        folder.path(),
        "127.0.0.5:deny,A=\"q\"\n127.0.0.6:allow,TCPLOCALHOST=\"ruled\",A=\"1\",A=\"2\",B=\"\"\n\
         127.:allow,A=\"x\"\n::1:allow,A=\"6\"\n:deny\n",
    );
    folder
}

fn rules(folder: &Path, text: &str) {
    let mut make = lamppost();
    make.current_dir(folder).args(["tcprules", "cdb", "tmp"]).stdin(Stdio::piped());
    let mut make = make.spawn().unwrap();
    make.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(make.wait().unwrap().success());
}

/// What clients from these addresses read, and what is told.
fn story(
    whose: Whose,
    options: &str,
    served: &[&str],
    clients: &[(&str, &str)],
) -> (Vec<String>, String, Option<i32>) {
    let folder = folder();
    let mut running = Running::start(whose, folder.path(), options, served);
    let mut read = Vec::new();
    for (number, (from, to)) in clients.iter().enumerate() {
        let (text, port) = (running.read_from(from, to), format!("={}", running.port));
        let lines = text.lines().filter(|line| !line.contains("REMOTEPORT="));
        read.push(lines.map(|line| line.replace(&port, "=PORT")).collect::<Vec<_>>().join("\n"));
        // One after the other, so that lines come in one order.
        let over = || {
            let log = running.log();
            log.matches("tcpserver: end ").count() > number && log.ends_with("status: 0/40\n")
        };
        assert!(!options.contains('v') || until(over), "{}", running.log());
    }
    let told = running.told();
    (read, told, running.stop())
}

/// Lines on what the program does not serve come later with ours, and are the same.
fn same(theirs: Whose, options: &str, served: &[&str], clients: &[(&str, &str)]) -> String {
    let expected = story(theirs, options, served, clients);
    // The variant listens on `::` by itself.
    let ours =
        if theirs == Whose::Debians6 { options.replace(" 0 0", " :: 0") } else { options.into() };
    assert_eq!(story(Whose::Ours, &ours, served, clients), expected, "{options}");
    format!("{}\n{}", expected.0.join("\n--\n"), expected.1)
}

const CLIENTS: [(&str, &str); 3] =
    [("127.0.0.1", "127.0.0.1"), ("127.0.0.5", "127.0.0.1"), ("127.0.0.6", "127.0.0.2")];

#[test]
fn clients_and_programs_see_the_same() {
    let told = same(Whose::Debians, "-1vRHP -l 0 -x cdb 0 0", &["./tells"], &CLIENTS);
    insta::assert_snapshot!(told, @r"
    A=x
    MARK=1
    PROTO=TCP
    TCPLOCALHOST=0
    TCPLOCALIP=127.0.0.1
    TCPLOCALPORT=PORT
    TCPREMOTEIP=127.0.0.1
    --

    --
    A=2
    B=
    MARK=1
    PROTO=TCP
    TCPLOCALHOST=ruled
    TCPLOCALIP=127.0.0.2
    TCPLOCALPORT=PORT
    TCPREMOTEIP=127.0.0.6
    tcpserver: status: 0/40
    tcpserver: status: 1/40
    tcpserver: pid P0 from 127.0.0.1
    tcpserver: ok P0 0:127.0.0.1:LOCAL :127.0.0.1:
    tcpserver: end P0 status 0
    tcpserver: status: 0/40
    tcpserver: status: 1/40
    tcpserver: pid P1 from 127.0.0.5
    tcpserver: deny P1 0:127.0.0.1:LOCAL :127.0.0.5:
    tcpserver: end P1 status 25600
    tcpserver: status: 0/40
    tcpserver: status: 1/40
    tcpserver: pid P2 from 127.0.0.6
    tcpserver: ok P2 0:127.0.0.2:LOCAL :127.0.0.6:
    tcpserver: end P2 status 0
    tcpserver: status: 0/40
    ");
    same(
        Whose::Debians,
        "-1vRHP -l some.name -x cdb -D -O -b 5 127.0.0.1 0",
        &["./tells"],
        &CLIENTS[..2],
    );
    same(Whose::Debians, "-1vRHl0 0 0", &["sh", "-c", "exit 3"], &CLIENTS);
    same(Whose::Debians, "-1QRHl0 -x cdb 0 0", &["./tells"], &CLIENTS);
    same(Whose::Debians, "-1vRHl0 -X -x nowhere 0 0", &["./tells"], &CLIENTS[..1]);
    same(Whose::Debians, "-1RHl0 -Bhello -x cdb 0 0", &["./tells"], &CLIENTS);
}

#[test]
fn ipv6_is_that_of_the_variant() {
    let clients = [("127.0.0.1", "127.0.0.1"), ("127.0.0.5", "127.0.0.1"), ("::1", "::1")];
    let told = same(Whose::Debians6, "-1vRHP -l 0 -x cdb 0 0", &["./tells"], &clients);
    assert!(told.contains("TCP6REMOTEIP=::ffff:127.0.0.1") && told.contains("A=6"), "{told}");
}

/// A client's host that tells its users; only root can be one.
#[test]
fn the_user_is_asked_for_as_there() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a host that tells users, on the port that is asked"
    )]
    let Ok(host) = std::net::TcpListener::bind(("127.0.0.9", 113)) else {
        return skipped("tcpserver asks for a user: only root can listen on port 113");
    };
    let answering = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in [" 1 , 2 : USERID : UNIX : jo e:x\r\n", "1,2:ERROR:NO-USER\r\n"].repeat(2) {
            let mut stream = host.accept().unwrap().0;
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            asked.push(line.split(" , ").count() == 2 && line.ends_with("\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    let clients = [("127.0.0.9", "127.0.0.1"), ("127.0.0.9", "127.0.0.1")];
    let told = same(Whose::Debians, "-1vH -l 0 -x cdb -t 5 0 0", &["./tells"], &clients);
    assert!(told.contains("TCPREMOTEINFO=joe:x\n"), "{told}");
    assert_eq!(answering.join().unwrap(), [true; 4]);
}

/// What a call that ends at once says, and its exit code.
fn call(whose: Whose, arguments: &str) -> (Option<i32>, String) {
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let output = program(whose).args(arguments).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    // Only the usage differs: ours has more options.
    let lines = told.lines().map(|line| if line.contains("usage: ") { "usage" } else { line });
    (output.status.code(), lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn what_cannot_be_is_told_in_the_same_words() {
    let taken = support::free_addresses::<1>()[0];
    let holder = Running::start(Whose::Ours, Path::new("/"), "-1RHl0 127.0.0.1 0", &["true"]);
    assert_ne!(holder.port, taken.port());
    let port = holder.port;
    for arguments in [
        "",
        "-v",
        "0",
        "0 25",
        "-z 0 0 true",
        "-vc",
        "0 nosuchport true",
        "192.0.2.1 0 true",
        &format!("127.0.0.1 {port} true"),
    ] {
        assert_eq!(call(Whose::Ours, arguments), call(Whose::Debians, arguments), "{arguments}");
    }
}

/// A program that is not there, and rules that are not.
#[test]
fn connections_that_cannot_be_served_are_dropped_in_the_same_words() {
    for (options, served) in [
        ("-1RHl0 127.0.0.1 0", "./nowhere"),
        ("-1RHl0 -x nowhere 127.0.0.1 0", "./tells"),
        ("-1RHl0 -x tells/none -X 127.0.0.1 0", "./tells"),
    ] {
        let told = same(Whose::Debians, options, &[served], &CLIENTS[..1]);
        let both = told.contains("tcpserver: warning: dropping connection, unable to ");
        assert!(both, "{told}");
    }
}

#[test]
fn those_beyond_the_limit_wait() {
    for whose in [Whose::Ours, Whose::Debians] {
        let folder = folder();
        let running = Running::start(
            whose,
            folder.path(),
            "-1RHl0 -c 2 127.0.0.1 0",
            &["sh", "-c", "echo in; cat"],
        );
        let connect = || BufReader::new(running.connect("127.0.0.1", "127.0.0.1"));
        let line = |stream: &mut BufReader<TcpStream>| {
            let mut line = String::new();
            stream.read_line(&mut line).map(|_| line).unwrap_or_default()
        };
        let (mut one, mut two, mut three) = (connect(), connect(), connect());
        assert_eq!((line(&mut one), line(&mut two)), ("in\n".into(), "in\n".into()));
        three.get_ref().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert_eq!(line(&mut three), "");
        drop(one);
        three.get_ref().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(line(&mut three), "in\n");
    }
}

/// Ours alone: no process before the rules, no wait for resolvers, no address that takes every place.
#[test]
fn an_address_may_have_so_many_at_once() {
    let folder = folder();
    let mut running = Running::start(
        Whose::Ours,
        folder.path(),
        "-1RHl0 -C 1 -x cdb 0 0",
        &["sh", "-c", "echo in; cat"],
    );
    let first = |stream: TcpStream| {
        let mut line = String::new();
        let _length = BufReader::new(stream.try_clone().unwrap()).read_line(&mut line);
        (line, stream)
    };
    let (one, _kept) = first(running.connect("127.0.0.1", "127.0.0.1"));
    let (two, _) = first(running.connect("127.0.0.1", "127.0.0.1"));
    let (other, _also) = first(running.connect("127.0.0.2", "127.0.0.1"));
    assert_eq!([&one[..], &two, &other], ["in\n", "", "in\n"]);
    assert!(
        running.log().contains("dropping connection, 127.0.0.1 has 1 already"),
        "{}",
        running.log()
    );
    // A rule may say so too.
    rules(folder.path(), "127.0.0.3:allow,MAXCONNIP=\"0\"\n:allow,MAXCONNIP=\"1\"\n");
    assert_eq!(running.stop(), Some(0));
    let running = Running::start(
        Whose::Ours,
        folder.path(),
        "-1RHl0 -x cdb 0 0",
        &["sh", "-c", "echo in; cat"],
    );
    for (from, expected) in [("127.0.0.1", ""), ("127.0.0.3", "in\n")] {
        let (_, _kept) = first(running.connect(from, "127.0.0.1"));
        assert_eq!(first(running.connect(from, "127.0.0.1")).0, expected, "{from}");
    }
}

#[test]
fn what_is_denied_costs_no_process() {
    let folder = folder();
    let trace = folder.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=%process", "-o"]).arg(&trace);
    let ours = program(Whose::Ours);
    command.arg(ours.get_program()).args(ours.get_args());
    let running = Running::start_by(command, folder.path(), "-1vRHl0 -x cdb 0 0", &["./tells"]);
    // Threads have no signal for their end.
    let begun = || {
        let trace = std::fs::read_to_string(&trace).unwrap();
        let own = trace.lines().filter(|line| !line.contains("resumed"));
        own.filter(|line| {
            line.contains("fork(") || line.contains("clone") && line.contains("SIGCHLD")
        })
        .count()
    };
    for _ in 0..10 {
        assert_eq!(running.read_from("127.0.0.5", "127.0.0.1"), "");
    }
    assert!(until(|| running.log().matches("status 25600").count() == 10));
    assert_eq!(begun(), 0);
    assert!(running.read_from("127.0.0.1", "127.0.0.1").contains("A=x"));
    assert!(until(|| running.log().contains(" status 0\n")));
    assert!(begun() > 0);
}

/// Rules may name clients by what the DNS calls them, which anybody may have it call himself; with `-p` the
/// name must lead back.
#[test]
fn rules_know_clients_by_their_names() {
    let server = Ipv4Addr::new(127, 0, 5, 20);
    let data = "\
        .good.test:127.0.5.20:a:60\n.elsewhere.test:127.0.5.20:a:60\n.5.0.127.in-addr.arpa:127.0.5.20:a:60\n\
        =mail.good.test:127.0.5.30:60\n^31.5.0.127.in-addr.arpa:mail.good.test:60\n\
        =other.good.test:127.0.5.33:60\n^34.5.0.127.in-addr.arpa:a.elsewhere.test:60\n";
    let Some(_dns) = Tinydns::start(server, data) else { return };
    let folder = folder();
    rules(
        folder.path(),
        "=mail.good.test:allow,A=\"its name\"\n=.good.test:allow,A=\"its domain\"\n\
         =:allow,A=\"some name\"\n127.0.5.35:allow,A=\"its address\"\n:deny\n",
    );
    let story = |whose: Whose, options: &str| {
        let mut command = match whose {
            Whose::Ours => lamppost_asking(server.into(), folder.path()),
            theirs => program(theirs),
        };
        command.env("DNSCACHEIP", server.to_string());
        if whose == Whose::Ours {
            command.arg("tcpserver");
        }
        let mut running = Running::start_by(command, folder.path(), options, &["./tells"]);
        let read = [30, 31, 32, 33, 34, 35].map(|last: u8| {
            let read = running.read_from(&format!("127.0.5.{last}"), "127.0.0.1");
            let is_told = |line: &&str| line.starts_with("A=") || line.contains("REMOTEHOST");
            let told: Vec<_> = read.lines().filter(is_told).collect();
            format!("{last}: {}\n", told.join(", "))
        });
        assert!(until(|| running.log().matches("tcpserver: end ").count() == read.len()));
        let log = running.log();
        let decided = log.lines().filter(|line| line.contains(": ok ") || line.contains(": deny "));
        let decided = decided.map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            format!("{} {}\n", words[1], words[4].rsplit_once(':').unwrap().0)
        });
        let told = read.concat() + &decided.collect::<String>();
        running.stop();
        told
    };
    for (options, is_confirmed) in
        [("-1vR -l 0 -x cdb 0 0", false), ("-1vRp -l 0 -x cdb 0 0", true)]
    {
        let ours = story(Whose::Ours, options);
        assert_eq!(ours, story(Whose::Debians, options), "{options}");
        let liar =
            if is_confirmed { "31: \n" } else { "31: A=its name, TCPREMOTEHOST=mail.good.test\n" };
        assert!(ours.contains(liar), "{options}: {ours}");
        assert!(ours.contains("33: A=its domain, TCPREMOTEHOST=other.good.test\n"), "{ours}");
    }
}

/// A name server that says nothing, and a client's host that says nothing: each has its time, and the next
/// client that nobody asks about none.
#[test]
fn names_and_users_do_not_hold_a_connection_up() {
    if !rustix::process::geteuid().is_root() {
        return skipped("silent name servers: only root can have one on port 53");
    }
    let server = Ipv4Addr::new(127, 0, 5, 40);
    let _silent = std::net::UdpSocket::bind((server, 53)).unwrap();
    #[expect(
        clippy::disallowed_methods,
        reason = "a host that says nothing, on the port that is asked"
    )]
    let _host = std::net::TcpListener::bind(("127.0.5.41", 113)).unwrap();
    let folder = folder();
    let mut command = lamppost_asking(server.into(), folder.path());
    command.arg("tcpserver");
    let running = Running::start_by(command, folder.path(), "-1p -T 1 -t 1 0 0", &["./tells"]);
    let begun = Instant::now();
    let told = running.read_from("127.0.5.41", "127.0.0.1");
    let took = begun.elapsed();
    assert!(told.contains("TCPREMOTEIP=127.0.5.41") && !told.contains("old"), "{told}");
    // Its own name, the client's, and the client's user.
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(6), "{took:?}");
}

/// The port is told once it listens, and whoever waits for more hears the end.
#[test]
fn the_port_is_all_that_is_printed() {
    for whose in [Whose::Ours, Whose::Debians] {
        let mut running = Running::start(whose, Path::new("/"), "-1RHl0 127.0.0.1 0", &["true"]);
        let mut more = String::new();
        running.rest.read_to_string(&mut more).unwrap();
        assert_eq!((more.as_str(), running.stop()), ("", Some(0)));
    }
}

/// The recipe's own line under start-stop-daemon's hands, by name, on the named address alone.
#[test]
fn the_recipe_runs_with_it_by_name() {
    let folder = folder();
    let to = folder.path().join("bin");
    std::fs::create_dir(&to).unwrap();
    let mut install = lamppost();
    install.args(["compat", "install"]).arg(&to).arg("tcpserver").arg("--state").arg(folder.path());
    succeeded(&install.output().unwrap());
    let line = "exec tcpserver -1 -H -P -R -l 0 -u 65534 -g 65534 -x cdb 127.0.0.7 0 sh -c 'id -u; id -g; echo $TCPLOCALHOST'";
    let mut recipe = Command::new("sh");
    recipe.current_dir(folder.path()).args(["-c", line]);
    recipe.env("PATH", format!("{}:/usr/bin:/bin", to.display())).stdout(Stdio::piped());
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut child = recipe.spawn().unwrap();
    let mut rest = BufReader::new(child.stdout.take().unwrap());
    let mut port = String::new();
    rest.read_line(&mut port).unwrap();
    let log = folder.path().join("none");
    std::fs::write(&log, "").unwrap();
    let running = Running { child, port: port.trim().parse().unwrap(), log, rest };
    assert_eq!(running.read_from("127.0.0.1", "127.0.0.7"), "65534\n65534\n0\n");
    assert!(TcpStream::connect(("127.0.0.1", running.port)).is_err());
}
