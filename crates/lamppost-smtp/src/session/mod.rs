//! The server's side of one connection, as a state machine.

mod authentication;
mod commands;
mod qmail;
mod question;
mod reception;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::auth::Exchange;
use crate::content::Decoder;
use crate::line::{Line, LineReader};
use crate::reply::{Manner, Say, Words};
use crate::transaction::Transaction;
use crate::{Address, AuthOffer, Kind, Link, Reply, Settings, parse_command};

pub use question::{Action, Answer, Question};

/// How a connection is greeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The client may go on.
    Welcome,
    /// The client talked before its turn and must go.
    EarlyTalker,
    /// The server is about to end.
    ShuttingDown,
    /// Nobody knows who the client is, and a client without a name has no mail.
    Nobody,
    /// There are as many sessions as there may be.
    TooManySessions,
    /// It cannot be told whether the client may connect.
    Unavailable,
}

/// Why a session is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// The server is about to end.
    ShuttingDown,
    /// A command did not arrive in time.
    Timeout,
    /// Content comes too slowly.
    TooSlow,
}

/// The server's side of one connection.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    link: Link,
    state: State,
    input: BytesMut,
    lines: LineReader,
    output: BytesMut,
    actions: VecDeque<Action>,
    helo: Option<Helo>,
    account: Option<Address>,
    /// Whether the connection itself told the account.
    account_is_given: bool,
    manner: Manner,
    /// Whether a client authenticated of whom no account is known.
    is_authenticated: bool,
    transaction: Option<Transaction>,
    counts: Counts,
}

/// What the client called itself, and by which command.
#[derive(Debug)]
struct Helo {
    name: String,
    extended: bool,
}

/// What the limits count.
#[derive(Debug, Default)]
struct Counts {
    /// Commands since the last message that brought no mail forward.
    idle_commands: usize,
    errors: usize,
    messages: usize,
    auth_failures: usize,
}

/// What the session waits for.
#[derive(Debug)]
enum State {
    /// A command line.
    Command,
    /// A line of an AUTH exchange.
    Auth(Exchange),
    /// The content of DATA; once it is refused, its end.
    Data(Decoder, Reception),
    /// A chunk of BDAT; once it is refused, its end.
    Chunk(Chunk, Reception),
    /// The answer to a question.
    Asked(Asked),
    /// The TLS handshake.
    Tls,
    /// The connection's end.
    Closed,
}

/// What was asked.
#[derive(Debug)]
enum Asked {
    Authenticate,
    Challenge,
    Sender { smtputf8: bool, size: u64 },
    Recipient,
    RoomForData,
    RoomForChunk(Chunk),
    Finish,
}

/// A chunk on its way in (RFC 3030).
#[derive(Clone, Copy, Debug)]
struct Chunk {
    length: u64,
    remaining: u64,
    last: bool,
}

/// Whether content is taken or only skipped.
#[derive(Debug)]
enum Reception {
    /// It is part of the message.
    Take,
    /// It is dropped; this is said at its end.
    Skip {
        reply: Reply,
        /// Bytes that were dropped so far.
        skipped: u64,
    },
}

impl Session {
    /// A session that has not greeted yet.
    pub fn new(settings: Arc<Settings>, link: Link) -> Self {
        Self {
            settings,
            link,
            state: State::Command,
            input: BytesMut::new(),
            lines: LineReader::default(),
            output: BytesMut::new(),
            actions: VecDeque::new(),
            helo: None,
            account: None,
            account_is_given: false,
            manner: Manner::Own,
            is_authenticated: false,
            transaction: None,
            counts: Counts::default(),
        }
    }

    /// A session of a client who is known without AUTH: by the connection itself.
    #[must_use]
    pub fn of(mut self, account: Address) -> Self {
        (self.account, self.account_is_given) = (Some(account), true);
        self
    }

    /// Greets the client; all but [`Greeting::Welcome`] end the session.
    pub fn greet(&mut self, greeting: Greeting) {
        match greeting {
            Greeting::Welcome => {
                let settings = self.settings.clone();
                self.say(Say::Greeting(&settings.hostname));
            }
            Greeting::EarlyTalker => self.close_saying(Say::EarlyTalker),
            Greeting::ShuttingDown => self.close_saying(Say::ShuttingDown),
            Greeting::Nobody => self.close_saying(Say::Nobody),
            Greeting::TooManySessions => self.close_saying(Say::TooManySessions),
            Greeting::Unavailable => self.close_saying(Say::Unavailable),
        }
    }

