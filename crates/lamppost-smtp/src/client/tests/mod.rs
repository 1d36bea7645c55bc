//! Dialogues of the client with hosts of all kinds.

mod hostile;
mod secrecy;
mod splits;

use super::*;
use crate::{ReversePath, Secret};

const GREETING: &str = "220 mx.elsewhere.test ESMTP\r\n";
const OK: &str = "250 2.0.0 Ok\r\n";

fn settings(starttls: StartTls) -> ClientSettings {
    ClientSettings {
        hostname: "mail.lamppost.test".into(),
        starttls,
        credentials: None,
        timeouts: ClientTimeouts::default(),
    }
}

fn with_password(without_tls: bool) -> ClientSettings {
    let credentials =
        Credentials { user: "demo".into(), password: Secret::new("pass".into()), without_tls };
    ClientSettings { credentials: Some(credentials), ..settings(StartTls::Never) }
}

fn outgoing(recipients: &[&str]) -> Outgoing {
    Outgoing {
        sender: "demo@lamppost.test".parse().unwrap(),
        recipients: recipients.iter().map(|text| text.parse().unwrap()).collect(),
        size: 7,
        header: HeaderText::Ascii,
    }
}

/// A client and what it says.
struct Talk(Client);

impl Talk {
    fn with(settings: ClientSettings) -> Self {
        Self(Client::new(Arc::new(settings), false))
    }

    /// A connection that is ready, to a host that offers these.
    fn ready(offers: &[&str]) -> Self {
        let mut talk = Self::with(settings(StartTls::Never));
        talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
        talk.hears(&offer(offers), "", &ClientAction::Ready);
        talk
    }

    #[track_caller]
    fn hears(&mut self, heard: &str, says: &str, does: &ClientAction) {
        self.0.receive(heard.as_bytes());
        let action = self.0.next();
        let said = self.0.take_output();
        assert_eq!((String::from_utf8_lossy(&said).as_ref(), &action), (says, does), "{heard}");
    }

    #[track_caller]
    fn sends(&mut self, message: Outgoing, says: &str) {
        self.0.send(message);
        self.hears("", says, &ClientAction::Read);
    }

    /// A message whose content may come.
    fn in_content(offers: &[&str]) -> Self {
        let mut talk = Self::ready(offers);
        talk.0.send(outgoing(&["a@elsewhere.test"]));
        for reply in [OK, OK, "354 Go\r\n"] {
            talk.0.receive(reply.as_bytes());
            while talk.0.next() == ClientAction::Read && talk.0.input.is_empty() {
                if !talk.0.take_output().is_empty() {
                    break;
                }
            }
        }
        assert_eq!(talk.0.next(), ClientAction::Content);
        drop(talk.0.take_output());
        talk
    }

    #[track_caller]
    fn content(&mut self, content: &str, says: &str) {
        self.0.content(content.as_bytes());
        self.0.content_end();
        self.hears("", says, &ClientAction::Read);
    }

    /// What became of the message, in one line for each recipient; then the connection is as told.
    #[track_caller]
    fn done(&mut self, heard: &str, verdicts: &[&str], then: &ClientAction) {
        self.0.receive(heard.as_bytes());
        let ClientAction::Done(found) = self.0.next() else { panic!("not done by {heard}") };
        assert_eq!(found.iter().map(verdict).collect::<Vec<_>>(), verdicts);
        assert_eq!(self.0.next(), *then);
    }

    #[track_caller]
    fn unusable(&mut self, heard: &str, expected: &str) {
        self.0.receive(heard.as_bytes());
        let ClientAction::Unusable(found) = self.0.next() else { panic!("usable after {heard}") };
        assert_eq!(complaint(&found), expected);
        assert_eq!(self.0.next(), ClientAction::Close);
    }
}

fn offer(offers: &[&str]) -> String {
    let mut lines = vec!["mx.elsewhere.test"];
    lines.extend(offers);
    let last = lines.len() - 1;
    let line = |(at, line)| format!("250{}{line}\r\n", if at == last { ' ' } else { '-' });
    lines.into_iter().enumerate().map(line).collect()
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Taken(text) => format!("taken: {text}"),
        Verdict::Deferred(why) => format!("deferred {}", complaint(why)),
        Verdict::Refused(why) => format!("refused {}", complaint(why)),
    }
}

fn complaint(Complaint { status, text, by }: &Complaint) -> String {
    let by = if *by == Speaker::Host { "by host" } else { "here" };
    format!("{by} {status}: {text}")
}

