//! Mail goes out by a real Postfix, under TLS that its own authority signed (feature `peers`, set up by
//! `cargo xtask setup`; root starts it).
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use support::postfix::Postfix;
use support::relayed::{is_empty, logged_in, sender, submit};
use support::{Server, until};

/// Lines of `[mail.relay]` for a relay that proves itself to this authority.
fn tls(mode: &str, ca: &std::path::Path) -> String {
    format!("[mail.relay]\ntls = \"{mode}\"\nca = \"{}\"\n", ca.display())
}

/// The id in the reply to a message that was stored.
fn id(stored: &str) -> &str {
    stored.split_whitespace().last().unwrap()
}

fn list(server: &Server) -> String {
    server.must(&["queue", "list"])
}

#[test]
fn postfix_takes_mail_under_tls() {
    let postfix = Postfix::start("");
    for (count, mode, address) in
        [(1, "starttls", postfix.starttls), (2, "implicit", postfix.implicit)]
    {
        // By its name, whose first address may be one that nobody listens on.
        let relay = format!("localhost:{}", address.port());
        let (here, submission) = sender(&relay, &tls(mode, &postfix.ca));
        let content = format!("Subject: by {mode}\r\n\r\n..dot\r\nwörter\r\n");
        let stored = submit(submission, "someone@there.test", &content);
        assert!(stored.starts_with("250 2.0.0"), "{stored}");
        assert!(until(|| postfix.messages().len() == count), "{}{}", list(&here), postfix.log());
        let messages = postfix.messages();
        let subject = format!("Subject: by {mode}\n");
        let message = messages.iter().find(|message| message.contains(&subject)).unwrap();
        assert!(message.ends_with("\n\n.dot\nwörter\n"), "{message}");
        assert!(message.contains("(using TLSv1.3 with cipher"), "{message}");
        assert!(until(|| is_empty(&here)), "{}", list(&here));
        // The log names the relay and what it called the message.
        let log = here.must(&["log", id(&stored)]);
        assert!(log.contains(&relay) && log.contains("250 2.0.0 Ok: queued as"), "{log}");
        let status = here.must(&["status"]);
        let up = format!("relay     {relay}: up for ");
        assert!(status.contains(&up) && status.contains(" 1 connection open, 0 recip"), "{status}");
    }
}

#[test]
fn recipients_share_a_transaction_and_each_has_its_reply() {
    let postfix = Postfix::start("");
    let (here, submission) = sender(postfix.starttls, &tls("starttls", &postfix.ca));
    let mut wire = logged_in(submission);
    assert!(wire.ask("MAIL FROM:<demo@here.test>\r\n").starts_with("250"));
    for to in ["someone@there.test", "nobody@there.test", "someone+tag@there.test"] {
        assert!(wire.ask(format!("RCPT TO:<{to}>\r\n")).starts_with("250"));
    }
    assert!(wire.ask("DATA\r\n").starts_with("354"));
    assert!(wire.ask("Subject: several\r\n\r\nx\r\n.\r\n").starts_with("250"));
    let bounce = here.only_message("demo@here.test");
    let said = format!("<nobody@there.test>: {} said: 550 5.1.1 ", postfix.starttls);
    assert!(bounce.contains(&said) && !bounce.contains("<someone@"), "{bounce}");
    assert!(bounce.contains("Remote-MTA: dns; 127.0.0.1\n"), "{bounce}");
    assert!(until(|| is_empty(&here)), "{}", list(&here));
    assert!(until(|| !postfix.messages().is_empty()), "{}", postfix.log());
    let taken = postfix.log().matches(": client=").count();
    assert_eq!(taken, 1, "{}", postfix.log());
}

#[test]
fn a_postfix_that_does_not_do_is_told_and_mail_waits() {
    let (postfix, stranger) = (Postfix::start(""), Postfix::start(""));
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "secret\n").unwrap();
    let login = format!("user = \"lamppost\"\npassword = \"{}\"\n", password.display());
    let own = tls("starttls", &postfix.ca);
    for (relay, told) in [
        (format!("{own}{login}"), "the host offers neither AUTH PLAIN nor AUTH LOGIN"),
        (tls("starttls", &stranger.ca), "TLS with the relay at"),
        ("[mail.relay]\ntls = \"off\"\n".to_owned(), "said: 530 5.7.0 Must issue a STARTTLS"),
    ] {
        let (here, submission) = sender(postfix.starttls, &relay);
        let stored = submit(submission, "someone@there.test", "Subject: x\r\n\r\nx\r\n");
        assert!(stored.starts_with("250 2.0.0"), "{stored}");
        let show = ["queue", "show", id(&stored)];
        assert!(until(|| here.must(&show).contains(told)), "{}", here.must(&show));
        let place = postfix.starttls.to_string();
        for command in [&show[..], &["status"]] {
            let text = here.must(command);
            assert!(text.contains(told) && text.contains(&place), "{text}");
        }
        assert!(here.must(&["log", id(&stored)]).contains(told));
    }
    assert_eq!(postfix.messages().len(), 0);
}

#[test]
fn a_message_that_is_too_large_bounces_and_others_go() {
    let postfix = Postfix::start("message_size_limit = 20000\n");
    let (here, submission) = sender(postfix.starttls, &tls("starttls", &postfix.ca));
    // Of lines so short that they grow by half on the wire; Postfix counts its own records, too.
    let fits = format!("Subject: fits\r\n\r\n{}", "x\r\n".repeat(5500));
    assert!(submit(submission, "someone@there.test", &fits).starts_with("250"));
    assert!(until(|| postfix.messages().len() == 1), "{}{}", list(&here), postfix.log());
    let large = format!("Subject: large\r\n\r\n{}", "x\r\n".repeat(6700));
    assert!(submit(submission, "someone@there.test", &large).starts_with("250"));
    let bounce = here.only_message("demo@here.test");
    assert!(bounce.contains("larger than the next mail server takes"), "{bounce}");
    assert!(bounce.contains("Status: 5.3.4"), "{bounce}");
    assert_eq!(postfix.messages().len(), 1);
}
