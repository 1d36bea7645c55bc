//! By which rules `[mail.greylist]` decides, and `[[mail.greylist.for]]`: for whom others hold.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::{DAY, MINUTE, SECOND, time, time_within};
use crate::reader::{self, Findings, Section, Wrong};

/// Triplets that must pass, and misdeeds, at most.
const COUNT_MAX: u64 = 1_000_000;

/// What `[mail.greylist]` says of its decisions.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each key")]
pub struct GreylistRules {
    pub policy: GreylistAlgorithm,
    pub stage: GreylistStage,
    pub good_delay: Duration,
    pub good_domains: Vec<String>,
    pub lookup_timeout: Duration,
    pub suspect_delay: Duration,
    pub promote_after: u64,
    pub promote_within: Duration,
    pub demote_after: u64,
    pub answer_window: Duration,
    pub exceptions: Vec<GreylistFor>,
}

/// The rules of decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each word")]
pub enum GreylistAlgorithm {
    Adaptive,
    Relaydelay,
}

/// When a client is told that it must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "defaults.toml holds the one description of each word")]
pub enum GreylistStage {
    Data,
    Rcpt,
}

/// One `[[mail.greylist.for]]`.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "greylist_for.toml holds the one description of each key")]
pub struct GreylistFor {
    pub recipients: Vec<String>,
    pub enabled: bool,
    pub delay: Option<Duration>,
}

type Value<'i> = toml::Spanned<DeValue<'i>>;

impl GreylistRules {
    /// Reads its keys of `[mail.greylist]`, whose window to come back this is.
    pub(super) fn read(
        section: &mut Section<'_, '_>,
        defaults: &DeTable<'_>,
        retry_window: Duration,
        findings: &mut Findings<'_>,
    ) -> Self {
        const POLICIES: [(&str, GreylistAlgorithm); 2] = [
            ("adaptive", GreylistAlgorithm::Adaptive),
            ("relaydelay", GreylistAlgorithm::Relaydelay),
        ];
        const STAGES: [(&str, GreylistStage); 2] =
            [("data", GreylistStage::Data), ("rcpt", GreylistStage::Rcpt)];
        let number = |value: &_| reader::number(value, 0, COUNT_MAX);
        let domains = |value: &_| reader::entries(value, reader::domain);
        let suspect_delay = section.read("suspect-delay", reader::duration, findings);
        let window = (retry_window, suspect_delay.is_default);
        let given = (suspect_delay.value, &suspect_delay.span);
        check_window("suspect-delay", given, window, findings);
        Self {
            policy: section
                .read("policy", |value| reader::choice(value, &POLICIES), findings)
                .value,
            stage: section.read("stage", |value| reader::choice(value, &STAGES), findings).value,
            good_delay: time(section, "good-delay", findings),
            good_domains: section.read("good-domains", domains, findings).value,
            lookup_timeout: time_within(
                section,
                "lookup-timeout",
                (Duration::ZERO, MINUTE),
                findings,
            )
            .value,
            suspect_delay: suspect_delay.value,
            promote_after: section.read("promote-after", number, findings).value,
            promote_within: time_within(section, "promote-within", (SECOND, 365 * DAY), findings)
                .value,
            demote_after: section.read("demote-after", number, findings).value,
            answer_window: time(section, "answer-window", findings),
            exceptions: GreylistFor::read_all(section, defaults, retry_window, findings),
        }
    }
}

/// Who waits must be able to come back in time.
fn check_window(
    key: &str,
    (delay, span): (Duration, &Range<usize>),
    (retry_window, is_default): (Duration, bool),
    findings: &mut Findings<'_>,
) {
    if delay >= retry_window && !is_default {
        let cure = Some(format!("make `retry-window` much longer than `{key}`"));
        let what =
            format!("nobody could come back in time: `{key}` is not shorter than `retry-window`");
        findings.push(span.clone(), what, cure);
    }
}

impl GreylistFor {
    fn read_all(
        greylist: &mut Section<'_, '_>,
        defaults: &DeTable<'_>,
        retry_window: Duration,
        findings: &mut Findings<'_>,
    ) -> Vec<Self> {
        let defaults = defaults.get("for").and_then(|value| value.get_ref().as_table());
        let Some(defaults) = defaults else {
            return Vec::new();
        };
        let mut seen = BTreeSet::new();
        let mut all = Vec::new();
        for (table, span) in greylist.tables("for", findings) {
            let mut section = Section::new("[mail.greylist.for]", Some(table), defaults, span);
            let read = |value: &_| reader::entries(value, recipient);
            let recipients = section.read("recipients", read, findings);
            if recipients.value.is_empty() && !recipients.is_wrong {
                let cure = Some("write `recipients = [\"info@example.org\", \"@example.net\"]`");
                let what = "it is about no recipients";
                findings.push(recipients.span.clone(), what, cure.map(Into::into));
            }
            for recipient in &recipients.value {
                if !seen.insert(recipient.clone()) {
                    let cure = Some("let one of the two stand".into());
                    let what = format!("{recipient} is named twice");
                    findings.push(recipients.span.clone(), what, cure);
                }
            }
            let delay = section.read("delay", optional_duration, findings);
            let own = delay.value.unwrap_or_default();
            let window = (retry_window, delay.is_default);
            check_window("delay", (own, &delay.span), window, findings);
            all.push(Self {
                recipients: recipients.value,
                enabled: section.read("enabled", reader::boolean, findings).value,
                delay: delay.value,
            });
            section.finish(findings);
        }
        all
    }
}

/// A duration, or an empty text for none of its own.
fn optional_duration(value: &Value<'_>) -> Result<Option<Duration>, Wrong> {
    match value.get_ref().as_str() {
        Some("") => Ok(None),
        _ => reader::duration(value).map(Some),
    }
}

/// An address or `@domain`, in lower case.
fn recipient(value: &Value<'_>) -> Result<String, Wrong> {
    let text = reader::text(value)?.to_lowercase();
    let is_right = text.rsplit_once('@').is_some_and(|(_, domain)| !domain.is_empty());
    let is_plain = !text.contains(|letter: char| letter.is_whitespace() || letter.is_control());
    if is_right && is_plain {
        return Ok(text);
    }
    Err(Wrong::new(
        "is neither an address nor a domain",
        "write an address, such as \"info@example.org\", or a domain with an @ before it: \"@example.org\"",
    ))
}
