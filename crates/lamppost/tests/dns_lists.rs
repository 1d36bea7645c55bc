//! Clients are looked up in lists in the DNS: Debian's rbldnsd has them.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use support::rbldnsd::{Bad, BadDay, Rbldnsd, TEST_ENTRY, free_udp};
use support::{Server, Setup, Wire, succeeded, until};

const DEMO: &str = "demo@lamppost.test";

/// A server whose clients come from any address, by a proxy's word, and that asks lists.
struct Listed {
    server: Server,
}

impl Listed {
    /// Starts it with these sections, and this name server.
    fn start(dns: SocketAddr, sections: &str) -> Self {
        Self::start_with(&format!("{sections}\n[dns]\nservers = [\"{dns}\"]\n"))
    }

    fn start_with(mail: &str) -> Self {
        let mx = "proxy-protocol-from = [\"127.0.0.1/32\"]";
        Self { server: Server::start(&Setup { mx, mail: mail.to_owned(), ..Setup::default() }) }
    }

    /// A connection from this address that has been greeted.
    fn connect(&self, from: &str) -> Wire {
        let family = if from.parse::<IpAddr>().unwrap().is_ipv4() { "TCP4 " } else { "TCP6 " };
        let to = if family == "TCP4 " { "192.0.2.250" } else { "2001:db8::250" };
        let mut wire = Wire::connect(self.server.mx);
        assert!(wire.send(format!("PROXY {family}{from} {to} 40000 25\r\n")));
        assert!(wire.reply().starts_with("220 "));
        assert!(wire.ask("EHLO client.test\r\n").starts_with("250"));
        assert!(wire.ask("MAIL FROM:<a@elsewhere.test>\r\n").starts_with("250"));
        wire
    }

    /// What RCPT is answered with.
    fn rcpt(&self, from: &str) -> String {
        self.connect(from).ask(format!("RCPT TO:<{DEMO}>\r\n"))
    }

    #[track_caller]
    fn check(&self, from: &str, expected: &str) {
        let told = self.rcpt(from);
        assert!(told.starts_with(expected), "{from}: {told}\n{}", self.server.log());
    }

    /// Waits for a line of the log, which a role writes when it can.
    #[track_caller]
    fn await_log(&self, words: &str) {
        let is_told = until(|| self.server.log().contains(words));
        assert!(is_told, "{words}: {}", self.server.log());
    }

    fn status(&self) -> String {
        String::from_utf8(self.server.command(&["status"]).stdout).unwrap()
    }

    /// Changes the configuration while it runs.
    fn reload(&self, change: impl Fn(&str) -> String) -> String {
        let path = self.server.config();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, change(&text)).unwrap();
        self.server.must(&["reload"])
    }
}

fn list(zone: &str, more: &str) -> String {
    format!("[[mail.dns-list]]\nzone = \"{zone}\"\n{more}\n")
}

fn entries(more: &str) -> String {
    format!("{TEST_ENTRY}{more}")
}

#[test]
fn who_is_listed_is_refused_with_the_lists_name_and_text_and_can_complain() {
    let v4 = entries("192.0.2.1 :127.0.0.2:see https://bl.test/?$\n198.51.100.0/24\n");
    let dns = Rbldnsd::start(&[
        ("bl.test", "ip4set", &v4),
        ("bl.test", "ip6trie", "2001:db8:bad::/48 :127.0.0.3:no $\n"),
    ]);
    let rules = tempfile::NamedTempFile::new().unwrap();
    let rule = "192.0.2.1:allow,RBLSMTPD=\"\"\n198.51.100.1:allow,RELAYCLIENT=\"\"\n";
    let listed = Listed::start(dns.address, &list("bl.test", ""));
    let refused = "553 5.7.1 192.0.2.1 is listed by bl.test: see https://bl.test/?192.0.2.1\n";
    listed.check("192.0.2.1", refused);
    listed.check("192.0.2.2", "250");
    // Its entry has no text.
    listed.check("198.51.100.1", "553 5.7.1 198.51.100.1 is listed by bl.test\n");
    let v6 = "553 5.7.1 2001:db8:bad::7 is listed by bl.test: no 2001:db8:bad::7\n";
    listed.check("2001:db8:bad::7", v6);
    listed.check("2001:db8:9bad::7", "250");
    // This machine has the addresses of test entries.
    listed.check("127.0.0.2", "250");

    let mut wire = listed.connect("192.0.2.1");
    assert!(wire.ask("RCPT TO:<Postmaster@lamppost.test>\r\n").starts_with("250"));
    // There is no such mailbox, which a client that is not listed is told too.
    assert!(wire.ask("RCPT TO:<abuse@lamppost.test>\r\n").starts_with("550 5.1.1"));
    assert!(wire.ask(format!("RCPT TO:<{DEMO}>\r\n")).starts_with("553"));

    let figures = listed.server.metrics_text();
    for figure in [
        "lamppost_dns_list_answers_total{list=\"bl.test\",outcome=\"listed\"} 4\n",
        "lamppost_dns_list_answers_total{list=\"bl.test\",outcome=\"not-listed\"} 2\n",
        "lamppost_dns_lists_out 0\n",
        "lamppost_recipients_refused_total{reason=\"dns-listed\"} 4\n",
    ] {
        assert!(figures.contains(figure), "{figure}{figures}");
    }
    listed.await_log("bl.test listed");
    assert!(listed.status().contains("1 are asked"), "{}", listed.status());

    // Rules decide before lists.
    std::fs::write(rules.path(), rule).unwrap();
    let file = format!("[mail.rules]\nfile = \"{}\"\n[mail.greylist]", rules.path().display());
    listed.reload(|text| text.replace("[mail.greylist]", &file));
    listed.check("192.0.2.1", "250");
    listed.check("198.51.100.1", "250");
    listed.check("198.51.100.2", "553");
}

