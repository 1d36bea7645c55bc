//! The greylist for other mail servers, asked as Postfix asks, by a program that takes no mail itself.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::net::TcpStream;

use support::greylist::Alone;
use support::until;

const FROM: &str = "someone@elsewhere.test";
const TO: &str = "demo@there.test";
const DUNNO: &str = "action=DUNNO";

#[test]
fn a_sender_waits_once_and_a_message_has_one_field_for_it() {
    let alone = Alone::start("delay = \"1s\"", "");
    let mut asker = alone.connect();
    let new = "action=DEFER_IF_PERMIT 4.7.1 greylisted (new): try again in 1 second";
    assert_eq!(asker.ask(FROM, TO, "instance=1\n"), new);
    assert_eq!(asker.ask(FROM, "other@there.test", "instance=1\n"), new);
    assert_eq!(asker.ask("", TO, "instance=2\n"), new);
    // The other way to ask leads to the same greylist.
    let mut locally = alone.connect_locally();
    let again = locally.ask(FROM, TO, "instance=3\n");
    assert!(again.contains("greylisted (early)") || again.contains("PREPEND"), "{again}");
    let mut passed = again;
    assert!(until(|| {
        passed = asker.ask(FROM, "other@there.test", "instance=4\n");
        !passed.contains("greylisted")
    }));
    assert!(passed.starts_with("action=PREPEND X-Greylist: delayed "), "{passed}");
    assert!(passed.contains(" seconds by grey.lamppost.test (Lamppost); "), "{passed}");
    // The second recipient of the same message, and a message of a sender who is known.
    assert_eq!(asker.ask(FROM, TO, "instance=4\n"), DUNNO);
    assert_eq!(asker.ask(FROM, TO, "instance=5\n"), DUNNO);
    assert!(until(|| asker.ask("", TO, "instance=6\n").starts_with("action=PREPEND ")));
    let metrics = alone.server.metrics_text();
    assert!(metrics.contains("lamppost_greylist_decisions_total{reason=\"new\"} 3\n"), "{metrics}");
    assert!(metrics.contains("lamppost_greylist_connections_open 2\n"), "{metrics}");
    let log = alone.server.log();
    assert!(log.contains("greylist defers") && log.contains("greylist passes"), "{log}");
    let status = alone.server.must(&["status"]);
    assert!(status.contains(&alone.address.to_string()), "{status}");
}

#[test]
fn who_authenticated_or_has_no_address_or_is_past_rcpt_does_not_wait() {
    let alone = Alone::start("", "");
    let mut asker = alone.connect();
    assert_eq!(asker.ask(FROM, TO, "sasl_username=demo\n"), DUNNO);
    assert_eq!(asker.ask(FROM, TO, "client_address=unknown\n"), DUNNO);
    assert_eq!(asker.ask(FROM, "", ""), DUNNO);
    asker.send("request=smtpd_access_policy\nprotocol_state=DATA\n\n");
    assert_eq!(asker.answer(), DUNNO);
    assert!(asker.ask(FROM, TO, "").contains("greylisted (new): try again in 300 seconds"));
}

#[test]
fn a_broken_store_does_what_the_file_says() {
    let alone = Alone::start("", "");
    let mut asker = alone.connect();
    alone.break_store();
    assert_eq!(asker.ask(FROM, TO, ""), DUNNO);
    alone.write("when-store-fails = \"defer\"", "");
    alone.server.must(&["reload"]);
    let defers = "action=DEFER_IF_PERMIT 4.3.0 the greylist cannot be asked: try again later";
    assert_eq!(asker.ask(FROM, TO, ""), defers);
    alone.write("mode = \"observe\"\nwhen-store-fails = \"defer\"", "");
    alone.server.must(&["reload"]);
    assert_eq!(asker.ask(FROM, TO, ""), DUNNO);
    assert!(alone.server.log().contains("no such table"));
}

