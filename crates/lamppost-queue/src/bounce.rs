//! The text of a notice to a sender: a bounce, or that it takes longer (RFC 3464, RFC 3462).

use std::fmt::Write as _;

use lamppost_roles::{Attempt, Reason, Timestamp};
use lamppost_smtp::{Address, Status};

use crate::record::MessageRecord;

/// Bytes of the original's header section that are given back.
const HEADER_MAX: usize = 64 * 1024;

/// The message is damaged in the spool (RFC 3463 §3.7).
pub(crate) const DAMAGED: Status = Status::new(5, 6, 0);

/// What the sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// These recipients do not get the message.
    Failure,
    /// It takes longer; it is tried until then.
    Delay {
        /// When it is given up.
        until: Timestamp,
    },
}

/// Everything that a notice is made of.
pub(crate) struct Notice<'a> {
    pub(crate) kind: Kind,
    /// This host's name.
    pub(crate) host: &'a str,
    /// The name of the notice itself, for its Message-ID.
    pub(crate) id: String,
    pub(crate) now: Timestamp,
    /// Whom it goes to.
    pub(crate) sender: &'a Address,
    pub(crate) original: &'a MessageRecord,
    /// The recipients that it is about, with their last tries.
    pub(crate) recipients: &'a [(Address, Option<Attempt>)],
    /// The original's content, or as much as holds its header section; nothing when it is damaged.
    pub(crate) content: &'a [u8],
}

impl Notice<'_> {
    /// The whole message, with LF line ends.
    pub(crate) fn compose(&self) -> Vec<u8> {
        let header = header_section(self.content);
        let boundary = boundary(&self.id, header);
        let is_global = !self.recipients.iter().all(|(address, _)| address.is_ascii());
        let (status_type, header_type) = if is_global {
            ("message/global-delivery-status", "message/global-headers")
        } else {
            ("message/delivery-status", "text/rfc822-headers")
        };
        let mut text = self.head(&boundary);
        let _infallible = write!(
            text,
            "--{boundary}\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{}\
             --{boundary}\nContent-Type: {status_type}\n\n{}\
             --{boundary}\nContent-Type: {header_type}\nContent-Transfer-Encoding: 8bit\n\n",
            self.words(),
            self.status(),
        );
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(header);
        if !header.is_empty() && !header.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
        bytes
    }

    fn head(&self, boundary: &str) -> String {
        let subject = match self.kind {
            Kind::Failure => "Undelivered mail returned to sender",
            Kind::Delay { .. } => "Delayed mail (no action is needed)",
        };
        format!(
            "From: Mail delivery <MAILER-DAEMON@{host}>\nTo: <{to}>\nSubject: {subject}\nDate: {date}\n\
             Message-ID: <{id}@{host}>\nAuto-Submitted: auto-replied\nMIME-Version: 1.0\n\
             Content-Type: multipart/report; report-type=delivery-status;\n\tboundary=\"{boundary}\"\n\n\
             This is a report in MIME format.\n\n",
            host = self.host,
            to = self.sender,
            date = self.now.to_rfc5322(),
            id = self.id,
        )
    }

    /// The part for people.
    fn words(&self) -> String {
        let mut text = format!("This is the mail server {}.\n\n", self.host);
        match self.kind {
            Kind::Failure => text.push_str(
                "Your message could not be delivered to one or more recipients, and nothing more\n\
                 will be tried for them. The reason stands below each.\n\n",
            ),
            Kind::Delay { until } => {
                let _infallible = write!(
                    text,
                    "Your message has not been delivered yet to one or more recipients. You need not do\n\
                     anything: it is tried again until {}.\n\n",
                    until.to_rfc5322()
                );
            }
        }
        for (address, last) in self.recipients {
            let reason = last.as_ref();
            let reason = reason.map_or("it was not tried yet".into(), |last| told(&last.reason));
            let host = last.as_ref().and_then(|last| last.reason.remote.as_ref());
            let said = host.map(|host| format!("{host} said: ")).unwrap_or_default();
            let _infallible = writeln!(text, "<{address}>: {said}{reason}\n");
        }
        text
    }

    /// The part for programs.
    fn status(&self) -> String {
        let arrived = self.original.envelope.origin.received.to_rfc5322();
        let mut text = format!("Reporting-MTA: dns; {}\nArrival-Date: {arrived}\n\n", self.host);
        for (address, last) in self.recipients {
            let kind = if address.is_ascii() { "rfc822" } else { "utf-8" };
            let (action, class) = match self.kind {
                Kind::Failure => ("failed", 5),
                Kind::Delay { .. } => ("delayed", 4),
            };
            let status = last.as_ref().map_or(Status::TEMPORARY, |last| last.reason.status);
            let _infallible = write!(
                text,
                "Final-Recipient: {kind}; {address}\nAction: {action}\nStatus: {}\n",
                status.of_class(class)
            );
            if let Some(last) = last {
                let said = told(&last.reason);
                let _infallible = match &last.reason.remote {
                    Some(remote) => {
                        let host = host_of(remote);
                        write!(text, "Remote-MTA: dns; {host}\nDiagnostic-Code: smtp; {said}\n")
                    }
                    None => writeln!(text, "Diagnostic-Code: x-lamppost; {said}"),
                };
                let _infallible = writeln!(text, "Last-Attempt-Date: {}", last.at.to_rfc5322());
            }
            if let Kind::Delay { until } = self.kind {
                let _infallible = writeln!(text, "Will-Retry-Until: {}", until.to_rfc5322());
            }
            text.push('\n');
        }
        text
    }
}

