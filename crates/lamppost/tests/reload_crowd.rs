//! Reloads in the middle of a thousand DATA transfers at once: none fails, and each message comes once.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use support::{PATIENCE, Server, Setup, Wire, until};

const ACCOUNT: &str = "demo@lamppost.test";
const SESSIONS: usize = 1000;
/// Files that the test needs beside its sockets.
const OTHER_FILES: usize = 100;
/// One message in so many is long: it goes to the queue in pieces, of which many are there when all begins
/// anew.
const LONG_EVERY: usize = 20;
const PIECE_BYTES: usize = 100;
const LONG_PIECE_BYTES: usize = 80_000;
/// All of it may take so long, on a machine that does other things beside.
const BOUND: Duration = Duration::from_secs(120);

/// A session that has said DATA, and is slow with it.
struct Slow {
    number: usize,
    stream: TcpStream,
}

impl Slow {
    fn begin(number: usize, to: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let opening =
            format!("EHLO slow.test\r\nMAIL FROM:<s@slow.test>\r\nRCPT TO:<{ACCOUNT}>\r\nDATA\r\n");
        stream.write_all(opening.as_bytes()).unwrap();
        let mut slow = Self { number, stream };
        let told = slow.read_until("\r\n354 ");
        assert!(told.starts_with("220 "), "{number}: {told}");
        slow.stream.write_all(format!("Subject: {number}\r\n\r\n").as_bytes()).unwrap();
        slow
    }

    /// Reads until these words have come, and the line that they are in is whole.
    fn read_until(&mut self, words: &str) -> String {
        let (mut told, mut buffer) = (String::new(), [0; 1024]);
        while !(told.contains(words) && told.ends_with("\r\n")) {
            let length = self.stream.read(&mut buffer).unwrap_or(0);
            assert!(length > 0, "session {} was closed or said nothing: {told}", self.number);
            told.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        told
    }

    fn send_piece(&mut self) {
        let is_long = self.number.is_multiple_of(LONG_EVERY);
        let bytes = if is_long { LONG_PIECE_BYTES } else { PIECE_BYTES };
        let line = format!("{}\r\n", "x".repeat(98));
        self.stream.write_all(line.repeat(bytes / line.len()).as_bytes()).unwrap();
    }

    fn end(mut self) {
        self.stream.write_all(b".\r\nQUIT\r\n").unwrap();
        let told = self.read_until("221 ");
        assert!(told.starts_with("250 2.0.0 "), "{}: {told}", self.number);
    }
}

/// Lets the test open files enough; what it starts inherits that.
fn allow_files() {
    let wanted = u64::try_from(SESSIONS + OTHER_FILES).unwrap();
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), ..limit };
        rustix::process::setrlimit(Resource::Nofile, raised).unwrap();
    }
}

fn phase(server: &Server) -> String {
    let output = server.command(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    status["host"]["phase"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_thousand_transfers_outlast_every_kind_of_reload() {
    allow_files();
    // More than come: one that is turned away would be another matter.
    let limits = "greeting-delay = \"0s\"\nsessions-max = 1100\nsessions-per-address-max = 1100";
    let server = Server::start(&Setup { limits, ..Setup::default() });
    let begun = Instant::now();
    let reload = |from: &str, to: &str| {
        let text = std::fs::read_to_string(server.config()).unwrap();
        assert!(text.contains(from));
        std::fs::write(server.config(), text.replace(from, to)).unwrap();
        let told = server.must(&["reload"]);
        assert!(told.contains("is in force: changed in "), "{told}");
    };
    let mut slow: Vec<_> = (0..SESSIONS).map(|number| Slow::begin(number, server.mx)).collect();
    let send_all = |slow: &mut Vec<Slow>| slow.iter_mut().for_each(Slow::send_piece);
    send_all(&mut slow);
    // The roles that run take it.
    reload("[mail.greylist]\nenabled = false", "[mail.greylist]\nenabled = false\ndelay = \"9m\"");
    send_all(&mut slow);
    // A new front takes the place of theirs.
    reload("sessions-max = 1100", "sessions-max = 1101");
    assert!(Wire::greeted(server.mx).ask("QUIT\r\n").starts_with("221"));
    send_all(&mut slow);
    // All roles begin anew, when the sessions have ended.
    std::thread::scope(|scope| {
        let reloading = scope.spawn(|| reload("[mail.queue]\n", "[mail.queue]\nbatch-max = 101\n"));
        assert!(until(|| phase(&server) == "ending-sessions"), "{}", phase(&server));
        let newcomer = scope.spawn(|| {
            Wire::greeted(server.mx).deliver(ACCOUNT, "Subject: new\r\n\r\nx").starts_with("250")
        });
        send_all(&mut slow);
        // The newcomer waits for the new roles, unless the old front took it just before.
        assert!(!reloading.is_finished());
        slow.into_iter().for_each(Slow::end);
        reloading.join().unwrap();
        assert!(newcomer.join().unwrap());
    });
    server.await_empty_queue();
    let subject = |path| {
        let text = String::from_utf8(std::fs::read(path).unwrap()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
        line.to_owned()
    };
    let came: BTreeSet<_> = server.delivered(ACCOUNT, SESSIONS + 1).iter().map(subject).collect();
    let sent = (0..SESSIONS).map(|number| number.to_string()).chain(["new".to_owned()]);
    assert_eq!(came, sent.collect());
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
}
