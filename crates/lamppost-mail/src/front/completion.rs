//! What a submitted message must have and often lacks (RFC 6409 §8.1 to §8.3).

use std::fmt::Write as _;

use lamppost_roles::Timestamp;

use super::header::Header;

/// Makes the fields that a submitted message lacks.
pub(super) struct Completion {
    /// This host's name.
    pub(super) host: String,
    /// The session's name.
    pub(super) session: String,
    /// When the message comes in.
    pub(super) now: Timestamp,
}

impl Completion {
    /// The missing fields, each with its line end.
    pub(super) fn missing(&self, header: &Header) -> String {
        let Self { host, session, now } = self;
        let mut fields = String::new();
        if !header.date {
            let _infallible = writeln!(fields, "Date: {}", now.to_rfc5322());
        }
        if !header.message_id {
            let _infallible = writeln!(fields, "Message-ID: <{}.{session}@{host}>", now.0);
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_made() {
        let completion = Completion {
            host: "mail.lamppost.test".into(),
            session: "s1".into(),
            now: Timestamp(1_800_000_000_123),
        };
        let missing = |content: &str| completion.missing(&Header::read(content.as_bytes()));
        assert_eq!(
            missing("Subject: x\n\n"),
            "Date: Fri, 15 Jan 2027 08:00:00 +0000\n\
             Message-ID: <1800000000123.s1@mail.lamppost.test>\n"
        );
        assert_eq!(missing("Date: x\nMessage-Id: y\n\n"), "");
    }
}
