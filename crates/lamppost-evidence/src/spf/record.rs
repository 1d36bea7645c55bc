//! Records of SPF as text (RFC 7208 §4.5, §5, §12).

use std::net::IpAddr;

use super::network::Network;
use super::spec::Spec;
use super::{Malformed, SpfResult};

/// What a record begins with.
const VERSION: &str = "v=spf1";

/// A record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) directives: Vec<Directive>,
    /// Where to ask when no directive matches.
    pub(super) redirect: Option<Spec>,
}

/// A mechanism, and the result when it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) result: SpfResult,
    pub(super) mechanism: Mechanism,
}

/// Which clients a directive is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    /// Those that another domain lets send.
    Include(Spec),
    /// Those whose addresses these hosts have.
    Hosts(Hosts),
    /// Those in a network.
    Network(Network),
    /// All, if a name has an address.
    Exists(Spec),
    /// Those whose confirmed name is below this one, or below the domain itself.
    Ptr(Option<Spec>),
}

/// Hosts, or their neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hosts {
    /// The name, where it is not that of the domain itself.
    pub(super) name: Option<Spec>,
    /// Whether those are meant that take the name's mail.
    pub(super) are_exchanges: bool,
    pub(super) ipv4_bits: u8,
    pub(super) ipv6_bits: u8,
}

/// The record among the texts of a domain; nothing where there is none.
pub(super) fn find(texts: &[String]) -> Result<Option<Record>, Malformed> {
    let mut records = texts.iter().filter_map(|text| {
        let begin = text.get(..VERSION.len())?;
        let rest = &text[VERSION.len()..];
        let is_one =
            begin.eq_ignore_ascii_case(VERSION) && (rest.is_empty() || rest.starts_with(' '));
        is_one.then_some(rest)
    });
    match (records.next(), records.next()) {
        (Some(terms), None) => Record::read(terms).map(Some),
        (Some(_), Some(_)) => Err(Malformed),
        (None, _) => Ok(None),
    }
}

impl Record {
    fn read(terms: &str) -> Result<Self, Malformed> {
        let mut record = Self::default();
        let mut has_explanation = false;
        for term in terms.split(' ').filter(|term| !term.is_empty()) {
            let Some((name, value)) = modifier(term) else {
                record.directives.push(directive(term)?);
                continue;
            };
            if name.eq_ignore_ascii_case("redirect") {
                let before = record.redirect.replace(Spec::name(value)?);
                if before.is_some() {
                    return Err(Malformed);
                }
            } else if name.eq_ignore_ascii_case("exp") {
                Spec::name(value)?;
                if std::mem::replace(&mut has_explanation, true) {
                    return Err(Malformed);
                }
            }
            // Others are nobody's matter here (RFC 7208 §6).
        }
        Ok(record)
    }
}

/// A term that is a modifier: its name and its value.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let is_name = name.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    is_name.then_some((name, value))
}

fn directive(term: &str) -> Result<Directive, Malformed> {
    let (result, rest) = match term.as_bytes().first() {
        Some(b'+') => (SpfResult::Pass, &term[1..]),
        Some(b'-') => (SpfResult::Fail, &term[1..]),
        Some(b'~') => (SpfResult::SoftFail, &term[1..]),
        Some(b'?') => (SpfResult::Neutral, &term[1..]),
        _ => (SpfResult::Pass, term),
    };
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    let (name, behind) = rest.split_at(end);
    let value = behind.strip_prefix(':');
    let mechanism = match (&name.to_ascii_lowercase()[..], value) {
        ("all", None) if behind.is_empty() => Mechanism::All,
        ("include", Some(value)) => Mechanism::Include(Spec::name(value)?),
        ("exists", Some(value)) => Mechanism::Exists(Spec::name(value)?),
        ("ptr", None) if behind.is_empty() => Mechanism::Ptr(None),
        ("ptr", Some(value)) => Mechanism::Ptr(Some(Spec::name(value)?)),
        ("a", _) => Mechanism::Hosts(hosts(behind, false)?),
        ("mx", _) => Mechanism::Hosts(hosts(behind, true)?),
        ("ip4", Some(value)) => {
            Mechanism::Network(network(value, 32, |text| text.parse().ok().map(IpAddr::V4))?)
        }
        ("ip6", Some(value)) => {
            Mechanism::Network(network(value, 128, |text| text.parse().ok().map(IpAddr::V6))?)
        }
        _ => return Err(Malformed),
    };
    Ok(Directive { result, mechanism })
}

