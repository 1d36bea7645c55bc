//! What was acknowledged survives a kill, and comes once.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use support::{Server, Setup, Wire};

#[test]
fn every_acknowledged_message_comes_once_after_kills() {
    let mut server = Server::start(&Setup::default());
    let mut acknowledged = BTreeSet::new();
    for round in 0..5 {
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let address = server.mx;
                std::thread::spawn(move || send_until_cut(address, round, sender))
            })
            .collect();
        // The kill falls while all four are sending.
        assert!(support::until(
            || server.log().matches("message accepted").count() > (round + 1) * 40
        ));
        server.kill();
        for sender in senders {
            acknowledged.extend(sender.join().unwrap());
        }
        server.launch();
    }
    assert!(support::until(|| server.must(&["queue", "list"]).lines().count() <= 1));
    let new = server.maildir("demo@lamppost.test").join("new");
    let mut seen = BTreeSet::new();
    for file in support::files(&new) {
        let text = std::fs::read_to_string(&file).unwrap();
        let (_, token) = text.rsplit_once("\n\n").unwrap();
        assert!(seen.insert(token.trim().to_owned()), "{token} came twice");
    }
    let lost: Vec<_> = acknowledged.difference(&seen).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(acknowledged.len() > 100);
}

/// Sends messages with unique bodies until the server dies; returns those that it acknowledged.
fn send_until_cut(address: std::net::SocketAddr, round: usize, sender: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut wire = Wire::greeted(address);
    for number in 0..100_000 {
        let token = format!("token-{round}-{sender}-{number}");
        let sent =
            wire.send("MAIL FROM:<s@elsewhere.test>\r\nRCPT TO:<demo@lamppost.test>\r\nDATA\r\n");
        let replies = [wire.reply(), wire.reply(), wire.reply()];
        if !sent || !replies[2].starts_with("354") {
            break;
        }
        if !wire.ask(format!("Subject: x\r\n\r\n{token}\r\n.\r\n")).starts_with("250") {
            break;
        }
        acknowledged.push(token);
    }
    acknowledged
}

#[test]
fn sigterm_ends_idle_sessions_and_exits_cleanly() {
    let mut server = Server::start(&Setup::default());
    let mut idle = Wire::greeted(server.mx);
    assert_eq!(server.stop(), Some(0));
    assert!(idle.reply().starts_with("421 4.3.2"));
}

#[test]
fn sigterm_lets_a_message_finish() {
    let mut server = Server::start(&Setup::default());
    let mut wire = Wire::greeted(server.mx);
    wire.begin_content("demo@lamppost.test");
    support::signal(server.pid(), "TERM");
    assert!(support::until(|| server.log().contains("stopping")));
    assert!(wire.ask("Subject: late\r\n\r\nlate\r\n.\r\n").starts_with("250 2.0.0"));
    assert!(wire.reply().starts_with("421"));
    server.launch_after_exit();
    server.delivered("demo@lamppost.test", 1);
}