#[test]
fn who_only_watches_defers_nobody() {
    let alone = Alone::start("mode = \"observe\"", "");
    assert_eq!(alone.connect().ask(FROM, TO, ""), DUNNO);
    let log = alone.server.log();
    assert!(log.contains("greylist would defer") && log.contains("new"), "{log}");
    alone.write("", "");
    alone.server.must(&["reload"]);
    assert!(alone.connect().ask(FROM, TO, "").contains("greylisted (early)"));
}

#[test]
fn limits_hold() {
    let limits = "connections-max = 2\nrequest-size-max = \"1KiB\"\nrequest-timeout = \"1s\"\n\
                  idle-timeout = \"2s\"";
    let alone = Alone::start("", limits);
    let (mut one, mut other) = (alone.connect(), alone.connect_locally());
    assert!(one.ask(FROM, TO, "").contains("greylisted"));
    assert!(other.ask(FROM, TO, "").contains("greylisted"));
    assert_eq!(alone.connect().answer(), "");
    other.send(&format!("request=smtpd_access_policy\nhelo_name={}", "x".repeat(1024)));
    assert_eq!(other.answer(), "");
    // Its place is free again.
    let place = || {
        let mut asker = alone.connect();
        asker.ask(FROM, TO, "").contains("greylisted").then_some(asker)
    };
    let mut slow = None;
    assert!(until(|| {
        slow = place();
        slow.is_some()
    }));
    let mut slow = slow.unwrap();
    slow.send("request=");
    assert_eq!(slow.answer(), "");
    // Nothing was asked here for a while.
    assert_eq!(one.answer(), "");
    let log = alone.server.log();
    for reason in ["connections-max", "request-size-max", "request-timeout"] {
        assert!(log.contains(reason), "{reason}: {log}");
    }
    alone.write("", "allow-from = [\"192.0.2.0/24\"]");
    alone.server.must(&["reload"]);
    assert_eq!(alone.connect().ask(FROM, TO, ""), "");
    assert!(alone.connect_locally().ask(FROM, TO, "").contains("greylisted"));
}

#[test]
fn a_reload_moves_it_and_mail_servers_connect_again() {
    let alone = Alone::start("", "");
    let (mut idle, old) = (alone.connect(), alone.socket.clone());
    assert!(idle.ask(FROM, TO, "").contains("greylisted (new)"));
    let [elsewhere] = support::free_addresses();
    let moved = Alone { address: elsewhere, socket: old.with_extension("other"), ..alone };
    moved.write("", "");
    moved.server.must(&["reload"]);
    assert_eq!(idle.answer(), "");
    assert!(moved.connect().ask(FROM, TO, "").contains("greylisted (early)"));
    assert!(moved.connect_locally().ask(FROM, TO, "").contains("greylisted (early)"));
    assert!(!old.exists() && TcpStream::connect(elsewhere).is_ok());
}

#[test]
fn the_doctor_asks_it() {
    let alone = Alone::start("", "");
    let told = alone.server.command(&["doctor"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains(&format!("{} answers", alone.address)), "{told}");
    assert!(told.contains(&format!("{} answers", alone.socket.display())), "{told}");
}

#[test]
fn a_file_with_a_greylist_alone_is_right() {
    let alone = Alone::start("", "");
    let file = alone.server.config();
    let told = support::succeeded(&alone.server.command(&["check", file.to_str().unwrap()]));
    assert!(!told.contains("domain"), "{told}");
    alone.write("enabled = false", "");
    let told = alone.server.command(&["check", file.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("asked in [mail.greylist.service], and defers nobody"), "{told}");
    alone.write("", "socket-mode = \"9\"\nallow-from = [\"x\"]\nrequest-size-max = \"9GiB\"");
    let told = alone.server.command(&["check", file.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    for key in ["socket-mode", "allow-from", "request-size-max"] {
        assert!(told.contains(key), "{told}");
    }
}
