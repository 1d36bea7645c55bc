//! SMTP as qmail-smtpd speaks it: its words, and the lenience that its clients are used to (netqmail 1.06).

mod command;
mod reply;

pub(crate) use command::{QmailCommand, parse};
pub(crate) use reply::worded;

/// What a session that speaks as qmail-smtpd has to know ([`crate::Session::as_qmail`]).
///
/// Addresses are the bytes that qmail makes of a path, and may be anything, or nothing.
#[derive(Debug)]
pub enum QmailQuestion {
    /// What is the client to prove that it knows its password on (RFC 2195)?
    /// [`crate::Answer::Challenge`] or [`crate::Answer::Reply`].
    Challenge,
    /// Is this the keyed digest of the challenge, by the user's password (RFC 2195)?
    /// [`crate::Answer::Yes`] or [`crate::Answer::Reply`].
    Digest {
        /// Who wants in.
        user: String,
        /// What the client was told to prove it on.
        challenge: String,
        /// In hexadecimal digits, as the client says.
        digest: String,
    },
    /// May the message go to this recipient too? [`crate::Answer::Yes`] or [`crate::Answer::Reply`].
    Recipient {
        /// The recipient.
        recipient: Vec<u8>,
    },
    /// A new message of this sender begins. [`crate::Answer::Yes`] or [`crate::Answer::Reply`].
    Sender {
        /// The sender; empty for a notice.
        sender: Vec<u8>,
    },
}