#[test]
fn a_plain_host_is_asked_one_by_one() {
    use ClientAction::{Close, Content, Read, Ready};
    let mut talk = Talk::with(settings(StartTls::WhenOffered));
    talk.hears("", "", &Read);
    talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &Read);
    talk.hears("502 5.5.1 What?\r\n", "HELO mail.lamppost.test\r\n", &Read);
    talk.hears("250 mx\r\n", "", &Ready);
    let message = outgoing(&["a@elsewhere.test", "b@elsewhere.test"]);
    talk.sends(message, "MAIL FROM:<demo@lamppost.test>\r\n");
    talk.hears(OK, "RCPT TO:<a@elsewhere.test>\r\n", &Read);
    talk.hears("550 5.1.1 Nobody\r\n", "RCPT TO:<b@elsewhere.test>\r\n", &Read);
    talk.hears("251 Will forward\r\n", "DATA\r\n", &Read);
    talk.hears("354 Go\r\n", "", &Content);
    talk.content("Subject: x\n\n.\n", "Subject: x\r\n\r\n..\r\n.\r\n");
    let verdicts = ["refused by host 5.1.1: 550 5.1.1 Nobody", "taken: 250 2.0.0 Ok"];
    talk.done(OK, &verdicts, &Ready);
    talk.0.quit();
    talk.hears("", "QUIT\r\n", &Read);
    talk.hears("221 Bye\r\n", "", &Close);
}

#[test]
fn a_host_that_pipelines_gets_it_in_one_go() {
    let mut talk = Talk::ready(&["PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8"]);
    let says = "MAIL FROM:<demo@lamppost.test> SIZE=7 BODY=8BITMIME\r\n\
                RCPT TO:<a@elsewhere.test>\r\nRCPT TO:<b@elsewhere.test>\r\nDATA\r\n";
    talk.sends(outgoing(&["a@elsewhere.test", "b@elsewhere.test"]), says);
    let replies = format!("{OK}450 4.2.1 Busy\r\n{OK}354 Go\r\n");
    talk.hears(&replies, "", &ClientAction::Content);
    talk.content("x", "x\r\n.\r\n");
    let verdicts = ["deferred by host 4.2.1: 450 4.2.1 Busy", "taken: 250 2.0.0 Ok"];
    talk.done(OK, &verdicts, &ClientAction::Ready);
    // Another over the same connection; its end left nothing to reset.
    talk.0.send(Outgoing { sender: ReversePath::Null, ..outgoing(&["bücher@elsewhere.test"]) });
    let says = "MAIL FROM:<> SIZE=7 BODY=8BITMIME SMTPUTF8\r\n\
                RCPT TO:<bücher@elsewhere.test>\r\nDATA\r\n";
    talk.hears("", says, &ClientAction::Read);
}

#[test]
fn only_so_many_commands_are_in_flight() {
    let mut talk = Talk::ready(&["PIPELINING"]);
    talk.0.send(outgoing(&["a@elsewhere.test"; 120]));
    let (mut said, mut heard) = (0, 0);
    while heard < 121 {
        said += String::from_utf8_lossy(&talk.0.take_output()).lines().count();
        assert!(said > heard && said - heard <= 50, "{said} commands after {heard} replies");
        talk.0.receive(OK.as_bytes());
        assert_eq!(talk.0.next(), ClientAction::Read);
        heard += 1;
    }
    drop(talk.0.take_output());
    talk.hears("354 Go\r\n", "", &ClientAction::Content);
}

#[test]
fn all_recipients_refused_ends_the_message() {
    let one = outgoing(&["a@elsewhere.test"]);
    let refused = ["refused by host 5.1.1: 550 5.1.1 Nobody"];
    // One by one: DATA is never said, and the next message begins with RSET.
    let mut talk = Talk::ready(&[]);
    talk.sends(one.clone(), "MAIL FROM:<demo@lamppost.test>\r\n");
    talk.hears(OK, "RCPT TO:<a@elsewhere.test>\r\n", &ClientAction::Read);
    talk.done("550 5.1.1 Nobody\r\n", &refused, &ClientAction::Ready);
    talk.sends(one.clone(), "RSET\r\n");
    talk.hears(OK, "MAIL FROM:<demo@lamppost.test>\r\n", &ClientAction::Read);
    // In one go: a host that wants content all the same gets an empty one, for nobody.
    let mut talk = Talk::ready(&["PIPELINING"]);
    talk.0.send(one.clone());
    drop(talk.0.take_output());
    let replies = format!("{OK}550 5.1.1 Nobody\r\n354 Go\r\n");
    talk.hears(&replies, ".\r\n", &ClientAction::Read);
    talk.done("554 No recipients\r\n", &refused, &ClientAction::Ready);
    // A proper one says no to DATA.
    talk.0.send(one);
    drop(talk.0.take_output());
    let replies = format!("{OK}550 5.1.1 Nobody\r\n503 No recipients\r\n");
    talk.done(&replies, &refused, &ClientAction::Ready);
}

