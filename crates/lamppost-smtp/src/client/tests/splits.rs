//! Any bytes of the other host, in any pieces.

use proptest::prelude::*;

use super::*;

/// Everything that a client says and does that sends two messages and takes leave.
fn converse(bytes: &[u8], piece: usize, settings: ClientSettings) -> (Vec<u8>, Vec<ClientAction>) {
    let mut client = Client::new(Arc::new(settings), false);
    let (mut said, mut done) = (Vec::new(), Vec::new());
    // Line by line: what comes before it was asked for ends the connection, and how much does is a
    // matter of time.
    let lines = bytes.split_inclusive(|&byte| byte == b'\n');
    let mut pieces = lines.flat_map(|line| line.chunks(piece.max(1)));
    let mut messages = 0;
    loop {
        match client.next() {
            ClientAction::Read => match pieces.next() {
                Some(piece) => client.receive(piece),
                None => client.interrupt(ClientInterrupt::Broken("end".into())),
            },
            ClientAction::Ready if messages == 2 => client.quit(),
            ClientAction::Ready => {
                messages += 1;
                client.send(outgoing(&["a@elsewhere.test", "ü@elsewhere.test"]));
            }
            ClientAction::Content => {
                client.content(b".x");
                client.content_end();
            }
            ClientAction::Close => break,
            ClientAction::StartTls => client.tls_started(),
            action => done.push(action),
        }
        said.extend_from_slice(&client.take_output());
    }
    (said, done)
}

/// Replies that lead somewhere, and some that do not.
fn replies() -> impl Strategy<Value = Vec<u8>> {
    let reply = prop_oneof![
        8 => Just("250 2.0.0 Ok\r\n".to_owned()),
        2 => Just("354 Go\r\n".to_owned()),
        2 => Just("250-mx\r\n250-SMTPUTF8\r\n250 PIPELINING\r\n".to_owned()),
        1 => Just("250-mx\r\n250 AUTH PLAIN LOGIN\r\n".to_owned()),
        1 => Just("235 2.7.0 Ok\r\n".to_owned()),
        1 => Just("334 x\r\n".to_owned()),
        1 => Just("421 Bye\r\n".to_owned()),
        2 => "[2-5][0-9]{2}[ -][ -~]{0,8}\r\n",
        1 => ".{0,20}\r?\n",
    ];
    proptest::collection::vec(reply, 0..20)
        .prop_map(|replies| [GREETING.as_bytes(), replies.concat().as_bytes()].concat())
}

proptest! {
    /// Any split of the lines that the host says leads to the same words and deeds.
    #[test]
    fn splits_do_not_matter(bytes in replies(), piece in 1_usize..40, auth: bool) {
        let settings = if auth { with_password(true) } else { settings(StartTls::Never) };
        let whole = converse(&bytes, bytes.len(), settings.clone());
        prop_assert_eq!(converse(&bytes, piece, settings), whole);
    }

    /// No bytes make it panic or go on for ever.
    #[test]
    fn any_bytes_come_to_an_end(bytes: Vec<u8>, piece in 1_usize..40) {
        converse(&bytes, piece, settings(StartTls::WhenOffered));
    }
}
