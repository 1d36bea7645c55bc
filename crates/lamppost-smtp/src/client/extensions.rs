//! What the other host offers in its reply to EHLO.

use super::reply::HostReply;

/// The extensions that this client knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an extension that is offered or not")]
pub(super) struct Extensions {
    /// Commands may come before the replies to those before (RFC 2920).
    pub(super) pipelining: bool,
    /// Sizes may be announced (RFC 1870).
    pub(super) size: bool,
    /// The largest message that is taken, if the host says so.
    pub(super) size_max: Option<u64>,
    /// Content may have bytes above 127 (RFC 6152).
    pub(super) eight_bit_mime: bool,
    /// Addresses and header fields may have them too (RFC 6531).
    pub(super) smtputf8: bool,
    /// TLS may begin (RFC 3207).
    pub(super) starttls: bool,
    /// Mechanisms of AUTH (RFC 4954).
    pub(super) auth_plain: bool,
    /// As above.
    pub(super) auth_login: bool,
}

impl Extensions {
    /// Reads the reply; what is not known is skipped.
    pub(super) fn read(reply: &HostReply) -> Self {
        let mut offered = Self::default();
        // The first line is a greeting (RFC 5321 §4.1.1.1).
        for line in reply.lines.iter().skip(1) {
            // Old hosts write `AUTH=LOGIN`.
            let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => offered.pipelining = true,
                "SIZE" => {
                    offered.size = true;
                    let size = words.next().and_then(|size| size.parse().ok());
                    // Zero: no limit that is known.
                    offered.size_max = size.filter(|&size| size > 0);
                }
                "8BITMIME" => offered.eight_bit_mime = true,
                "SMTPUTF8" => offered.smtputf8 = true,
                "STARTTLS" => offered.starttls = true,
                "AUTH" => {
                    for mechanism in words {
                        offered.auth_plain |= mechanism.eq_ignore_ascii_case("PLAIN");
                        offered.auth_login |= mechanism.eq_ignore_ascii_case("LOGIN");
                    }
                }
                _ => {}
            }
        }
        offered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Extensions {
        let lines = std::iter::once("mail.test").chain(lines.iter().copied());
        Extensions::read(&HostReply { code: 250, lines: lines.map(str::to_owned).collect() })
    }

    #[test]
    fn keywords_are_read_in_any_case() {
        let offered = read(&["pipelining", "Size 1000", "8BITMIME", "SMTPUTF8", "STARTTLS", "DSN"]);
        let expected = Extensions {
            pipelining: true,
            size: true,
            size_max: Some(1000),
            eight_bit_mime: true,
            smtputf8: true,
            starttls: true,
            ..Extensions::default()
        };
        assert_eq!(offered, expected);
    }

    #[test]
    fn mechanisms_are_read_in_both_forms() {
        for line in ["AUTH PLAIN LOGIN", "AUTH=LOGIN PLAIN", "AUTH  CRAM-MD5 plain login"] {
            let offered = read(&[line]);
            assert!(offered.auth_plain && offered.auth_login, "{line}");
        }
        assert_eq!(read(&["AUTH", "AUTHOR PLAIN", ""]), Extensions::default());
    }

    #[test]
    fn a_size_may_be_without_limit() {
        for line in ["SIZE", "SIZE 0", "SIZE many"] {
            assert_eq!((read(&[line]).size, read(&[line]).size_max), (true, None), "{line}");
        }
    }

    #[test]
    fn a_greeting_offers_nothing() {
        let greeting = HostReply { code: 250, lines: vec!["STARTTLS".into()] };
        assert_eq!(Extensions::read(&greeting), Extensions::default());
    }
}
