//! Mail of accounts for elsewhere goes out by the relay: from one Lamppost to another, and to real
//! servers (feature `peers`, set up by `cargo xtask setup`).
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use support::relayed::{is_empty, logged_in, sender, submit};
use support::{Server, Setup, Wire, until};

#[test]
fn one_server_hands_to_another_under_tls() {
    let there = Server::start(&Setup::default());
    let relay = format!("[mail.relay]\ntls = \"starttls\"\nca = \"{}\"\n", there.ca().display());
    let (here, submission) = sender(there.mx, &relay);
    let stored = submit(submission, "demo@lamppost.test", "Subject: out\r\n\r\n..dot\r\n");
    assert!(stored.starts_with("250 2.0.0"), "{stored}");
    let message = there.only_message("demo@lamppost.test");
    assert!(message.contains("Return-Path: <demo@here.test>\n"), "{message}");
    assert!(message.contains("with ESMTPA\n") && message.contains("with ESMTPS ("), "{message}");
    assert!(message.contains("Subject: out\n") && message.ends_with("\n\n.dot\n"), "{message}");
    assert!(until(|| is_empty(&here)));
}

#[test]
fn mail_waits_while_the_relay_is_away() {
    let [nobody] = support::free_addresses();
    let (here, submission) = sender(nobody, "");
    let untried = format!("relay     {nobody}: not tried yet, 0 connections open, 0 recipients");
    let status = here.must(&["status"]);
    assert!(status.contains(&untried), "{status}");
    let stored = submit(submission, "someone@elsewhere.test", "Subject: later\r\n\r\nx\r\n");
    assert!(stored.starts_with("250 2.0.0"), "{stored}");
    let waits = || {
        let list = here.must(&["queue", "list", "--json"]);
        list.contains("4.4.1") && list.contains("cannot connect to the relay")
    };
    assert!(until(waits), "{}", here.must(&["queue", "list", "--json"]));
    // Its name and what is wrong are told wherever one looks.
    let cannot = format!("cannot connect to the relay {nobody}: ");
    let id = stored.split_whitespace().last().unwrap();
    for command in [&["queue", "show", id][..], &["status"]] {
        let told = here.must(command);
        assert!(told.contains(&cannot), "{told}");
    }
    let status = here.must(&["status"]);
    assert!(status.contains(&format!("relay     {nobody}: DOWN for ")), "{status}");
    assert!(status.contains(" 0 connections open, 1 recipient waiting\n"), "{status}");
    let status: serde_json::Value =
        serde_json::from_str(&here.must(&["status", "--json"])).unwrap();
    let relay = &status["host"]["relay"];
    assert_eq!((&relay["host"], &relay["up"]), (&nobody.to_string().into(), &false.into()));
    assert!(relay["last-error"].as_str().unwrap().contains(&cannot), "{relay}");
    assert!(relay["for-s"].is_u64() && relay["last-error-ago-s"].is_u64(), "{relay}");
    assert_eq!(status["queue"]["waiting-for-relay"], 1);
    let figures = here.metrics_text();
    for figure in ["relay_up 0", "relay_connections_open 0", "relay_recipients_waiting 1"] {
        assert!(figures.contains(&format!("lamppost_{figure}\n")), "{figures}");
    }
}

