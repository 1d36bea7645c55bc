//! `[dns]`, `[mail.dns-lists]` and `[[mail.dns-list]]`: name servers, and the lists of clients in the DNS.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::{DAY, MINUTE, SECOND, count_to, non_empty, time_within};
use crate::reader::{self, Findings, Placed, Section, Wrong};

/// Lists that are asked of each client.
const LISTS_MAX: usize = 64;
/// The greatest weight, and so the greatest threshold by far.
const WEIGHT_MAX: u64 = 1000;
/// Letters of a zone: before it stands an IPv6 address, two letters for each half byte, in a name of 253.
const ZONE_LETTERS_MAX: usize = 253 - 64;
/// Letters of a text for clients.
const TEXT_LETTERS_MAX: usize = 200;

/// `[dns]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct Dns {
    pub servers: Vec<SocketAddr>,
    pub try_timeout: Duration,
    pub questions_at_once_max: usize,
    pub answers_max: usize,
}

/// `[mail.dns-lists]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct DnsLists {
    pub threshold: u32,
    pub deadline: Duration,
    pub temporary: bool,
    pub when_lists_fail: WhenListsFail,
    pub failures_max: u32,
    pub pause: Duration,
    pub check_every: Duration,
}

/// What happens to mail while lists that would matter cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each word")]
pub enum WhenListsFail {
    Accept,
    Defer,
}

/// One `[[mail.dns-list]]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "dns_list.toml holds the one description of each key")]
pub struct DnsList {
    pub zone: String,
    pub kind: DnsListKind,
    pub weight: u32,
    pub answers: Vec<AnswerRange>,
    pub text: Option<String>,
}

/// What it means to be on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "dns_list.toml holds the one description of each word")]
pub enum DnsListKind {
    Block,
    Allow,
}

/// Answers of a list, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct AnswerRange {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
}

type Value<'i> = toml::Spanned<DeValue<'i>>;

impl Dns {
    pub(super) fn read(mut section: Section<'_, '_>, findings: &mut Findings<'_>) -> Self {
        let read = |value: &_| reader::entries(value, server);
        let dns = Self {
            servers: section.read("servers", read, findings).value,
            try_timeout: time_within(
                &mut section,
                "try-timeout",
                (SECOND / 10, SECOND * 30),
                findings,
            )
            .value,
            questions_at_once_max: count_to(
                &mut section,
                "questions-at-once-max",
                10_000,
                findings,
            ),
            answers_max: count_to(&mut section, "answers-max", 10_000_000, findings),
        };
        section.finish(findings);
        dns
    }
}

impl DnsLists {
    pub(super) fn read(
        mut section: Section<'_, '_>,
        lists: &[DnsList],
        findings: &mut Findings<'_>,
    ) -> Self {
        const FAILURES: [(&str, WhenListsFail); 2] =
            [("accept", WhenListsFail::Accept), ("defer", WhenListsFail::Defer)];
        let from = &mut section;
        let most = WEIGHT_MAX * LISTS_MAX as u64;
        let threshold = from.read("threshold", |value| reader::number(value, 1, most), findings);
        let blocks = lists.iter().filter(|list| list.kind == DnsListKind::Block);
        let reached: u64 = blocks.map(|list| u64::from(list.weight)).sum();
        if !threshold.is_default && !lists.is_empty() && reached < threshold.value {
            let what = format!(
                "no client would ever be refused: the weights of all blocklists are {reached} together"
            );
            let cure = "make `threshold` smaller, or the `weight` of lists larger";
            findings.push(threshold.span.clone(), what, Some(cure.into()));
        }
        let lists = Self {
            threshold: u32::try_from(threshold.value).unwrap_or(u32::MAX),
            deadline: time_within(from, "deadline", (SECOND / 10, MINUTE), findings).value,
            temporary: from.read("temporary", reader::boolean, findings).value,
            when_lists_fail: from
                .read("when-lists-fail", |value| reader::choice(value, &FAILURES), findings)
                .value,
            failures_max: u32::try_from(count_to(from, "failures-max", 1000, findings))
                .unwrap_or(u32::MAX),
            pause: time_within(from, "pause", (SECOND, DAY), findings).value,
            check_every: time_within(from, "check-every", (SECOND, DAY), findings).value,
        };
        section.finish(findings);
        lists
    }
}

impl DnsList {
    pub(super) fn read_all(
        mail: &mut Section<'_, '_>,
        defaults: &DeTable<'_>,
        findings: &mut Findings<'_>,
    ) -> Vec<Self> {
        let defaults = defaults.get("dns-list").and_then(|value| value.get_ref().as_table());
        let Some(defaults) = defaults else {
            return Vec::new();
        };
        let mut all: Vec<Self> = Vec::new();
        for (table, span) in mail.tables("dns-list", findings) {
            let section = Section::new("[mail.dns-list]", Some(table), defaults, span.clone());
            let list = Self::read(section, &all, findings);
            if all.len() == LISTS_MAX {
                let cure = Some("remove those that refuse least".into());
                findings.push(span, format!("more than {LISTS_MAX} lists cannot be asked"), cure);
            }
            all.push(list);
        }
        all
    }