/// A host without its port, which has no place in that field (RFC 3464 §2.3.5).
fn host_of(remote: &str) -> &str {
    match remote.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => {
            // An address of IPv6 has colons of its own, and brackets where a port follows.
            if !host.contains(':') || host.ends_with(']') { host } else { remote }
        }
        _ => remote,
    }
}

/// What a sender is told of a reason: what another host said, as it said it, and of what this host
/// found no more than the kind, since its own words may name files and hosts that are nobody's business.
pub(crate) fn told(reason: &Reason) -> String {
    if reason.remote.is_some() {
        return plain(&reason.text);
    }
    let text = match reason.status.of_class(4) {
        // What an administrator decided was written for the sender.
        status if status == Status::POLICY.of_class(4) => return plain(&reason.text),
        status if status == DAMAGED.of_class(4) => "the message was damaged in this mail server",
        status if status == Status::NO_MAILBOX.of_class(4) => "there is no such mailbox",
        status if status == Status::LOOP.of_class(4) => {
            "the message came to this recipient before: it goes in a circle"
        }
        status if status == Status::TOO_LARGE.of_class(4) => {
            "the message is larger than the next mail server takes"
        }
        status if status == Status::NEEDS_UTF8.of_class(4) => {
            "the next mail server takes no addresses with letters beyond ASCII"
        }
        Status::NO_ROUTE => "this mail server knows no way to the recipient's domain",
        Status::NO_ANSWER => "the next mail server does not answer",
        Status::NO_ADDRESS => "the address of the next mail server cannot be found",
        Status::NO_TLS => "no secure connection to the next mail server can be made",
        Status::BROKEN => "the connection to the next mail server broke",
        Status::PROTOCOL | Status::TOO_MANY => "the next mail server cannot be talked to",
        Status::SYSTEM => "this mail server has a problem of its own",
        _ => "it could not be delivered",
    };
    text.into()
}

/// One line without control characters, of a length that fits a header field.
fn plain(text: &str) -> String {
    /// Characters of a reason.
    const LENGTH_MAX: usize = 900;
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(plain).take(LENGTH_MAX).collect()
}

/// The header section that a content begins with, cut at a line's end when it is very long.
fn header_section(content: &[u8]) -> &[u8] {
    if content.starts_with(b"\n") {
        return &[];
    }
    let end = memchr::memmem::find(content, b"\n\n").map_or(content.len(), |end| end + 1);
    if end <= HEADER_MAX {
        return &content[..end];
    }
    let cut = &content[..HEADER_MAX];
    memchr::memrchr(b'\n', cut).map_or(cut, |end| &cut[..=end])
}

