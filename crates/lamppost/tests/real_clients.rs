//! Real clients and real messages. What these tests need is set up by `cargo xtask setup`.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{PASSWORD, Server, Setup, peer, succeeded, unpacked};

fn swaks(server: std::net::SocketAddr) -> Command {
    let mut command = Command::new("swaks");
    command.args(["--server", &server.ip().to_string(), "--port", &server.port().to_string()]);
    command.args(["--from", "demo@lamppost.test", "--to", "demo@lamppost.test"]);
    command.args(["--ehlo", "client.test", "--timeout", "20s"]);
    command
}

#[test]
fn swaks_sends_plainly_and_pipelined() {
    let server = Server::start(&Setup::default());
    succeeded(&swaks(server.mx).output().unwrap());
    succeeded(&swaks(server.mx).arg("--pipeline").output().unwrap());
    server.delivered("demo@lamppost.test", 2);
}

#[test]
fn swaks_is_told_to_come_back() {
    let server =
        Server::start(&Setup { greylist: "enabled = true\ndelay = \"1s\"", ..Setup::default() });
    let first = swaks(server.mx).output().unwrap();
    // swaks: 24 is "no recipient was accepted".
    assert_eq!(first.status.code(), Some(24));
    assert!(String::from_utf8_lossy(&first.stdout).contains("451 4.7.1"));
    assert!(support::until(|| swaks(server.mx).output().unwrap().status.success()));
    server.delivered("demo@lamppost.test", 1);
}

#[test]
fn swaks_submits_under_tls_with_each_mechanism() {
    let server = Server::start(&Setup::default());
    for mechanism in ["PLAIN", "LOGIN"] {
        for (address, tls) in [(server.submission, "--tls"), (server.implicit, "--tls-on-connect")]
        {
            let mut command = swaks(address);
            command.args([tls, "--tls-verify", "--tls-ca-path"]).arg(server.ca());
            command.args(["--auth", mechanism, "--auth-user", "demo@lamppost.test"]);
            command.args(["--auth-password", PASSWORD]);
            let printed = succeeded(&command.output().unwrap());
            assert!(printed.contains("235 2.7.0"), "{printed}");
        }
    }
    server.delivered("demo@lamppost.test", 4);
}

#[test]
fn swaks_gets_nowhere_with_a_wrong_password_or_without_tls() {
    let server = Server::start(&Setup::default());
    let auth = ["--auth", "PLAIN", "--auth-user", "demo@lamppost.test", "--auth-password"];
    let wrong = swaks(server.submission).arg("--tls").args(auth).arg("wrong").output().unwrap();
    // swaks: 28 is "authentication failed".
    assert_eq!(wrong.status.code(), Some(28));
    assert!(String::from_utf8_lossy(&wrong.stdout).contains("535 5.7.8"));
    let unknown =
        ["--auth", "PLAIN", "--auth-user", "nobody@lamppost.test", "--auth-password", "x"];
    let unknown = swaks(server.submission).arg("--tls").args(unknown).output().unwrap();
    assert!(String::from_utf8_lossy(&unknown.stdout).contains("535 5.7.8"));
    let plain = swaks(server.submission).args(auth).arg(PASSWORD).output().unwrap();
    assert!(!plain.status.success());
    assert!(!server.log().contains(PASSWORD));
}

#[test]
fn curl_sends_and_submits() {
    let server = Server::start(&Setup::default());
    let message = server.state().join("message");
    std::fs::write(&message, "Subject: by curl\r\n\r\nHello.\r\n").unwrap();
    let curl = |url: String, more: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--url", &url]).args(more);
        command.args(["--mail-from", "demo@lamppost.test", "--mail-rcpt", "demo@lamppost.test"]);
        succeeded(&command.arg("--upload-file").arg(&message).output().unwrap());
    };
    let user = format!("demo@lamppost.test:{PASSWORD}");
    let ca = server.ca();
    let tls = ["--cacert", ca.to_str().unwrap(), "--user", &user];
    curl(format!("smtp://{}", server.mx), &[]);
    curl(format!("smtps://{}", server.implicit), &tls);
    let starttls = [&tls[..], &["--ssl-reqd"]].concat();
    curl(format!("smtp://{}", server.submission), &starttls);
    server.delivered("demo@lamppost.test", 3);
}

