//! Queue to delivery: putting messages into mailboxes in two steps, and reading large contents.
//!
//! Prepare makes the file in `tmp/` and its directory entry durable. The queue then makes its
//! intent durable and asks to publish: rename into `new/`, and sync of `new/`. After a crash the
//! queue repeats Publish for every intent that has no outcome; a file that is no longer in `tmp/`
//! was delivered, whatever the reader has done with it since.

use std::fmt;

use bytes::Bytes;
use lamppost_smtp::{Address, ReversePath, Status};
use serde::{Deserialize, Serialize};

use crate::{Origin, QueueId};

/// What the queue asks of delivery; each answer has an outcome for each entry, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryRequest {
    /// Write these files into `tmp/`, durably.
    Prepare(Vec<DeliveryJob>),
    /// Rename these files from `tmp/` to `new/`, durably.
    Publish(Vec<Placement>),
    /// Hand these messages to the host that takes all mail for elsewhere. The answer has an outcome
    /// for each recipient of each message, in order.
    Relay(Vec<RelayJob>),
}

/// One message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryJob {
    /// Which file in which mailbox.
    pub placement: Placement,
    /// The address in MAIL FROM, for Return-Path.
    pub sender: ReversePath,
    /// The address in RCPT TO, for Delivered-To.
    pub recipient: Address,
    /// The session that the message came in by, for Received.
    pub origin: Origin,
    /// The message.
    pub content: Content,
}

/// A file in a Maildir; its name follows from the id and the recipient's index alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Placement {
    /// The message.
    pub id: QueueId,
    /// The recipient's place in the envelope, from 0.
    pub index: u32,
    /// The account whose Maildir it is.
    pub mailbox: Address,
}

/// One message for some of its recipients, who are elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayJob {
    /// The message.
    pub id: QueueId,
    /// The address in MAIL FROM.
    pub sender: ReversePath,
    /// The addresses for RCPT TO; never empty.
    pub recipients: Vec<Address>,
    /// The session that the message came in by, for Received.
    pub origin: Origin,
    /// The message.
    pub content: Content,
}

/// A message's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Here it is.
    Inline(Bytes),
    /// It is large: read it piece by piece with [`ContentRequest`].
    Aside {
        /// Its length in bytes.
        length: u64,
    },
}

/// What became of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is done, durably.
    Done,
    /// Not now.
    Deferred(Reason),
    /// Never.
    Failed(Reason),
}

/// Why a delivery did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reason {
    /// For programs.
    pub status: Status,
    /// For people: one line.
    pub text: String,
    /// The host that said so, as `host:port`; the text is its reply then.
    pub remote: Option<String>,
}

impl Reason {
    /// What this host itself found.
    pub fn own(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), remote: None }
    }
}

/// With the host that said so.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.remote {
            Some(remote) => write!(f, "{remote} said: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// What delivery answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryAnswer(pub Vec<Outcome>);

/// What delivery asks of the queue: a piece of a large content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentRequest {
    /// The message.
    pub id: QueueId,
    /// Where the piece begins.
    pub offset: u64,
    /// How much to give at most; the end of the content is an empty piece.
    pub length_max: u32,
}

/// A piece of a large content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentAnswer {
    /// The piece; empty at the end.
    Piece(Bytes),
    /// It cannot be read; the reason is for people.
    Failed(String),
}