    /// Takes bytes that arrived; to be called after [`Action::Read`] only, so that no more than one
    /// read and one line wait here.
    pub fn receive(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Closed) {
            self.input.extend_from_slice(bytes);
        }
    }

    /// What to do now.
    #[expect(
        clippy::should_implement_trait,
        reason = "a session never ends by itself as an iterator does"
    )]
    pub fn next(&mut self) -> Action {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return action;
            }
            let moved = match std::mem::replace(&mut self.state, State::Command) {
                State::Command => self.next_command(),
                State::Auth(exchange) => self.next_response(exchange),
                State::Data(decoder, reception) => self.next_data(decoder, reception),
                State::Chunk(chunk, reception) => self.next_chunk(chunk, reception),
                State::Closed => {
                    self.state = State::Closed;
                    return Action::Close;
                }
                // The owner has to answer, or to begin TLS, before there is more to do.
                waiting @ (State::Asked(_) | State::Tls) => {
                    self.state = waiting;
                    false
                }
            };
            if !moved && self.actions.is_empty() {
                return Action::Read;
            }
        }
    }

    /// Answers the last question.
    pub fn answer(&mut self, answer: Answer) {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Asked(Asked::Authenticate) => self.authenticated(answer),
            State::Asked(Asked::Challenge) => self.challenged(answer),
            State::Asked(Asked::Sender { smtputf8, size }) => {
                self.sender_known(&answer, smtputf8, size);
            }
            State::Asked(Asked::Recipient) => self.recipient_known(&answer),
            State::Asked(Asked::RoomForData) => self.room_for_data(&answer),
            State::Asked(Asked::RoomForChunk(chunk)) => self.room_for_chunk(&answer, chunk),
            State::Asked(Asked::Finish) => self.stored(answer),
            // An answer to nothing: an interrupt came between.
            other => self.state = other,
        }
    }

    /// What is to be sent to the client.
    pub fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// TLS has begun: whatever was said before is forgotten (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        self.link.tls = true;
        self.state = State::Command;
        self.helo = None;
        if !self.account_is_given {
            self.account = None;
        }
        self.transaction = None;
        self.input.clear();
        self.lines = LineReader::default();
    }

    /// Ends the session from outside.
    pub fn interrupt(&mut self, why: Interrupt) {
        self.close_saying(match why {
            Interrupt::ShuttingDown => Say::ShuttingDown,
            Interrupt::Timeout => Say::Timeout,
            Interrupt::TooSlow => Say::TooSlow,
        });
    }

    /// How long to wait for the next bytes, or for the whole of the next command.
    pub fn patience(&self) -> Duration {
        let limits = &self.settings.limits;
        let begun = self.transaction.as_ref().is_some_and(|transaction| transaction.size > 0);
        match self.state {
            State::Data(..) if !begun => limits.data_start_timeout,
            State::Data(..) | State::Chunk(..) => limits.data_block_timeout,
            _ => limits.command_timeout,
        }
    }

    /// Whether content is arriving.
    pub fn in_content(&self) -> bool {
        matches!(self.state, State::Data(..) | State::Chunk(..))
    }

    /// Whether a message is under way.
    pub fn in_transaction(&self) -> bool {
        self.transaction.is_some() || self.in_content()
    }

    /// What the client called itself.
    pub fn helo(&self) -> Option<&str> {
        self.helo.as_ref().map(|helo| helo.name.as_str())
    }

    /// The account that authenticated.
    pub fn account(&self) -> Option<&Address> {
        self.account.as_ref()
    }

    /// The protocol's name for the Received field (RFC 3848, RFC 6531 §4.3).
    pub fn protocol(&self) -> &'static str {
        let extended = self.helo.as_ref().is_some_and(|helo| helo.extended);
        let smtputf8 = self.transaction.as_ref().is_some_and(|transaction| transaction.smtputf8);
        match (extended, smtputf8, self.link.tls, self.account.is_some()) {
            (false, ..) => "SMTP",
            (true, false, false, false) => "ESMTP",
            (true, false, false, true) => "ESMTPA",
            (true, false, true, false) => "ESMTPS",
            (true, false, true, true) => "ESMTPSA",
            (true, true, false, false) => "UTF8SMTP",
            (true, true, false, true) => "UTF8SMTPA",
            (true, true, true, false) => "UTF8SMTPS",
            (true, true, true, true) => "UTF8SMTPSA",
        }
    }

    fn next_command(&mut self) -> bool {
        let limits = &self.settings.limits;
        // Only AUTH has long lines (RFC 4954 §4).
        let is_auth = self.input.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "));
        let max = if is_auth { limits.auth_line_max } else { limits.command_line_max };
        match self.lines.take(&mut self.input, max, self.link.bare_newline) {
            Line::Incomplete => return false,
            Line::Whole(line) if self.manner == Manner::Qmail => self.qmail_command(&line),
            Line::Whole(line) => self.command(parse_command(&line)),
            other => self.bad_line(&other),
        }
        true
    }

    fn bad_line(&mut self, line: &Line) {
        match line {
            Line::Bare => self.close_saying(Say::BareNewline),
            Line::Endless => self.close_saying(Say::LineTooLong),
            _ => self.error(Say::LineTooLong),
        }
    }

    fn say(&mut self, say: impl Words) {
        say.reply(self.manner).write(self.manner, &mut self.output);
    }

    /// Says that the client broke the protocol, and ends the session when it did so too often.
    fn error(&mut self, say: Say<'_>) {
        self.say(say);
        self.counts.errors += 1;
        if self.counts.errors >= self.settings.limits.errors_max {
            self.close_saying(Say::TooManyErrors);
        }
    }

    fn close_saying(&mut self, say: impl Words) {
        self.drop_content();
        self.transaction = None;
        self.say(say);
        self.state = State::Closed;
    }

    /// Tells the owner to forget content, if some may have come.
    fn drop_content(&mut self) {
        if self.transaction.take().is_some() {
            self.actions.push_back(Action::Discard);
        }
    }

    fn ask(&mut self, question: Question, asked: Asked) {
        self.actions.push_back(Action::Ask(question));
        self.state = State::Asked(asked);
    }

    fn offers_auth(&self) -> bool {
        match self.settings.auth {
            AuthOffer::Always => true,
            AuthOffer::Never => false,
            AuthOffer::UnderTls => self.link.tls,
        }
    }

    /// Whether a hello must come first and has not.
    fn lacks_hello(&self) -> bool {
        self.manner == Manner::Own && self.helo.is_none()
    }

    fn needs_auth(&self) -> bool {
        self.settings.kind == Kind::Submission && self.account.is_none()
    }
}
