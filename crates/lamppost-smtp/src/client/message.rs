//! A message on its way out, and what becomes of it.

use crate::{Address, ReversePath, Status};

use super::reply::HostReply;

/// The envelope of a message on its way out, and what must be known of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The address for MAIL FROM.
    pub sender: ReversePath,
    /// The addresses for RCPT TO.
    pub recipients: Vec<Address>,
    /// How many bytes the content has on the wire, before dots are doubled (RFC 1870 §3).
    pub size: u64,
    /// What its header fields are written in.
    pub header: HeaderText,
}

/// What header fields are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderText {
    /// ASCII alone.
    Ascii,
    /// Bytes above 127 too: the other host must know SMTPUTF8 (RFC 6531 §3.6).
    Utf8,
}

/// What became of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The other host has the message, and said this.
    Taken(String),
    /// Not now.
    Deferred(Complaint),
    /// Never.
    Refused(Complaint),
}

/// Why something did not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// For programs.
    pub status: Status,
    /// For people: one line.
    pub text: String,
    /// Who says so.
    pub by: Speaker,
}

/// Who complains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The other host: the text is its reply.
    Host,
    /// This client.
    Client,
}

impl Complaint {
    /// What this client found.
    pub(super) fn own(status: Status, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), by: Speaker::Client }
    }

    /// What the other host said.
    pub(super) fn said(reply: &HostReply) -> Self {
        Self { status: reply.status(), text: reply.text(), by: Speaker::Host }
    }

    /// What the other host said is no reply.
    pub(super) fn malformed() -> Self {
        Self::own(Status::PROTOCOL, "the host answered something that is no SMTP reply")
    }

    /// A reply that has no place where it came.
    pub(super) fn unexpected(reply: &HostReply) -> Self {
        Self { status: Status::PROTOCOL, ..Self::said(reply) }
    }

    /// For a recipient: what speaks of a failure for good is one.
    pub(super) fn into_verdict(self) -> Verdict {
        if self.status.is_permanent() { Verdict::Refused(self) } else { Verdict::Deferred(self) }
    }

    /// The same, as of something that may mend itself: that of a connection says nothing of a
    /// message.
    pub(super) fn for_now(self) -> Self {
        Self { status: self.status.of_class(4), ..self }
    }
}
