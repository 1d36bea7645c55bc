//! Hosts that break the rules, by mistake or on purpose.

use super::*;

const EARLY: &str = "here 4.5.0: the host answered before it was asked";

/// A client that said all of a message for these recipients in one go.
fn asked(recipients: &[&str]) -> Talk {
    let mut talk = Talk::ready(&["PIPELINING"]);
    talk.0.send(outgoing(recipients));
    assert!(!talk.0.take_output().is_empty());
    talk
}

#[test]
fn a_reply_before_its_command_ends_the_connection() {
    // One by one: nobody was asked for yet when the second reply came.
    let mut talk = Talk::ready(&[]);
    talk.sends(outgoing(&["a@elsewhere.test"]), "MAIL FROM:<demo@lamppost.test>\r\n");
    let early = "deferred by host 4.5.0: 250 2.0.0 Ok";
    talk.done(&format!("{OK}{OK}"), &[early], &ClientAction::Close);
    assert!(talk.0.take_output().is_empty(), "nothing more is said");
    // A part of one is no better.
    let mut talk = Talk::ready(&[]);
    talk.sends(outgoing(&["a@elsewhere.test"]), "MAIL FROM:<demo@lamppost.test>\r\n");
    talk.done(&format!("{OK}25"), &[&format!("deferred {EARLY}")], &ClientAction::Close);
    // Before anything at all.
    let mut talk = Talk::with(settings(StartTls::Never));
    talk.unusable(&format!("{GREETING}{OK}"), "by host 4.5.0: 250 2.0.0 Ok");
}

#[test]
fn content_is_not_taken_before_it_was_sent() {
    // The reply to the content came with the leave to send it: it cannot speak of it.
    let mut talk = asked(&["a@elsewhere.test"]);
    let replies = format!("{OK}{OK}354 Go\r\n{OK}");
    talk.done(&replies, &["deferred by host 4.5.0: 250 2.0.0 Ok"], &ClientAction::Close);
    // It came in the middle.
    for (reply, expected) in [
        (OK, "deferred by host 4.5.0: 250 2.0.0 Ok"),
        ("552 5.3.4 Too large\r\n", "refused by host 5.3.4: 552 5.3.4 Too large"),
        ("452 4.3.1 Full\r\n", "deferred by host 4.3.1: 452 4.3.1 Full"),
        ("421 4.3.2 Bye\r\n", "deferred by host 4.3.2: 421 4.3.2 Bye"),
        ("what?\r\n", "deferred here 4.5.0: the host answered something that is no SMTP reply"),
    ] {
        // At once when it is heard, and when the content ends before.
        let mut talk = Talk::in_content(&[]);
        talk.0.content(b"x");
        talk.done(reply, &[expected], &ClientAction::Close);
        let mut talk = Talk::in_content(&[]);
        talk.0.content(b"x");
        talk.0.receive(reply.as_bytes());
        talk.0.content_end();
        assert!(talk.0.take_output().is_empty(), "the content must not end");
        talk.done("", &[expected], &ClientAction::Close);
    }
    // A part of a reply, which would be whole after the end.
    let mut talk = Talk::in_content(&[]);
    talk.0.receive(b"25");
    assert_eq!(talk.0.next(), ClientAction::Content);
    talk.0.content_end();
    talk.done("0 Ok\r\n", &[&format!("deferred {EARLY}")], &ClientAction::Close);
}

