//! The load against a small server that does what each test wants.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lamppost_load::{Load, Outcome, Token};

const RECIPIENTS: [&str; 3] = ["a@lamppost.test", "b@lamppost.test", "c@lamppost.test"];

/// What the server does with a message that was sent whole.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Accept,
    /// Refuses every second message.
    RefuseHalf,
    /// Closes instead of answering, from this message on.
    CloseFrom(u64),
    /// Refuses every recipient.
    NoRecipients,
}

/// A message with its recipients.
type Taken = (Vec<String>, Vec<u8>);

/// A server that remembers what it took.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
    connections: Arc<AtomicU64>,
}

impl Server {
    fn start(manner: Manner) -> Self {
        #[expect(clippy::disallowed_methods, reason = "this server stands outside of the house")]
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            taken: Arc::default(),
            connections: Arc::default(),
        };
        let serving = server.clone();
        let count = Arc::new(AtomicU64::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let (serving, count) = (serving.clone(), count.clone());
                std::thread::spawn(move || serving.serve(stream.unwrap(), manner, &count));
            }
        });
        server
    }

    fn serve(&self, mut stream: TcpStream, manner: Manner, count: &AtomicU64) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let mut recipients = Vec::new();
        stream.write_all(b"220 ready\r\n").ok()?;
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let reply = match line.split([' ', '\r']).next()? {
                "EHLO" => "250-hello\r\n250 PIPELINING",
                "RCPT" if matches!(manner, Manner::NoRecipients) => "452 4.3.1 full",
                "RCPT" => {
                    let address = line.split(['<', '>']).nth(1)?;
                    recipients.push(address.to_owned());
                    "250 ok"
                }
                "DATA" if recipients.is_empty() => "503 no recipients",
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").ok()?;
                    let content = content(&mut lines)?;
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    match manner {
                        Manner::CloseFrom(from) if number >= from => return None,
                        Manner::RefuseHalf if number % 2 == 1 => "451 4.3.0 later",
                        _ => {
                            let envelope = std::mem::take(&mut recipients);
                            self.taken.lock().unwrap().push((envelope, content));
                            "250 2.0.0 taken"
                        }
                    }
                }
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            if !reply.starts_with("250 ok") {
                // A transaction ends with its reply.
                if line.starts_with("DATA") {
                    recipients.clear();
                }
            }
            stream.write_all(format!("{reply}\r\n").as_bytes()).ok()?;
        }
    }
}

/// Content up to the final dot, with LF line ends and single dots.
fn content(lines: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        if line == b".\r\n" {
            return Some(content);
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line).strip_suffix(b"\r\n")?);
        content.push(b'\n');
    }
}

fn load(server: &Server, count: u64) -> Load {
    let mut load = Load::new(server.address, &RECIPIENTS);
    load.count = Some(count);
    load.sessions = 4;
    load.sizes = vec![500, 4096, 60_000];
    load.recipients_per_message = 1..=3;
    load.patience = Duration::from_secs(20);
    load
}

#[test]
fn every_message_arrives_as_its_token_says() {
    for pipelining in [false, true] {
        let server = Server::start(Manner::Accept);
        let load = Load { pipelining, ..load(&server, 50) };
        let report = load.clone().start().unwrap().finish();
        assert_eq!(report.acknowledged().count(), 50, "{:?}", report.complaints);
        assert_eq!(report.latencies().len(), 50);
        assert_eq!((report.cuts, server.connections.load(Ordering::SeqCst)), (0, 4));
        let mut tokens = Vec::new();
        for (envelope, content) in server.taken.lock().unwrap().iter() {
            let token = Token::recognise(content).unwrap();
            assert_eq!(&load.recipients_of(&token), envelope);
            tokens.push(token);
        }
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), 50);
        let sizes: std::collections::BTreeSet<_> = tokens.iter().map(|token| token.size).collect();
        assert_eq!(sizes.len(), 3);
    }
}

