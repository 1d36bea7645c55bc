//! The mail transaction of a session: its envelope and its content (RFC 5321 §3.3).

use lamppost_roles::{Recipient, Route};
use lamppost_smtp::{Address, ReversePath};

use super::content::Content;

/// A message that is being handed in.
#[derive(Default)]
pub(super) struct Transaction {
    /// The address in MAIL FROM.
    pub(super) sender: Option<ReversePath>,
    /// The recipients that policy accepted, each once.
    pub(super) recipients: Vec<Recipient>,
    /// The content as far as it came.
    pub(super) content: Content,
}

impl Transaction {
    /// A transaction that begins with MAIL.
    pub(super) fn from(sender: ReversePath) -> Self {
        Self { sender: Some(sender), ..Self::default() }
    }

    /// Adds a recipient; one that is named twice gets its mail once.
    pub(super) fn add(&mut self, address: Address, route: Route) {
        let recipient = Recipient { address, route };
        if !self.recipients.contains(&recipient) {
            self.recipients.push(recipient);
        }
    }
}
