//! What administrators rule by hand: who never waits, and who always does.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// A time that never comes: the last that relaydelay's dates can tell, 9999-12-31 23:59:59.
pub const NEVER: Duration = Duration::from_secs(253_402_300_799);

/// For whom a wildcard is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whom {
    /// Clients whose address is this text or begins with it and a dot (for IPv6: a colon): `192.0.2`.
    Relay(String),
    /// Recipients: `user@domain`, the same in angle brackets, `user@`, or a domain with all below it.
    Recipient(String),
}

/// A row that an administrator wrote for many triplets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wildcard {
    /// For whom it is.
    pub whom: Whom,
    /// Until then mail is deferred, from then on it passes.
    pub block_expires: Duration,
    /// From then on it says nothing.
    pub record_expires: Duration,
}

impl Wildcard {
    /// One that lets pass.
    pub fn allow(whom: Whom, until: Duration) -> Self {
        Self { whom, block_expires: Duration::ZERO, record_expires: until }
    }

    /// One that defers.
    pub fn block(whom: Whom, until: Duration) -> Self {
        Self { whom, block_expires: until, record_expires: until }
    }

    /// Whether it lets pass; nothing where it does neither, or has expired.
    fn allows(&self, now: Duration) -> Option<bool> {
        let is_live = now < self.record_expires;
        (is_live && now != self.block_expires).then_some(now > self.block_expires)
    }
}

/// All wildcards, by whom they are for.
#[derive(Clone, Debug, Default)]
pub struct Wildcards {
    by_whom: HashMap<Whom, Wildcard>,
}

impl Wildcards {
    /// Of two for the same clients or recipients the first counts.
    pub fn new(wildcards: Vec<Wildcard>) -> Self {
        let mut by_whom = HashMap::new();
        for wildcard in wildcards {
            let whom = match &wildcard.whom {
                Whom::Relay(text) => Whom::Relay(text.to_lowercase()),
                Whom::Recipient(text) => Whom::Recipient(text.to_lowercase()),
            };
            by_whom.entry(whom).or_insert(wildcard);
        }
        Self { by_whom }
    }

    /// The wildcard that decides an attempt, and whether it lets pass: one for the client before one for
    /// the recipient, and the longest of each.
    pub fn find(&self, peer: IpAddr, recipient: &str, now: Duration) -> Option<(&Wildcard, bool)> {
        if self.by_whom.is_empty() {
            return None;
        }
        let relays = relays(peer).into_iter().map(Whom::Relay);
        let recipients = recipients(recipient).into_iter().map(Whom::Recipient);
        [self.longest(relays, now), self.longest(recipients, now)]
            .into_iter()
            .flatten()
            .find_map(|wildcard| Some((wildcard, wildcard.allows(now)?)))
    }

    /// The first that has not expired.
    fn longest(&self, mut whom: impl Iterator<Item = Whom>, now: Duration) -> Option<&Wildcard> {
        whom.find_map(|whom| self.by_whom.get(&whom).filter(|found| now < found.record_expires))
    }
}

/// What a wildcard for a client may be, the longest first.
fn relays(peer: IpAddr) -> Vec<String> {
    let peer = peer.to_canonical();
    let (parts, joint): (Vec<_>, _) = match peer {
        IpAddr::V4(v4) => (v4.octets().iter().map(ToString::to_string).collect(), "."),
        IpAddr::V6(v6) => (v6.segments().iter().map(|part| format!("{part:x}")).collect(), ":"),
    };
    let whole = peer.to_string();
    let texts = (1..=parts.len()).rev().map(|count| parts[..count].join(joint));
    let shorter: Vec<_> = texts.filter(|text| *text != whole).collect();
    [vec![whole], shorter].concat()
}