fn network(
    value: &str,
    width: u8,
    read: impl Fn(&str) -> Option<IpAddr>,
) -> Result<Network, Malformed> {
    let (address, bits) = match value.split_once('/') {
        Some((address, bits)) => (address, count(bits, width)?),
        None => (value, width),
    };
    Ok(Network::of(read(address).ok_or(Malformed)?, bits))
}

/// What stands behind `a` and `mx`: a name behind a colon, bits of IPv4 behind a slash, those of IPv6 behind two.
fn hosts(behind: &str, are_exchanges: bool) -> Result<Hosts, Malformed> {
    let (rest, ipv6_bits) = trailing(behind, "//", 128)?;
    let (rest, ipv4_bits) = trailing(rest, "/", 32)?;
    let name = match rest.strip_prefix(':') {
        Some(name) => Some(Spec::name(name)?),
        None if rest.is_empty() => None,
        None => return Err(Malformed),
    };
    Ok(Hosts { name, are_exchanges, ipv4_bits, ipv6_bits })
}

/// A count of bits at the end of a text, if there is one.
fn trailing<'t>(text: &'t str, mark: &str, width: u8) -> Result<(&'t str, u8), Malformed> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_digit());
    match digits.strip_suffix(mark) {
        Some(rest) if digits.len() < text.len() => Ok((rest, count(&text[digits.len()..], width)?)),
        _ => Ok((text, width)),
    }
}

/// A count of bits, without zeros in front.
fn count(digits: &str, max: u8) -> Result<u8, Malformed> {
    let is_plain = digits == "0" || !digits.starts_with(['0', '+']);
    let bits = digits.parse().ok().filter(|bits| is_plain && *bits <= max);
    bits.ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(texts: &[&str]) -> Result<Option<Record>, Malformed> {
        find(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn one_record_is_found_among_other_texts() {
        let none = [
            &[][..],
            &["v=spf10 all"],
            &["v=spf"],
            &["spf2.0/pra +all", "\u{f6}v=spf1"],
            &["v=spf1\t-all"],
        ];
        for texts in none {
            assert_eq!(found(texts), Ok(None), "{texts:?}");
        }
        for texts in [&["v=spf1"][..], &["V=Spf1 ", "other", "v=spf1x"]] {
            assert_eq!(found(texts), Ok(Some(Record::default())), "{texts:?}");
        }
        assert_eq!(found(&["v=spf1 -all", "v=spf1 -all"]), Err(Malformed));
    }

    #[test]
    fn terms_are_those_of_the_standard() {
        let right = "-all|~ALL|?all|a|A|a/24|a//64|a/24//64|a:b.c|a:b.c/0//0|mx|mx:b.c/24|mx//128|ptr|ptr:b.c|\
                     ip4:192.0.2.1|ip4:192.0.2.1/0|ip6:::1|ip6:2001:db8::/32|include:b.c|exists:%{i}.b.c|\
                     redirect=b.c|exp=b.c|other=|x.y-z_1=%{d}|a:%{d/}/24|  a  mx  |op=a:b/c|all=|x=%|\
                     redirect=b.c a exp=b.c|ip4:192.0.2.1  -all ";
        for terms in right.split('|') {
            assert!(found(&[&format!("v=spf1 {terms}")]).is_ok(), "{terms}");
        }
        let wrong = "all:b.c|all/8|a:|a:/24|a/33|a/024|a/|a//129|a/24/64|a:b|mx:|mx/x|ptr:|ptr/0|ip4|ip4:|ip4:b.c|\
                     ip4:192.0.2.1/|ip4:192.0.2.1/33|ip4:192.0.2.1/01|ip4:192.0.2|ip4:192.0.02.1|ip4:::1|\
                     ip6:192.0.2.1|ip6:::1/129|ip4:192.0.2.1//32|include|include:|include:b.c/24|exists|exists:|\
                     exists:b.c/1|redirect=|redirect=b.c redirect=b.c|exp=b.c exp=b.c|exp=|unknown|-|--all|\
                     redirect=b.c/8|a\tmx|\u{f6}|a:b.c/+1|a:b.c:d|ip4:192.0.2.1/+8";
        for terms in wrong.split('|') {
            assert_eq!(found(&[&format!("v=spf1 {terms}")]), Err(Malformed), "{terms}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "v=spf1( ?[-+~?]?(all|a|mx|ptr|ip4|ip6|include|exists|redirect|exp|\\PC{0,3})[:=/]{0,2}(%[{][a-z0-9]*[}]|[a-z0-9.:/]|\\PC){0,9}){0,6}"
        ) {
            let _read = found(&[&text]);
        }
    }
}
