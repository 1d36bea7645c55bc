//! A recipient of a message: asked about, and added to it.

use lamppost_roles::{PolicyAnswer, PolicyRequest};
use lamppost_smtp::{Address, Answer, Refusal, Reply, ReversePath};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::info;

use super::{Connection, Transaction};

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<'_, S> {
    pub(super) async fn add_recipient(&mut self, recipient: Address) -> Answer {
        if let Some(refusal) = self.admission.refusal.clone()
            && !(is_of_lists(&refusal) && is_for_complaints(&recipient))
        {
            return self.refuse_recipient(&recipient, refusal);
        }
        let appended = self
            .admission
            .relay
            .as_deref()
            .map_or(Some(recipient.clone()), |suffix| with_suffix(&recipient, suffix));
        let Some(recipient) = appended else {
            return self.refuse_recipient(&recipient, Refusal::UnknownMailbox);
        };
        let question = PolicyRequest::Recipient {
            peer: self.peer,
            helo: self.session.helo().unwrap_or_default().to_owned(),
            sender: self.transaction.sender.clone().unwrap_or(ReversePath::Null),
            recipient: recipient.clone(),
            account: self.session.account().cloned(),
            relay: self.admission.relay.is_some(),
            greylisting: self.admission.greylisting,
        };
        match self.policy(question).await {
            PolicyAnswer::Route(route) => {
                self.transaction.add(recipient, route);
                Answer::Yes
            }
            PolicyAnswer::Minded { route, hold, passage } => {
                if let Some(refusal) = hold {
                    self.transaction.hold(refusal);
                }
                if let Some(passage) = passage {
                    self.transaction.passages.push((recipient.clone(), passage));
                }
                self.transaction.add(recipient, route);
                Answer::Yes
            }
            PolicyAnswer::Refused(refusal) => self.refuse_recipient(&recipient, refusal),
            _ => Answer::Refused(Refusal::Unavailable),
        }
    }

    /// Has the greylist learn what became of a message, while the client has its reply already.
    pub(super) fn tell_outcome(&self, transaction: &mut Transaction, accepted: bool) {
        // What is refused of those who need not wait says nothing of others.
        let is_own = self.submitter().is_some() || self.admission.relay.is_some();
        if is_own || self.admission.greylisting == Some(false) {
            return;
        }
        let recipients = transaction.passages(accepted);
        if recipients.is_empty() {
            return;
        }
        let sender = transaction.sender.clone().unwrap_or(ReversePath::Null);
        let told = PolicyRequest::Outcome { peer: self.peer, sender, recipients, accepted };
        let policy = self.front.ends.policy.clone();
        tokio::spawn(async move { drop(policy.ask(told).await) });
    }

    fn refuse_recipient(&self, recipient: &Address, refusal: Refusal) -> Answer {
        let null = ReversePath::Null;
        let sender = self.transaction.sender.as_ref().unwrap_or(&null);
        let (session, peer, reason) = (&self.id, self.peer(), refusal.reason());
        if Reply::from(&refusal).is_temporary() {
            info!(session, peer, from = %sender, to = %recipient, reason, "recipient deferred");
            self.front.metrics.recipient_deferred(reason);
        } else {
            info!(session, peer, from = %sender, to = %recipient, reason, "recipient refused");
            self.front.metrics.recipient_refused(reason);
        }
        Answer::Refused(refusal)
    }
}

/// Whether lists in the DNS are the reason.
fn is_of_lists(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Listed { .. } | Refusal::ListsSilent)
}

/// Whether somebody who is refused by mistake can complain there (RFC 2142 §§ 2, 5).
fn is_for_complaints(recipient: &Address) -> bool {
    ["postmaster", "abuse"].iter().any(|name| recipient.local().eq_ignore_ascii_case(name))
}

/// The address with what RELAYCLIENT appends; what was an address becomes a quoted local part where it
/// must (RFC 5321 §4.1.2). Nothing when even that is none.
fn with_suffix(address: &Address, suffix: &str) -> Option<Address> {
    let plain = format!("{address}{suffix}");
    plain.parse().ok().or_else(|| {
        let inner = address.as_str().replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{inner}\"{suffix}").parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_relayclient_appends_makes_an_address() {
        let check = |address: &str, suffix: &str, expected: Option<&str>| {
            let found = with_suffix(&address.parse().unwrap(), suffix);
            assert_eq!(found.as_ref().map(Address::as_str), expected);
        };
        check("a@b.test", "", Some("a@b.test"));
        check("a@b.test", ".relay.test", Some("a@b.test.relay.test"));
        check("a@b.test", "@fix", Some("\"a@b.test\"@fix"));
        check("\"a b\"@c.test", "@fix", Some("\"\\\"a b\\\"@c.test\"@fix"));
        check("a@b.test", " x", None);
    }
}
