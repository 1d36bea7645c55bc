//! The lines that delivery puts before a message (RFC 5321 §4.4), and the loops that they reveal.

use lamppost_roles::{DeliveryJob, Origin, Peer, QueueId, RelayJob};
use lamppost_smtp::Address;

/// Bytes of a header section that are searched for loops.
const SEARCHED_MAX: usize = 128 * 1024;

/// `Return-Path`, `Delivered-To` and `Received`. They follow from the message's record alone, so a
/// delivery that is repeated writes the same bytes.
pub(crate) fn lines(job: &DeliveryJob) -> String {
    let DeliveryJob { sender, recipient, origin, placement, .. } = job;
    let received = received(origin, placement.id, Some(recipient));
    format!("Return-Path: <{sender}>\nDelivered-To: {recipient}\n{received}")
}

/// `Received` alone: the other two are for the host that delivers (RFC 5321 §4.4).
///
/// A recipient is named only where there is no other, who would learn of it, and where that takes
/// no letters that the header section may do without.
pub(crate) fn relay_lines(job: &RelayJob) -> String {
    let only = match &job.recipients[..] {
        [only] if only.is_ascii() => Some(only),
        _ => None,
    };
    received(&job.origin, job.id, only)
}

fn received(origin: &Origin, id: QueueId, recipient: Option<&Address>) -> String {
    let Origin { helo, peer, host, protocol, tls, received, .. } = origin;
    let tls = tls.as_ref().map(|tls| format!(" ({tls})")).unwrap_or_default();
    let recipient = recipient.map(|recipient| format!(" for <{recipient}>")).unwrap_or_default();
    let from = match (peer, helo.as_str()) {
        (Peer::User(uid), _) => format!("by {host} (from userid {uid})"),
        // Nobody handed in what this host itself wrote.
        (Peer::Address(_), "") => format!("by {host}"),
        (Peer::Address(peer), helo) => {
            format!("from {} ([{peer}])\n\tby {host} with {protocol}{tls}", plain(helo))
        }
    };
    format!("Received: {from}\n\tid {id}{recipient}; {}\n", received.to_rfc5322())
}

/// What a client calls itself, without what could mean something in a header field.
fn plain(helo: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-_:[]".contains(letter);
    helo.chars().map(|letter| if plain(letter) { letter } else { '?' }).collect()
}

/// Whether the message was delivered to this recipient before: it is in a loop.
pub(crate) fn is_loop(content: &[u8], recipient: &Address) -> bool {
    let searched = &content[..content.len().min(SEARCHED_MAX)];
    searched
        .split(|&byte| byte == b'\n')
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_at_checked("Delivered-To:".len()))
        .any(|(name, value)| {
            name.eq_ignore_ascii_case(b"Delivered-To:")
                && value.trim_ascii().eq_ignore_ascii_case(recipient.as_str().as_bytes())
        })
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use lamppost_roles::{Content, Placement, Timestamp};

    use super::*;

    pub(crate) fn job(id: u64, content: &'static [u8]) -> DeliveryJob {
        DeliveryJob {
            placement: Placement {
                id: QueueId(id),
                index: 0,
                mailbox: "demo@lamppost.test".parse().unwrap(),
            },
            sender: "sender@elsewhere.test".parse().unwrap(),
            recipient: "Demo@lamppost.test".parse().unwrap(),
            origin: Origin {
                session: "s1".into(),
                peer: "192.0.2.1".parse().unwrap(),
                helo: "client.test (evil\n".into(),
                host: "mail.lamppost.test".into(),
                protocol: "ESMTPS".into(),
                tls: Some("TLSv1.3 AES_256_GCM_SHA384".into()),
                account: None,
                received: Timestamp(1_800_000_000_123),
            },
            content: Content::Inline(Bytes::from_static(content)),
        }
    }

    #[test]
    fn the_lines_tell_where_the_message_came_from() {
        insta::assert_snapshot!(lines(&job(1_800_000_000_123_456, b"")), @r"
        Return-Path: <sender@elsewhere.test>
        Delivered-To: Demo@lamppost.test
        Received: from client.test??evil? ([192.0.2.1])
        	by mail.lamppost.test with ESMTPS (TLSv1.3 AES_256_GCM_SHA384)
        	id 001k52wm9mrj0 for <Demo@lamppost.test>; Fri, 15 Jan 2027 08:00:00 +0000
        ");
    }

    #[test]
    fn a_message_that_was_here_before_is_in_a_loop() {
        let recipient = "Demo@lamppost.test".parse().unwrap();
        let is_loop = |content: &[u8]| is_loop(content, &recipient);
        assert!(is_loop(b"Subject: x\ndelivered-to:  demo@LAMPPOST.test\n\nbody\n"));
        assert!(!is_loop(b"Delivered-To: other@lamppost.test\n\nbody\n"));
        assert!(!is_loop(b"Subject: x\n\nDelivered-To: demo@lamppost.test\n"));
    }
}
