//! Which messages an administrator means.

use lamppost_roles::{Envelope, Filter, QueueId, RecipientState, StateFilter, Timestamp};
use lamppost_smtp::{Address, ReversePath};

use crate::index::{Index, Message, Recipient};
use crate::record::Progress;

/// Whether a message may be meant, as far as memory knows: recipients and domains are told by
/// [`is_meant`].
pub(crate) fn may_be_meant(
    filter: &Filter,
    index: &Index,
    (id, message): (QueueId, &Message),
) -> bool {
    let received = id.received();
    filter.before.is_none_or(|before| received < before)
        && filter.since.is_none_or(|since| received >= since)
        && filter.larger.is_none_or(|larger| message.size >= larger)
        && filter.smaller.is_none_or(|smaller| message.size <= smaller)
        && filter.state.is_none_or(|state| is_in(state, message))
        && filter.sender.as_ref().is_none_or(|wanted| is_sender(wanted, &index.sender(message)))
}

/// Whether a message is meant, by its envelope.
pub(crate) fn is_meant(filter: &Filter, envelope: &Envelope) -> bool {
    let mut recipients = envelope.recipients.iter().map(|recipient| &recipient.address);
    let has_recipient = filter
        .recipient
        .as_ref()
        .is_none_or(|wanted| recipients.any(|one| is_address(wanted, one)));
    let has_domain = filter.domain.as_ref().is_none_or(|domain| {
        let is_it = |address: &Address| address.domain().eq_ignore_ascii_case(domain);
        let of_sender = matches!(&envelope.sender, ReversePath::Mailbox(sender) if is_it(sender));
        of_sender || envelope.recipients.iter().any(|recipient| is_it(&recipient.address))
    });
    has_recipient && has_domain
}

/// Whether the envelope must be read.
pub(crate) fn needs_envelope(filter: &Filter) -> bool {
    filter.recipient.is_some() || filter.domain.is_some()
}

/// How far a recipient is, in the words that lists show and are narrowed by.
pub(crate) fn state(recipient: &Recipient) -> RecipientState {
    match recipient.progress {
        _ if recipient.is_under_way() => RecipientState::Delivering,
        Progress::Waiting { .. } | Progress::Intended { .. } if recipient.attempts == 0 => {
            RecipientState::New
        }
        Progress::Waiting { .. } | Progress::Intended { .. } => RecipientState::Deferred,
        Progress::Delivered => RecipientState::Delivered,
        Progress::Failed => RecipientState::Failed,
        Progress::Bounced => RecipientState::Bounced,
    }
}

/// When a recipient that waits is tried next.
pub(crate) fn due(recipient: &Recipient) -> Option<Timestamp> {
    match recipient.progress {
        Progress::Waiting { due } | Progress::Intended { due } if !recipient.is_under_way() => {
            Some(due)
        }
        _ => None,
    }
}

fn is_in(wanted: StateFilter, message: &Message) -> bool {
    let wanted = match wanted {
        StateFilter::Held => return message.held,
        StateFilter::New => RecipientState::New,
        StateFilter::Deferred => RecipientState::Deferred,
        StateFilter::Delivering => RecipientState::Delivering,
        StateFilter::Delivered => RecipientState::Delivered,
        StateFilter::Failed => RecipientState::Failed,
        StateFilter::Bounced => RecipientState::Bounced,
    };
    message.recipients.iter().any(|recipient| state(recipient) == wanted)
}

fn is_sender(wanted: &str, sender: &ReversePath) -> bool {
    match sender {
        ReversePath::Null => wanted.is_empty() || wanted == "<>",
        ReversePath::Mailbox(sender) => is_address(wanted, sender),
    }
}

/// An address, or `@` and a domain.
fn is_address(wanted: &str, address: &Address) -> bool {
    match wanted.strip_prefix('@') {
        Some(domain) => address.domain().eq_ignore_ascii_case(domain),
        None => address.as_str().eq_ignore_ascii_case(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wanted: &str, address: &str, expected: bool) {
        let sender: ReversePath = address.parse().unwrap();
        assert_eq!(is_sender(wanted, &sender), expected, "{wanted} {address}");
    }

    #[test]
    fn senders_are_named_whole_or_by_domain() {
        check("a@b.test", "A@B.test", true);
        check("@B.test", "a@b.test", true);
        check("b.test", "a@b.test", false);
        check("@b.test", "a@sub.b.test", false);
        check("<>", "", true);
        check("", "", true);
        check("<>", "a@b.test", false);
    }
}
