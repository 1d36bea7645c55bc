//! What a session has its owner do and asks it, and the answers.

use bytes::Bytes;

use crate::{Address, QmailQuestion, Refusal, Reply, ReversePath, Secret};

/// What the owner of a session has to do.
#[derive(Debug)]
pub enum Action {
    /// Send what is to be said, then read and [`Session::receive`](super::Session::receive).
    Read,
    /// Find the answer and give it by [`Session::answer`](super::Session::answer).
    Ask(Question),
    /// Take a piece of the message's content, with LF line ends.
    Content(Bytes),
    /// Forget the content that came since [`Question::Room`]: its message will not be completed.
    Discard,
    /// Send what is to be said, then begin TLS and say so by [`Session::tls_started`](super::Session::tls_started).
    StartTls,
    /// Send what is to be said, then close the connection.
    Close,
}

/// What a session has to know.
#[derive(Debug)]
pub enum Question {
    /// Is this the user's password? [`Answer::Account`] or [`Answer::Refused`].
    Authenticate {
        /// Who wants in.
        user: String,
        /// With which password.
        password: Secret,
    },
    /// May a message from this sender come? A new message begins. [`Answer::Yes`] or
    /// [`Answer::Refused`].
    Sender {
        /// The sender.
        sender: ReversePath,
        /// The size that the client announced, or 0.
        size: u64,
    },
    /// May the message go to this recipient too? [`Answer::Yes`] or [`Answer::Refused`].
    Recipient {
        /// The recipient; `postmaster` without a domain is that of this host.
        recipient: Address,
    },
    /// May content come? [`Answer::Yes`] or [`Answer::Refused`].
    Room {
        /// The size that the client announced, or 0.
        size: u64,
    },
    /// The content is complete: store the message. [`Answer::Stored`] or [`Answer::Refused`].
    Finish,
    /// What only a session asks that speaks as qmail-smtpd.
    Qmail(QmailQuestion),
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It may.
    Yes,
    /// It may not.
    Refused(Refusal),
    /// It may not, in these words.
    Reply(Reply),
    /// What is to be proved on; once for each.
    Challenge(String),
    /// The user is this account.
    Account(Address),
    /// The message is stored, durably, under this id.
    Stored(String),
}

impl Answer {
    /// What is said, if it is no.
    pub(super) fn refusal(&self) -> Option<Reply> {
        match self {
            Self::Refused(refusal) => Some(refusal.into()),
            Self::Reply(reply) => Some(reply.clone()),
            Self::Yes | Self::Challenge(_) | Self::Account(_) | Self::Stored(_) => None,
        }
    }
}
