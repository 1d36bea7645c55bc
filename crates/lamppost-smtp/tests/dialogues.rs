//! Runs the dialogues of docs/spec/*.md.
//!
//! A block that begins with `smtp` is a session. `C:` is a line that the client sends, `C!` bytes
//! without a line end; `\r`, `\n`, `\0` and `\\` stand for themselves. `S:` is a line that the server
//! says, `S: (closes)` that it closes the connection, `M:` a line of the message that it takes. Words
//! behind `smtp` set the scene: `submission`, `tls`, `fix`, `small` (limits that are soon reached), `qmail` (as qmail-smtpd speaks).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lamppost_smtp::{
    Action, Answer, AuthOffer, BareNewline, Greeting, Kind, Limits, Link, QmailQuestion, Question,
    Refusal, Reply, Session, Settings,
};
use proptest::prelude::*;

/// A session with a policy that knows what the documents say it knows.
struct Server {
    session: Session,
    said: String,
    message: String,
    closed: bool,
}

impl Server {
    fn new(scene: &str) -> Self {
        let has = |word| scene.split(' ').any(|one| one == word);
        let small = Limits {
            errors_max: 3,
            message_size_max: 100,
            recipients_max: 2,
            command_line_max: 100,
            ..Limits::default()
        };
        let submission = has("submission");
        let settings = Settings {
            hostname: "mail.lamppost.test".into(),
            kind: if submission { Kind::Submission } else { Kind::Mx },
            starttls: true,
            auth: if submission { AuthOffer::UnderTls } else { AuthOffer::Never },
            limits: if has("small") { small } else { Limits::default() },
        };
        let bare_newline = if has("fix") { BareNewline::Fix } else { BareNewline::Refuse };
        let mut session = Session::new(Arc::new(settings), Link { tls: has("tls"), bare_newline });
        if has("qmail") {
            session = session.as_qmail();
        }
        session.greet(Greeting::Welcome);
        let mut server =
            Self { session, said: String::new(), message: String::new(), closed: false };
        server.work();
        server
    }

    fn send(&mut self, bytes: &[u8]) {
        self.session.receive(bytes);
        self.work();
    }

    fn work(&mut self) {
        loop {
            match self.session.next() {
                Action::Read => break,
                Action::Ask(question) => self.session.answer(answer(question)),
                Action::Content(piece) => self.message.push_str(&String::from_utf8_lossy(&piece)),
                Action::Discard => self.message.clear(),
                Action::StartTls => self.session.tls_started(),
                Action::Close => {
                    self.closed = true;
                    break;
                }
            }
        }
        self.said.push_str(&String::from_utf8_lossy(&self.session.take_output()));
    }
}

fn answer(question: Question) -> Answer {
    match question {
        Question::Authenticate { user, password } if password.expose() == "secret" => {
            Answer::Account(user.parse().unwrap())
        }
        Question::Authenticate { .. } => Answer::Refused(Refusal::AuthFailed),
        Question::Recipient { recipient } => match (recipient.local(), recipient.domain()) {
            ("nobody", _) => Answer::Refused(Refusal::UnknownMailbox),
            ("grey", _) => {
                let retry_in = Duration::from_secs(10);
                Answer::Refused(Refusal::Greylisted { reason: "early".into(), retry_in })
            }
            (_, "elsewhere.test") => Answer::Refused(Refusal::RelayDenied),
            _ => Answer::Yes,
        },
        Question::Sender { .. } | Question::Room { .. } => Answer::Yes,
        Question::Qmail(question) => qmail_answer(question),
        Question::Finish => Answer::Stored("0123456789abc".into()),
    }
}

fn qmail_answer(question: QmailQuestion) -> Answer {
    let said = |code, enhanced, text: &'static str| {
        Answer::Reply(Reply { code, enhanced, text: text.into() })
    };
    match question {
        QmailQuestion::Challenge => Answer::Challenge("<1896.697170952@mail.test>".into()),
        // The digest is that of the example in RFC 2195 §3, in which the challenge is another.
        QmailQuestion::Digest { user, digest, .. }
            if user == "tim" && digest == "b913a602c7eda7a495b4e6e7334d3890" =>
        {
            Answer::Yes
        }
        QmailQuestion::Digest { .. } => said(535, "5.7.1", "authentication failed"),
        QmailQuestion::Recipient { recipient } if recipient.ends_with(b"@elsewhere.test") => {
            said(553, "5.7.1", "sorry, that domain isn't in my list of allowed rcpthosts")
        }
        QmailQuestion::Recipient { .. } | QmailQuestion::Sender { .. } => Answer::Yes,
    }
}

