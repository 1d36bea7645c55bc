//! Where messages go: to the program that `$QMAILQUEUE` names, or else to the running Lamppost.

mod program;
mod service;

use std::ffi::OsString;

use lamppost_smtp::Reply;

pub(super) use self::program::Program;
pub(super) use self::service::Service;

/// Variables that a program is given beside those that there are.
pub(super) type Variables = Vec<(&'static str, OsString)>;

/// Takes messages, one after the other; a refusal is what the client is to be told.
pub(super) trait Queue {
    /// Takes a recipient of the message that this sender begins.
    fn recipient(&mut self, sender: &[u8], recipient: &[u8]) -> Result<(), Reply>;

    /// Takes the message's beginning.
    fn open(&mut self, head: &[u8], variables: &Variables) -> Result<(), Reply>;

    /// Takes a piece of the message, with LF line ends. What goes wrong is told at its end.
    fn put(&mut self, piece: &[u8]);

    /// Has the message kept; tells under which number.
    fn finish(&mut self) -> Result<String, Reply>;

    /// Forgets the message that is under way, if there is one.
    fn abandon(&mut self);
}