/// A boundary that the original's header does not hold (RFC 2046 §5.1.1).
fn boundary(id: &str, header: &[u8]) -> String {
    let mut number = 0_u64;
    loop {
        let boundary = format!("=_{id}_{number}");
        if memchr::memmem::find(header, boundary.as_bytes()).is_none() {
            return boundary;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use lamppost_roles::{Envelope, Origin, QueueId, Recipient, Route};
    use proptest::prelude::*;

    use super::*;

    fn original() -> MessageRecord {
        MessageRecord {
            id: QueueId(1_800_000_000_123_456),
            envelope: Envelope {
                sender: "sender@elsewhere.test".parse().unwrap(),
                recipients: vec![Recipient {
                    address: "gone@lamppost.test".parse().unwrap(),
                    route: Route::Relay,
                }],
                origin: Origin {
                    session: "s1".into(),
                    peer: "192.0.2.1".parse().unwrap(),
                    helo: "client.test".into(),
                    host: "mail.lamppost.test".into(),
                    protocol: "ESMTP".into(),
                    tls: None,
                    account: None,
                    received: Timestamp(1_800_000_000_123),
                },
            },
            recipients: Vec::new(),
            held: false,
            delay_told: false,
            size: 0,
            aside: false,
            aside_sum: 0,
        }
    }

    fn compose(kind: Kind, address: &str, reason: Reason, content: &[u8]) -> String {
        let last = Attempt { at: Timestamp(1_800_000_100_000), reason };
        let notice = Notice {
            kind,
            host: "mail.lamppost.test",
            id: "001k52wm9mrj1".into(),
            now: Timestamp(1_800_000_200_000),
            sender: &"sender@elsewhere.test".parse().unwrap(),
            original: &original(),
            recipients: &[(address.parse().unwrap(), Some(last))],
            content,
        };
        String::from_utf8_lossy(&notice.compose()).into_owned()
    }

    #[test]
    fn a_bounce_tells_people_and_programs() {
        let reason = Reason {
            status: Status::NO_MAILBOX,
            text: "550 5.1.1 no such\nuser".into(),
            remote: Some("mx.elsewhere.test:25".into()),
        };
        let content = b"Subject: hello\nFrom: me\n\nsecret body\n";
        let text = compose(Kind::Failure, "gone@lamppost.test", reason, content);
        insta::assert_snapshot!(text, @r#"
        From: Mail delivery <MAILER-DAEMON@mail.lamppost.test>
        To: <sender@elsewhere.test>
        Subject: Undelivered mail returned to sender
        Date: Fri, 15 Jan 2027 08:03:20 +0000
        Message-ID: <001k52wm9mrj1@mail.lamppost.test>
        Auto-Submitted: auto-replied
        MIME-Version: 1.0
        Content-Type: multipart/report; report-type=delivery-status;
        	boundary="=_001k52wm9mrj1_0"

        This is a report in MIME format.

        --=_001k52wm9mrj1_0
        Content-Type: text/plain; charset=utf-8
        Content-Transfer-Encoding: 8bit

        This is the mail server mail.lamppost.test.

        Your message could not be delivered to one or more recipients, and nothing more
        will be tried for them. The reason stands below each.

        <gone@lamppost.test>: mx.elsewhere.test:25 said: 550 5.1.1 no such user

        --=_001k52wm9mrj1_0
        Content-Type: message/delivery-status

        Reporting-MTA: dns; mail.lamppost.test
        Arrival-Date: Fri, 15 Jan 2027 08:00:00 +0000

        Final-Recipient: rfc822; gone@lamppost.test
        Action: failed
        Status: 5.1.1
        Remote-MTA: dns; mx.elsewhere.test
        Diagnostic-Code: smtp; 550 5.1.1 no such user
        Last-Attempt-Date: Fri, 15 Jan 2027 08:01:40 +0000

        --=_001k52wm9mrj1_0
        Content-Type: text/rfc822-headers
        Content-Transfer-Encoding: 8bit

        Subject: hello
        From: me

        --=_001k52wm9mrj1_0--
        "#);
    }

    #[test]
    fn a_delay_says_until_when_and_no_inner_words() {
        let reason = Reason::own(Status::SYSTEM, "cannot make the folder /srv/mail: EACCES");
        let kind = Kind::Delay { until: Timestamp(1_800_432_000_123) };
        let text = compose(kind, "gone@lamppost.test", reason, b"");
        for expected in [
            "Subject: Delayed mail",
            "Action: delayed\nStatus: 4.3.0\n",
            "Will-Retry-Until: Wed, 20 Jan 2027 08:00:00 +0000\n",
            "Diagnostic-Code: x-lamppost; this mail server has a problem of its own\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains("/srv") && !text.contains("EACCES"), "{text}");
    }

    #[test]
    fn addresses_beyond_ascii_are_told_as_rfc_6533_wants() {
        let reason = Reason::own(Status::PERMANENT, "no");
        let text = compose(Kind::Failure, "gone@bücher.test", reason, b"Subject: x\n\n");
        assert!(text.contains("Final-Recipient: utf-8; gone@bücher.test\n"), "{text}");
        assert!(text.contains("message/global-delivery-status"), "{text}");
    }

    proptest! {
        /// Whatever the original is, the report has three parts and nothing of the body.
        #[test]
        fn any_content_gives_three_parts(content: Vec<u8>, id in "[a-z0-9]{13}") {
            let content = [&content[..], b"\n\nBODY=_BODY"].concat();
            let reason = Reason::own(Status::PERMANENT, "no");
            let text = compose(Kind::Failure, "gone@lamppost.test", reason, &content);
            let boundary = text.split("boundary=\"").nth(1).unwrap().split('"').next().unwrap();
            let delimiter = format!("\n--{boundary}");
            prop_assert_eq!(text.matches(&delimiter).count(), 4, "{}", id);
            prop_assert!(!text.contains("BODY=_BODY"));
        }
    }
}
