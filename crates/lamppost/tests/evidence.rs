//! What the DNS tells of clients: Debian's nsd has the zones, and Debian's pyspf is asked the same questions.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lamppost_dns::{NameServers, Patience};
use lamppost_evidence::{
    Client, DnsInvestigator, Evidence, Investigator as _, Limits, Prefixes, ReverseName, keys,
};
use support::nsd::{Nsd, reversed, txt};
use support::rbldnsd::{Bad, BadDay};
use tokio::runtime::Runtime;

/// Asks one name server about clients.
struct Inquiry {
    runtime: Runtime,
    investigator: DnsInvestigator,
}

impl Inquiry {
    fn at(server: SocketAddr, limits: Limits) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let patience = Patience {
            each_try: Duration::from_secs(1),
            tries_more: 2,
            at_once_max: 100,
            answers_max: 10_000,
        };
        let servers = Arc::new(NameServers::new(&[server], patience).unwrap());
        let investigator = DnsInvestigator::default();
        investigator.set(servers, limits);
        Self { runtime, investigator }
    }

    fn of(&self, ip: &str, helo: &str, sender: &str) -> Evidence {
        let ip = ip.parse().unwrap();
        self.runtime.block_on(self.investigator.investigate(Client { ip, helo, sender }))
    }

    fn keys(&self, ip: &str, helo: &str, sender: &str) -> Vec<String> {
        let (evidence, ip) = (self.of(ip, helo, sender), ip.parse().unwrap());
        keys(&evidence, ip, Prefixes { ipv4: 24, ipv6: 64 })
    }
}

/// Long enough for a machine that has much else to do.
const PATIENT: Limits =
    Limits { deadline: Duration::from_secs(20), kept_for: Duration::ZERO, kept_max: 100 };

fn ptr(ip: &str, name: &str) -> String {
    format!("{}. PTR {name}.\n", reversed(ip))
}

#[test]
fn any_member_of_a_pool_counts_as_its_domain() {
    let zone = [
        txt("big.test", "v=spf1 include:_spf.big.test ~all"),
        txt("_spf.big.test", "v=spf1 ip4:192.0.2.0/25 ip4:198.51.100.0/24 ip6:2001:db8:5::/48 -all"),
        txt("moved.test", "v=spf1 redirect=_spf.big.test"),
        txt("mx.helo.test", "v=spf1 a -all"),
        "mx.helo.test. A 192.0.2.130\n".into(),
        ptr("192.0.2.1", "out1.big.test"),
        "out1.big.test. A 192.0.2.1\n".into(),
        ptr("203.0.113.7", "mail.big.test"),
        "mail.big.test. A 203.0.113.8\n".into(),
        "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR six.big.test.\n".into(),
        "six.big.test. AAAA 2001:db8:5::7\n".into(),
    ];
    let dns = Nsd::start(&zone.concat());
    let inquiry = Inquiry::at(dns.address, PATIENT);
    let check = |ip: &str, helo: &str, sender: &str, expected: &[&str]| {
        assert_eq!(inquiry.keys(ip, helo, sender), expected, "{ip} {helo} {sender}");
    };
    check("192.0.2.1", "x", "a@big.test", &["spf:big.test", "name:big.test", "192.0.2.0"]);
    check("198.51.100.9", "x", "a@BIG.test", &["spf:big.test", "198.51.100.0"]);
    check("198.51.100.9", "x", "a@moved.test", &["spf:moved.test", "198.51.100.0"]);
    check("2001:db8:5::7", "x", "a@big.test", &["spf:big.test", "name:big.test", "2001:db8:5::"]);
    // Not theirs; the name leads elsewhere.
    check("203.0.113.7", "x", "a@big.test", &["203.0.113.0"]);
    // The null sender counts by HELO.
    check("192.0.2.130", "mx.helo.test", "", &["spf:mx.helo.test", "192.0.2.0"]);
    check("192.0.2.131", "mx.helo.test", "", &["192.0.2.0"]);
    let evidence = inquiry.of("203.0.113.7", "x", "a@big.test");
    assert_eq!(evidence.spf.result.name(), "softfail");
    assert_eq!(evidence.name, ReverseName::Unconfirmed);
}

