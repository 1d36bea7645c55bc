//! What postgrey keeps in its two Berkeley DB files (postgrey 1.37): triplets in `postgrey.db`, and in
//! `postgrey_clients.db` the clients that need not wait any more.
//!
//! A triplet is `NETWORK/SENDER/RECIPIENT` in lower case, with `FIRST,LAST` in seconds since 1970, and
//! in old files a host behind them. A client is its address, with `COUNT,LAST`. With `--privacy`
//! both keys are digests, which tell nothing.

use std::net::IpAddr;
use std::time::Duration;

use super::Remembered;

/// How postgrey was told to decide.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long a triplet had to wait (`--delay`).
    pub delay: Duration,
    /// After how many messages a client need not wait (`--auto-whitelist-clients`); 0 for never.
    pub clients_after: u64,
}

impl Default for Rules {
    /// As it decides by itself.
    fn default() -> Self {
        Self { delay: Duration::from_secs(300), clients_after: 5 }
    }
}

/// What a pair of a key and a value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Somebody is remembered.
    Remembered(Remembered),
    /// A client that has not passed often enough.
    Counted,
    /// A digest (`--privacy`).
    Digest,
    /// Nothing that postgrey writes.
    Unknown,
}

/// Reads a pair.
pub fn entry(key: &[u8], value: &[u8], rules: Rules) -> Entry {
    // Addresses that are no UTF-8 become what the policy service makes of them.
    let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
    let mut numbers = value.split(',').map_while(|number| number.parse::<u64>().ok());
    let (Some(one), Some(other)) = (numbers.next(), numbers.next()) else { return Entry::Unknown };
    let last = Duration::from_secs(other);
    if key.len() == 40 && key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Entry::Digest;
    }
    let Some((network, rest)) = key.split_once('/') else {
        return match key.parse() {
            Err(_) => Entry::Unknown,
            Ok(_) if rules.clients_after == 0 || one < rules.clients_after => Entry::Counted,
            Ok(client) => Entry::Remembered(Remembered {
                client,
                sender: None,
                recipient: None,
                first: last,
                last,
                passed: one,
            }),
        };
    };
    let Ok(client) = network.parse::<IpAddr>() else { return Entry::Unknown };
    let Some((sender, recipient)) = addresses(rest) else { return Entry::Unknown };
    let first = Duration::from_secs(one);
    Entry::Remembered(Remembered {
        client,
        sender: Some(pattern(sender)),
        recipient: Some(recipient.to_owned()),
        first,
        last,
        passed: u64::from(last.saturating_sub(first) >= rules.delay),
    })
}

/// The sender and the recipient. A local part may hold a slash, a domain cannot.
fn addresses(text: &str) -> Option<(&str, &str)> {
    let split = |at: usize| Some((text.get(..at)?, text.get(at + 1..)?));
    let end = text.find('@').and_then(|at| Some(at + text.get(at..)?.find('/')?));
    match end.and_then(split) {
        // Behind the recipient's own domain there is no slash, and so it was the sender's.
        Some((sender, recipient)) if recipient.contains('@') => Some((sender, recipient)),
        _ => text.find('/').and_then(split),
    }
}

/// Whom a sender means. postgrey writes `#` for numbers that change from message to message, so that
/// all of the domain are meant by it here.
fn pattern(sender: &str) -> String {
    match sender.rsplit_once('@') {
        Some((local, domain)) if local.contains('#') => format!("@{domain}"),
        _ => sender.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn triplet(key: &str, value: &str, expected: (&str, &str, &str, bool)) {
        let (client, sender, recipient, has_passed) = expected;
        let Entry::Remembered(found) = entry(key.as_bytes(), value.as_bytes(), Rules::default())
        else {
            unreachable!("{key} is a triplet");
        };
        assert_eq!(found.client, client.parse::<IpAddr>().unwrap());
        assert_eq!(found.sender.as_deref(), Some(sender));
        assert_eq!(found.recipient.as_deref(), Some(recipient));
        assert_eq!(found.passed > 0, has_passed);
    }

    #[test]
    fn triplets_are_read() {
        let key = "192.0.2.0/a@x.test/b@y.test";
        triplet(key, "1000,1299", ("192.0.2.0", "a@x.test", "b@y.test", false));
        triplet(key, "1000,1300,old.host", ("192.0.2.0", "a@x.test", "b@y.test", true));
        triplet("2001:db8::/a@x/b@y", "1,1", ("2001:db8::", "a@x", "b@y", false));
        // Slashes in local parts, and no sender.
        triplet("192.0.2.0//b@y", "1,1", ("192.0.2.0", "", "b@y", false));
        triplet("192.0.2.0/a/b=c@x/d/e@y", "1,1", ("192.0.2.0", "a/b=c@x", "d/e@y", false));
        triplet("192.0.2.0//d/e@y", "1,1", ("192.0.2.0", "", "d/e@y", false));
        triplet("192.0.2.0/local/b@y", "1,1", ("192.0.2.0", "local", "b@y", false));
        triplet("192.0.2.0/a@x/local", "1,1", ("192.0.2.0", "a@x", "local", false));
        // Numbers that change.
        triplet("192.0.2.0/bounce-#-#@l.test/b@y", "1,1", ("192.0.2.0", "@l.test", "b@y", false));
    }

    #[test]
    fn clients_count_from_their_fifth_message_on() {
        let check = |value: &[u8], rules, passes| {
            let found = entry(b"2001:db8::1", value, rules);
            assert_eq!(matches!(found, Entry::Remembered(_)), passes);
            assert!(passes || found == Entry::Counted);
        };
        check(b"5,1000", Rules::default(), true);
        check(b"4,1000", Rules::default(), false);
        check(b"2,1000", Rules { clients_after: 2, ..Rules::default() }, true);
        check(b"9,1000", Rules { clients_after: 0, ..Rules::default() }, false);
    }

    #[test]
    fn digests_and_other_things_are_told_apart() {
        let rules = Rules::default();
        let digest = b"da39a3ee5e6b4b0d3255bfef95601890afd80709";
        assert_eq!(entry(digest, b"1,2", rules), Entry::Digest);
        for (key, value) in
            [("192.0.2.1", "1"), ("x/a@b/c@d", "1,2"), ("x", "1,2"), ("192.0.2.1/x", "1,2")]
        {
            assert_eq!(entry(key.as_bytes(), value.as_bytes(), rules), Entry::Unknown, "{key}");
        }
    }

    proptest! {
        /// As postgrey would write any sender and any recipient that a mail server takes.
        #[test]
        fn what_postgrey_writes_is_read(
            local in "[a-z0-9/=._-]{1,20}",
            domain in "[a-z0-9.-]{1,20}",
            recipient in "[a-z0-9/=._-]{1,20}@[a-z0-9.-]{1,20}",
            is_null: bool,
        ) {
            // Where the null sender's recipient begins like another sender both are alike.
            let sender = if is_null { String::new() } else { format!("{local}@{domain}") };
            let key = format!("192.0.2.0/{sender}/{recipient}");
            let found = entry(key.as_bytes(), b"1,2", Rules::default());
            let Entry::Remembered(found) = found else { unreachable!("{found:?}") };
            prop_assert_eq!(found.sender, Some(sender));
            prop_assert_eq!(found.recipient, Some(recipient));
        }

        #[test]
        fn any_bytes_are_something(key: Vec<u8>, value: Vec<u8>) {
            entry(&key, &value, Rules::default());
        }
    }
}