#[test]
fn a_sender_refused_decides_for_all() {
    let mut talk = Talk::ready(&["PIPELINING"]);
    talk.0.send(outgoing(&["a@elsewhere.test", "b@elsewhere.test"]));
    let no = "550-5.7.1 Not\r\n550 5.7.1 you\r\n503 x\r\n503 x\r\n503 x\r\n";
    talk.done(no, &["refused by host 5.7.1: 550 5.7.1 Not you"; 2], &ClientAction::Ready);
}

#[test]
fn data_refused_after_recipients_were_accepted() {
    let mut talk = Talk::ready(&["PIPELINING"]);
    talk.0.send(outgoing(&["a@elsewhere.test", "b@elsewhere.test"]));
    drop(talk.0.take_output());
    let replies = format!("{OK}{OK}550 No\r\n451 4.3.0 Disk\r\n");
    let verdicts = ["deferred by host 4.3.0: 451 4.3.0 Disk", "refused by host 5.0.0: 550 No"];
    talk.done(&replies, &verdicts, &ClientAction::Ready);
    talk.0.send(outgoing(&["a@elsewhere.test"]));
    talk.hears(
        "",
        "RSET\r\nMAIL FROM:<demo@lamppost.test>\r\nRCPT TO:<a@elsewhere.test>\r\nDATA\r\n",
        &ClientAction::Read,
    );
}

#[test]
fn content_refused_at_its_end() {
    let mut talk = Talk::in_content(&[]);
    talk.content("x\n", "x\r\n.\r\n");
    talk.done(
        "554 5.7.1 Spam\r\n",
        &["refused by host 5.7.1: 554 5.7.1 Spam"],
        &ClientAction::Ready,
    );
}

#[test]
fn too_many_recipients_come_another_time() {
    for (reply, text) in [
        ("552 Too many\r\n", "deferred by host 4.5.3: 552 Too many"),
        ("452 Too many\r\n", "deferred by host 4.5.3: 452 Too many"),
        ("452 4.3.1 Disk\r\n", "deferred by host 4.3.1: 452 4.3.1 Disk"),
        ("550 5.5.3 Too many\r\n", "deferred by host 4.5.3: 550 5.5.3 Too many"),
        ("552 5.2.2 Full\r\n", "refused by host 5.2.2: 552 5.2.2 Full"),
    ] {
        let mut talk = Talk::ready(&["PIPELINING"]);
        talk.0.send(outgoing(&["a@elsewhere.test", "b@elsewhere.test"]));
        drop(talk.0.take_output());
        talk.hears(&format!("{OK}{OK}{reply}354 Go\r\n"), "", &ClientAction::Content);
        talk.content("x\n", "x\r\n.\r\n");
        talk.done(OK, &["taken: 250 2.0.0 Ok", text], &ClientAction::Ready);
    }
}

#[test]
fn what_the_host_cannot_take_is_refused_before_it_is_asked() {
    let mut talk = Talk::ready(&["SIZE 6"]);
    talk.0.send(outgoing(&["a@elsewhere.test"]));
    let large = "refused here 5.3.4: the message has 7 bytes and the host takes 6";
    talk.done("", &[large], &ClientAction::Ready);
    let utf8 = "refused here 5.6.7: the host does not offer SMTPUTF8, which the message needs";
    let mut talk = Talk::ready(&[]);
    talk.0.send(Outgoing { header: HeaderText::Utf8, ..outgoing(&["a@elsewhere.test"]) });
    talk.done("", &[utf8], &ClientAction::Ready);
    let sender = "bücher@lamppost.test".parse().unwrap();
    talk.0.send(Outgoing { sender, ..outgoing(&["a@elsewhere.test"]) });
    talk.done("", &[utf8], &ClientAction::Ready);
    assert_eq!(talk.0.take_output(), "");
    // One recipient alone spoils nothing for the others.
    talk.sends(
        outgoing(&["ü@elsewhere.test", "a@elsewhere.test"]),
        "MAIL FROM:<demo@lamppost.test>\r\n",
    );
    talk.hears(OK, "RCPT TO:<a@elsewhere.test>\r\n", &ClientAction::Read);
    talk.done("550 No\r\n", &[utf8, "refused by host 5.0.0: 550 No"], &ClientAction::Ready);
}