#[test]
fn domains_that_let_everybody_send_are_no_network() {
    let mut zone: String = [
        ("all.test", "v=spf1 +all"),
        ("all2.test", "v=spf1 include:all.test -all"),
        ("all3.test", "v=spf1 redirect=all.test"),
        ("late.test", "v=spf1 ip4:192.0.2.1 all"),
        ("ptr.test", "v=spf1 ip4:192.0.2.1 ptr -all"),
        ("exists.test", "v=spf1 ip4:192.0.2.1 exists:%{i}.yes.test -all"),
        ("macro.test", "v=spf1 ip4:192.0.2.1 a:%{i}.yes.test -all"),
        ("macro2.test", "v=spf1 ip4:192.0.2.1 include:%{l}.yes.test -all"),
        ("broad.test", "v=spf1 ip4:192.0.0.0/15 -all"),
        ("sum.test", "v=spf1 ip4:192.0.0.0/17 ip4:198.51.0.0/17 ip4:203.0.113.1 -all"),
        ("sum2.test", "v=spf1 ip4:192.0.0.0/17 include:half.test -all"),
        ("half.test", "v=spf1 ip4:198.51.0.0/16 -all"),
        ("hosts.test", "v=spf1 ip4:192.0.2.1 a:four.test/16 -all"),
        ("gone.test", "v=spf1 ip4:192.0.2.1 include:none.test -all"),
        ("failing.test", "v=spf1 ip4:192.0.2.1 a:x.fail.test -all"),
        ("six.test", "v=spf1 ip6:2001:db8::/31 -all"),
        // These are few.
        ("narrow.test", "v=spf1 ip4:192.0.0.0/16 ip4:192.0.2.0/24 a:one.test -ip4:0.0.0.0/0 -all"),
        ("own.test", "v=spf1 a:%{d} a:mx.%{o} ?all ip4:0.0.0.0/0"),
        ("other.test", "v=spf1 ip4:192.0.2.1 ip6:::/0 -all"),
        ("six2.test", "v=spf1 ip6:2001:db8::/32 -all"),
    ]
    .map(|(name, text)| txt(name, text))
    .concat();
    zone += "four.test. A 198.51.1.1\nfour.test. A 203.0.113.1\none.test. A 192.0.7.7\n\
             own.test. A 192.0.2.1\nmx.own.test. A 192.0.2.2\n";
    let dns = Nsd::start(&zone);
    let inquiry = Inquiry::at(dns.address, PATIENT);
    let check = |ip: &str, domain: &str, expected: bool| {
        let spf = inquiry.of(ip, "x", &format!("a@{domain}.test")).spf;
        assert_eq!((spf.result.name(), spf.is_narrow), ("pass", expected), "{domain} {ip}");
    };
    for domain in [
        "all", "all2", "all3", "late", "ptr", "exists", "macro", "macro2", "broad", "sum", "sum2",
        "hosts", "gone", "failing",
    ] {
        check("192.0.2.1", domain, false);
    }
    check("2001:db8::1", "six", false);
    for domain in ["narrow", "own", "other"] {
        check("192.0.2.1", domain, true);
    }
    check("2001:db8::1", "other", false);
    check("2001:db8::1", "six2", true);
}

