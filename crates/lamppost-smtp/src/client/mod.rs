//! The client's side of one connection, as a state machine.
//!
//! Its owner sends what it says ([`Client::take_output`]), gives it the bytes that arrive
//! ([`Client::receive`]) and does what it asks for ([`Client::next`]). Once it is
//! [`ClientAction::Ready`] it takes a message ([`Client::send`]), and another when that is
//! [`ClientAction::Done`].

mod early;
mod encoder;
mod extensions;
mod hello;
mod measure;
mod message;
mod reply;
mod settings;
mod transaction;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use self::extensions::Extensions;
use self::reply::{Heard, HostReply, ReplyReader};
use self::transaction::Transaction;
use crate::Status;

pub use self::measure::Measure;
pub use self::message::{Complaint, HeaderText, Outgoing, Speaker, Verdict};
pub use self::settings::{ClientSettings, ClientTimeouts, Credentials, StartTls};

/// What the owner of a client has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAction {
    /// Send what is to be said, then read and [`Client::receive`].
    Read,
    /// Send what is to be said, then begin TLS and say so by [`Client::tls_started`].
    StartTls,
    /// The connection waits for a message ([`Client::send`]) or its end ([`Client::quit`]).
    Ready,
    /// Send what is to be said, then give a piece of the message by [`Client::content`] or its end
    /// by [`Client::content_end`].
    Content,
    /// A verdict for each recipient of the message, in order.
    Done(Vec<Verdict>),
    /// The connection carries no mail, and why. A message that was begun was not noticed by the
    /// host, so that another connection may carry it at once.
    Unusable(Complaint),
    /// Close the connection.
    Close,
}

/// Why a connection is ended from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientInterrupt {
    /// It broke, and how.
    Broken(String),
    /// The host took longer than it may.
    Timeout,
    /// The content cannot be read to its end, and why.
    ContentLost(String),
}

/// The client's side of one connection.
pub struct Client {
    settings: Arc<ClientSettings>,
    tls: bool,
    state: State,
    input: BytesMut,
    replies: ReplyReader,
    output: BytesMut,
    actions: VecDeque<ClientAction>,
    /// The replies that will come, in order.
    awaited: VecDeque<Awaited>,
    /// Replies that came.
    replies_heard: u64,
    extensions: Extensions,
    transaction: Option<Transaction>,
    /// Whether the host still holds a transaction that ended here.
    needs_reset: bool,
}

/// What the client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A reply.
    Listening,
    /// The TLS handshake.
    Tls,
    /// A message from its owner.
    Ready,
    /// Content from its owner.
    Content,
    /// The connection's end.
    Closed,
}

/// To what a reply will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The connection itself.
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    /// AUTH LOGIN: the name is asked for.
    LoginUser,
    /// AUTH LOGIN: the password is asked for.
    LoginPassword,
    /// The last line of AUTH.
    Authenticated,
    Reset,
    Mail,
    /// RCPT for the recipient at this place.
    Recipient(usize),
    Data,
    /// The end of the content.
    Taken,
    Quit,
}