#[test]
fn sessions_keep_their_interval() {
    let server = Server::start(Manner::Accept);
    let interval = Duration::from_millis(50);
    let begun = Instant::now();
    let report = Load { interval, ..load(&server, 9) }.start().unwrap().finish();
    assert_eq!(report.acknowledged().count(), 9, "{:?}", report.complaints);
    // Four sessions: the ninth message is somebody's third.
    assert!(begun.elapsed() >= interval * 2);
}

#[test]
fn fresh_connections_carry_one_message_each() {
    let server = Server::start(Manner::Accept);
    let load = Load { keep_connections: false, ..load(&server, 20) };
    let report = load.start().unwrap().finish();
    assert_eq!(report.acknowledged().count(), 20, "{:?}", report.complaints);
    // Each session connects once more, to find that all is sent.
    assert!((20..=24).contains(&server.connections.load(Ordering::SeqCst)));
}

#[test]
fn refusals_are_told_with_their_codes() {
    let server = Server::start(Manner::RefuseHalf);
    let report = load(&server, 20).start().unwrap().finish();
    assert_eq!(report.acknowledged().count(), 10);
    assert_eq!(report.refused().collect::<Vec<_>>(), [451; 10]);
    for pipelining in [false, true] {
        let server = Server::start(Manner::NoRecipients);
        let report = Load { pipelining, ..load(&server, 8) }.start().unwrap().finish();
        assert_eq!(report.refused().collect::<Vec<_>>(), [452; 8]);
    }
}

#[test]
fn a_session_ends_with_its_connection_and_no_answer_is_unknown() {
    let server = Server::start(Manner::CloseFrom(10));
    let report = load(&server, 1000).start().unwrap().finish();
    assert_eq!(report.acknowledged().count(), 10);
    assert_eq!(report.unknown().count(), 4);
    assert_eq!((report.cuts, report.complaints.len()), (4, 4));
}

#[test]
fn a_session_connects_again_where_it_shall() {
    let server = Server::start(Manner::CloseFrom(10));
    let load = Load { reconnect: true, ..load(&server, 30) };
    let report = load.start().unwrap().finish();
    assert_eq!(report.acknowledged().count(), 10);
    assert_eq!(report.unknown().count(), 20);
    assert_eq!(report.cuts, 20);
}

#[test]
fn nothing_is_sent_where_nobody_listens() {
    let server = Server::start(Manner::Accept);
    let address = {
        #[expect(clippy::disallowed_methods, reason = "only to learn which port is free")]
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let report = Load { address, ..load(&server, 5) }.start().unwrap().finish();
    assert!(report.sent.is_empty());
    assert_eq!(report.complaints.len(), 4);
}

#[test]
fn the_journal_holds_what_was_acknowledged() {
    let path = std::env::temp_dir().join(format!("lamppost-load-{}", std::process::id()));
    let server = Server::start(Manner::RefuseHalf);
    let load = Load { journal: Some(path.clone()), ..load(&server, 20) };
    let report = load.start().unwrap().finish();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut noted: Vec<Token> = text.lines().map(|line| line.parse().unwrap()).collect();
    noted.sort();
    let acknowledged: Vec<_> = report.acknowledged().map(|sent| sent.token).collect();
    assert_eq!(noted, acknowledged);
}

#[test]
fn a_load_ends_when_it_is_told_or_its_time_is_up() {
    let server = Server::start(Manner::Accept);
    let mut endless = load(&server, 0);
    endless.count = None;
    let running = endless.clone().start().unwrap();
    while running.acknowledged() < 20 {
        std::thread::yield_now();
    }
    running.stop();
    let report = running.finish();
    assert!(report.acknowledged().count() >= 20 && report.complaints.is_empty());
    assert!(report.sent.iter().all(|sent| matches!(sent.outcome, Outcome::Acknowledged(_))));
    endless.duration = Some(Duration::from_millis(50));
    let report = endless.start().unwrap().finish();
    assert!(report.elapsed >= Duration::from_millis(50) && report.complaints.is_empty());
}