#[test]
fn names_that_prove_nothing_are_no_names() {
    let mut zone: String = [
        ptr("192.0.2.1", "mx.good.test"),
        "mx.good.test. A 192.0.2.99\nmx.good.test. A 192.0.2.1\n".into(),
        ptr("192.0.2.2", "192-0-2-2.line.test"),
        "192-0-2-2.line.test. A 192.0.2.2\n".into(),
        // Of two the server's speaks for it.
        ptr("192.0.2.3", "dyn3.line.test"),
        ptr("192.0.2.3", "mx3.good.test"),
        "dyn3.line.test. A 192.0.2.3\nmx3.good.test. A 192.0.2.3\n".into(),
        ptr("192.0.2.4", "mx.victim.test"),
        "mx.victim.test. A 192.0.2.200\n".into(),
        ptr("192.0.2.5", "loop1.test"),
        "loop1.test. CNAME loop2.test.\nloop2.test. CNAME loop1.test.\n".into(),
        format!("{}. CNAME {}.\n", reversed("192.0.2.6"), reversed("192.0.2.7")),
        format!("{}. CNAME {}.\n", reversed("192.0.2.7"), reversed("192.0.2.6")),
        ptr("192.0.2.8", "x.fail.test"),
        ptr("192.0.2.9", &reversed("192.0.2.9")),
        format!("{}. PTR .\n", reversed("192.0.2.11")),
        format!("{}. PTR a\\032b\\(\\).odd\\255.test.\n", reversed("192.0.2.12")),
    ]
    .concat();
    for number in 0..100 {
        zone += &ptr("192.0.2.10", &format!("mx{number:02}.victim.test"));
    }
    // Only the first few are looked at.
    zone += "mx09.victim.test. A 192.0.2.10\nmx99.victim.test. A 192.0.2.10\n";
    let dns = Nsd::start(&zone);
    let inquiry = Inquiry::at(dns.address, PATIENT);
    let check = |ip: &str, expected: &str| {
        let Evidence { name, is_dynamic, .. } = inquiry.of(ip, "x", "");
        let told = match name {
            ReverseName::Confirmed(name) => {
                format!("{} of {:?}", name.name, name.domain.unwrap_or_default())
            }
            other => format!("{other:?}"),
        };
        assert_eq!(format!("{told}{}", if is_dynamic { " dynamic" } else { "" }), expected, "{ip}");
    };
    check("192.0.2.1", "mx.good.test of \"good.test\"");
    check("192.0.2.2", "192-0-2-2.line.test of \"line.test\" dynamic");
    check("192.0.2.3", "mx3.good.test of \"good.test\"");
    check("192.0.2.10", "mx09.victim.test of \"victim.test\"");
    for last in [4, 9, 11, 12, 77] {
        check(&format!("192.0.2.{last}"), "Unconfirmed");
    }
    check("192.0.2.8", "Unknown");
    // Whether a loop is an error or nothing is the resolver's to say.
    for last in [5, 6] {
        let evidence = inquiry.of(&format!("192.0.2.{last}"), "x", "");
        assert!(!matches!(evidence.name, ReverseName::Confirmed(_)), "{evidence:?}");
    }
}

#[test]
fn records_that_lead_nowhere_end_soon() {
    let huge: String = (0..3000).fold("v=spf1".into(), |mut text, number| {
        let _infallible = write!(text, " ip4:198.{}.{}.1", 18 + number / 256, number % 256);
        text
    });
    let mut zone: String = [
        ("loop.test", "v=spf1 include:loop.test -all"),
        ("loop1.test", "v=spf1 redirect=loop2.test"),
        ("loop2.test", "v=spf1 redirect=loop1.test"),
        ("voids.test", "v=spf1 a:n1.test a:n2.test a:n3.test all"),
        ("voids2.test", "v=spf1 a:n1.test a:n2.test all"),
        ("many.test", &format!("v=spf1 {} all", "a:one.test ".repeat(11))),
        ("many2.test", &format!("v=spf1 {} all", "a:one.test ".repeat(10))),
        ("two.test", "v=spf1 -all\"\ntwo.test. TXT \"v=spf1 +all"),
        ("fails.test", "v=spf1 include:x.fail.test all"),
        ("binary.test", "v=spf1 \\000\\255 all"),
        ("huge.test", &format!("{huge} ip4:192.0.2.1 -all")),
        ("noise.test", &"x".repeat(60_000)),
        ("noise2.test", &format!("v=spf1 {}", "x".repeat(60_000))),
    ]
    .map(|(name, text)| {
        if name == "two.test" || name == "binary.test" {
            format!("{name}. TXT \"{text}\"\n")
        } else {
            txt(name, text)
        }
    })
    .concat();
    zone += "one.test. A 192.0.2.7\n";
    let _infallible = write!(
        zone,
        "{}",
        (0..11).fold(String::new(), |text, number| text
            + &format!("mxs.test. MX 1 h{number}.test.\n"))
    );
    zone += &txt("mxs.test", "v=spf1 mx all");
    let dns = Nsd::start(&zone);
    let inquiry = Inquiry::at(dns.address, PATIENT);
    for (domain, expected) in [
        ("loop", "permerror"),
        ("loop1", "permerror"),
        ("voids", "permerror"),
        ("voids2", "pass"),
        ("many", "permerror"),
        ("many2", "pass"),
        ("two", "permerror"),
        ("fails", "temperror"),
        ("x.fail", "temperror"),
        ("binary", "permerror"),
        ("huge", "pass"),
        ("noise", "none"),
        ("noise2", "permerror"),
        ("mxs", "permerror"),
        ("none", "none"),
    ] {
        let spf = inquiry.of("192.0.2.1", "x", &format!("a@{domain}.test")).spf;
        assert_eq!(spf.result.name(), expected, "{domain}");
        assert_eq!(spf.is_narrow, domain == "huge", "{domain}");
    }
}

