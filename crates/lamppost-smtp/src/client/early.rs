//! What the host says before it was asked, or as its last words.
//!
//! Replies are matched to commands by their order alone. One reply too many would make each that
//! follows speak of another recipient or message, so it ends the connection.

use crate::Status;

use super::message::Complaint;
use super::reply::Heard;
use super::{Awaited, Client, State};

impl Client {
    /// Ends the connection when there are words left of the host although everything that it was
    /// asked is answered, and something else is about to be asked.
    pub(super) fn expect_silence(&mut self) {
        if self.input.is_empty() || !matches!(self.state, State::Listening | State::Content) {
            return;
        }
        self.output.clear();
        let heard = self.replies.take(&mut self.input);
        self.end(complaint(&heard));
    }

    /// The host spoke before the content was complete. A refusal is one; whatever else it says, it
    /// does not have the message.
    pub(super) fn heard_in_content(&mut self, heard: &Heard) {
        self.output.clear();
        if let Heard::Whole(reply) = heard
            && reply.class() >= 4
            && let Some(transaction) = &mut self.transaction
        {
            // It takes leave; nothing is said of the message.
            if reply.code != 421 {
                transaction.decide(&Complaint::said(reply).into_verdict());
            }
        }
        self.end(complaint(heard));
    }

    /// Takes what arrived before the connection broke.
    pub(super) fn hear_last_words(&mut self) {
        while matches!(self.state, State::Listening | State::Content) && !self.input.is_empty() {
            let heard = self.replies.take(&mut self.input);
            let Heard::Whole(reply) = &heard else { return };
            match self.state {
                State::Content if reply.class() >= 4 => self.heard_in_content(&heard),
                State::Content => return,
                // The end of the content did not get through: it cannot have been taken.
                _ if self.awaited.front() == Some(&Awaited::Taken) && reply.class() < 4 => return,
                _ => self.heard(reply),
            }
        }
    }
}

fn complaint(heard: &Heard) -> Complaint {
    match heard {
        Heard::Whole(reply) if reply.class() >= 4 => Complaint::said(reply),
        Heard::Whole(reply) => Complaint::unexpected(reply),
        Heard::Incomplete => {
            Complaint::own(Status::PROTOCOL, "the host answered before it was asked")
        }
        Heard::Malformed => Complaint::malformed(),
    }
}
