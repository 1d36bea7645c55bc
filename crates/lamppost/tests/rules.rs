//! The rules of connections bind the mail service: who may connect, relay, send how much and is greylisted.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Server, Setup, Wire, is_stopped, lamppost, signal, succeeded, until};

const DEMO: &str = "demo@lamppost.test";
const GREYLISTED: &str = "451 4.7.1 greylisted (new): try again in";

/// A server whose clients come from any address, by a proxy's word, and its file of rules.
struct Ruled {
    server: Server,
    rules: PathBuf,
    folder: tempfile::TempDir,
}

impl Ruled {
    fn start(rules: &str, greylist: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tcp.smtp");
        std::fs::write(&path, rules).unwrap();
        // Nobody is there: what is to be relayed waits.
        let mail =
            format!("relay-to = \"127.0.0.1:1\"\n[mail.rules]\nfile = \"{}\"\n", path.display());
        let mx = "proxy-protocol-from = [\"127.0.0.1/32\"]";
        let server = Server::start(&Setup { greylist, mx, mail, ..Setup::default() });
        Self { server, rules: path, folder }
    }

    /// A connection from this address.
    fn connect(&self, from: &str) -> Wire {
        let family = if from.parse::<IpAddr>().unwrap().is_ipv4() { "TCP4 " } else { "TCP6 " };
        let to = if family == "TCP4 " { "192.0.2.250" } else { "2001:db8::250" };
        let mut wire = Wire::connect(self.server.mx);
        assert!(wire.send(format!("PROXY {family}{from} {to} 40000 25\r\n")));
        wire
    }

    fn is_denied(&self, from: &str) -> bool {
        let greeting = self.connect(from).reply();
        assert!(greeting.is_empty() || greeting.starts_with("220 "), "{greeting}");
        greeting.is_empty()
    }

    /// What RCPT is answered with.
    fn rcpt(&self, from: &str, to: &str) -> String {
        let mut wire = self.connect(from);
        assert!(wire.reply().starts_with("220 "));
        assert!(wire.ask("EHLO client.test\r\n").starts_with("250"));
        assert!(wire.ask("MAIL FROM:<a@elsewhere.test>\r\n").starts_with("250"));
        wire.ask(format!("RCPT TO:<{to}>\r\n"))
    }

    /// Writes rules in one step.
    fn write(&self, rules: impl AsRef<[u8]>) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, rules).unwrap();
        std::fs::rename(&new, &self.rules).unwrap();
    }
}

