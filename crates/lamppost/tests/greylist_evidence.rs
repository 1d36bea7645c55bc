//! The greylist asks the DNS about clients: who belongs together waits together, once.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use support::nsd::{Nsd, reversed, txt};
use support::rbldnsd::{Bad, BadDay};
use support::{Server, Setup, Wire, until};

const DEMO: &str = "demo@lamppost.test";
const GREYLISTED: &str = "451 4.7.1 greylisted";

/// A server whose clients come from any address, by a proxy's word, with a name server.
fn start(dns: SocketAddr, greylist: &'static str) -> Server {
    let mail = format!("[dns]\nservers = [\"{dns}\"]\n");
    let mx = "proxy-protocol-from = [\"127.0.0.1/32\"]";
    Server::start(&Setup { greylist, mx, mail, ..Setup::default() })
}

/// What RCPT is answered with, and how long all of it took.
fn rcpt(server: &Server, from: &str, sender: &str) -> (String, Duration) {
    let begun = Instant::now();
    let mut wire = Wire::connect(server.mx);
    assert!(wire.send(format!("PROXY TCP4 {from} 192.0.2.250 40000 25\r\n")));
    assert!(wire.reply().starts_with("220 "));
    assert!(wire.ask("EHLO client.test\r\n").starts_with("250"));
    assert!(wire.ask(format!("MAIL FROM:<{sender}>\r\n")).starts_with("250"));
    (wire.ask(format!("RCPT TO:<{DEMO}>\r\n")), begun.elapsed())
}

#[test]
fn a_retry_from_another_address_of_the_domain_is_a_retry() {
    let ptr = |ip: &str, name: &str| format!("{}. PTR {name}.\n{name}. A {ip}\n", reversed(ip));
    let zone = [
        txt("pool.test", "v=spf1 ip4:192.0.2.0/25 ip4:198.51.100.0/24 -all"),
        txt("all.test", "v=spf1 +all"),
        ptr("203.0.113.7", "out7.named.test"),
        ptr("192.0.2.201", "out8.named.test"),
        ptr("203.0.113.66", "203-0-113-66.line.test"),
    ];
    let dns = Nsd::start(&zone.concat());
    let server =
        start(dns.address, "delay = \"1s\"\nsuspect-delay = \"1h\"\nlookup-timeout = \"20s\"");
    let waits = |from: &str, sender: &str| rcpt(&server, from, sender).0.starts_with(GREYLISTED);
    assert!(waits("192.0.2.1", "a@pool.test"));
    assert!(waits("203.0.113.7", "a@other.test"));
    assert!(waits("192.0.2.1", "a@all.test"));
    assert!(waits("203.0.113.66", "a@line.test"));
    let told = server.must(&["greylist", "list"]);
    for network in ["spf:pool.test", "name:named.test", "203.0.113.0"] {
        assert!(told.contains(network), "{network}: {told}");
    }
    // From elsewhere, once it has waited.
    assert!(until(|| !waits("198.51.100.9", "a@pool.test")), "{}", server.log());
    assert!(until(|| !waits("192.0.2.201", "a@other.test")), "{}", server.log());
    // It would be everybody.
    assert!(waits("198.51.100.9", "a@all.test"));
    // Who has an address of changing users waits for longer.
    let told = rcpt(&server, "203.0.113.66", "b@line.test").0;
    assert!(told.contains("try again in 3600 seconds"), "{told}");
}

/// Neither does it refuse or spare anybody: the address's own network decides as ever.
#[test]
fn name_servers_that_do_not_answer_cost_one_deadline_and_change_nothing() {
    let silence = BadDay::begin(Bad::Silent);
    let server =
        start(silence.address, "delay = \"1s\"\nsuspect-delay = \"1h\"\nlookup-timeout = \"1s\"");
    let (told, took) = rcpt(&server, "192.0.2.1", "a@pool.test");
    assert!(told.starts_with(GREYLISTED) && told.contains("try again in 1 second"), "{told}");
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");
    assert!(until(|| rcpt(&server, "192.0.2.99", "a@pool.test").0.starts_with("250")));
    // Who is known waits for nobody.
    let (told, took) = rcpt(&server, "192.0.2.99", "a@pool.test");
    assert!(told.starts_with("250") && took < Duration::from_secs(1), "{told} {took:?}");
    // Switched off by a reload.
    let path = server.config();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("lookup-timeout = \"1s\"", "lookup-timeout = \"0s\""))
        .unwrap();
    server.must(&["reload"]);
    let (told, took) = rcpt(&server, "203.0.113.1", "a@pool.test");
    assert!(told.starts_with(GREYLISTED) && took < Duration::from_secs(1), "{told} {took:?}");
}