#[test]
fn a_reload_opens_the_way_out() {
    let [relay] = support::free_addresses();
    let (here, submission) = sender(relay, "");
    let line = format!("relay-to = \"{relay}\"\n");
    let open = std::fs::read_to_string(here.config()).unwrap();
    std::fs::write(here.config(), open.replace(&line, "")).unwrap();
    here.must(&["reload"]);
    let mut wire = logged_in(submission);
    let ask = |wire: &mut Wire| {
        assert!(wire.ask("MAIL FROM:<demo@here.test>\r\n").starts_with("250"));
        let reply = wire.ask("RCPT TO:<someone@elsewhere.test>\r\n");
        wire.ask("RSET\r\n");
        reply
    };
    let refused = ask(&mut wire);
    assert!(
        refused.starts_with("550 ") && refused.contains("sends no mail to other hosts"),
        "{refused}"
    );
    std::fs::write(here.config(), &open).unwrap();
    assert!(here.must(&["reload"]).contains("is in force"));
    assert!(ask(&mut wire).starts_with("250"));
    // Who has no account gets nowhere, as before.
    let mut stranger = Wire::greeted(here.mx);
    stranger.ask("MAIL FROM:<a@elsewhere.test>\r\n");
    assert!(stranger.ask("RCPT TO:<someone@elsewhere.test>\r\n").starts_with("550 5.7.1"));
    // A relay that cannot be used leaves everything as it was.
    let wrong = format!("{line}[mail.relay]\ntls = \"starttls\"\nca = \"/no/such/ca.pem\"\n");
    std::fs::write(here.config(), open.replace(&line, &wrong)).unwrap();
    let told = here.command(&["reload"]);
    assert!(!told.status.success());
    let text = String::from_utf8_lossy(&told.stderr);
    assert!(text.contains("`mail.relay.ca`: /no/such/ca.pem cannot be read"), "{text}");
    assert!(text.contains("lamppost.toml:"), "{text}");
    assert!(ask(&mut wire).starts_with("250"));
}

/// What a command says of a file with these lines of `[mail.relay]`, and its exit code.
fn told(command: &[&str], relay: &str) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("lamppost.toml");
    let text = format!(
        "[mail]\nrelay-to = \"127.0.0.1:587\"\n[mail.relay]\n{relay}\n\
         [[mail.listen]]\naddress = [\"127.0.0.1:0\"]\ntls = \"off\"\n[metrics]\nlisten = []\n"
    );
    std::fs::write(&config, text).unwrap();
    let output = support::lamppost()
        .arg("--config")
        .arg(&config)
        .arg("--state")
        .arg(folder.path().join("state"))
        .args(command)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code())
}

/// Asserts that the start and the check tell what is wrong, its cure and its line.
fn told_with_its_line(relay: &str, line: usize, told_of: [&str; 2]) {
    for command in ["run", "check"] {
        let (text, code) = told(&[command], relay);
        assert_eq!(code, Some(78), "{command} {relay}: {text}");
        let place = format!("lamppost.toml:{line}:");
        for expected in [&place, told_of[0], told_of[1]] {
            assert!(text.contains(expected), "{command} {relay}: no {expected} in\n{text}");
        }
    }
    let (text, code) = told(&["check", "--json"], relay);
    assert_eq!(code, Some(78), "{text}");
    assert!(text.contains(&format!("\"line\": {line}")) && text.contains("\"cure\""), "{text}");
}

