//! The mail transaction of a session: its envelope and its content (RFC 5321 §3.3).

use lamppost_roles::{Passage, Recipient, Route};
use lamppost_smtp::{Address, Refusal, ReversePath};

use super::content::Content;

/// A message that is being handed in.
#[derive(Default)]
pub(super) struct Transaction {
    /// The address in MAIL FROM.
    pub(super) sender: Option<ReversePath>,
    /// The recipients that policy accepted, each once.
    pub(super) recipients: Vec<Recipient>,
    /// With what the message is refused before its content comes.
    pub(super) hold: Option<Refusal>,
    /// Leave that policy gave for recipients, until it is known what became of the message.
    pub(super) passages: Vec<(Address, Passage)>,
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

    /// Holds the message for a recipient who must wait; the longest wait is told.
    pub(super) fn hold(&mut self, refusal: Refusal) {
        let wait = |refusal: &Refusal| match refusal {
            Refusal::Greylisted { retry_in, .. } => Some(*retry_in),
            _ => None,
        };
        if self.hold.as_ref().is_none_or(|held| wait(held) < wait(&refusal)) {
            self.hold = Some(refusal);
        }
    }

    /// What the greylist is told of it: of all recipients where it was refused.
    pub(super) fn passages(&mut self, accepted: bool) -> Vec<(Address, Option<Passage>)> {
        let mut passages = std::mem::take(&mut self.passages);
        if accepted {
            return passages.into_iter().map(|(to, passage)| (to, Some(passage))).collect();
        }
        let recipients = self.recipients.iter().map(|recipient| recipient.address.clone());
        recipients
            .map(|to| {
                let own = passages.iter().position(|(address, _)| *address == to);
                (to, own.map(|own| passages.swap_remove(own).1))
            })
            .collect()
    }
}