#[test]
fn weights_answers_texts_and_allowlists_decide_together() {
    let first = entries("192.0.2.1\n192.0.2.2\n192.0.2.3\n192.0.2.5 :127.0.0.11:policy\n");
    let second = entries("192.0.2.2\n192.0.2.3\n");
    let allow = entries("192.0.2.3\n");
    let dns = Rbldnsd::start(&[
        ("one.test", "ip4set", &first),
        ("two.test", "ip4set", &second),
        ("allow.test", "ip4set", &allow),
    ]);
    let sections = [
        list("one.test", "answers = [\"127.0.0.2\", \"127.0.0.4-10\"]"),
        list("two.test", "weight = 2\ntext = \"{ip} again, says {zone}\""),
        list("allow.test", "kind = \"allow\"\nweight = 9"),
        "[mail.dns-lists]\nthreshold = 3\ntemporary = true\n".into(),
    ];
    let listed = Listed::start(dns.address, &sections.concat());
    listed.check("192.0.2.1", "250");
    listed.check(
        "192.0.2.2",
        "451 4.7.1 192.0.2.2 is listed by one.test; 192.0.2.2 is listed by two.test: 192.0.2.2 again, says two.test\n",
    );
    listed.check("192.0.2.3", "250");
    let done = listed.reload(|text| text.replace("threshold = 3", "threshold = 1"));
    assert!(done.ends_with("changed in [mail.dns-lists].\n"), "{done}");
    listed.check("192.0.2.1", "451 4.7.1 192.0.2.1 is listed by one.test\n");
    // It is listed for what does not count.
    listed.check("192.0.2.5", "250");
    let done = listed.reload(|text| text.replace("\"127.0.0.4-10\"", "\"127.0.0.8/29\""));
    assert!(done.ends_with("changed in [[mail.dns-list]].\n"), "{done}");
    listed.check("192.0.2.5", "451 4.7.1 192.0.2.5 is listed by one.test: policy\n");
}

/// Policy makes no sockets until lists are asked, and none when they are not asked any more: roles begin anew
/// for that, and nobody is turned away.
#[test]
fn lists_come_and_go_by_a_reload() {
    let dns = Rbldnsd::start(&[("bl.test", "ip4set", &entries("192.0.2.1\n"))]);
    let listed = Listed::start_with(&format!("[dns]\nservers = [\"{}\"]", dns.address));
    listed.check("192.0.2.1", "250");
    let section = format!("{}[mail.greylist]", list("bl.test", ""));
    let done = listed.reload(|text| text.replace("[mail.greylist]", &section));
    assert!(done.ends_with("changed in [[mail.dns-list]].\n"), "{done}");
    listed.check("192.0.2.1", "553");
    listed.reload(|text| text.replace(&section, "[mail.greylist]"));
    listed.check("192.0.2.1", "250");
}

#[test]
fn answers_are_kept_while_they_hold() {
    let dns = Rbldnsd::start(&[("bl.test", "ip4set", &entries("192.0.2.1 :127.0.0.2:spam\n"))]);
    let sections = format!("{}[mail.dns-lists]\ndeadline = \"10s\"\n", list("bl.test", ""));
    let listed = Listed::start(dns.address, &sections);
    let refused = "553 5.7.1 192.0.2.1 is listed by bl.test: spam\n";
    listed.check("192.0.2.1", refused);
    drop(dns);
    listed.check("192.0.2.1", refused);
}

