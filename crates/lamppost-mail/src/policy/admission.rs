//! What the variables of a rule mean here: what they mean to qmail-smtpd and rblsmtpd.

use std::net::IpAddr;

use lamppost_roles::Admission;
use lamppost_rules::Verdict;
use lamppost_smtp::Refusal;
use tracing::warn;

/// Bytes of a text that a client is refused with, as in `rblsmtpd.c`.
const TEXT_MAX: usize = 200;
/// Bytes of a name of this host.
const HOST_MAX: usize = 255;
/// Values of GREYLISTING that switch it off; all others, also an empty one, switch it on.
const OFF: [&str; 3] = ["0", "no", "off"];

/// What a rule that allows a client says of it.
pub(super) fn by(verdict: &Verdict, peer: IpAddr) -> Admission {
    Admission {
        relay: verdict.variable("RELAYCLIENT").map(ToOwned::to_owned),
        message_size_max: verdict.variable("DATABYTES").and_then(|value| databytes(value, peer)),
        refusal: verdict.variable("RBLSMTPD").and_then(refusal),
        greylisting: verdict
            .variable("GREYLISTING")
            .map(|value| !OFF.iter().any(|off| off.eq_ignore_ascii_case(value))),
        host: verdict.variable("TCPLOCALHOST").filter(|name| !name.is_empty()).map(host),
    }
}

/// Bytes of a message; 0 is any number (`qmail-smtpd.c`).
fn databytes(value: &str, peer: IpAddr) -> Option<u64> {
    match value.parse() {
        Ok(0) => Some(u64::MAX),
        Ok(max) => Some(max),
        Err(_) => {
            warn!(%peer, value, "DATABYTES of a rule is no number: `message-size-max` holds");
            None
        }
    }
}

/// Why a client hands in no mail; an empty text only says that no lists are asked.
fn refusal(value: &str) -> Option<Refusal> {
    let (text, for_good) = match value.strip_prefix('-') {
        Some(text) => (text, true),
        None => (value, false),
    };
    let text = text.bytes().take(TEXT_MAX);
    let text: String = text.map(|byte| shown(byte, |byte| (32..127).contains(&byte))).collect();
    (!value.is_empty()).then_some(Refusal::Unwanted { text, for_good })
}

/// A name for fields of messages (`received.c`).
fn host(name: &str) -> String {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b".@%+/=:-".contains(&byte);
    name.bytes().take(HOST_MAX).map(|byte| shown(byte, is_safe)).collect()
}

fn shown(byte: u8, is_right: impl Fn(u8) -> bool) -> char {
    if is_right(byte) { char::from(byte) } else { '?' }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(variables: &[(&str, &str)]) -> Admission {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let verdict = Verdict { variables: variables.collect(), ..Verdict::default() };
        by(&verdict, "192.0.2.1".parse().unwrap())
    }

    #[test]
    fn variables_mean_what_they_meant() {
        assert_eq!(admission(&[("OTHER", "x")]), Admission::default());
        assert_eq!(admission(&[("RELAYCLIENT", "")]).relay.as_deref(), Some(""));
        assert_eq!(admission(&[("RELAYCLIENT", "@x")]).relay.as_deref(), Some("@x"));
        let bytes = |value| admission(&[("DATABYTES", value)]).message_size_max;
        assert_eq!([bytes("5000"), bytes("0"), bytes("1k")], [Some(5000), Some(u64::MAX), None]);
        let refusal = |value| admission(&[("RBLSMTPD", value)]).refusal;
        let unwanted =
            |text: &str, for_good| Some(Refusal::Unwanted { text: text.into(), for_good });
        assert_eq!(refusal(""), None);
        assert_eq!(refusal("later"), unwanted("later", false));
        assert_eq!(refusal("-n\u{f6}\r\n"), unwanted("n????", true));
        assert_eq!(refusal(&"x".repeat(500)), unwanted(&"x".repeat(TEXT_MAX), false));
        let greylisting = |value| admission(&[("GREYLISTING", value)]).greylisting;
        assert_eq!(
            [greylisting(""), greylisting("1"), greylisting("Off")],
            [Some(true), Some(true), Some(false)]
        );
        let host = |value| admission(&[("TCPLOCALHOST", value)]).host;
        assert_eq!(
            [host(""), host("mx.a.test"), host("a b\n")],
            [None, Some("mx.a.test".into()), Some("a?b?".into())]
        );
    }
}
