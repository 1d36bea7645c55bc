//! The main job: mail comes in and lies in its Maildir, and the commands tell what became of it.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use support::{Server, Setup, Wire, succeeded, until};

#[test]
fn a_message_lies_in_its_maildir_as_it_was_sent() {
    let server = Server::start(&Setup::default());
    let body = "Received: from earlier\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\n\r\n..leading dots\r\n\
                tab\there \r\n\r\nlast line";
    let reply = Wire::greeted(server.mx).deliver("Demo@LAMPPOST.test", body);
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    let message = server.only_message("demo@lamppost.test");
    let (trace, content) = message.split_at(message.find("Received: from earlier").unwrap());
    assert_eq!(
        content,
        "Received: from earlier\nSubject: =?utf-8?q?caf=C3=A9?=\n\n.leading dots\ntab\there \n\nlast line\n"
    );
    assert!(trace.starts_with(
        "Return-Path: <sender@elsewhere.test>\nDelivered-To: Demo@LAMPPOST.test\nReceived: from client.test"
    ), "{trace}");
    assert!(trace.contains("by mail.lamppost.test with ESMTP"), "{trace}");
}

#[test]
fn the_first_attempt_waits_and_the_retry_gets_through() {
    let server =
        Server::start(&Setup { greylist: "enabled = true\ndelay = \"1s\"", ..Setup::default() });
    let mut wire = Wire::greeted(server.mx);
    let attempt = "MAIL FROM:<sender@elsewhere.test>\r\nRCPT TO:<demo@lamppost.test>\r\n";
    wire.send(attempt);
    assert!(wire.reply().starts_with("250"));
    let deferred = wire.reply();
    assert!(deferred.starts_with("451 4.7.1"), "{deferred}");
    assert!(deferred.contains("1 second"), "{deferred}");
    assert!(until(|| {
        wire.ask("RSET\r\n");
        wire.send(attempt);
        wire.reply();
        wire.reply().starts_with("250")
    }));
    assert!(wire.ask("DATA\r\n").starts_with("354"));
    assert!(wire.ask("Subject: patience\r\n\r\npays\r\n.\r\n").starts_with("250 2.0.0"));
    server.delivered("demo@lamppost.test", 1);
}

#[test]
fn greylisting_is_switched_off_by_one_line_while_running() {
    let server = Server::start(&Setup { greylist: "enabled = true", ..Setup::default() });
    let attempt = |expected: &str| {
        let mut wire = Wire::greeted(server.mx);
        wire.ask("MAIL FROM:<sender@elsewhere.test>\r\n");
        let reply = wire.ask("RCPT TO:<demo@lamppost.test>\r\n");
        assert!(reply.starts_with(expected), "{reply}");
    };
    attempt("451");
    let text = std::fs::read_to_string(server.config()).unwrap();
    std::fs::write(server.config(), text.replace("enabled = true", "enabled = false")).unwrap();
    server.must(&["reload"]);
    attempt("250");
    // A wrong file changes nothing, and says what is wrong.
    std::fs::write(server.config(), text.replace("enabled = true", "enabled = perhaps")).unwrap();
    let refused = server.command(&["reload"]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("lamppost.toml"));
    attempt("250");
}

#[test]
fn a_reload_tells_whose_file_and_what_it_did() {
    let server = Server::start(&Setup::default());
    let reload = || {
        let output = server.command(&["reload"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), told)
    };
    let text = std::fs::read_to_string(server.config()).unwrap();
    // It is the file that the program cannot use, or that this command cannot.
    let wrong = text.replace("[tls]\n", "[tls]\ncertificate = \"/none\"\nkey = \"/none\"\n");
    std::fs::write(server.config(), wrong).unwrap();
    let (code, told) = reload();
    assert_eq!(code, Some(78));
    assert!(told.contains("/none cannot be read"), "{told}");
    assert!(told.contains("The old configuration stays in force."), "{told}");
    std::fs::write(server.config(), "[mail]\ndomain = 1\n").unwrap();
    let (code, told) = reload();
    assert_eq!(code, Some(78));
    assert!(told.contains("its configuration stays in force"), "{told}");
    // Another file is not the program's.
    let other = server.state().join("other.toml");
    std::fs::write(&other, &text).unwrap();
    let mut command = support::lamppost();
    command.arg("--config").arg(&other).arg("--state").arg(server.state()).arg("reload");
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(told.contains("the running program reads ") && told.contains("other.toml"), "{told}");
    // A signal tells in the log what the command prints.
    let changed = text.replace("[mail.limits]\n", "[mail.limits]\nerrors-max = 7\n");
    std::fs::write(server.config(), changed).unwrap();
    support::signal(server.pid(), "HUP");
    let file = server.config().display().to_string();
    let line = || {
        let log = server.log();
        let line = log.lines().find(|line| line.contains("configuration read again"))?;
        Some(line.to_owned())
    };
    assert!(until(|| line().is_some()), "{}", server.log());
    let line = line().unwrap();
    assert!(line.contains(&file) && line.contains("[mail.limits]"), "{line}");
}