fn unescaped(text: &str) -> Vec<u8> {
    text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0").replace("\\\\", "\\").into()
}

fn run(block: &str, scene: &str, place: &str) {
    let mut server = Server::new(scene);
    for (number, line) in block.lines().enumerate() {
        let place = format!("{place}, line {} of the block: {line}", number + 1);
        let (who, text) = line.split_at(line.len().min(2));
        let text = text.strip_prefix(' ').unwrap_or(text);
        match who {
            "C:" => server.send(&[&unescaped(text)[..], b"\r\n"].concat()),
            "C!" => server.send(&unescaped(text)),
            "S:" if text == "(closes)" => assert!(server.closed, "{place}: it is open"),
            "S:" => take(&mut server.said, "\r\n", text, &place),
            "M:" => {
                let line = String::from_utf8(unescaped(text)).unwrap();
                take(&mut server.message, "\n", &line, &place);
            }
            _ => panic!("{place}: neither C: nor S: nor M:"),
        }
    }
    assert_eq!(server.said, "", "{place}: the server says more");
}

/// The next line of what was said is this one.
#[track_caller]
fn take(said: &mut String, end: &str, expected: &str, place: &str) {
    let Some((line, rest)) = said.split_once(end) else { panic!("{place}: nothing is said") };
    assert_eq!(line, expected, "{place}");
    *said = rest.to_owned();
}

#[test]
fn the_documents_are_true() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/spec");
    let mut blocks = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for block in text.split("```smtp").skip(1) {
            let (head, rest) = block.split_once('\n').unwrap();
            let (body, _) = rest.split_once("```").unwrap();
            run(body.trim_end(), head.trim(), &path.display().to_string());
            blocks += 1;
        }
    }
    assert!(blocks >= 20, "only {blocks} dialogues were found");
}

/// Pieces of dialogues, right and wrong, to be put together at random.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"EHLO client.test\r\n",
        b"MAIL FROM:<a@b.test>\r\n",
        b"RCPT TO:<c@d.test>\r\n",
        b"RCPT TO:<nobody@d.test>\r\n",
        b"DATA\r\n",
        b"text\r\n",
        b"..\r\n",
        b".\r\n",
        b".\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"BDAT 5\r\nab\r\nc",
        b"BDAT 3 LAST\r\nx\r\n",
        b"BDAT 0 LAST\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"AUTH PLAIN AGRlbW9AYi50ZXN0AHNlY3JldA==\r\n",
        b"AUTH LOGIN\r\n",
        b"QUIT\r\n",
        b"STARTTLS\r\n",
        b"VRFY x\r\n",
        b"\0\xff",
        b"BDAT 99\r\n",
    ];
    prop_oneof![
        9 => proptest::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

proptest! {
    /// However the network splits what a client sends, the server says and takes the same. What
    /// follows STARTTLS is the exception: it is a violation only where it comes with it.
    #[test]
    fn splits_do_not_matter(
        pieces in proptest::collection::vec(piece(), 0..30),
        sizes in proptest::collection::vec(1_usize..20, 1..20),
        scene in "(qmail |fix )?(small )?(submission tls|tls)",
    ) {
        let bytes = pieces.concat();
        let mut whole = Server::new(&scene);
        whole.send(&bytes);
        let mut split = Server::new(&scene);
        let (mut rest, mut sizes) = (&bytes[..], sizes.iter().cycle());
        while !rest.is_empty() && !split.closed {
            let size = (*sizes.next().unwrap()).min(rest.len());
            split.send(&rest[..size]);
            rest = &rest[size..];
        }
        prop_assert_eq!(whole.said, split.said);
        prop_assert_eq!(whole.message, split.message);
        prop_assert_eq!(whole.closed, split.closed);
    }
}