#[test]
fn replies_left_over_are_not_taken_for_the_next_message() {
    // As a host of LMTP answers, once for each recipient.
    let mut talk = Talk::in_content(&[]);
    talk.content("x\n", "x\r\n.\r\n");
    let replies = format!("{OK}550 5.1.1 Nobody\r\n");
    talk.done(&replies, &["taken: 250 2.0.0 Ok"], &ClientAction::Ready);
    talk.0.send(outgoing(&["b@elsewhere.test"]));
    assert!(talk.0.take_output().is_empty());
    talk.unusable("", "by host 4.1.1: 550 5.1.1 Nobody");
    // One that took leave while it waited.
    let mut talk = Talk::ready(&[]);
    talk.0.receive(b"421 4.4.2 Idle\r\n");
    talk.0.send(outgoing(&["b@elsewhere.test"]));
    talk.unusable("", "by host 4.4.2: 421 4.4.2 Idle");
    // One that is gone.
    let mut talk = Talk::ready(&[]);
    talk.0.interrupt(ClientInterrupt::Broken("closed".into()));
    talk.0.send(outgoing(&["b@elsewhere.test"]));
    talk.unusable("", "here 4.4.2: the connection to the host broke: closed");
}

#[test]
fn a_host_that_breaks_off_may_say_why() {
    let broken = || ClientInterrupt::Broken("reset".into());
    let mut talk = Talk::in_content(&[]);
    talk.0.content(b"x");
    talk.0.receive(b"552 5.3.4 Too large\r\n");
    talk.0.interrupt(broken());
    talk.done("", &["refused by host 5.3.4: 552 5.3.4 Too large"], &ClientAction::Close);
    // The end of the content was on its way.
    let mut talk = Talk::in_content(&[]);
    talk.0.content(b"x");
    talk.0.content_end();
    talk.0.receive(b"552 5.3.4 Too large\r\n");
    talk.0.interrupt(broken());
    talk.done("", &["refused by host 5.3.4: 552 5.3.4 Too large"], &ClientAction::Close);
    // It did not get through, so that it was not taken either.
    let mut talk = Talk::in_content(&[]);
    talk.0.content_end();
    talk.0.receive(OK.as_bytes());
    talk.0.interrupt(broken());
    let doubt = "deferred here 4.4.2: the connection to the host broke: reset; it may have taken \
                 the message, which is tried again";
    talk.done("", &[doubt], &ClientAction::Close);
    // What it said of recipients stands.
    let mut talk = asked(&["a@elsewhere.test", "b@elsewhere.test", "c@elsewhere.test"]);
    talk.0.receive(format!("{OK}550 5.1.1 Nobody\r\n421 4.7.0 Bye\r\n").as_bytes());
    talk.0.interrupt(broken());
    let bye = "deferred by host 4.7.0: 421 4.7.0 Bye";
    talk.done("", &["refused by host 5.1.1: 550 5.1.1 Nobody", bye, bye], &ClientAction::Close);
}

#[test]
fn a_missing_password_is_no_fault_of_the_message() {
    for reply in [
        "530 5.7.0 Authentication required\r\n",
        "530 5.7.0 Must issue a STARTTLS command first\r\n",
    ] {
        let mut talk = asked(&["a@elsewhere.test", "b@elsewhere.test"]);
        let expected = format!("deferred by host 4.7.0: {}", reply.trim_end());
        talk.done(reply, &[expected.as_str(); 2], &ClientAction::Close);
    }
}

#[test]
fn replies_are_bounded() {
    let nonsense = "here 4.5.0: the host answered something that is no SMTP reply";
    let endless = "250-more\r\n".repeat(1000);
    Talk::with(settings(StartTls::Never)).unusable(&endless, nonsense);
    let mut talk = Talk::with(settings(StartTls::Never));
    let mut said = 0;
    while talk.0.next() == ClientAction::Read {
        talk.0.receive(&[b'2'; 4096]);
        said += 4096;
        assert!(said < 200_000, "a line without end is listened to");
        assert!(talk.0.input.len() <= 2 * 4096, "a line without end is kept");
    }
    let mut talk = Talk::ready(&["PIPELINING"]);
    talk.0.send(outgoing(&["a@elsewhere.test"]));
    let mixed = "250-2.1.0 one\r\n550 5.1.0 two\r\n";
    talk.unusable(mixed, nonsense);
}