#[test]
fn smtp_source_fills_the_maildir() {
    let server = Server::start(&Setup::default());
    let root = unpacked().join("postfix");
    let output = Command::new(root.join("usr/sbin/smtp-source"))
        .env("LD_LIBRARY_PATH", root.join("usr/lib/postfix"))
        .args(["-s", "20", "-m", "2000", "-l", "4096", "-f", "sender@elsewhere.test"])
        .args(["-t", "demo@lamppost.test", &server.mx.to_string()])
        .output()
        .unwrap();
    succeeded(&output);
    server.delivered("demo@lamppost.test", 2000);
    assert!(support::until(
        || server.must(&["queue", "list", "--json"]).matches("\"id\"").count() == 0
    ));
}

/// Sends a file as it is with Python's smtplib, logged in under TLS; returns what was printed.
fn smtplib(server: &Server, message: &Path, to: &str) -> std::process::Output {
    Command::new("python3")
        .arg(peer("smtplib_send.py"))
        .args(["--host", "127.0.0.1", "--port", &server.submission.port().to_string()])
        .args(["--tls", "starttls", "--ca"])
        .arg(server.ca())
        .args(["--user", "demo@lamppost.test", "--password", PASSWORD])
        .args(["--from", "demo@lamppost.test", "--to", to])
        .arg(message)
        .output()
        .unwrap()
}

#[test]
fn smtplib_submits_and_missing_fields_are_added() {
    let server = Server::start(&Setup::default());
    let message = server.state().join("message");
    std::fs::write(&message, "Subject: by smtplib\n\nHello.\n").unwrap();
    succeeded(&smtplib(&server, &message, "demo@lamppost.test"));
    let delivered = server.only_message("demo@lamppost.test");
    assert!(delivered.contains("\nDate: ") && delivered.contains("\nMessage-ID: <"), "{delivered}");
    assert!(delivered.contains("with ESMTPSA"), "{delivered}");
    let elsewhere = smtplib(&server, &message, "someone@elsewhere.test");
    assert!(String::from_utf8_lossy(&elsewhere.stdout).contains("sends no mail to other hosts"));
    assert!(!elsewhere.status.success());
}

#[test]
fn an_account_sends_so_much_an_hour_and_no_more() {
    let server = Server::start(&Setup {
        auth: "failure-delay = \"0s\"\nmessages-per-hour-max = 2",
        ..Setup::default()
    });
    let message = server.state().join("message");
    std::fs::write(&message, "Subject: many\n\nHello.\n").unwrap();
    for _ in 0..2 {
        succeeded(&smtplib(&server, &message, "demo@lamppost.test"));
    }
    let third = smtplib(&server, &message, "demo@lamppost.test");
    assert!(!third.status.success());
    let told = String::from_utf8_lossy(&third.stdout);
    assert!(told.contains("452") && told.contains("as much as an hour allows"), "{told}");
    server.delivered("demo@lamppost.test", 2);
}

