//! Rules about the names of clients: only a name that leads back to its client counts.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use support::nsd::{Nsd, reversed};
use support::rbldnsd::{Bad, BadDay};
use support::{Server, Setup, Wire, until};

/// A server whose clients come from any address, by a proxy's word, with rules and a name server.
struct Ruled {
    server: Server,
    rules: std::path::PathBuf,
    folder: tempfile::TempDir,
}

impl Ruled {
    fn start(dns: SocketAddr, rules: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tcp.smtp");
        std::fs::write(&path, rules).unwrap();
        let mail = format!(
            "[mail.rules]\nfile = \"{}\"\n{more}\n[dns]\nservers = [\"{dns}\"]\n",
            path.display()
        );
        let mx = "proxy-protocol-from = [\"127.0.0.1/32\"]";
        Self { server: Server::start(&Setup { mx, mail, ..Setup::default() }), rules: path, folder }
    }

    fn is_denied(&self, from: &str) -> bool {
        let family = if from.parse::<IpAddr>().unwrap().is_ipv4() { "TCP4 " } else { "TCP6 " };
        let to = if family == "TCP4 " { "192.0.2.250" } else { "2001:db8::250" };
        let mut wire = Wire::connect(self.server.mx);
        assert!(wire.send(format!("PROXY {family}{from} {to} 40000 25\r\n")));
        let greeting = wire.reply();
        assert!(greeting.is_empty() || greeting.starts_with("220 "), "{greeting}");
        greeting.is_empty()
    }

    /// Writes rules in one step.
    fn write(&self, rules: impl AsRef<[u8]>) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, rules).unwrap();
        std::fs::rename(&new, &self.rules).unwrap();
    }
}

fn zone() -> String {
    let ptr = |ip: &str, name: &str| format!("{}. PTR {name}.\n", reversed(ip));
    let mut zone = [
        ptr("192.0.2.1", "MX.friend.test"),
        "mx.friend.test. A 192.0.2.1\n".into(),
        // It claims to be a friend.
        ptr("192.0.2.2", "mx.friend.test"),
        ptr("192.0.2.3", "a.stranger.test"),
        ptr("192.0.2.3", "mx2.friend.test"),
        "a.stranger.test. A 192.0.2.3\nmx2.friend.test. A 192.0.2.3\n".into(),
        ptr("192.0.2.4", "a.stranger.test"),
        ptr("192.0.2.5", "loop1.test"),
        "loop1.test. CNAME loop2.test.\nloop2.test. CNAME loop1.test.\n".into(),
        ptr("192.0.2.6", "x.fail.test"),
        ptr("127.0.0.7", "mx7.friend.test"),
        "mx7.friend.test. A 127.0.0.7\n".into(),
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR six.friend.test.\n".into(),
        "six.friend.test. AAAA 2001:db8::1\n".into(),
    ]
    .concat();
    for number in 0..100 {
        zone += &ptr("192.0.2.10", &format!("mx{number}.friend.test"));
    }
    zone
}

#[test]
fn a_name_counts_when_it_leads_back() {
    let dns = Nsd::start(&zone());
    let rules = "=mx.friend.test:allow\n192.0.2.1:deny\n=.friend.test:allow\n:deny\n";
    let ruled = Ruled::start(dns.address, rules, "");
    let check = |from: &str, denied: bool| {
        assert_eq!(ruled.is_denied(from), denied, "{from}: {}", ruled.server.log());
    };
    // The address comes first.
    check("192.0.2.1", true);
    for last in [2, 4, 5, 6, 10, 77] {
        check(&format!("192.0.2.{last}"), true);
    }
    // By its second name.
    check("192.0.2.3", false);
    check("2001:db8::1", false);
    check("2001:db8::2", true);
    // This machine is not looked up.
    check("127.0.0.7", true);
    // From the next connection on, without a reload; a cdb too.
    ruled.write("=MX.friend.test:deny\n=mx.friend.test:allow\n:deny\n");
    check("192.0.2.1", false);
    check("192.0.2.3", true);
    ruled.write("=mx.friend.test:deny\n=:allow\n:deny\n");
    check("192.0.2.1", true);
    check("192.0.2.3", false);
    check("192.0.2.2", true);
    ruled.write("192.0.2.:allow\n:deny\n");
    check("192.0.2.1", false);
    let log = || ruled.server.log();
    assert!(until(|| log().contains("=mx.friend.test")), "{}", log());
}

#[test]
fn silence_is_no_name_and_costs_one_deadline_where_rules_are_about_names() {
    let silence = BadDay::begin(Bad::Silent);
    let ruled = Ruled::start(silence.address, ":allow\n", "name-timeout = \"1s\"");
    let took = |from: &str| {
        let begun = Instant::now();
        assert!(!ruled.is_denied(from));
        begun.elapsed()
    };
    assert!(took("192.0.2.1") < Duration::from_secs(1));
    ruled.write("=.enemy.test:deny\n192.0.2.2:allow\n:allow\n");
    let slow = took("192.0.2.1");
    assert!(slow >= Duration::from_secs(1) && slow < Duration::from_secs(5), "{slow:?}");
    assert!(took("192.0.2.2") < Duration::from_secs(1));
    ruled.write("=.friend.test:allow\n:deny\n");
    assert!(ruled.is_denied("192.0.2.1"));
    let done = {
        let config = std::fs::read_to_string(ruled.server.config()).unwrap();
        std::fs::write(ruled.server.config(), config.replace("\"1s\"", "\"100ms\"")).unwrap();
        ruled.server.must(&["reload"])
    };
    assert!(done.ends_with("changed in [mail.rules].\n"), "{done}");
    ruled.write("=.enemy.test:deny\n:allow\n");
    assert!(took("192.0.2.1") < Duration::from_secs(1));
}

#[test]
fn name_servers_that_fail_confirm_nobody() {
    let failing = BadDay::begin(Bad::Code(2));
    let ruled = Ruled::start(failing.address, "=:allow\n:deny\n", "");
    assert!(ruled.is_denied("192.0.2.1"));
    ruled.write("=:deny\n:allow\n");
    assert!(!ruled.is_denied("192.0.2.1"));
}