#[test]
fn silent_name_servers_hold_up_clients_no_longer_than_the_deadline_and_not_for_long() {
    let silence = BadDay::begin(Bad::Silent);
    let sections = [
        list("one.test", ""),
        list("two.test", ""),
        "[mail.dns-lists]\ndeadline = \"1s\"\nfailures-max = 2\npause = \"1h\"\n".into(),
    ];
    let listed = Listed::start(silence.address, &sections.concat());
    for _ in 0..2 {
        let begun = Instant::now();
        listed.check("192.0.2.1", "250");
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
    }
    let begun = Instant::now();
    listed.check("192.0.2.1", "250");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let status = listed.status();
    assert!(status.contains("one.test: no name server answered in time"), "{status}");
    assert!(status.contains("two.test: no name server answered in time"), "{status}");
    let figures = listed.server.metrics_text();
    assert!(figures.contains("lamppost_dns_lists_out 2\n"), "{figures}");
    assert!(figures.contains("{list=\"one.test\",outcome=\"out\"} 1\n"), "{figures}");
    listed.await_log("a list in the DNS is not asked for a while");
    // Who prefers it otherwise says so.
    listed.reload(|text| text.replace("pause = ", "when-lists-fail = \"defer\"\npause = "));
    listed.check("192.0.2.1", "451 4.7.1 lists in the DNS that may tell of you do not answer");
}

/// Policy may connect to the name server's port, and nowhere else.
#[test]
fn answers_too_long_for_a_packet_come_by_tcp() {
    let dns = BadDay::begin(Bad::TcpOnly);
    let listed = Listed::start(dns.address, &list("bl.test", ""));
    listed.check("192.0.2.1", "553 5.7.1 192.0.2.1 is listed by bl.test\n");
    assert!(listed.status().contains("1 are asked"), "{}", listed.status());
}

#[test]
fn servers_that_fail_refuse_nobody_unless_doubt_shall_defer() {
    // SERVFAIL.
    let failing = BadDay::begin(Bad::Code(2));
    let sections = [list("bl.test", ""), "[mail.dns-lists]\nwhen-lists-fail = \"defer\"\n".into()];
    let listed = Listed::start(failing.address, &sections.concat());
    listed.check("192.0.2.1", "451 4.7.1 lists in the DNS that may tell of you do not answer");
    let mut wire = listed.connect("192.0.2.1");
    assert!(wire.ask("RCPT TO:<postmaster@lamppost.test>\r\n").starts_with("250"));
    let done = listed.reload(|text| text.replace("\"defer\"", "\"accept\""));
    assert!(done.ends_with("changed in [mail.dns-lists].\n"), "{done}");
    listed.check("192.0.2.1", "250");
    // Where nobody is, the answer is at once.
    drop(failing);
    listed.reload(|text| text.replace("\"accept\"", "\"defer\""));
    listed.check("192.0.2.1", "451 4.7.1 lists in the DNS that may tell of you do not answer");
}

#[test]
fn a_list_that_lies_refuses_nobody_until_it_is_well_again() {
    let everybody = entries("0.0.0.0/1\n128.0.0.0/1\n");
    let elsewhere = entries("192.0.2.1 :203.0.113.80:buy this domain\n");
    let refusing = entries("192.0.2.1 :127.255.255.254:ask by a resolver of your own\n");
    let dns = Rbldnsd::start(&[
        ("all.test", "ip4set", &everybody),
        ("sold.test", "ip4set", &elsewhere),
        ("refusing.test", "ip4set", &refusing),
        ("gone.test", "ip4set", "203.0.113.1\n"),
    ]);
    let zones = ["all.test", "sold.test", "refusing.test", "gone.test"];
    let sections = zones.map(|zone| list(zone, "")).concat();
    let sections = format!("{sections}[mail.dns-lists]\npause = \"1s\"\n");
    let listed = Listed::start(dns.address, &sections);
    listed.check("192.0.2.1", "250");
    for (zone, fault) in [
        ("all.test", "it lists everybody, also 127.0.0.1"),
        ("sold.test", "it answers 203.0.113.80, as no list does"),
        ("refusing.test", "it refuses to answer this server (127.255.255.254)"),
        ("gone.test", "it does not hold its test entry 127.0.0.2"),
    ] {
        let told = |line: &str| line.contains(zone) && line.contains(fault);
        let is_told = until(|| listed.server.log().lines().any(told));
        assert!(is_told, "{zone} {}", listed.server.log());
    }
    assert!(succeeded(&listed.server.command(&["status"])).contains("gone.test: it does not hold"));
    // It becomes honest. With the reload what it said before is forgotten.
    dns.change(0, &entries("192.0.2.7\n"));
    assert!(until(|| !dns.has("1.0.0.127.all.test")));
    listed.reload(|text| text.replace("\"1s\"", "\"2s\""));
    assert!(until(|| listed.rcpt("192.0.2.7").starts_with("553")), "{}", listed.server.log());
}