/// What a wildcard for a recipient may be, the longest first.
fn recipients(recipient: &str) -> Vec<String> {
    let recipient = recipient.to_lowercase();
    let (user, domain) = recipient.rsplit_once('@').unwrap_or((&recipient, ""));
    let mut found = vec![format!("<{recipient}>"), recipient.clone(), format!("{user}@")];
    let mut rest = domain;
    while !rest.is_empty() {
        found.push(rest.to_owned());
        rest = rest.split_once('.').map_or("", |(_, above)| above);
    }
    found.sort_by_key(|text| std::cmp::Reverse(text.len()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn wildcards(rows: &[(&str, &str)]) -> Wildcards {
        let wildcards = rows.iter().map(|(whom, does)| {
            let is_relay = whom.starts_with(|first: char| first.is_ascii_digit());
            let text = (*whom).to_owned();
            let whom = if is_relay { Whom::Relay(text) } else { Whom::Recipient(text) };
            match *does {
                "white" => Wildcard::allow(whom, NEVER),
                "black" => Wildcard::block(whom, NEVER),
                "over" => Wildcard::allow(whom, NOW),
                "later" => Wildcard { whom, block_expires: NOW * 2, record_expires: NEVER },
                _ => Wildcard { whom, block_expires: NOW, record_expires: NEVER },
            }
        });
        Wildcards::new(wildcards.collect())
    }

    #[track_caller]
    fn check(rows: &[(&str, &str)], peer: &str, to: &str, expected: Option<bool>) {
        let wildcards = wildcards(rows);
        let found = wildcards.find(peer.parse().unwrap(), to, NOW);
        assert_eq!(found.map(|(_, allows)| allows), expected, "{peer} {to}: {rows:?}");
    }

    #[test]
    fn a_client_is_meant_by_what_its_address_begins_with() {
        let (peer, to) = ("192.168.2.3", "me@lamppost.test");
        for text in ["192.168.2.3", "192.168.2", "192.168", "192"] {
            check(&[(text, "white")], peer, to, Some(true));
            check(&[(text, "black")], peer, to, Some(false));
        }
        for text in ["192.168.2.", "192.168.2.0/24", "192.16", "19", "192.168.2.33"] {
            check(&[(text, "white")], peer, to, None);
        }
        check(&[("192.168", "white"), ("192.168.2", "black")], peer, to, Some(false));
        check(&[("192.168", "black"), ("192.168.2", "white")], peer, to, Some(true));
        check(&[("192.168", "black"), ("192.168.2", "over")], peer, to, Some(false));
        check(&[("192.168", "black"), ("192.168.2", "neither")], peer, to, None);
        check(&[("192", "later")], peer, to, Some(false));
        check(&[("2001:db8:0:1", "white")], "2001:db8:0:1::5", to, Some(true));
        check(&[("2001:db8:0:1::5", "white")], "2001:db8:0:1::5", to, Some(true));
        check(&[("2001:db8:0:1", "white")], "2001:db8:0:2::5", to, None);
        check(&[("192.168", "white")], "::ffff:192.168.2.3", to, Some(true));
    }

    #[test]
    fn a_recipient_is_meant_by_address_or_domain() {
        let (peer, to) = ("192.0.2.1", "Me@Mail.Lamppost.test");
        let texts = [
            "<me@mail.lamppost.test>",
            "ME@mail.lamppost.test",
            "me@",
            "mail.lamppost.test",
            "lamppost.test",
            "test",
        ];
        for text in texts {
            check(&[(text, "white")], peer, to, Some(true));
        }
        for text in ["amppost.test", ".lamppost.test", "@lamppost.test", "other@mail.lamppost.test"]
        {
            check(&[(text, "white")], peer, to, None);
        }
        check(
            &[("lamppost.test", "white"), ("<me@mail.lamppost.test>", "black")],
            peer,
            to,
            Some(false),
        );
        check(&[("lamppost.test", "black"), ("mail.lamppost.test", "white")], peer, to, Some(true));
    }

    #[test]
    fn clients_come_before_recipients() {
        let (peer, to) = ("192.0.2.1", "me@lamppost.test");
        check(&[("192", "white"), ("<me@lamppost.test>", "black")], peer, to, Some(true));
        check(&[("192", "black"), ("<me@lamppost.test>", "white")], peer, to, Some(false));
        check(&[("192", "over"), ("lamppost.test", "black")], peer, to, Some(false));
        check(&[("192", "neither"), ("lamppost.test", "white")], peer, to, Some(true));
        check(&[], peer, to, None);
    }
}
