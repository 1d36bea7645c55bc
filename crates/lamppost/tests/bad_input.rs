//! What bad input gets: a precise answer, while the other sessions notice nothing.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use support::{Server, Setup, Wire, until};

/// A good session still gets its message through.
#[track_caller]
fn still_serves(server: &Server) {
    let before = support::files(&server.maildir("demo@lamppost.test").join("new")).len();
    let reply =
        Wire::greeted(server.mx).deliver("demo@lamppost.test", "Subject: good\r\n\r\nGood.");
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    server.delivered("demo@lamppost.test", before + 1);
}

/// The resident memory of the server in KiB.
fn memory_kib(server: &Server) -> u64 {
    let resident = |pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    server.processes().into_iter().map(resident).sum()
}

#[test]
fn garbage_is_refused_and_the_connection_ends() {
    let server = Server::start(&Setup::default());
    let mut wire = Wire::connect(server.mx);
    wire.reply();
    let garbage: Vec<u8> =
        (0..200_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect();
    wire.send(garbage);
    let replies = std::iter::from_fn(|| Some(wire.reply()).filter(|reply| !reply.is_empty()));
    let replies: Vec<_> = replies.take(1000).collect();
    assert!(!replies.is_empty());
    assert!(
        replies.iter().all(|reply| reply.starts_with('5') || reply.starts_with('4')),
        "{replies:?}"
    );
    assert!(wire.is_closed());
    still_serves(&server);
}

#[test]
fn a_nul_in_a_command_is_a_syntax_error() {
    let server = Server::start(&Setup::default());
    let mut wire = Wire::greeted(server.mx);
    let reply = wire.ask(b"NOOP \0\r\n");
    assert!(reply.starts_with("500 5.5.2") || reply.starts_with("501 5.5.2"), "{reply}");
    still_serves(&server);
}

#[test]
fn an_endless_line_costs_no_memory() {
    let server = Server::start(&Setup::default());
    still_serves(&server);
    let before = memory_kib(&server);
    let mut wire = Wire::greeted(server.mx);
    for _ in 0..64 {
        if !wire.send(vec![b'x'; 1024 * 1024]) {
            break;
        }
    }
    let reply = wire.reply();
    assert!(
        reply.is_empty() || reply.starts_with("500 5.5.2") || reply.starts_with("421"),
        "{reply}"
    );
    assert!(memory_kib(&server) < before + 16 * 1024);
    still_serves(&server);
}

#[test]
fn endless_commands_end_the_session() {
    let server = Server::start(&Setup {
        limits: "greeting-delay = \"0s\"\ncommands-max = 50",
        ..Setup::default()
    });
    let mut wire = Wire::greeted(server.mx);
    let last = (0..60).map(|_| wire.ask("NOOP\r\n")).find(|reply| !reply.starts_with("250"));
    assert!(last.unwrap().starts_with("421 4.7.0"));
    assert!(wire.is_closed());
    still_serves(&server);
}

#[test]
fn too_many_errors_end_the_session() {
    let server = Server::start(&Setup {
        limits: "greeting-delay = \"0s\"\nerrors-max = 3",
        ..Setup::default()
    });
    let mut wire = Wire::greeted(server.mx);
    let last = (0..10).map(|_| wire.ask("NONSENSE\r\n")).find(|reply| !reply.starts_with("500"));
    assert!(last.unwrap().starts_with("421 4.7.0"));
    assert!(wire.is_closed());
}

#[test]
fn half_a_handshake_is_given_up() {
    let server = Server::start(&Setup {
        limits: "greeting-delay = \"0s\"\ntls-handshake-timeout = \"300ms\"",
        ..Setup::default()
    });
    let mut wire = Wire::connect(server.implicit);
    wire.send([0x16, 0x03, 0x01]);
    assert!(wire.is_closed());
    let mut wire = Wire::greeted(server.submission);
    assert!(wire.ask("STARTTLS\r\n").starts_with("220 2.0.0"));
    wire.send([0x16, 0x03, 0x01]);
    assert!(wire.is_closed());
    still_serves(&server);
}

#[test]
fn what_follows_starttls_in_plain_text_is_never_obeyed() {
    let server = Server::start(&Setup::default());
    let mut wire = Wire::greeted(server.submission);
    let reply = wire.ask("STARTTLS\r\nMAIL FROM:<evil@elsewhere.test>\r\n");
    assert!(reply.starts_with('5'), "{reply}");
    assert!(wire.is_closed());
}

#[test]
fn a_command_that_comes_byte_by_byte_runs_out_of_time() {
    let server = Server::start(&Setup {
        limits: "greeting-delay = \"0s\"\ncommand-timeout = \"600ms\"",
        ..Setup::default()
    });
    let mut wire = Wire::greeted(server.mx);
    let begun = std::time::Instant::now();
    // Each byte comes well within the time for a command; the whole does not.
    for byte in b"NOOP 0123456789 0123456789" {
        wire.send([*byte]);
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert!(wire.reply().starts_with("421 4.4.2"));
    assert!(begun.elapsed() < Duration::from_secs(30));
    still_serves(&server);
}

#[test]
fn content_that_drips_is_given_up() {
    let server = Server::start(&Setup {
        limits: "greeting-delay = \"0s\"\ndata-rate-min = \"1KiB\"\ndata-rate-grace = \"500ms\"",
        ..Setup::default()
    });
    let mut wire = Wire::greeted(server.mx);
    wire.begin_content("demo@lamppost.test");
    // Twenty bytes a second, where a thousand are asked for.
    assert!(until(|| {
        std::thread::park_timeout(Duration::from_millis(50));
        !wire.send("x")
    }));
    assert!(server.log().contains("reason=\"too-slow\""));
    still_serves(&server);
}

#[test]
fn a_lying_size_is_found_out() {
    let server = Server::start(&Setup {
        limits: "greeting-delay = \"0s\"\nmessage-size-max = \"64KiB\"",
        ..Setup::default()
    });
    let mut wire = Wire::greeted(server.mx);
    let reply = wire.ask("MAIL FROM:<a@b.test> SIZE=65537\r\n");
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    assert!(wire.ask("MAIL FROM:<a@b.test> SIZE=10\r\n").starts_with("250"));
    assert!(wire.ask("RCPT TO:<demo@lamppost.test>\r\n").starts_with("250"));
    assert!(wire.ask("DATA\r\n").starts_with("354"));
    let body = "0123456789abcdef\r\n".repeat(6000);
    let reply = wire.ask(format!("{body}.\r\n"));
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    // The session goes on after it.
    assert!(wire.ask("RSET\r\n").starts_with("250"));
    still_serves(&server);
}

#[test]
fn a_bdat_that_can_never_end_is_refused() {
    let server = Server::start(&Setup::default());
    let mut wire = Wire::greeted(server.mx);
    assert!(wire.ask("MAIL FROM:<a@b.test>\r\n").starts_with("250"));
    assert!(wire.ask("RCPT TO:<demo@lamppost.test>\r\n").starts_with("250"));
    let reply = wire.ask("BDAT 18446744073709551615\r\n");
    assert!(reply.starts_with('5'), "{reply}");
    still_serves(&server);
}

#[test]
fn sessions_of_one_address_are_limited() {
    let server = Server::start(&Setup {
        limits: "greeting-delay = \"0s\"\nsessions-per-address-max = 3",
        ..Setup::default()
    });
    let mut open: Vec<_> = (0..3).map(|_| Wire::greeted(server.mx)).collect();
    let reply = Wire::connect(server.mx).reply();
    assert!(reply.starts_with("421 4.7.0"), "{reply}");
    open.clear();
    assert!(until(|| Wire::connect(server.mx).reply().starts_with("220")));
}

#[test]
fn a_client_that_talks_first_is_sent_away() {
    let server = Server::start(&Setup { limits: "greeting-delay = \"300ms\"", ..Setup::default() });
    let mut wire = Wire::connect(server.mx);
    wire.send("EHLO eager.test\r\n");
    let reply = wire.reply();
    assert!(reply.starts_with("554 5.5.1") || reply.starts_with("554 5.7.1"), "{reply}");
    assert!(wire.is_closed());
    assert!(Wire::connect(server.mx).reply().starts_with("220"));
}