#[test]
fn silence_costs_one_deadline_and_is_nothing_against_the_client() {
    let silence = BadDay::begin(Bad::Silent);
    let deadline = Duration::from_secs(1);
    let limits = Limits { deadline, kept_for: Duration::from_secs(60), kept_max: 100 };
    let inquiry = Inquiry::at(silence.address, limits);
    let begun = Instant::now();
    let evidence = inquiry.of("192.0.2.1", "mx.a.test", "a@b.test");
    assert!(begun.elapsed() >= deadline && begun.elapsed() < deadline * 3, "{:?}", begun.elapsed());
    assert_eq!(evidence.spf.result.name(), "temperror");
    assert_eq!(evidence.name, ReverseName::Unknown);
    assert_eq!(inquiry.keys("192.0.2.1", "mx.a.test", "a@b.test"), ["192.0.2.0"]);
    // What is unknown is kept too.
    let begun = Instant::now();
    inquiry.of("192.0.2.1", "mx.a.test", "a@b.test");
    assert!(begun.elapsed() < deadline / 2, "{:?}", begun.elapsed());

    for code in [2, 5] {
        let failing = BadDay::begin(Bad::Code(code));
        let inquiry = Inquiry::at(failing.address, PATIENT);
        let evidence = inquiry.of("192.0.2.1", "mx.a.test", "a@b.test");
        assert_eq!(
            (evidence.spf.result.name(), evidence.name),
            ("temperror", ReverseName::Unknown)
        );
    }
}

#[test]
fn what_was_found_is_kept_for_a_while_and_within_bounds() {
    let zone = [txt("a.test", "v=spf1 ip4:192.0.2.0/24 -all"), ptr("192.0.2.1", "mx.a.test")];
    let dns = Nsd::start(&format!("{}mx.a.test. A 192.0.2.1\n", zone.concat()));
    let limits = Limits { kept_for: Duration::from_secs(60), ..PATIENT };
    let kept = Inquiry::at(dns.address, limits);
    let few = Inquiry::at(dns.address, Limits { kept_max: 2, ..limits });
    let know = |inquiry: &Inquiry, ip: &str| inquiry.keys(ip, "x", "a@a.test").len();
    assert_eq!([know(&kept, "192.0.2.1"), know(&few, "192.0.2.1")], [3, 3]);
    for last in 2..10 {
        assert_eq!(know(&few, &format!("192.0.2.{last}")), 2);
    }
    drop(dns);
    assert_eq!(know(&kept, "192.0.2.1"), 3);
    // Name servers' answers are kept as long as they say, which is longer.
    assert_eq!(know(&few, "192.0.2.1"), 3);
}

/// Numbers that look like chance, the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// Domains that have a record made by chance.
const DOMAINS: usize = 400;

/// A term of the record of a domain; none includes itself, which pyspf refuses before it comes to that.
fn term(chance: &mut Chance, number: usize) -> String {
    let name = match chance.below(8) {
        0 => "%{d}".to_owned(),
        1 => "%{ir}.%{v}.by.test".to_owned(),
        2 => "%{l1r-}.%{o}".to_owned(),
        3 => "%{h}".to_owned(),
        4 => chance.one(&["none.test", "%{s}.test", "%{D2R}.test", "two.test"]).to_owned(),
        _ => chance.one(&["h1.test", "h2.test", "h3.test", "mx.test"]).to_owned(),
    };
    let sign = chance.one(&["", "", "", "+", "-", "~", "?"]);
    let bits = chance.one(&["", "", "", "/24", "/0", "//64", "/30//48", "/33", "//129"]);
    let of = (number + 1 + chance.below(DOMAINS - 1)) % DOMAINS;
    let term = match chance.below(24) {
        0..4 => format!("a:{name}{bits}"),
        4 => format!("a{bits}"),
        5..8 => format!("mx:{name}{bits}"),
        8 => format!("mx{bits}"),
        9..12 => chance
            .one(&[
                "ip4:192.0.2.1",
                "ip4:192.0.2.0/30",
                "ip4:198.51.100.0/24",
                "ip6:2001:db8::/32",
                "ip4:1.2.3",
            ])
            .to_owned(),
        12..16 => format!("include:d{of}.test"),
        16 => format!("exists:{name}"),
        17 => chance.one(&["ptr", "ptr:h1.test", "ptr:test"]).to_owned(),
        18 => return format!("redirect=d{of}.test"),
        19 => {
            return chance
                .one(&["exp=why.test", "x=%{d}", "unknown", "all:x", "include:", "a:"])
                .to_owned();
        }
        20..22 => "all".to_owned(),
        _ => "include:none.test".to_owned(),
    };
    format!("{sign}{term}")
}

