//! Messages of a log of which not all is known yet.

use std::collections::{HashMap, VecDeque};

use super::delivery::Delivery;
use super::log::OPEN_MAX;

/// Messages by the names that the log gives them, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Open {
    messages: HashMap<String, Message>,
    order: VecDeque<String>,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) delivery: Delivery,
    /// How many recipients it has, where the log tells.
    pub(super) recipients: Option<usize>,
}

impl Open {
    pub(super) fn begin(&mut self, name: &str, delivery: Delivery) {
        if self.messages.len() >= OPEN_MAX {
            // Their ends are not in the log.
            self.messages.clear();
            self.order.clear();
        }
        self.order.push_back(name.to_owned());
        self.messages.insert(name.to_owned(), Message { delivery, recipients: None });
    }

    pub(super) fn get(&mut self, name: &str) -> Option<&mut Message> {
        self.messages.get_mut(name)
    }

    /// Adds a recipient; gives the message if that was the last.
    pub(super) fn add(&mut self, name: &str, recipient: &str) -> Option<Delivery> {
        let message = self.messages.get_mut(name)?;
        let recipients = &mut message.delivery.recipients;
        if !recipients.iter().any(|known| known == recipient) {
            recipients.push(recipient.to_owned());
        }
        let is_whole = message.recipients.is_some_and(|count| recipients.len() >= count);
        if is_whole { self.close(name) } else { None }
    }

    /// Takes a message whose end is there.
    pub(super) fn close(&mut self, name: &str) -> Option<Delivery> {
        let message = self.messages.remove(name)?;
        while self.order.front().is_some_and(|first| !self.messages.contains_key(first)) {
            self.order.pop_front();
        }
        Some(message.delivery).filter(|delivery| !delivery.recipients.is_empty())
    }

    /// Takes the oldest that is left.
    pub(super) fn end(&mut self) -> Option<Delivery> {
        while let Some(name) = self.order.pop_front() {
            if let Some(delivery) = self.close(&name) {
                return Some(delivery);
            }
        }
        None
    }
}