#[test]
fn files_of_the_relay_are_looked_at_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let two = file("two", "one\ntwo\n");
    let empty = file("empty", "");
    let torn = file("torn", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let place = folder.path().display();
    let login = "tls = \"starttls\"\nuser = \"demo\"\npassword = ";
    for (relay, line, what, cure) in [
        (
            format!("{login}\"/no/such/password\""),
            6,
            "`mail.relay.password`: /no/such/password cannot be read: No such file",
            "write it, or correct its name",
        ),
        (format!("{login}\"{two}\""), 6, "two does not hold one line", "as one line"),
        (format!("{login}\"{empty}\""), 6, "empty does not hold one line", "as one line"),
        (format!("{login}\"{place}\""), 6, "cannot be read: it is a folder", "name a file"),
        (
            "tls = \"starttls\"\nca = \"/no/such/ca.pem\"".into(),
            5,
            "`mail.relay.ca`: /no/such/ca.pem cannot be read: No such file",
            "write it, or",
        ),
        (
            format!("tls = \"implicit\"\nca = \"{empty}\""),
            5,
            "holds no certificate of an authority",
            "in PEM",
        ),
        (
            format!("tls = \"implicit\"\nca = \"{torn}\""),
            5,
            "cannot read the certificates of authorities",
            "in PEM",
        ),
        (
            "tls = \"off\"\n[tls]\ncertificate = \"/no/such/chain.pem\"\nkey = \"/no/such/key.pem\"".into(),
            6,
            "`tls.certificate`: /no/such/chain.pem cannot be read: No such file",
            "write it, or",
        ),
        (
            format!("tls = \"off\"\n[tls]\ncertificate = \"{empty}\"\nkey = \"/no/such/key.pem\""),
            7,
            "`tls.key`: /no/such/key.pem cannot be read: No such file",
            "write it, or",
        ),
        (
            format!("tls = \"off\"\n[tls]\ncertificate = \"{empty}\"\nkey = \"{empty}\""),
            6,
            "`tls.certificate`: ",
            "name a certificate chain and the key",
        ),
    ] {
        told_with_its_line(&relay, line, [what, cure]);
    }
    // All that is wrong at once.
    let both = format!("{login}\"{two}\"\nca = \"{empty}\"");
    let (text, _) = told(&["check"], &both);
    assert!(text.contains("mail.relay.password") && text.contains("mail.relay.ca"), "{text}");
    let right = file("right", "secret\n");
    let (text, code) = told(
        &["check"],
        &format!("tls = \"off\"\nplaintext-auth = true\nuser = \"demo\"\npassword = \"{right}\""),
    );
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn half_a_login_is_told_with_its_line() {
    for (relay, line, what) in [
        ("tls = \"starttls\"\nuser = \"demo\"", 5, "`user` is there and `password` is not"),
        ("tls = \"starttls\"\npassword = \"/x\"", 5, "`password` is there and `user` is not"),
        (
            "tls = \"opportunistic\"\nuser = \"demo\"\npassword = \"/x\"",
            4,
            "the password could be overheard on its way",
        ),
        ("user = \"demo\"\npassword = \"/x\"", 4, "the password could be overheard on its way"),
        ("tls = \"off\"\nca = \"/x\"", 4, "`ca` would do nothing"),
    ] {
        let (text, code) = told(&["check"], relay);
        assert_eq!(code, Some(78), "{text}");
        let place = format!("lamppost.toml:{line}:");
        assert!(text.contains(what) && text.contains(&place) && text.contains("help: "), "{text}");
    }
}

#[cfg(feature = "peers")]
mod peers {
    //! Postfix's smtp-sink in all its moods, and Python's smtpd.

    use std::net::SocketAddr;
    use std::path::PathBuf;
    use std::process::{Child, Command, Stdio};
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use lamppost_delivery::{MaildirTemplate, Relay, RelaySettings, RelayTls};
    use lamppost_disk::{Blocking, RealDisk};
    use lamppost_net::link::link;
    use lamppost_roles::{Content, DeliveryRequest, Origin, Outcome, QueueId, RelayJob, Timestamp};
    use lamppost_smtp::ClientTimeouts;

    use super::*;

    /// A server of somebody else, ended with the test.
    struct Peer {
        child: Child,
        address: SocketAddr,
        folder: tempfile::TempDir,
    }

    impl Drop for Peer {
        fn drop(&mut self) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }

    impl Peer {
        fn start(command: impl FnOnce(SocketAddr, &tempfile::TempDir) -> Command) -> Self {
            let [address] = support::free_addresses();
            let folder = tempfile::tempdir().unwrap();
            let child = command(address, &folder).stdin(Stdio::null()).spawn().unwrap();
            let peer = Self { child, address, folder };
            assert!(until(|| std::net::TcpStream::connect(address).is_ok()));
            peer
        }

        /// smtp-sink; each message that it takes is a file.
        fn sink(options: &[&str]) -> Self {
            Self::start(|address, folder| {
                let root = support::unpacked().join("postfix");
                let mut command = Command::new(root.join("usr/sbin/smtp-sink"));
                command.env("LD_LIBRARY_PATH", root.join("usr/lib/postfix"));
                let id = Command::new("id").arg("-u").output().unwrap().stdout;
                if id == b"0\n" {
                    command.args(["-u", "root"]);
                }
                command.current_dir(folder.path()).arg("-d").arg("mail.").args(options);
                command.args([&address.to_string(), "100"]);
                command
            })
        }

        fn messages(&self) -> Vec<PathBuf> {
            support::files(self.folder.path())
        }
    }

    /// What delivery to this relay makes of two messages, the second to two recipients.
    fn relayed(address: SocketAddr) -> Vec<String> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let outcomes = runtime.block_on(async {
            let relay = Relay::default();
            relay.set(Some(RelaySettings {
                host: address.ip().to_string(),
                port: address.port(),
                hostname: "mail.here.test".into(),
                tls: RelayTls::Off,
                credentials: None,
                connections_max: 2,
                connect_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(10),
                timeouts: ClientTimeouts::default(),
            }));
            let settings = lamppost_delivery::Settings {
                maildir: MaildirTemplate::new("/nowhere/{domain}/{local}".into()).unwrap(),
                hostname: "mail.here.test".into(),
                writers_max: 1,
                patience: Duration::from_secs(20),
                silent_max: 16,
                health: lamppost_telemetry::Health::default(),
                way: None,
                blocking: Blocking::Threads,
                relay,
                owners: None,
            };
            let (port, inbox) = link();
            let (content, _contents) = link();
            let metrics = lamppost_telemetry::Metrics::new();
            let disk = Arc::new(RealDisk);
            tokio::spawn(lamppost_delivery::run(settings, disk, metrics, inbox, content));
            let jobs = vec![job(1, &["a@there.test"]), job(2, &["b@there.test", "c@there.test"])];
            port.ask(DeliveryRequest::Relay(jobs)).await.unwrap().0
        });
        let short = |outcome: &Outcome| match outcome {
            Outcome::Done => "done".to_owned(),
            Outcome::Deferred(reason) => format!("deferred {} {}", reason.status, reason.text),
            Outcome::Failed(reason) => format!("failed {} {}", reason.status, reason.text),
        };
        outcomes.iter().map(short).collect()
    }

    fn job(id: u64, recipients: &[&str]) -> RelayJob {
        RelayJob {
            id: QueueId(id),
            sender: "demo@here.test".parse().unwrap(),
            recipients: recipients.iter().map(|text| text.parse().unwrap()).collect(),
            origin: Origin {
                session: "s1".into(),
                peer: "192.0.2.1".parse().unwrap(),
                helo: "laptop.test".into(),
                host: "mail.here.test".into(),
                protocol: "ESMTPSA".into(),
                tls: None,
                account: None,
                received: Timestamp(1_800_000_000_123),
            },
            content: Content::Inline(Bytes::from_static(b"Subject: x\n\n.\n..\nend")),
        }
    }

    #[test]
    fn smtp_sink_takes_messages_in_each_dialect() {
        for options in [&[][..], &["-p"], &["-e"], &["-8"], &["-P"]] {
            let sink = Peer::sink(options);
            assert_eq!(relayed(sink.address), ["done"; 3], "{options:?}");
            let messages = sink.messages();
            assert_eq!(messages.len(), 2, "{options:?}");
            for message in messages {
                let text = std::fs::read_to_string(message).unwrap();
                assert!(text.ends_with("Subject: x\n\n.\n..\nend\n\n"), "{options:?} {text:?}");
                assert!(text.contains("X-Mail-Args: <demo@here.test>"), "{text}");
            }
        }
    }

    #[test]
    fn smtp_sink_refuses_at_each_step() {
        for (options, first, second) in [
            (["-f", "MAIL"], "failed 5.3.0 500 5.3.0", "failed 5.3.0 500 5.3.0"),
            (["-f", "RCPT"], "failed 5.3.0 500 5.3.0", "failed 5.3.0 500 5.3.0"),
            (["-f", "DATA"], "failed 5.3.0 500 5.3.0", "failed 5.3.0 500 5.3.0"),
            (["-f", "."], "failed 5.3.0 500 5.3.0", "failed 5.3.0 500 5.3.0"),
            (["-r", "MAIL"], "deferred 4.3.0 450 4.3.0", "deferred 4.3.0 450 4.3.0"),
            (["-r", "RCPT"], "deferred 4.3.0 450 4.3.0", "deferred 4.3.0 450 4.3.0"),
            (["-r", "DATA"], "deferred 4.3.0 450 4.3.0", "deferred 4.3.0 450 4.3.0"),
            (["-r", "."], "deferred 4.3.0 450 4.3.0", "deferred 4.3.0 450 4.3.0"),
            // Of a connection, not of a message: it waits, whatever the host says.
            (["-f", "CONNECT"], "deferred 4.3.0 500 5.3.0", "deferred 4.3.0 500 5.3.0"),
            // Known by no old host: HELO does.
            (["-f", "EHLO"], "done", "done"),
            (["-f", "EHLO,HELO"], "deferred 4.3.0 500 5.3.0", "deferred 4.3.0 500 5.3.0"),
        ] {
            let sink = Peer::sink(&options);
            let outcomes = relayed(sink.address);
            assert_eq!(outcomes.len(), 3);
            assert!(outcomes[0].starts_with(first), "{options:?}: {outcomes:?}");
            assert!(outcomes[1].starts_with(second), "{options:?}: {outcomes:?}");
            assert!(outcomes[2].starts_with(second), "{options:?}: {outcomes:?}");
        }
    }

    #[test]
    fn smtp_sink_breaks_off_at_each_step() {
        for command in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."] {
            for option in ["-q", "-Q"] {
                let sink = Peer::sink(&[option, command]);
                let outcomes = relayed(sink.address);
                assert_eq!(outcomes.len(), 3);
                for outcome in &outcomes {
                    assert!(outcome.starts_with("deferred 4."), "{option} {command}: {outcomes:?}");
                }
                let doubt = outcomes[0].contains("may have taken");
                assert_eq!(doubt, (option, command) == ("-q", "."), "{outcomes:?}");
            }
        }
        // In the middle of the content, with a reply that nobody waits for yet.
        let sink = Peer::sink(&["-A", "0"]);
        for outcome in relayed(sink.address) {
            assert!(
                outcome.starts_with("failed 5.") || outcome.starts_with("deferred 4."),
                "{outcome}"
            );
        }
    }

    #[test]
    fn pythons_smtpd_takes_messages() {
        let smtpd = Peer::start(|address, folder| {
            let mut command = Command::new("python3");
            command.args(["-W", "ignore", "-u", "-m", "smtpd", "-n", "-c"]);
            command.args(["smtpd.DebuggingServer", &address.to_string()]);
            let printed = std::fs::File::create(folder.path().join("printed")).unwrap();
            command.stdout(printed);
            command
        });
        assert_eq!(relayed(smtpd.address), ["done"; 3]);
        let printed = || std::fs::read_to_string(smtpd.folder.path().join("printed")).unwrap();
        assert!(until(|| printed().matches("END MESSAGE").count() == 2), "{}", printed());
        assert!(printed().contains("\nb'.'\nb'..'\nb'end'\n"), "{}", printed());
    }

    #[test]
    fn what_the_relay_refuses_bounces() {
        let sink = Peer::sink(&["-f", "RCPT", "-B", "550 5.1.1 Nobody of that name"]);
        let (here, submission) = sender(sink.address, "");
        let stored = submit(submission, "a@there.test", "Subject: lost\r\n\r\nx\r\n");
        assert!(stored.starts_with("250 2.0.0"), "{stored}");
        let bounce = here.only_message("demo@here.test");
        let said = format!("{} said: 550 5.1.1 Nobody of that name", sink.address);
        assert!(bounce.contains(&said), "{bounce}");
        let remote = format!("Remote-MTA: dns; {}\n", sink.address.ip());
        assert!(bounce.contains(&remote), "{bounce}");
        assert!(bounce.contains("Status: 5.1.1") && bounce.contains("a@there.test"), "{bounce}");
        assert!(bounce.contains("Subject: lost"), "{bounce}");
        assert!(until(|| is_empty(&here)), "{}", here.must(&["queue", "list"]));
    }

    #[test]
    fn what_an_account_submits_arrives_at_smtp_sink() {
        let sink = Peer::sink(&[]);
        let (here, submission) = sender(sink.address, "");
        for number in 0..20 {
            let stored =
                submit(submission, "a@there.test", &format!("Subject: {number}\r\n\r\nx\r\n"));
            assert!(stored.starts_with("250 2.0.0"), "{stored}");
        }
        assert!(until(|| is_empty(&here)), "{}", here.must(&["queue", "list"]));
        assert_eq!(sink.messages().len(), 20);
    }
}