const ASK: &str = "
import json, sys
sys.modules['dns'] = None
import spf
spf.DNS.defaults.update(server=['127.0.0.1'], port=int(sys.argv[1]))
for line in sys.stdin:
    ip, helo, sender = json.loads(line)
    print(spf.check2(ip, sender, helo, timeout=100, querytime=100)[0])
";

/// What pyspf says of clients.
fn asked_of_pyspf(server: SocketAddr, clients: &[[String; 3]]) -> Vec<String> {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", support::unpacked().join("pyspf/usr/lib/python3/dist-packages"));
    command.args(["-W", "ignore", "-c", ASK, &server.port().to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines: Vec<_> = clients.iter().map(|one| serde_json::to_string(one).unwrap()).collect();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        std::io::Write::write_all(&mut stdin, lines.join("\n").as_bytes()).unwrap();
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect()
}

/// Hosts, and domains with records made by chance.
fn zone_by_chance(chance: &mut Chance) -> String {
    // Hosts that take mail have both kinds of addresses: pyspf counts each that is not there as an empty
    // answer, and here the term counts as a whole.
    let mut zone = "h1.test. A 192.0.2.1\nh1.test. AAAA 2001:db8::1\nh2.test. A 198.51.100.7\n\
        h2.test. A 192.0.2.9\nh2.test. AAAA 2001:db8:2::1\nh3.test. AAAA 2001:db8:0:1::1\n\
        h3.test. A 203.0.113.77\nmx.test. MX 1 h1.test.\nmx.test. MX 2 h3.test.\nmx.test. A 203.0.113.5\n\
        *.in-addr.by.test. A 127.0.0.2\ntwo.test. MX 1 h2.test.\nwhy.test. TXT \"so\"\n\
        other.elsewhere.test. A 203.0.113.99\n"
        .to_owned();
    zone += &ptr("192.0.2.1", "h1.test");
    zone += &ptr("198.51.100.7", "h2.test");
    zone += &ptr("198.51.100.7", "other.elsewhere.test");
    for number in 0..DOMAINS {
        let terms: Vec<_> = (0..=chance.below(5)).map(|_| term(chance, number)).collect();
        let domain = format!("d{number}.test");
        zone += &txt(&domain, &format!("v=spf1 {}", terms.join(" ")));
        if chance.below(3) == 0 {
            let last = number % 8;
            let _infallible = writeln!(zone, "{domain}. A 192.0.2.{last}\n{domain}. MX 1 h2.test.");
        }
    }
    zone
}

/// Records made by chance mean the same to pyspf.
#[test]
fn results_are_those_of_pyspf() {
    for seed in 1..=4 {
        let mut chance = Chance(seed);
        let zone = zone_by_chance(&mut chance);
        let dns = Nsd::start(&zone);
        let mut clients = Vec::new();
        for number in 0..DOMAINS {
            for ip in ["192.0.2.1", "198.51.100.7", "203.0.113.5", "2001:db8::1"] {
                let sender = match chance.below(4) {
                    0 => String::new(),
                    1 => format!("strong-bad@d{number}.test"),
                    _ => format!("a@d{number}.test"),
                };
                clients.push([ip.to_owned(), format!("d{number}.test"), sender]);
            }
        }
        let theirs = asked_of_pyspf(dns.address, &clients);
        assert_eq!(theirs.len(), clients.len());
        let inquiry = Inquiry::at(dns.address, PATIENT);
        for ([ip, helo, sender], theirs) in clients.iter().zip(&theirs) {
            let ours = inquiry.of(ip, helo, sender).spf.result.name();
            let begin = format!("{helo}. TXT");
            let record = zone.lines().find(|line| line.starts_with(&begin)).unwrap();
            assert_eq!(ours, theirs, "{seed}: {ip} <{sender}>: {record}");
        }
        for result in ["pass", "fail", "softfail", "neutral", "permerror"] {
            assert!(theirs.iter().filter(|one| *one == result).count() > 10, "{result}");
        }
    }
}