#[test]
fn parts_of_a_reply_win_no_time() {
    let mut talk = Talk::with(settings(StartTls::Never));
    for byte in GREETING.trim_end().bytes() {
        talk.0.receive(&[byte]);
        assert_eq!(talk.0.next(), ClientAction::Read);
    }
    assert_eq!(talk.0.replies_heard(), 0);
    talk.hears("\r\n", "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    assert_eq!(talk.0.replies_heard(), 1);
}

#[test]
fn every_recipient_has_the_reply_to_it() {
    let all = ["a@elsewhere.test", "b@elsewhere.test", "c@elsewhere.test", "d@elsewhere.test"];
    let mut talk = asked(&all);
    let replies = format!(
        "{OK}450 4.2.1 Later\r\n250-2.1.5 Fine\r\n250 2.1.5 indeed\r\n550 5.1.1 Nobody\r\n\
         452 4.5.3 Too many\r\n354 Go\r\n"
    );
    talk.hears(&replies, "", &ClientAction::Content);
    talk.content("x\n", "x\r\n.\r\n");
    let verdicts = [
        "deferred by host 4.2.1: 450 4.2.1 Later",
        "taken: 250 2.0.0 Ok",
        "refused by host 5.1.1: 550 5.1.1 Nobody",
        "deferred by host 4.5.3: 452 4.5.3 Too many",
    ];
    talk.done(OK, &verdicts, &ClientAction::Ready);
    // The content is refused: only those that were accepted hear of it.
    let mut talk = asked(&all[..2]);
    talk.hears(&format!("{OK}{OK}450 4.2.1 Later\r\n354 Go\r\n"), "", &ClientAction::Content);
    talk.content("x\n", "x\r\n.\r\n");
    let verdicts =
        ["refused by host 5.7.1: 554 5.7.1 Spam", "deferred by host 4.2.1: 450 4.2.1 Later"];
    talk.done("554 5.7.1 Spam\r\n", &verdicts, &ClientAction::Ready);
}

#[test]
fn offers_that_are_not_made_are_not_used() {
    // EHLO refused under HELO: no extension, content above 127 is sent as it is.
    let mut talk = Talk::with(settings(StartTls::Never));
    talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    talk.hears("500 What?\r\n", "HELO mail.lamppost.test\r\n", &ClientAction::Read);
    talk.hears("250-mx\r\n250 PIPELINING\r\n", "", &ClientAction::Ready);
    talk.sends(outgoing(&["a@elsewhere.test"]), "MAIL FROM:<demo@lamppost.test>\r\n");
    talk.hears(OK, "RCPT TO:<a@elsewhere.test>\r\n", &ClientAction::Read);
    talk.hears(OK, "DATA\r\n", &ClientAction::Read);
    talk.hears("354 Go\r\n", "", &ClientAction::Content);
    talk.content("Subject: x\n\nü\n", "Subject: x\r\n\r\nü\r\n.\r\n");
    talk.done(OK, &["taken: 250 2.0.0 Ok"], &ClientAction::Ready);
    // A size of zero, or none, is no limit; one that is met is none either.
    for size in ["SIZE 0", "SIZE", "SIZE 7", "SIZE 99999999999999999999"] {
        let mut talk = Talk::ready(&[size]);
        let says = "MAIL FROM:<demo@lamppost.test> SIZE=7\r\n";
        talk.sends(outgoing(&["a@elsewhere.test"]), says);
    }
    // A password that is asked for under TLS alone is sent under TLS alone.
    let mut talk =
        Talk::with(ClientSettings { starttls: StartTls::WhenOffered, ..with_password(true) });
    talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    talk.hears(&offer(&["STARTTLS"]), "STARTTLS\r\n", &ClientAction::Read);
    talk.hears("220 Go\r\n", "", &ClientAction::StartTls);
    talk.0.tls_started();
    talk.hears("", "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    talk.hears(&offer(&["AUTH PLAIN"]), "AUTH PLAIN AGRlbW8AcGFzcw==\r\n", &ClientAction::Read);
}
