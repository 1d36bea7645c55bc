//! One connection to a host: the client's state machine over a socket.

use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use lamppost_net::{ClientTls, HandshakeError};
use lamppost_smtp::{
    Client, ClientAction, ClientInterrupt, Complaint, Outgoing, Speaker, Status, Verdict,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use super::content::Reader;
use super::standing::Presence;

/// Bytes that are read at once; replies are short.
const READ_BYTES: usize = 4096;
/// How long to wait for the last words of a host that takes nothing more.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A socket, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that carries one message after the other.
pub(super) struct Connection {
    client: Client,
    stream: Box<dyn Stream>,
    /// The host's address, for the log.
    peer: String,
    ready: bool,
    /// Until when the next reply must be whole, and how many there were when that was settled.
    due: Option<(Instant, u64)>,
    /// Counts it among those that are open, for as long as it is there.
    presence: Option<Presence>,
}

/// What became of a message.
pub(super) enum Sent {
    /// There is a verdict for each recipient.
    Decided(Vec<Verdict>),
    /// The connection ended before the host took notice of it.
    Unnoticed(Complaint),
}

/// Why a connection carries no mail.
pub(super) enum Unusable {
    /// The host and this client do not come together.
    Complaint(Complaint),
    /// TLS did not begin.
    Handshake(HandshakeError),
}

impl Connection {
    pub(super) fn new(client: Client, stream: Box<dyn Stream>, peer: String) -> Self {
        Self { client, stream, peer, ready: false, due: None, presence: None }
    }

    /// Gets as far as a message can be sent; `tls` and the host's name are for STARTTLS.
    pub(super) async fn prepare(
        &mut self,
        tls: Option<(&ClientTls, &str)>,
        patience: Duration,
    ) -> Result<(), Unusable> {
        loop {
            match self.advance().await {
                ClientAction::StartTls => {
                    self.flush().await;
                    let Some((tls, host)) = tls else {
                        return Err(Unusable::Complaint(out_of_turn()));
                    };
                    let plain = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
                    let begun = tls.connect(plain, host, patience).await;
                    self.stream = Box::new(begun.map_err(Unusable::Handshake)?);
                    self.client.tls_started();
                }
                ClientAction::Unusable(complaint) => return Err(Unusable::Complaint(complaint)),
                ClientAction::Ready => {
                    self.ready = true;
                    return Ok(());
                }
                // The rest belongs to messages, of which there is none.
                _ => return Err(Unusable::Complaint(out_of_turn())),
            }
        }
    }

    /// Sends a message: `lines`, then the content.
    pub(super) async fn send(
        &mut self,
        outgoing: Outgoing,
        lines: &[u8],
        content: &mut Reader<'_>,
    ) -> Sent {
        self.ready = false;
        // A host that ended the connection while it waited has said so by now.
        self.overhear().await;
        self.client.send(outgoing);
        let mut lines = Some(lines);
        loop {
            match self.advance().await {
                ClientAction::Content => {
                    if let Some(lines) = lines.take() {
                        self.client.content(lines);
                    }
                    match content.piece().await {
                        Ok(piece) => self.client.content(&piece),
                        Err(why) => self.client.interrupt(ClientInterrupt::ContentLost(why)),
                    }
                    // A small message goes out in one piece with its end.
                    if content.is_at_end() {
                        self.client.content_end();
                    } else {
                        self.flush().await;
                        self.overhear().await;
                    }
                }
                ClientAction::Done(verdicts) => {
                    self.ready = self.client.next() == ClientAction::Ready;
                    return Sent::Decided(verdicts);
                }
                ClientAction::Unusable(complaint) => return Sent::Unnoticed(complaint),
                // A client with a message ends it in one of the ways above.
                _ => return Sent::Unnoticed(out_of_turn()),
            }
        }
    }

    /// From now on it counts among those that are open.
    pub(super) fn counted(&mut self, presence: Presence) {
        self.presence = Some(presence);
    }

    /// Whether it takes another message.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    pub(super) fn has_tls(&self) -> bool {
        self.client.has_tls()
    }

    /// Takes leave.
    pub(super) async fn quit(mut self) {
        self.client.quit();
        while self.advance().await != ClientAction::Close {}
        drop(self.stream.shutdown().await);
    }

    /// Talks until the client wants something other than to talk.
    async fn advance(&mut self) -> ClientAction {
        loop {
            match self.client.next() {
                ClientAction::Read => {
                    self.flush().await;
                    self.read().await;
                }
                action => return action,
            }
        }
    }

    async fn flush(&mut self) {
        let output = self.client.take_output();
        if output.is_empty() {
            return;
        }
        // What is asked now has a time of its own.
        self.due = None;
        let patience = self.client.patience();
        let stream = &mut self.stream;
        let writing = async {
            stream.write_all(&output).await?;
            stream.flush().await
        };
        let why = match timeout(patience, writing).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => ClientInterrupt::Broken(error.to_string()),
            Err(_) => ClientInterrupt::Timeout,
        };
        self.hear_last_words().await;
        self.client.interrupt(why);
    }

    /// Takes what a host said before it took nothing more.
    async fn hear_last_words(&mut self) {
        let mut buffer = [0; READ_BYTES];
        if let Ok(Ok(length)) = timeout(LAST_WORDS, self.stream.read(&mut buffer)).await {
            self.client.receive(&buffer[..length]);
        }
    }

    /// Takes what has arrived without waiting for it.
    async fn overhear(&mut self) {
        let mut buffer = [0; READ_BYTES];
        let stream = &mut self.stream;
        let arrived = std::future::poll_fn(|context| {
            let mut buffer = ReadBuf::new(&mut buffer);
            Poll::Ready(match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) => Some(buffer.filled().len()),
                // It is no use any more, whatever the error says.
                Poll::Ready(Err(_)) => Some(0),
                Poll::Pending => None,
            })
        });
        match arrived.await {
            Some(0) => self.client.interrupt(closed()),
            Some(length) => self.client.receive(&buffer[..length]),
            None => {}
        }
    }

    async fn read(&mut self) {
        let heard = self.client.replies_heard();
        let due = match self.due {
            Some((due, then)) if then == heard => due,
            _ => Instant::now() + self.client.patience(),
        };
        self.due = Some((due, heard));
        let mut buffer = [0; READ_BYTES];
        match timeout_at(due, self.stream.read(&mut buffer)).await {
            Ok(Ok(length)) if length > 0 => self.client.receive(&buffer[..length]),
            // A host that closes TLS without a word is no different from one that just closes.
            Ok(Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => {
                self.client.interrupt(ClientInterrupt::Broken(error.to_string()));
            }
            Ok(_) => self.client.interrupt(closed()),
            Err(_) => self.client.interrupt(ClientInterrupt::Timeout),
        }
    }
}

fn closed() -> ClientInterrupt {
    ClientInterrupt::Broken("closed by the host".into())
}

/// A step that the client cannot ask for where it is.
fn out_of_turn() -> Complaint {
    Complaint { status: Status::PROTOCOL, text: "a step out of turn".into(), by: Speaker::Client }
}