#[test]
fn doctor_tells_lists_that_are_not_well_and_what_to_do() {
    let everybody = entries("0.0.0.0/1\n128.0.0.0/1\n");
    let dns = Rbldnsd::start(&[
        ("well.test", "ip4set", TEST_ENTRY),
        ("all.test", "ip4set", &everybody),
        ("sold.test", "ip4set", "0.0.0.0/1 :203.0.113.80:buy this domain\n"),
        ("shy.test", "ip4set", "127.0.0.2 :127.255.255.254:ask by your own\n"),
        ("gone.test", "ip4set", "203.0.113.1\n"),
    ]);
    let zones = ["well.test", "all.test", "sold.test", "shy.test", "gone.test", "unknown.test"];
    let sections = zones.map(|zone| list(zone, "")).concat();
    let sections = format!("{sections}[mail.dns-lists]\nthreshold = 1\n");
    let listed = Listed::start(dns.address, &sections);
    let told = |arguments: &[&str]| {
        let output = listed.server.command(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_inclusive('\n')
            .skip_while(|line| !line.contains("dns lists: "))
            .collect::<String>()
    };
    let text = told(&["doctor"]);
    let lines = [
        "ok    dns lists: well.test holds 127.0.0.2, and not 127.0.0.1, as it must\n",
        "FAIL  dns lists: all.test lists everybody, also 127.0.0.1: the service does not ask it\n      \
         help: remove the list",
        "FAIL  dns lists: sold.test is not asked by the service: it answers 203.0.113.80, as no list does",
        "FAIL  dns lists: shy.test is not asked by the service: it refuses to answer this server \
         (127.255.255.254)",
        "      help: let a name server of this machine ask, as unbound on 127.0.0.1",
        "WARN  dns lists: gone.test does not hold its test entry 127.0.0.2\n      help: look whether",
        "WARN  dns lists: unknown.test does not answer, so it refuses nobody: ",
    ];
    for line in lines {
        assert!(text.contains(line), "{line}\n{text}");
    }
    listed.reload(|text| text.replace("threshold = 1", "when-lists-fail = \"defer\""));
    let text = told(&["doctor"]);
    let line = "FAIL  dns lists: unknown.test does not answer, so mail is deferred for that: ";
    assert!(text.contains(line), "{text}");
    assert_eq!(told(&["doctor", "--no-dns"]), "");
}

#[test]
fn a_list_comes_back_by_itself() {
    let address = free_udp();
    let sections = [
        list("bl.test", ""),
        "[mail.dns-lists]\nfailures-max = 1\npause = \"1s\"\ndeadline = \"500ms\"\n".into(),
    ];
    let listed = Listed::start(address, &sections.concat());
    listed.check("192.0.2.1", "250");
    let _dns = Rbldnsd::start_at(address, &[("bl.test", "ip4set", &entries("192.0.2.1\n"))]);
    assert!(until(|| listed.rcpt("192.0.2.1").starts_with("553")), "{}", listed.server.log());
    listed.await_log("a list in the DNS is asked again");
    assert!(listed.status().contains("1 are asked"), "{}", listed.status());
}

/// Robots that talk before they are greeted are found out though lists take their time.
#[test]
fn early_talkers_are_noticed_while_lists_are_asked() {
    let silence = BadDay::begin(Bad::Silent);
    let dns = format!("[dns]\nservers = [\"{}\"]\n", silence.address);
    let mail = format!("{}[mail.dns-lists]\ndeadline = \"1s\"\n{dns}", list("bl.test", ""));
    let mx = "proxy-protocol-from = [\"127.0.0.1/32\"]";
    let limits = "greeting-delay = \"100ms\"";
    let server = Server::start(&Setup { limits, mx, mail, ..Setup::default() });
    let mut wire = Wire::connect(server.mx);
    assert!(wire.send("PROXY TCP4 192.0.2.1 192.0.2.250 40000 25\r\nEHLO robot.test\r\n"));
    let told = wire.reply();
    assert!(told.starts_with("554 5.5.1 you talked before"), "{told}");
}