/// Without what is to be said, which may hold a password.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("tls", &self.tls)
            .field("state", &self.state)
            .field("awaited", &self.awaited)
            .field("transaction", &self.transaction)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client that waits for the host's greeting; `tls` says whether TLS has begun already.
    pub fn new(settings: Arc<ClientSettings>, tls: bool) -> Self {
        Self {
            settings,
            tls,
            state: State::Listening,
            input: BytesMut::new(),
            replies: ReplyReader::default(),
            output: BytesMut::new(),
            actions: VecDeque::new(),
            awaited: VecDeque::from([Awaited::Greeting]),
            replies_heard: 0,
            extensions: Extensions::default(),
            transaction: None,
            needs_reset: false,
        }
    }

    /// Takes bytes that arrived.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.state != State::Closed {
            self.input.extend_from_slice(bytes);
        }
    }

    /// What to do now.
    #[expect(
        clippy::should_implement_trait,
        reason = "a client never ends by itself as an iterator does"
    )]
    pub fn next(&mut self) -> ClientAction {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return action;
            }
            match self.state {
                State::Listening => match self.replies.take(&mut self.input) {
                    Heard::Incomplete => return ClientAction::Read,
                    Heard::Malformed => self.end(Complaint::malformed()),
                    Heard::Whole(reply) => self.heard(&reply),
                },
                State::Tls => return ClientAction::Read,
                State::Ready => return ClientAction::Ready,
                State::Content if !self.input.is_empty() => {
                    match self.replies.take(&mut self.input) {
                        Heard::Incomplete => return ClientAction::Content,
                        heard => self.heard_in_content(&heard),
                    }
                }
                State::Content => return ClientAction::Content,
                State::Closed => return ClientAction::Close,
            }
        }
    }

    /// What is to be sent to the host.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// Takes leave; to be called after [`ClientAction::Ready`] only.
    pub fn quit(&mut self) {
        if self.state == State::Ready {
            self.state = State::Listening;
            self.say("QUIT", Awaited::Quit);
        }
    }

    /// Ends the connection from outside.
    pub fn interrupt(&mut self, why: ClientInterrupt) {
        if self.state == State::Closed {
            return;
        }
        // A host that breaks off may have said why.
        self.hear_last_words();
        if self.state == State::Ready && !self.actions.is_empty() {
            // They decided for the message.
            self.state = State::Closed;
        }
        if self.state == State::Closed {
            return;
        }
        if self.awaited.front() == Some(&Awaited::Quit) {
            self.state = State::Closed;
            return;
        }
        let awaits_end = self.awaited.front() == Some(&Awaited::Taken);
        let doubt =
            if awaits_end { "; it may have taken the message, which is tried again" } else { "" };
        self.end(match why {
            ClientInterrupt::Broken(how) => Complaint::own(
                Status::BROKEN,
                format!("the connection to the host broke: {how}{doubt}"),
            ),
            ClientInterrupt::Timeout => {
                Complaint::own(Status::BROKEN, format!("the host did not answer in time{doubt}"))
            }
            ClientInterrupt::ContentLost(why) => {
                Complaint::own(Status::SYSTEM, format!("the message cannot be read: {why}"))
            }
        });
    }

    /// How long to wait for the next bytes, or for the host to take what is said.
    pub fn patience(&self) -> Duration {
        let timeouts = &self.settings.timeouts;
        match (self.state, self.awaited.front()) {
            (State::Content, _) => timeouts.data_block,
            (_, Some(Awaited::Greeting)) => timeouts.greeting,
            (_, Some(Awaited::Data)) => timeouts.data_start,
            (_, Some(Awaited::Taken)) => timeouts.data_end,
            (_, Some(Awaited::Quit)) => timeouts.quit,
            _ => timeouts.command,
        }
    }

    /// How many replies came: each begins the time for the next ([`Client::patience`]) anew, and a
    /// part of one does not.
    pub fn replies_heard(&self) -> u64 {
        self.replies_heard
    }

    /// Whether the connection has TLS.
    pub fn has_tls(&self) -> bool {
        self.tls
    }

    fn heard(&mut self, reply: &HostReply) {
        self.replies_heard += 1;
        let Some(awaited) = self.awaited.pop_front() else {
            // Nothing was asked.
            return self.end(Complaint::unexpected(reply));
        };
        if awaited == Awaited::Quit {
            self.state = State::Closed;
            return;
        }
        // The host takes leave, which it may do at any time (RFC 5321 §3.8).
        if reply.code == 421 {
            return self.end(Complaint::said(reply));
        }
        let is_last = self.awaited.is_empty();
        match awaited {
            Awaited::Greeting => self.greeted(reply),
            Awaited::Ehlo => self.ehlo_answered(reply),
            Awaited::Helo => self.helo_answered(reply),
            Awaited::StartTls => self.starttls_answered(reply),
            Awaited::LoginUser | Awaited::LoginPassword => self.login_asked(reply, awaited),
            Awaited::Authenticated => self.authenticated(reply),
            Awaited::Reset => self.reset_answered(reply),
            Awaited::Mail => self.mail_answered(reply),
            Awaited::Recipient(at) => self.recipient_answered(reply, at),
            Awaited::Data => self.data_answered(reply),
            Awaited::Taken => self.taken(reply),
            Awaited::Quit => self.state = State::Closed,
        }
        if is_last {
            self.expect_silence();
        }
    }

    fn say(&mut self, line: &str, awaited: Awaited) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
        self.awaited.push_back(awaited);
    }
}

#[cfg(test)]
mod tests;
