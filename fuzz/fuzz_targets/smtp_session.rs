//! Any bytes as a client's side of a session, whole and in pieces: the server says and does the same.
#![no_main]

use std::sync::Arc;

use lamppost_smtp::{
    Action, Answer, AuthOffer, BareNewline, Greeting, Kind, Limits, Link, QmailQuestion, Question,
    Session, Settings,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (piece, manner, bytes) = input;
    let whole = converse(bytes, bytes.len().max(1), manner);
    let pieces = converse(bytes, usize::from(piece).max(1), manner);
    assert_eq!(whole, pieces);
});

/// Everything that the server says and takes as content.
fn converse(bytes: &[u8], piece: usize, manner: u8) -> (Vec<u8>, Vec<u8>) {
    let settings = Settings {
        hostname: "mail.lamppost.test".into(),
        kind: Kind::Mx,
        starttls: false,
        auth: AuthOffer::Always,
        limits: Limits::default(),
    };
    let bare_newline = if manner % 3 == 1 { BareNewline::Fix } else { BareNewline::Refuse };
    let mut session = Session::new(Arc::new(settings), Link { tls: false, bare_newline });
    if manner % 3 == 2 {
        session = session.as_qmail();
    }
    session.greet(Greeting::Welcome);
    let (mut said, mut content) = (Vec::new(), Vec::new());
    let mut pieces = bytes.chunks(piece);
    loop {
        match session.next() {
            Action::Read => match pieces.next() {
                Some(piece) => session.receive(piece),
                None => break,
            },
            Action::Ask(question) => session.answer(match question {
                Question::Authenticate { user, .. } => match user.parse() {
                    Ok(account) => Answer::Account(account),
                    Err(_) => Answer::Refused(lamppost_smtp::Refusal::AuthFailed),
                },
                Question::Qmail(QmailQuestion::Challenge) => Answer::Challenge("<1@x>".into()),
                Question::Finish => Answer::Stored("id".into()),
                _ => Answer::Yes,
            }),
            Action::Content(piece) => content.extend_from_slice(&piece),
            Action::Discard => content.push(0),
            Action::StartTls => session.tls_started(),
            Action::Close => break,
        }
    }
    said.extend_from_slice(&session.take_output());
    (said, content)
}