#[test]
fn the_host_may_take_leave_at_any_place() {
    let leave = "421 4.3.2 Bye\r\n";
    let said = "by host 4.3.2: 421 4.3.2 Bye";
    Talk::with(settings(StartTls::Never)).unusable(leave, said);
    let mut talk = Talk::with(settings(StartTls::Never));
    talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    talk.unusable(leave, said);
    // Before the host noticed the message: another connection may carry it.
    let mut talk = Talk::ready(&["PIPELINING"]);
    talk.0.send(outgoing(&["a@elsewhere.test"]));
    talk.unusable(leave, said);
    let deferred = format!("deferred {said}");
    for before in [OK.to_owned(), format!("{OK}{OK}")] {
        let mut talk = Talk::ready(&["PIPELINING"]);
        talk.0.send(outgoing(&["a@elsewhere.test"]));
        talk.done(&format!("{before}{leave}"), &[&deferred], &ClientAction::Close);
    }
    let mut talk = Talk::in_content(&[]);
    talk.content("x\n", "x\r\n.\r\n");
    talk.done(leave, &[&deferred], &ClientAction::Close);
}

#[test]
fn a_connection_that_breaks_decides_nothing() {
    let broken = || ClientInterrupt::Broken("reset".into());
    let mut talk = Talk::ready(&[]);
    talk.0.send(outgoing(&["a@elsewhere.test"]));
    talk.0.interrupt(broken());
    talk.unusable("", "here 4.4.2: the connection to the host broke: reset");
    let mut talk = Talk::in_content(&[]);
    talk.0.content(b"x");
    talk.0.interrupt(broken());
    let text = "deferred here 4.4.2: the connection to the host broke: reset";
    talk.done("", &[text], &ClientAction::Close);
    let mut talk = Talk::in_content(&[]);
    talk.content("x\n", "x\r\n.\r\n");
    talk.0.interrupt(ClientInterrupt::Timeout);
    let text = "deferred here 4.4.2: the host did not answer in time; it may have taken the \
                message, which is tried again";
    talk.done("", &[text], &ClientAction::Close);
    let mut talk = Talk::in_content(&[]);
    talk.0.interrupt(ClientInterrupt::ContentLost("gone".into()));
    talk.done("", &["deferred here 4.3.0: the message cannot be read: gone"], &ClientAction::Close);
    assert!(talk.0.take_output().is_empty(), "an unfinished message must not end");
}

#[test]
fn what_is_no_reply_ends_the_connection() {
    let nonsense = "here 4.5.0: the host answered something that is no SMTP reply";
    Talk::with(settings(StartTls::Never)).unusable("SSH-2.0-x\r\n", nonsense);
    let mut talk = Talk::ready(&["PIPELINING"]);
    talk.0.send(outgoing(&["a@elsewhere.test"]));
    talk.done(
        &format!("{OK}{OK}nonsense\r\n"),
        &[&format!("deferred {nonsense}")],
        &ClientAction::Close,
    );
    let mut talk = Talk::ready(&["PIPELINING"]);
    talk.0.send(outgoing(&["a@elsewhere.test"]));
    let out_of_place = "deferred by host 4.5.0: 250 2.0.0 Ok";
    talk.done(&format!("{OK}{OK}{OK}"), &[out_of_place], &ClientAction::Close);
}

#[test]
fn a_greeting_of_refusal_is_for_now() {
    let mut talk = Talk::with(settings(StartTls::Never));
    talk.unusable("554 5.7.1 Go away\r\n", "by host 4.7.1: 554 5.7.1 Go away");
}

#[test]
fn each_state_has_its_patience() {
    let timeouts = ClientTimeouts::default();
    let mut talk = Talk::with(settings(StartTls::Never));
    assert_eq!(talk.0.patience(), timeouts.greeting);
    talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    assert_eq!(talk.0.patience(), timeouts.command);
    talk = Talk::in_content(&[]);
    assert_eq!(talk.0.patience(), timeouts.data_block);
    talk.0.content_end();
    assert_eq!(talk.0.patience(), timeouts.data_end);
    talk = Talk::ready(&[]);
    talk.0.quit();
    assert_eq!(talk.0.patience(), timeouts.quit);
}

#[test]
fn debug_shows_no_password() {
    let mut talk = Talk::with(with_password(true));
    talk.hears(GREETING, "EHLO mail.lamppost.test\r\n", &ClientAction::Read);
    talk.0.receive(offer(&["AUTH PLAIN"]).as_bytes());
    assert_eq!(talk.0.next(), ClientAction::Read);
    let shown = format!("{:?} {:?}", talk.0, talk.0.settings);
    assert!(!shown.contains("pass\"") && !shown.contains("cGFzc"), "{shown}");
}
