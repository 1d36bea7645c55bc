//! Ten thousand idle sessions and a flood of slow ones: limits hold, memory stays small, and others are
//! served as before.
#![allow(
    clippy::unwrap_used,
    clippy::allow_attributes,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells what it measured"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lamppost_load::{Load, Report, percentile};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit};
use support::{PATIENCE, Server, Setup, until};

const ACCOUNT: &str = "demo@lamppost.test";
/// Idle sessions, from so many addresses that none has more than its limit by default.
const IDLE: usize = 10_000;
const PER_ADDRESS: usize = 50;
/// Sessions that send a message a byte at a time.
const SLOW: usize = 200;
/// Files that the program and the test need beside their sockets.
const OTHER_FILES: u64 = 500;
/// Memory that the program may use.
const MEMORY_MAX_KIB: u64 = 200 * 1024;

fn setup() -> Setup {
    let limits = "greeting-delay = \"0s\"\nsessions-max = 10600\ndata-rate-min = \"1KiB\"\n\
                  data-rate-grace = \"1s\"";
    Setup { limits, ..Setup::default() }
}

/// An address of this machine from which a client comes; the one of the load is none of them.
fn source(number: usize) -> Ipv4Addr {
    let number = u16::try_from(number).unwrap().to_be_bytes();
    Ipv4Addr::new(127, 1 + number[0], number[1], 1)
}

/// Connects from an address.
fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(from, 0)).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The first bytes that the server says.
fn greeting(mut stream: &TcpStream) -> String {
    let mut buffer = [0; 512];
    let length = stream.read(&mut buffer).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// Lets the test and the server open files enough; returns how many idle sessions that allows.
fn allow_files() -> usize {
    let wanted = u64::try_from(IDLE + SLOW).unwrap() + OTHER_FILES;
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return IDLE;
    }
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = Rlimit { current: Some(current), ..limit };
    rustix::process::setrlimit(Resource::Nofile, raised).unwrap();
    let idle = IDLE - usize::try_from(wanted - current).unwrap();
    if idle < IDLE {
        println!("only {idle} idle sessions: this machine allows {current} open files");
    }
    idle
}

/// Sends some mail, as a busy but ordinary client does.
fn ordinary(server: &Server, seed: u64) -> Report {
    let mut load = Load::new(server.mx, &[ACCOUNT]);
    load.sessions = 4;
    load.count = Some(300);
    load.seed = seed;
    let report = load.start().unwrap().finish();
    assert_eq!(report.acknowledged().count(), 300, "{:?}", report.complaints);
    report
}

/// KiB that the program uses: what its processes have for themselves, and their share of all that they use. Each
/// maps the same file of the program, which a sum of resident sets would count once for each.
fn memory(server: &Server) -> (u64, u64) {
    let figure = |file: &str, name: &str| {
        let of_one = |pid| {
            // Only root may read some of another process that holds secrets.
            let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/{file}")) else { return 0 };
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        server.processes().into_iter().map(of_one).sum()
    };
    (figure("status", "RssAnon"), figure("smaps_rollup", "Pss"))
}

fn open_sessions(server: &Server) -> i64 {
    let status = server.must(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    status["host"]["sessions"].as_i64().unwrap()
}

/// Sessions that send a byte at a time and begin anew when they are cut.
struct Flood {
    ending: Arc<AtomicBool>,
    cuts: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Flood {
    fn start(to: SocketAddr, first_source: usize) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let cuts = Arc::new(AtomicU64::new(0));
        let (told, counted) = (ending.clone(), cuts.clone());
        let thread = std::thread::spawn(move || {
            let begin = |number: usize| {
                // Few from each address, so that it is the pace that cuts them and not their number.
                let source = source(first_source + number / (PER_ADDRESS / 2));
                let mut stream = connect(source, to);
                let opening = "EHLO slow.test\r\nMAIL FROM:<s@slow.test>\r\n\
                               RCPT TO:<demo@lamppost.test>\r\nDATA\r\n";
                stream.write_all(opening.as_bytes()).unwrap();
                stream.set_nonblocking(true).unwrap();
                stream
            };
            let mut slow: Vec<_> = (0..SLOW).map(begin).collect();
            while !told.load(Ordering::SeqCst) {
                for (number, stream) in slow.iter_mut().enumerate() {
                    if is_cut(stream) {
                        counted.fetch_add(1, Ordering::SeqCst);
                        *stream = begin(number);
                    }
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
        Self { ending, cuts, thread }
    }

    fn end(self) {
        self.ending.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

/// Sends a byte; whether the server has closed the session.
fn is_cut(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 1024];
    let is_closed = match stream.read(&mut buffer) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    is_closed || stream.write_all(b"x").is_err()
}

#[test]
fn ten_thousand_idle_sessions_and_slow_ones_hinder_nobody() {
    let idle_count = allow_files();
    let server = Server::start(&setup());
    let alone = memory(&server);
    let before = ordinary(&server, 1);

    let idle: Vec<_> =
        (0..idle_count).map(|number| connect(source(number / PER_ADDRESS), server.mx)).collect();
    assert!(idle.iter().all(|stream| greeting(stream).starts_with("220")));
    let with_idle = memory(&server);

    // One more from an address that has its share is sent away, and nobody else is.
    assert!(greeting(&connect(source(0), server.mx)).starts_with("421 4.7.0"));
    let sources = idle_count.div_ceil(PER_ADDRESS);
    assert!(greeting(&connect(source(sources), server.mx)).starts_with("220"));

    let flood = Flood::start(server.mx, sources + 1);
    assert!(until(|| flood.cuts.load(Ordering::SeqCst) > 0), "no slow session is cut");
    let during = ordinary(&server, 2);
    assert!(until(|| flood.cuts.load(Ordering::SeqCst) >= 2 * SLOW as u64));
    let at_last = memory(&server);
    flood.end();

    let told = |report: &Report| {
        let latencies = report.latencies();
        (percentile(&latencies, 0.5), percentile(&latencies, 0.99), report.elapsed)
    };
    println!(
        "{idle_count} idle sessions, {SLOW} slow ones; KiB of their own and in all: {alone:?} alone, \
         {with_idle:?} with idle sessions, {at_last:?} with slow ones too; p50, p99 and time of 300 \
         messages: {:?} before, {:?} during",
        told(&before),
        told(&during)
    );
    drop(idle);
    assert!(until(|| open_sessions(&server) == 0), "sessions stay open");
    let after = ordinary(&server, 3);
    let most = [at_last, with_idle].into_iter().map(|(own, share)| own.max(share)).max().unwrap();
    assert!(most < MEMORY_MAX_KIB, "{most} KiB are used");
    // The machine may be busy with other tests, before or after.
    let limit = 3 * before.elapsed.max(after.elapsed) + Duration::from_secs(1);
    assert!(during.elapsed < limit, "others were slow: {:?}", during.elapsed);
    server.delivered(ACCOUNT, 900);
    assert!(!server.log().contains("panicked"));
}