#[test]
fn who_guesses_passwords_is_seen() {
    let auth = "failures-per-address-max = 2\nfailure-delay = \"0s\"";
    let mail = String::new();
    let server = Server::start(&Setup { auth, mail, ..Setup::default() });
    let text = std::fs::read_to_string(server.config()).unwrap();
    assert!(text.contains("failures-per-address-max"));
    assert!(!server.must(&["status"]).contains("blocked"));
    let curl = || {
        let url = format!("smtps://{}/client.test", server.implicit);
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--insecure", &url, "--user", "demo@lamppost.test:wrong"]);
        curl.args(["--mail-from", "demo@lamppost.test", "--mail-rcpt", "demo@lamppost.test"]);
        curl.args(["--upload-file", "/dev/null"]).output().unwrap()
    };
    for _ in 0..3 {
        assert!(!curl().status.success());
    }
    let status = server.must(&["status"]);
    assert!(status.contains("blocked   1 address, 0 accounts, after wrong passwords"), "{status}");
    let refused = || {
        let log = server.log();
        log.lines()
            .filter(|line| line.contains("authentication refused"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(until(|| refused().len() == 3), "{}", server.log());
    for line in refused() {
        assert!(line.contains("demo@lamppost.test") && !line.contains("wrong "), "{line}");
    }
}

#[test]
fn an_unknown_mailbox_is_refused_at_rcpt() {
    let server = Server::start(&Setup::default());
    let mut wire = Wire::greeted(server.mx);
    wire.ask("MAIL FROM:<sender@elsewhere.test>\r\n");
    let reply = wire.ask("RCPT TO:<nobody@lamppost.test>\r\n");
    assert!(reply.starts_with("550 5.1.1"), "{reply}");
    let reply = wire.ask("RCPT TO:<someone@elsewhere.test>\r\n");
    assert!(reply.starts_with("550 5.7.1"), "{reply}");
    assert!(wire.ask("RCPT TO:<postmaster>\r\n").starts_with("250"));
    assert!(wire.ask("RCPT TO:<postmaster@lamppost.test>\r\n").starts_with("250"));
}

#[test]
fn accounts_are_managed_while_the_server_runs() {
    let server = Server::start(&Setup::default());
    let mut wire = Wire::greeted(server.mx);
    wire.ask("MAIL FROM:<sender@elsewhere.test>\r\n");
    assert!(wire.ask("RCPT TO:<new@lamppost.test>\r\n").starts_with("550 5.1.1"));
    let add = ["account", "add", "new@lamppost.test", "--password-file", "-"];
    succeeded(&server.command_with_input(&add, "a new password"));
    assert!(wire.ask("RCPT TO:<new@lamppost.test>\r\n").starts_with("250"));
    assert!(!server.command_with_input(&add, "again").status.success());
    assert!(server.must(&["account", "list"]).contains("new@lamppost.test"));
    server.must(&["account", "delete", "new@lamppost.test"]);
    assert!(wire.ask("RCPT TO:<new@lamppost.test>\r\n").starts_with("550 5.1.1"));
    let elsewhere = ["account", "add", "x@elsewhere.test", "--password-file", "-"];
    let refused = server.command_with_input(&elsewhere, "x");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not in `domains`"));
}

/// Makes the Maildir of an account impossible to write: a file stands where the folder should be.
fn block_maildir(server: &Server, account: &str) -> std::path::PathBuf {
    let maildir = server.maildir(account);
    std::fs::create_dir_all(maildir.parent().unwrap()).unwrap();
    std::fs::write(&maildir, "in the way").unwrap();
    maildir
}

#[test]
fn mail_waits_in_the_queue_while_its_maildir_cannot_be_written() {
    let mut server = Server::start(&Setup {
        accounts: &["demo@lamppost.test", "other@lamppost.test"],
        ..Setup::default()
    });
    let blocked = block_maildir(&server, "demo@lamppost.test");
    let mut wire = Wire::greeted(server.mx);
    let reply = wire.deliver("demo@lamppost.test", "Subject: waits\r\n\r\nfor room");
    let id = reply.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(wire.deliver("other@lamppost.test", "Subject: x\r\n\r\nx").starts_with("250"));
    server.delivered("other@lamppost.test", 1);
    let tells_why = || server.must(&["queue", "show", &id]).contains("Maildir");
    assert!(until(tells_why), "{}", server.log());

    let listed: serde_json::Value =
        serde_json::from_str(&server.must(&["queue", "list", "--json"])).unwrap();
    assert!(listed.to_string().contains(&id), "{listed}");
    let shown = server.must(&["queue", "show", &id]);
    assert!(
        shown.contains("demo@lamppost.test") && shown.contains("sender@elsewhere.test"),
        "{shown}"
    );
    assert_eq!(server.must(&["queue", "cat", &id]), "Subject: waits\n\nfor room\n");
    assert!(server.must(&["status"]).contains("queue"));
    assert!(server.must(&["log", &id]).contains("delivery deferred"));

    server.must(&["queue", "hold", &id]);
    std::fs::remove_file(&blocked).unwrap();
    server.must(&["queue", "retry", &id]);
    assert!(server.must(&["queue", "list"]).contains("held"));
    // What an administrator decided survives a kill.
    server.kill();
    server.launch();
    assert!(server.must(&["queue", "list"]).contains("held"));
    server.must(&["queue", "release", &id]);
    server.delivered("demo@lamppost.test", 1);
    assert!(until(|| server.must(&["log", &id]).contains("message delivered")));
    assert!(!server.command(&["queue", "show", &id]).status.success());
}

#[test]
fn a_deleted_message_is_gone_for_good() {
    let mut server = Server::start(&Setup::default());
    let blocked = block_maildir(&server, "demo@lamppost.test");
    let reply = Wire::greeted(server.mx).deliver("demo@lamppost.test", "Subject: x\r\n\r\nx");
    let id = reply.trim().rsplit(' ').next().unwrap().to_owned();
    server.must(&["queue", "hold", &id]);
    server.must(&["queue", "delete", &id]);
    // A busy log is written a few milliseconds later, and nothing waits for it.
    assert!(until(|| server.must(&["log", &id]).contains("message deleted")));
    std::fs::remove_file(&blocked).unwrap();
    server.kill();
    server.launch();
    assert!(!server.command(&["queue", "show", &id]).status.success());
    assert!(server.must(&["log", &id]).contains("message deleted"));
    assert!(support::files(&server.maildir("demo@lamppost.test").join("new")).is_empty());
}

#[test]
fn a_message_larger_than_memory_allows_goes_aside() {
    let server = Server::start(&Setup::default());
    let line = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n";
    let content = format!("Subject: large\r\n\r\n{}", line.repeat(100_000));
    let reply = Wire::greeted(server.mx).deliver("demo@lamppost.test", content.trim_end());
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    let message = server.only_message("demo@lamppost.test");
    assert!(message.ends_with(&content.replace("\r\n", "\n")));
}

#[test]
fn a_message_may_come_in_chunks() {
    let server = Server::start(&Setup::default());
    // Pipelined, cut within a line end, and with a dot alone that is content like any other.
    let mut wire = Wire::greeted(server.mx);
    wire.send("MAIL FROM:<sender@elsewhere.test>\r\nRCPT TO:<demo@lamppost.test>\r\n");
    wire.send("BDAT 18\r\nSubject: chunks\r\n\rBDAT 7\r\n\n.\r\none");
    wire.send("BDAT 5 LAST\r\n two\n");
    let replies: Vec<_> = (0..5).map(|_| wire.reply()).collect();
    assert!(replies[2].starts_with("250") && replies[3].starts_with("250"), "{replies:?}");
    // The last chunk ends in a line feed alone.
    assert!(replies[4].starts_with("550 5.6.0"), "{replies:?}");
    let mut wire = Wire::greeted(server.mx);
    wire.send("MAIL FROM:<sender@elsewhere.test>\r\nRCPT TO:<demo@lamppost.test>\r\n");
    wire.send("BDAT 18\r\nSubject: chunks\r\n\rBDAT 7\r\n\n.\r\none");
    wire.send("BDAT 6 LAST\r\n two\r\n");
    let last = (0..5).map(|_| wire.reply()).last().unwrap();
    assert!(last.starts_with("250 2.0.0"), "{last}");
    assert!(server.only_message("demo@lamppost.test").ends_with("Subject: chunks\n\n.\none two\n"));
}

#[test]
fn a_message_that_goes_round_in_circles_is_refused() {
    let server = Server::start(&Setup {
        limits: "greeting-delay = \"0s\"\nhops-max = 5",
        ..Setup::default()
    });
    let hops = "Received: from somewhere\r\n".repeat(6);
    let reply = Wire::greeted(server.mx).deliver("demo@lamppost.test", &format!("{hops}\r\nx"));
    assert!(reply.starts_with("554 5.4.6"), "{reply}");
}

#[test]
fn the_proxy_is_believed_only_where_it_is_named() {
    let server = Server::start(&Setup {
        mx: "proxy-protocol-from = [\"127.0.0.1/32\"]",
        ..Setup::default()
    });
    let mut wire = Wire::connect(server.mx);
    wire.send("PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\n");
    assert!(wire.reply().starts_with("220"));
    wire.ask("EHLO client.test\r\n");
    assert!(wire.deliver("demo@lamppost.test", "Subject: x\r\n\r\nx").starts_with("250"));
    assert!(server.only_message("demo@lamppost.test").contains("[192.0.2.7]"));
    // Without the header, no session; at the submission listener the header is just bad input.
    let mut wire = Wire::connect(server.mx);
    wire.send("EHLO client.test\r\n");
    assert!(wire.is_closed());
    let mut wire = Wire::connect(server.submission);
    wire.reply();
    assert!(wire.ask("PROXY TCP4 192.0.2.7 192.0.2.1 40000 25\r\n").starts_with("500"));
}

#[test]
fn the_metrics_endpoint_counts() {
    let server = Server::start(&Setup::default());
    Wire::greeted(server.mx).deliver("demo@lamppost.test", "Subject: x\r\n\r\nx");
    server.delivered("demo@lamppost.test", 1);
    let text = server.metrics_text();
    assert!(text.contains("lamppost_messages_accepted_total 1"), "{text}");
    assert!(
        until(|| server
            .metrics_text()
            .contains("lamppost_deliveries_total{outcome=\"delivered\"} 1")),
        "{}",
        server.metrics_text()
    );
}

#[test]
fn only_one_process_holds_the_spool() {
    let server = Server::start(&Setup::default());
    let [free] = support::free_addresses();
    let second = server.state().with_file_name("second.toml");
    let text = format!(
        "[metrics]\nlisten = []\n[mail]\ndomains = [\"lamppost.test\"]\n\
         [[mail.listen]]\naddress = [\"{free}\"]\nkind = \"mx\"\ntls = \"off\"\n"
    );
    std::fs::write(&second, text).unwrap();
    let output = support::lamppost()
        .args(["--config".as_ref(), second.as_os_str()])
        .args(["--state".as_ref(), server.state().as_os_str()])
        .arg("run")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains(&server.pid().to_string()), "{said}");
}

#[test]
fn an_address_that_is_taken_is_named_with_its_holder() {
    let server = Server::start(&Setup::default());
    let other = tempfile::tempdir().unwrap();
    let output = support::lamppost()
        .args(["--config".as_ref(), server.config().as_os_str()])
        .args(["--state".as_ref(), other.path().as_os_str()])
        .arg("run")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains(&server.mx.to_string()), "{said}");
    assert!(said.contains(&server.pid().to_string()), "{said}");
}
