//! A bounce for somebody elsewhere goes out by the relay, and waits visibly where there is none.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use support::{Server, Setup, Wire, until};

/// A server for elsewhere.test, which the others use as their relay.
fn elsewhere() -> Server {
    let accounts: &[&str] = &["sender@elsewhere.test"];
    Server::start(&Setup { domain: "elsewhere.test", accounts, ..Setup::default() })
}

/// The lines by which mail for elsewhere goes to a server.
fn relay_to(server: &Server) -> String {
    format!("relay-to = \"{}\"\n", server.mx)
}

fn here(mail: String) -> Server {
    Server::start(&Setup { queue: "retry-first = \"1s\"", mail, ..Setup::default() })
}

/// Hands in a message that fails for good: it was delivered to its recipient before.
fn hand_in_what_fails(server: &Server) {
    let mut wire = Wire::greeted(server.mx);
    let content = "Delivered-To: demo@lamppost.test\r\nSubject: in a circle\r\n\r\nsecret";
    let reply = wire.deliver("demo@lamppost.test", content);
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
}

fn check_bounce(relay: &Server) {
    let bounce = relay.only_message("sender@elsewhere.test");
    for expected in [
        "Return-Path: <>\n",
        "To: <sender@elsewhere.test>\n",
        "Content-Type: multipart/report; report-type=delivery-status;",
        "Final-Recipient: rfc822; demo@lamppost.test\nAction: failed\nStatus: 5.4.6\n",
        "Subject: in a circle\n",
    ] {
        assert!(bounce.contains(expected), "{expected}\n{bounce}");
    }
    assert!(!bounce.contains("secret"), "{bounce}");
}

#[test]
fn a_bounce_for_elsewhere_goes_out_by_the_relay() {
    let relay = elsewhere();
    let server = here(relay_to(&relay));
    hand_in_what_fails(&server);
    check_bounce(&relay);
    server.await_empty_queue();
    assert!(!server.maildir("demo@lamppost.test").join("new").exists());
}

#[test]
fn a_bounce_without_a_way_out_waits_visibly_until_there_is_one() {
    let relay = elsewhere();
    let server = here(relay_to(&relay));
    let open = std::fs::read_to_string(server.config()).unwrap();
    std::fs::write(server.config(), open.replace(&relay_to(&relay), "")).unwrap();
    server.must(&["reload"]);
    hand_in_what_fails(&server);
    let list = || server.must(&["queue", "list", "--json"]);
    let waits = || {
        let messages: serde_json::Value = serde_json::from_str(&list()).unwrap();
        messages.as_array().unwrap().iter().any(|message| {
            let recipient = &message["recipients"][0];
            let reason = &recipient["last"]["reason"];
            recipient["address"] == "sender@elsewhere.test"
                && recipient["state"] == "deferred"
                && reason["status"] == "4.4.4"
                && reason["text"].as_str().is_some_and(|text| text.contains("relay-to"))
        })
    };
    assert!(until(waits), "{}", list());
    // People see it as well.
    let shown = server.must(&["queue", "list"]);
    assert!(shown.contains("sender@elsewhere.test"), "{shown}");
    std::fs::write(server.config(), &open).unwrap();
    server.must(&["reload"]);
    check_bounce(&relay);
    server.await_empty_queue();
}
