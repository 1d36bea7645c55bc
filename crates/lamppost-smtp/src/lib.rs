//! The SMTP protocol without sockets: bytes in, actions out.
//!
//! A [`Session`] is the server's side of one connection. Its owner gives it the bytes that arrive
//! ([`Session::receive`]), does what it asks for ([`Session::next`]), answers its questions
//! ([`Session::answer`]) and sends what it says ([`Session::take_output`]). It has no socket, no
//! clock and no knowledge of mailboxes, so every dialogue can be replayed byte by byte. A [`Client`]
//! is the other side, in the same manner. A session can speak as qmail-smtpd ([`Session::as_qmail`]).

mod address;
mod auth;
mod client;
mod command;
mod content;
mod line;
mod qmail;
mod refusal;
mod reply;
mod secret;
mod session;
mod settings;
mod status;
mod transaction;

pub use address::{Address, AddressError, ReversePath};
pub use client::{
    Client, ClientAction, ClientInterrupt, ClientSettings, ClientTimeouts, Complaint, Credentials,
    HeaderText, Measure, Outgoing, Speaker, StartTls, Verdict,
};
pub use command::{Command, Forward, Mail, SyntaxError, parse_command};
pub use qmail::QmailQuestion;
pub use refusal::Refusal;
pub use reply::Reply;
pub use secret::Secret;
pub use session::{Action, Answer, Greeting, Interrupt, Question, Session};
pub use settings::{AuthOffer, BareNewline, Kind, Limits, Link, Settings};
pub use status::{Status, StatusError};
