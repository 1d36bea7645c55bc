//! Postfix's mail log (`smtpd(8)`, `qmgr(8)` and the delivery agents, by syslog).

use std::time::Duration;

use super::delivery::{Delivery, bare};
use super::log::Shown;
use super::open::Open;

#[derive(Debug, Default)]
pub(super) struct Postfix {
    pub(super) open: Open,
}

impl Postfix {
    pub(super) fn read(&mut self, at: Duration, rest: &str) -> Option<Delivery> {
        let (tag, text) = rest.split_once("]: ")?;
        // `mx postfix/submission/smtpd[123`: host, instance, service and program.
        let program = tag.rsplit_once('[')?.0.rsplit(' ').next()?;
        if !program.starts_with("postfix") {
            return None;
        }
        let (queue_id, text) = text.split_once(": ")?;
        if program.ends_with("smtpd") {
            if let Some(text) = text.strip_prefix("reject: RCPT from ") {
                return rejected(at, text);
            }
            let client = text.strip_prefix("client=")?;
            let mut delivery = Delivery::of_log(at, client_of(client)?, "");
            delivery.is_authenticated = text.contains(", sasl_username=");
            if !delivery.peer.is_loopback() {
                self.open.begin(queue_id, delivery);
            }
            return None;
        }
        if text == "removed" {
            return self.open.close(queue_id);
        }
        if program.ends_with("qmgr") {
            let sender = attribute(text, "from=")?;
            let count = text.split("nrcpt=").nth(1)?.split(' ').next()?;
            let message = self.open.get(queue_id)?;
            sender.clone_into(&mut message.delivery.sender);
            message.recipients = count.parse().ok();
            return None;
        }
        let recipient = attribute(text, "orig_to=").or_else(|| attribute(text, "to="))?;
        self.open.add(queue_id, recipient)
    }
}

/// `NAME[IP]: 450 4.2.0 …; from=<…> to=<…> proto=ESMTP helo=<…>`: only who may come back is of interest.
fn rejected(at: Duration, text: &str) -> Option<Delivery> {
    let (client, text) = text.split_once(": ")?;
    if !text.starts_with('4') {
        return None;
    }
    // What stands before was told to the client and may hold anything.
    let (_, envelope) = text.rsplit_once("; from=")?;
    let (sender, envelope) = envelope.split_once(" to=")?;
    let (recipient, envelope) = envelope.split_once(" proto=")?;
    let mut client = client_of(client)?;
    if let Some((_, helo)) = envelope.split_once(" helo=") {
        bare(helo).clone_into(&mut client.helo);
    }
    Some(Delivery::of_log(at, client, bare(sender)).to(bare(recipient)))
}

/// `mail.example.org[192.0.2.1]`; a name that is not confirmed is `unknown`.
fn client_of(text: &str) -> Option<Shown> {
    let (name, rest) = text.split_once('[')?;
    let (ip, _) = rest.split_once(']')?;
    let ip = ip.strip_prefix("IPv6:").unwrap_or(ip).parse().ok()?;
    let names = [name].iter().filter(|name| **name != "unknown").map(ToString::to_string).collect();
    Some(Shown { ip, names: Some(names), helo: String::new() })
}

/// The value of `name=<value>` among attributes with commas between, the first of this name.
fn attribute<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let is_own = |at: usize| at == 0 || text[..at].ends_with(", ");
    let at = text.match_indices(name).map(|(at, _)| at).find(|at| is_own(*at))?;
    let value = text[at + name.len()..].strip_prefix('<')?;
    Some(value.split_once('>')?.0)
}