#[test]
fn variables_do_what_they_did() {
    let rules = "\
        192.0.2.66:deny\n\
        192.0.2.0/24:allow,RELAYCLIENT=\"\",DATABYTES=\"1000\",TCPLOCALHOST=\"rules.lamppost.test\" # ours\n\
        192.0.3.:allow,RELAYCLIENT=\"@fix.lamppost.test\"\n\
        198.51.100.:allow,RBLSMTPD=\"-no mail from you\"\n\
        198.51.101.:allow,RBLSMTPD=\"come back later\"\n\
        203.0.113.:allow,GREYLISTING=\"\"\n\
        2001:db8::/32:deny\n\
        :allow,RBLSMTPD=\"\"\n";
    let ruled = Ruled::start(rules, "enabled = false\nlookup-timeout = \"0s\"");
    for (from, denied) in [
        ("192.0.2.66", true),
        ("192.0.2.65", false),
        ("2001:db8:1::1", true),
        ("2001:db9::1", false),
    ] {
        assert_eq!(ruled.is_denied(from), denied, "{from}");
    }
    assert!(ruled.server.log().contains("192.0.2.66"), "{}", ruled.server.log());
    assert!(ruled.server.metrics_text().contains("lamppost_connections_denied_total 2"));

    let elsewhere = "someone@elsewhere.test";
    assert!(ruled.rcpt("192.0.2.1", elsewhere).starts_with("250"));
    assert!(ruled.rcpt("192.0.2.1", "nobody@lamppost.test").starts_with("550 5.1.1"));
    assert!(ruled.rcpt("192.0.4.1", elsewhere).starts_with("550 5.7.1 the recipient is not here"));
    assert!(ruled.rcpt("198.51.100.1", DEMO).starts_with("553 5.7.1 no mail from you\n"));
    assert!(ruled.rcpt("198.51.101.1", DEMO).starts_with("451 4.7.1 come back later\n"));
    assert!(ruled.rcpt("203.0.113.1", DEMO).starts_with(GREYLISTED));
    assert!(ruled.rcpt("192.0.4.1", DEMO).starts_with("250"));

    let mut wire = ruled.connect("192.0.2.1");
    assert!(wire.reply().starts_with("220 mail.lamppost.test "));
    assert!(wire.ask("EHLO client.test\r\n").contains("SIZE 1000\n"));
    let content = |bytes: usize| format!("Subject: x\r\n\r\n{}", "x".repeat(bytes - 13));
    assert!(wire.deliver(DEMO, &content(1001)).starts_with("552 5.3.4"));
    assert!(wire.deliver(DEMO, &content(1000)).starts_with("250"));
    let received = ruled.server.only_message(DEMO);
    assert!(received.contains("by rules.lamppost.test "), "{received}");

    // What is appended is where the message goes.
    let mut wire = ruled.connect("192.0.3.1");
    assert!(
        wire.reply().starts_with("220 ") && wire.ask("EHLO client.test\r\n").starts_with("250")
    );
    assert!(wire.deliver("a@b.test", "Subject: x\r\n\r\nx").starts_with("250"));
    let queue = ruled.server.must(&["queue", "--json"]);
    assert!(queue.contains(r#"\"a@b.test\"@fix.lamppost.test"#), "{queue}");
}

#[test]
fn greylisting_is_switched_off_for_whom_a_rule_says() {
    let rules = "192.0.2.1:allow,GREYLISTING=\"off\"\n192.0.2.2:allow,RELAYCLIENT=\"\"\n";
    let ruled = Ruled::start(rules, "lookup-timeout = \"0s\"\ndelay = \"5m\"");
    assert!(ruled.rcpt("192.0.2.1", DEMO).starts_with("250"));
    assert!(ruled.rcpt("192.0.2.2", DEMO).starts_with("250"));
    assert!(ruled.rcpt("192.0.2.3", DEMO).starts_with(GREYLISTED));
}

/// On listeners for submission a client says who it is: its address lets it do nothing more, and keeps it
/// from nothing but the connection.
#[test]
fn submission_is_denied_by_rules_and_no_more() {
    let ruled = Ruled::start("127.:allow,RELAYCLIENT=\"\",RBLSMTPD=\"-no\",DATABYTES=\"77\"\n", "");
    let mut wire = Wire::connect(ruled.server.submission);
    assert!(wire.reply().starts_with("220 "));
    let hello = wire.ask("EHLO client.test\r\n");
    assert!(hello.contains("SIZE 77\n"), "{hello}");
    assert!(wire.ask("MAIL FROM:<a@elsewhere.test>\r\n").starts_with("530 5.7.0"));
    ruled.write("127.:allow,DATABYTES=\"0\"\n");
    let mut wire = Wire::connect(ruled.server.submission);
    assert!(wire.reply().starts_with("220 "));
    // No limit (RFC 1870 §4).
    assert!(wire.ask("EHLO client.test\r\n").contains("SIZE 0\n"));
    ruled.write("127.:deny\n");
    for address in [ruled.server.submission, ruled.server.implicit] {
        assert!(Wire::connect(address).is_closed());
    }
}

#[test]
fn a_change_of_the_file_counts_at_the_next_connection() {
    let ruled = Ruled::start(":allow\n", "");
    let mut open = ruled.connect("192.0.2.1");
    assert!(open.reply().starts_with("220 "));
    for round in 0..20 {
        ruled.write("192.0.2.:deny\n");
        assert!(ruled.is_denied("192.0.2.1"), "round {round}");
        ruled.write("192.0.2.:allow\n");
        assert!(!ruled.is_denied("192.0.2.1"), "round {round}");
    }
    // As the recipe does it.
    let cdb = "192.0.2.1-9:deny\n:allow\n";
    let mut make = lamppost();
    make.current_dir(ruled.folder.path()).args(["tcprules", "tcp.smtp", "tcp.smtp.temp"]);
    let mut make = make.stdin(Stdio::piped()).spawn().unwrap();
    make.stdin.take().unwrap().write_all(cdb.as_bytes()).unwrap();
    assert!(make.wait().unwrap().success());
    assert!(ruled.is_denied("192.0.2.9") && !ruled.is_denied("192.0.2.10"));
    // Who is in stays in.
    assert!(open.ask("EHLO client.test\r\n").starts_with("250"));
    // Another file is a matter of the configuration.
    let other = ruled.folder.path().join("other");
    std::fs::write(&other, "192.0.2.10:deny\n").unwrap();
    let config = std::fs::read_to_string(ruled.server.config()).unwrap();
    let config = config.replace(ruled.rules.to_str().unwrap(), other.to_str().unwrap());
    std::fs::write(ruled.server.config(), &config).unwrap();
    let told = ruled.server.must(&["reload"]);
    assert!(told.ends_with("changed in [mail.rules].\n"), "{told}");
    assert!(ruled.is_denied("192.0.2.10") && !ruled.is_denied("192.0.2.9"));
    let without = config.replace(&format!("file = \"{}\"", other.display()), "");
    std::fs::write(ruled.server.config(), without).unwrap();
    ruled.server.must(&["reload"]);
    assert!(!ruled.is_denied("192.0.2.10"));
}

/// Policy, which is halted, is asked about no connection that there is nothing to decide by.
#[test]
fn a_reload_binds_the_next_connection_to_rules_and_frees_it_from_them() {
    let ruled = Ruled::start("192.0.2.:deny\n", "");
    let with = std::fs::read_to_string(ruled.server.config()).unwrap();
    let without = with.replace(&format!("file = \"{}\"", ruled.rules.display()), "");
    let reload = |text: &str| {
        std::fs::write(ruled.server.config(), text).unwrap();
        assert!(ruled.server.must(&["reload"]).ends_with("changed in [mail.rules].\n"));
    };
    assert!(ruled.is_denied("192.0.2.1"));
    for _ in 0..3 {
        reload(&without);
        let policy = ruled.server.role("policy");
        signal(policy, "STOP");
        assert!(until(|| is_stopped(policy)));
        assert!(!ruled.is_denied("192.0.2.1"));
        signal(policy, "CONT");
        reload(&with);
        assert!(ruled.is_denied("192.0.2.1"));
        assert!(!ruled.is_denied("192.0.3.1"));
    }
}

#[test]
fn garbage_leaves_the_old_rules_in_force_and_is_told_with_its_place() {
    let ruled = Ruled::start("192.0.2.:deny\n", "");
    let status = || ruled.server.command(&["status"]);
    assert!(succeeded(&status()).contains("rules"), "{:?}", status());
    ruled.write("192.0.2.:allow\n198.51.100.1:forbid\n");
    assert!(ruled.is_denied("192.0.2.1"));
    let path = ruled.rules.display();
    let fault = format!(
        "{path}, line 2, column 14: `allow` or `deny` must follow the colon, in small letters"
    );
    assert!(until(|| ruled.server.log().contains(&fault)), "{}", ruled.server.log());
    let told = String::from_utf8(status().stdout).unwrap();
    assert!(told.contains(&fault) && told.contains("the rules before stay in force"), "{told}");
    // The roles begin anew with those that were good.
    ruled.server.kill_role("policy");
    assert!(until(|| ruled.server.log().contains("all roles work again")));
    assert!(ruled.is_denied("192.0.2.1"));
    // A configuration that names it is not taken.
    let refused = ruled.server.command(&["reload"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    for garbage in [&b"\x7fELF\0\0\0"[..], &[0xff; 4096], &[0; 1000], b"", b"<html>\n"] {
        ruled.write(garbage);
        assert!(ruled.is_denied("192.0.2.1"));
    }
    std::fs::remove_file(&ruled.rules).unwrap();
    assert!(ruled.is_denied("192.0.2.1"));
    assert!(until(|| ruled.server.log().contains("cannot be read: No such file")));
    ruled.write("192.0.2.:allow\n");
    assert!(!ruled.is_denied("192.0.2.1"));
    assert!(succeeded(&status()).contains("as their file holds them"), "{:?}", status());
}

/// A cdb of Debian's tcprules is taken as it is.
#[cfg(feature = "peers")]
#[test]
fn the_cdb_of_the_other_tcprules_is_taken() {
    let ruled = Ruled::start(":allow\n", "");
    let mut make = Command::new(support::unpacked().join("ucspi-tcp/usr/bin/tcprules"));
    make.current_dir(ruled.folder.path()).args(["tcp.smtp", "tmp"]).stdin(Stdio::piped());
    let mut make = make.spawn().unwrap();
    let text = "192.0.2.5-7:deny\n:allow,RBLSMTPD=\"-no\"\n";
    make.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(make.wait().unwrap().success());
    assert!(ruled.is_denied("192.0.2.6"));
    assert!(ruled.rcpt("192.0.2.8", DEMO).starts_with("553 5.7.1 no\n"));
}

fn checked(folder: &Path, rules: &str) -> (Option<i32>, String) {
    let (file, config) = (folder.join("tcp.smtp"), folder.join("lamppost.toml"));
    std::fs::write(&file, rules).unwrap();
    let text = format!(
        "[mail]\ndomains = [\"example.org\"]\n[mail.rules]\nfile = \"{}\"\n\
         [[mail.listen]]\naddress = [\"127.0.0.1:2525\"]\nkind = \"mx\"\ntls = \"off\"\n",
        file.display()
    );
    std::fs::write(&config, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lamppost")).arg("check").arg(&config).output();
    let output = output.unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code(), told.replace(folder.to_str().unwrap(), "DIR"))
}

#[test]
fn check_tells_what_is_wrong_with_the_rules_and_what_is_odd() {
    let folder = tempfile::tempdir().unwrap();
    let (code, told) = checked(folder.path(), "10.:allow\n10.0.0.0/33:deny\n");
    assert_eq!(code, Some(78));
    let expected = "error: `mail.rules.file`: DIR/tcp.smtp, line 2, column 1: behind the slash stands how \
                    many bits are the network's, from 0 to 32\n --> DIR/lamppost.toml:4:8\n";
    assert!(told.contains(expected), "{told}");
    assert!(told.contains("help: write a number from 0 to 32 behind the slash"), "{told}");
    let (code, told) = checked(folder.path(), " 10.0.0.1:deny\n");
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("DIR/tcp.smtp, line 1: its key has a blank, and no client matches it"),
        "{told}"
    );
}
