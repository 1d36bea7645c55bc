//! Whom SPF is asked about.

use std::net::IpAddr;

use crate::Client;

/// Letters of a name in the DNS, and of one of its labels.
const NAME_LETTERS_MAX: usize = 253;
const LABEL_LETTERS_MAX: usize = 63;

/// A client, and the domain in whose name it sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(super) ip: IpAddr,
    pub(super) helo: String,
    /// The sender, which for the null sender is the postmaster of HELO's domain (RFC 7208 §2.4).
    pub(super) sender: String,
    /// The domain in lower case.
    pub(crate) domain: String,
}

impl Subject {
    /// A client that sends in the name of a domain; nothing where that is no name in the DNS.
    pub(crate) fn of(client: Client<'_>) -> Option<Self> {
        let Client { ip, helo, sender } = client;
        let domain = match sender {
            "" => helo,
            sender => sender.rsplit_once('@')?.1,
        };
        let domain = domain.strip_suffix('.').unwrap_or(domain).to_ascii_lowercase();
        let sender = match sender {
            "" => format!("postmaster@{domain}"),
            sender => sender.to_owned(),
        };
        let subject = Self { ip: ip.to_canonical(), helo: helo.to_owned(), sender, domain };
        is_name(&subject.domain).then_some(subject)
    }
}

/// Whether it can be the name of a host with a domain.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_LETTERS_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= NAME_LETTERS_MAX
        && name.split('.').all(is_label)
        && name.rsplit_once('.').is_some_and(|(_, last)| !is_number(last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_senders_domain_is_asked_and_helos_for_the_null_sender() {
        let check = |helo: &str, sender: &str, expected: Option<&str>| {
            let client = Client { ip: "::ffff:192.0.2.1".parse().unwrap(), helo, sender };
            let subject = Subject::of(client);
            assert_eq!(subject.as_ref().map(|one| &one.domain[..]), expected, "{helo} {sender}");
            assert!(subject.is_none_or(|one| one.ip.is_ipv4() && one.sender.contains('@')));
        };
        check("mx.b.test", "x@A.test", Some("a.test"));
        check("mx.b.test.", "", Some("mx.b.test"));
        check("mx.b.test", "\"x@y\"@a.test", Some("a.test"));
        for (helo, sender) in [
            ("mx.b.test", "postmaster"),
            ("mx.b.test", "x@[192.0.2.1]"),
            ("mx.b.test", "x@test"),
            ("mx.b.test", "x@a..test"),
            ("mx.b.test", "x@b\u{fc}cher.test"),
            ("localhost", ""),
            ("", ""),
            ("192.0.2.1", ""),
            ("[192.0.2.1]", ""),
            ("a b.test", ""),
        ] {
            check(helo, sender, None);
        }
        check(
            "mx.b.test",
            &format!("x@{}.test", "y".repeat(63)),
            Some(&format!("{}.test", "y".repeat(63))),
        );
        check("mx.b.test", &format!("x@{}.test", "y".repeat(64)), None);
        check("mx.b.test", &format!("x@{}test", "y.".repeat(127)), None);
    }

    proptest! {
        #[test]
        fn anybody_is_a_subject_or_none(helo in "\\PC*", sender in "\\PC*@?\\PC*", ip: IpAddr) {
            if let Some(subject) = Subject::of(Client { ip, helo: &helo, sender: &sender }) {
                // It may stand in a key.
                prop_assert!(subject.domain.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
