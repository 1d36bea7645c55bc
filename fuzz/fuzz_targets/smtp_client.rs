//! Any bytes as a host's side of a connection, whole and in pieces: the client says and does the same.
#![no_main]

use std::sync::Arc;

use lamppost_smtp::{
    Client, ClientAction, ClientInterrupt, ClientSettings, ClientTimeouts, StartTls, Credentials,
    HeaderText, Outgoing, Secret,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, bool, &[u8])| {
    let (piece, authenticate, bytes) = input;
    let whole = converse(bytes, bytes.len().max(1), authenticate);
    let pieces = converse(bytes, usize::from(piece).max(1), authenticate);
    assert_eq!(whole, pieces);
});

/// Everything that a client says and does that sends two messages and takes leave.
fn converse(bytes: &[u8], piece: usize, authenticate: bool) -> (Vec<u8>, Vec<ClientAction>) {
    let credentials = Credentials {
        user: "demo".into(),
        password: Secret::new("pass".into()),
        without_tls: true,
    };
    let settings = ClientSettings {
        hostname: "mail.lamppost.test".into(),
        starttls: StartTls::Never,
        credentials: authenticate.then_some(credentials),
        timeouts: ClientTimeouts::default(),
    };
    let mut client = Client::new(Arc::new(settings), false);
    let (mut said, mut done) = (Vec::new(), Vec::new());
    // Line by line: what comes before it was asked for ends the connection, and how much does is a
    // matter of time.
    let lines = bytes.split_inclusive(|&byte| byte == b'\n');
    let mut pieces = lines.flat_map(|line| line.chunks(piece));
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
                let recipients = ["a@elsewhere.test", "ü@elsewhere.test"];
                client.send(Outgoing {
                    sender: "demo@lamppost.test".parse().expect("an address"),
                    recipients: recipients.map(|to| to.parse().expect("an address")).to_vec(),
                    size: 2,
                    header: HeaderText::Ascii,
                });
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