    fn read(mut section: Section<'_, '_>, before: &[Self], findings: &mut Findings<'_>) -> Self {
        const KINDS: [(&str, DnsListKind); 2] =
            [("block", DnsListKind::Block), ("allow", DnsListKind::Allow)];
        let from = &mut section;
        let zone = from.read("zone", zone, findings);
        check_zone(&zone, before, findings);
        let answers = from.read("answers", |value| reader::entries(value, answers), findings);
        if answers.value.is_empty() && !answers.is_wrong {
            let cure = Some("write `answers = [\"127.0.0.0/8\"]` for all".into());
            findings.push(answers.span.clone(), "a list of which no answer counts", cure);
        }
        let weight = from.read("weight", |value| reader::number(value, 1, WEIGHT_MAX), findings);
        let list = Self {
            zone: zone.value,
            kind: from.read("kind", |value| reader::choice(value, &KINDS), findings).value,
            weight: u32::try_from(weight.value).unwrap_or(u32::MAX),
            answers: answers.value,
            text: non_empty(from.read("text", words, findings).value),
        };
        section.finish(findings);
        list
    }
}

/// Each list has a zone, and is asked once.
fn check_zone(zone: &Placed<String>, before: &[DnsList], findings: &mut Findings<'_>) {
    if zone.value.is_empty() && !zone.is_wrong {
        let cure = Some("write `zone = \"list.example.org\"`".into());
        findings.push(zone.span.clone(), "a list has no zone", cure);
    } else if before.iter().any(|list| !zone.is_wrong && list.zone == zone.value) {
        let cure = Some(
            "let one stand; its `answers` may hold many, and all of them count the same".into(),
        );
        findings.push(zone.span.clone(), format!("{} is asked twice", zone.value), cure);
    }
}

/// A name server: an address, with a port if it is not 53.
fn server(value: &Value<'_>) -> Result<SocketAddr, Wrong> {
    let text = value.get_ref().as_str().unwrap_or_default();
    let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    address.or_else(|_| text.parse()).map_err(|_| {
        Wrong::new(
            "is no address of a name server",
            "write an IP address, such as \"192.0.2.53\" or \"2001:db8::53\", with a port if it is not 53: \"127.0.0.1:5353\"",
        )
    })
}

fn zone(value: &Value<'_>) -> Result<String, Wrong> {
    match reader::text(value)? {
        text if text.is_empty() => Ok(text),
        text if text.is_ascii() && text.len() <= ZONE_LETTERS_MAX => reader::domain(value),
        _ => Err(Wrong::new(
            "is no zone of a list",
            format!("write it as it is looked up: at most {ZONE_LETTERS_MAX} letters of ASCII"),
        )),
    }
}

/// A text for a reply: one line of ASCII.
fn words(value: &Value<'_>) -> Result<String, Wrong> {
    match reader::text(value)? {
        text if text.len() <= TEXT_LETTERS_MAX && text.bytes().all(|b| (32..127).contains(&b)) => {
            Ok(text)
        }
        _ => Err(Wrong::new(
            "is no text for a reply",
            format!("write one line of at most {TEXT_LETTERS_MAX} letters of ASCII"),
        )),
    }
}

/// `127.0.0.2`, `127.0.0.0/24` or `127.0.0.4-11`, all of them in 127.0.0.0/8 (RFC 5782 §2.3).
fn answers(value: &Value<'_>) -> Result<AnswerRange, Wrong> {
    let text = value.get_ref().as_str().unwrap_or_default();
    range(text).filter(|range| range.first.is_loopback() && range.last.is_loopback()).ok_or_else(
        || {
            Wrong::new(
                "is no answer of a list",
                "write an address, a network or a range in 127.0.0.0/8: \"127.0.0.2\", \"127.0.0.0/24\" or \"127.0.0.4-11\"",
            )
        },
    )
}

fn range(text: &str) -> Option<AnswerRange> {
    if let Some((address, prefix)) = text.split_once('/') {
        let (address, prefix) = (address.parse::<Ipv4Addr>().ok()?, prefix.parse::<u32>().ok()?);
        let hosts = u32::MAX.checked_shr(prefix).unwrap_or(0);
        let first = address.to_bits() & !hosts;
        let is_right = prefix <= 32 && first == address.to_bits();
        return is_right.then(|| AnswerRange { first: address, last: (first | hosts).into() });
    }
    let (first, last) = text.split_once('-').unwrap_or((text, ""));
    let first: Ipv4Addr = first.parse().ok()?;
    let [a, b, c, _] = first.octets();
    let last = match last {
        "" if text.ends_with('-') => return None,
        "" => first,
        last => Ipv4Addr::new(a, b, c, last.parse().ok()?),
    };
    (first <= last).then_some(AnswerRange { first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_in_three_forms() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = range(text).map(|range| (range.first.to_string(), range.last.to_string()));
            assert_eq!(found, expected.map(|(a, b)| (a.into(), b.into())), "{text}");
        };
        check("127.0.0.2", Some(("127.0.0.2", "127.0.0.2")));
        check("127.0.0.0/24", Some(("127.0.0.0", "127.0.0.255")));
        check("127.0.0.2/32", Some(("127.0.0.2", "127.0.0.2")));
        check("127.0.0.4-11", Some(("127.0.0.4", "127.0.0.11")));
        for wrong in [
            "",
            "127",
            "127.0.0.1/24",
            "127.0.0.0/33",
            "127.0.0.9-4",
            "127.0.0.9-",
            "127.0.0.9-256",
        ] {
            check(wrong, None);
        }
    }
}
