//! Exim's main log (Exim specification, chapter 53).

use std::time::Duration;

use super::delivery::{Delivery, bare};
use super::log::Shown;
use super::open::Open;

/// What stands between the name of a message and a recipient.
const TO: [&str; 5] = ["=> ", "-> ", "** ", "== ", ">> "];

#[derive(Debug, Default)]
pub(super) struct Exim {
    pub(super) open: Open,
}

impl Exim {
    pub(super) fn read(&mut self, at: Duration, rest: &str) -> Option<Delivery> {
        // The number of the process, where it is logged.
        let rest = match rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            Some((pid, rest)) if pid.bytes().all(|byte| byte.is_ascii_digit()) => rest,
            _ => rest,
        };
        if rest.starts_with("H=") {
            return rejected(at, rest);
        }
        let (name, text) = rest.split_once(' ')?;
        if let Some(text) = text.strip_prefix("<= ") {
            return self.arrived(at, name, text);
        }
        if text.starts_with("Completed") {
            return self.open.close(name);
        }
        let recipient = TO.iter().find_map(|mark| text.strip_prefix(mark))?;
        self.open.add(name, recipient_of(recipient)?)
    }

    /// `SENDER H=NAME (HELO) [IP]:PORT P=… A=… for RECIPIENT …`.
    fn arrived(&mut self, at: Duration, name: &str, text: &str) -> Option<Delivery> {
        let (sender, facts) = text.split_once(' ')?;
        // Subjects may hold anything, and stand behind.
        let facts_alone = facts.split(" T=\"").next()?;
        let client = client_of(facts_alone.split("H=").nth(1)?)?;
        let mut delivery = Delivery::of_log(at, client, bare(sender));
        delivery.is_authenticated = facts_alone.contains(" A=");
        let recipients = facts.rsplit_once(" for ").map(|(_, all)| all);
        let recipients = recipients.filter(|all| !all.contains('"') && all.contains('@'));
        let Some(all) = recipients else {
            self.open.begin(name, delivery);
            return None;
        };
        delivery.recipients = all.split(' ').map(|one| bare(one).to_owned()).collect();
        Some(delivery)
    }
}

/// `H=… F=<SENDER> temporarily rejected RCPT <RECIPIENT>: …`: only who may come back is of interest.
fn rejected(at: Duration, text: &str) -> Option<Delivery> {
    let (facts, told) = text.split_once(" temporarily rejected RCPT ")?;
    let recipient = told.strip_prefix('<').map_or_else(
        || told.split(": ").next(),
        |rest| rest.split_once('>').map(|(recipient, _)| recipient),
    )?;
    let (_, sender) = facts.split_once(" F=<")?;
    let (sender, _) = sender.split_once('>')?;
    let client = client_of(facts.strip_prefix("H=")?)?;
    let mut delivery = Delivery::of_log(at, client, sender).to(recipient);
    delivery.is_authenticated = facts.contains(" A=");
    Some(delivery)
}

/// `NAME (HELO) [IP]`; without NAME where none is confirmed.
fn client_of(text: &str) -> Option<Shown> {
    let (names, rest) = text.split_once('[')?;
    let ip = rest.split_once(']')?.0.parse().ok()?;
    let (name, helo) = names.trim_end().split_once('(').unwrap_or((names, ""));
    let name = name.trim();
    let helo = helo.trim_end_matches(')').to_owned();
    let names = [name].iter().filter(|name| !name.is_empty()).map(ToString::to_string).collect();
    Some(Shown { ip, names: Some(names), helo })
}

/// `demo <demo@example.org> R=…` or `demo@example.org R=…`.
fn recipient_of(text: &str) -> Option<&str> {
    let before = text.split(" R=").next()?;
    match before.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
        Some((address, _)) if address.contains('@') => Some(address),
        _ => before.split([' ', ':']).next().filter(|address| address.contains('@')),
    }
}