#[test]
fn guessing_passwords_is_stopped() {
    let server = Server::start(&Setup {
        auth: "failure-delay = \"0s\"\nfailures-per-address-max = 2",
        ..Setup::default()
    });
    let guess = |password: &str| {
        let mut command = swaks(server.submission);
        command.args(["--tls", "--auth", "PLAIN", "--auth-user", "demo@lamppost.test"]);
        let output = command.args(["--auth-password", password]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(guess("wrong").contains("535 5.7.8"));
    assert!(guess("wrong again").contains("535 5.7.8"));
    assert!(guess(PASSWORD).contains("454 4.7.0"));
}

#[test]
fn no_level_of_the_log_shows_a_password() {
    let server =
        Server::start(&Setup { log: "level = \"trace\"\nformat = \"json\"", ..Setup::default() });
    let message = server.state().join("message");
    std::fs::write(&message, "Subject: secret\n\nHello.\n").unwrap();
    succeeded(&smtplib(&server, &message, "demo@lamppost.test"));
    server.delivered("demo@lamppost.test", 1);
    let log = server.log();
    assert!(log.lines().count() > 5);
    for line in log.lines() {
        let _json: serde_json::Value = serde_json::from_str(line).unwrap();
    }
    // The password, and the base64 of what AUTH PLAIN and the password alone are.
    for secret in
        [PASSWORD, "Y29ycmVjdCBob3JzZSBiYXR0", "NvcnJlY3QgaG9yc2UgYmF0", "jb3JyZWN0IGhvcnNlIGJhd"]
    {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn nodemailer_submits() {
    let server = Server::start(&Setup::default());
    let message = server.state().join("message");
    std::fs::write(&message, "Subject: by nodemailer\n\nHello.\n").unwrap();
    for (address, tls) in [(server.submission, "starttls"), (server.implicit, "implicit")] {
        let mut command = Command::new("node");
        command.env("NODE_PATH", unpacked().join("nodemailer/usr/share/nodejs"));
        command.arg(peer("nodemailer_send.cjs"));
        command.args(["--host", "127.0.0.1", "--port", &address.port().to_string(), "--tls", tls]);
        command.arg("--ca").arg(server.ca());
        command.args(["--user", "demo@lamppost.test", "--password", PASSWORD]);
        command.args(["--from", "demo@lamppost.test", "--to", "demo@lamppost.test"]);
        succeeded(&command.arg(&message).output().unwrap());
    }
    server.delivered("demo@lamppost.test", 2);
}

/// The sample messages that ship with Python's email tests and with spamassassin.
fn samples() -> Vec<PathBuf> {
    let folder = unpacked().join("samples");
    let samples = support::files(&folder);
    assert!(samples.len() > 30, "only {} samples in {}", samples.len(), folder.display());
    samples
}

#[test]
fn real_messages_arrive_byte_for_byte() {
    let server = Server::start(&Setup::default());
    let samples = samples();
    let mut wire = support::Wire::greeted(server.mx);
    for (number, sample) in samples.iter().enumerate() {
        let bytes = std::fs::read(sample).unwrap();
        // A file's line ends are LF, or CRLF, or both; on the wire each is CRLF.
        let text: Vec<u8> = bytes.iter().copied().filter(|&byte| byte != b'\r').collect();
        let mut wired = Vec::new();
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            if line.starts_with(b".") {
                wired.push(b'.');
            }
            wired.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
            wired.extend_from_slice(b"\r\n");
        }
        wired.extend_from_slice(b".\r\n");
        wire.begin_content("demo@lamppost.test");
        let reply = wire.ask(&wired);
        assert!(reply.starts_with("250 2.0.0"), "{}: {reply}", sample.display());
        let delivered = server.delivered("demo@lamppost.test", number + 1);
        let delivered = std::fs::read(delivered.last().unwrap()).unwrap();
        let mut expected = text;
        if !expected.ends_with(b"\n") {
            expected.push(b'\n');
        }
        assert!(delivered.ends_with(&expected), "{} was changed", sample.display());
        let trace = &delivered[..delivered.len() - expected.len()];
        check_trace(trace);
    }
}

/// Delivery puts Return-Path, Delivered-To and a folded Received before a message.
#[track_caller]
fn check_trace(trace: &[u8]) {
    let text = std::str::from_utf8(trace).unwrap();
    let mut lines = text.lines();
    for field in ["Return-Path: ", "Delivered-To: ", "Received: "] {
        assert!(lines.next().unwrap().starts_with(field), "{text}");
    }
    assert!(lines.all(|line| line.starts_with([' ', '\t'])), "{text}");
}
