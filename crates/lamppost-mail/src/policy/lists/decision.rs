//! What lists say together: whether a client's mail is refused, and in which words.

use std::net::IpAddr;

use lamppost_smtp::Refusal;

use super::{ListKind, ListSettings, ListsFailure, ListsSettings};

/// Letters of what a client is told; a line of a reply has 512 (RFC 5321 §4.5.3.1.5).
const TEXT_MAX: usize = 450;
/// Letters of the text of one list.
const LIST_TEXT_MAX: usize = 200;

/// What one list says of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is not on it.
    Absent,
    /// It is, and what the list says of that.
    Listed(Option<String>),
    /// The list did not answer as one does.
    Failed,
    /// The list is not asked now.
    Out,
}

impl Found {
    /// Its name in the figures.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Absent => "not-listed",
            Self::Listed(_) => "listed",
            Self::Failed => "failed",
            Self::Out => "out",
        }
    }
}

/// What blocklists and allowlists come to: those that hold the client, and those that cannot tell.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    block: i64,
    allow: i64,
    block_unknown: i64,
    allow_unknown: i64,
}

/// What lists say together.
fn sums(settings: &ListsSettings, found: &[Found]) -> Sums {
    let mut sums = Sums::default();
    for (list, found) in settings.lists.iter().zip(found) {
        let sum = match (list.kind, found) {
            (_, Found::Absent) => continue,
            (ListKind::Block, Found::Listed(_)) => &mut sums.block,
            (ListKind::Allow, Found::Listed(_)) => &mut sums.allow,
            (ListKind::Block, _) => &mut sums.block_unknown,
            (ListKind::Allow, _) => &mut sums.allow_unknown,
        };
        *sum += i64::from(list.weight);
    }
    sums
}

/// Whether more speaks against the client than for it.
pub(super) fn is_against(settings: &ListsSettings, found: &[Found]) -> bool {
    let sums = sums(settings, found);
    sums.block > sums.allow
}

/// Why the client's mail is refused, if it is.
pub(super) fn refusal(settings: &ListsSettings, found: &[Found], peer: IpAddr) -> Option<Refusal> {
    let sums = sums(settings, found);
    let (score, threshold) = (sums.block - sums.allow, i64::from(settings.threshold));
    if score >= threshold {
        // Who could be on an allowlist that does not answer is not refused for good.
        let is_certain = score - sums.allow_unknown >= threshold;
        let text = words(settings, found, peer);
        return Some(Refusal::Listed { text, for_good: is_certain && !settings.temporary });
    }
    let could_be = score + sums.block_unknown >= threshold;
    (could_be && settings.when_lists_fail == ListsFailure::Defer).then_some(Refusal::ListsSilent)
}

/// What the client is told: each list that blocks it, and what that says.
fn words(settings: &ListsSettings, found: &[Found], peer: IpAddr) -> String {
    let mut text = String::new();
    for (list, found) in settings.lists.iter().zip(found) {
        if let Found::Listed(theirs) = found
            && list.kind == ListKind::Block
        {
            let separator = if text.is_empty() { "" } else { "; " };
            text.push_str(separator);
            text.push_str(&list_words(list, theirs.as_deref(), peer));
        }
    }
    text.truncate(TEXT_MAX);
    text
}

fn list_words(list: &ListSettings, theirs: Option<&str>, peer: IpAddr) -> String {
    let zone = &list.zone;
    let text = match (&list.text, theirs) {
        (Some(ours), _) => ours.replace("{ip}", &peer.to_string()).replace("{zone}", zone),
        (None, Some(theirs)) => theirs.to_owned(),
        (None, None) => String::new(),
    };
    let is_shown = |byte: u8| (32..127).contains(&byte);
    let text: String = text
        .bytes()
        .take(LIST_TEXT_MAX)
        .map(|byte| if is_shown(byte) { char::from(byte) } else { '?' })
        .collect();
    if text.is_empty() {
        format!("{peer} is listed by {zone}")
    } else {
        format!("{peer} is listed by {zone}: {text}")
    }
}

/// Lists that say something of the client, for the log.
pub(super) fn told(settings: &ListsSettings, found: &[Found]) -> String {
    let told = settings.lists.iter().zip(found).filter(|(_, found)| **found != Found::Absent);
    told.map(|(list, found)| format!("{} {}", list.zone, found.name()))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PEER: &str = "192.0.2.1";

    /// Two blocklists of weight 2 and 3, an allowlist of weight 4, and the threshold 3.
    fn settings() -> ListsSettings {
        let list = |zone: &str, kind, weight| ListSettings {
            zone: zone.into(),
            kind,
            weight,
            answers: Vec::new(),
            text: None,
        };
        ListsSettings {
            lists: vec![
                list("two.test", ListKind::Block, 2),
                list("three.test", ListKind::Block, 3),
                list("allow.test", ListKind::Allow, 4),
            ],
            threshold: 3,
            deadline: Duration::from_secs(3),
            temporary: false,
            when_lists_fail: ListsFailure::Accept,
            failures_max: 3,
            pause: Duration::from_secs(300),
            check_every: Duration::from_secs(600),
        }
    }

    fn check(settings: &ListsSettings, found: &[Found; 3], expected: &str) {
        let refusal = refusal(settings, found, PEER.parse().unwrap());
        let told = match refusal {
            None => "welcome".to_owned(),
            Some(Refusal::Listed { text, for_good: true }) => format!("for good: {text}"),
            Some(Refusal::Listed { text, for_good: false }) => format!("for now: {text}"),
            Some(other) => other.reason().to_owned(),
        };
        assert_eq!(told, expected, "{found:?}");
    }

    #[test]
    fn weights_are_added_up_to_the_threshold() {
        use Found::{Absent, Failed, Out};
        let listed = || Found::Listed(None);
        let settings = settings();
        check(&settings, &[Absent, Absent, Absent], "welcome");
        check(&settings, &[listed(), Absent, Absent], "welcome");
        let three = "192.0.2.1 is listed by three.test";
        check(&settings, &[Absent, listed(), Absent], &format!("for good: {three}"));
        let both = format!("192.0.2.1 is listed by two.test; {three}");
        check(&settings, &[listed(), listed(), Absent], &format!("for good: {both}"));
        check(&settings, &[listed(), listed(), listed()], "welcome");
        // It could be allowed: it may come again.
        check(&settings, &[Absent, listed(), Failed], &format!("for now: {three}"));
        check(&settings, &[Absent, listed(), Out], &format!("for now: {three}"));
        check(&settings, &[listed(), Failed, Absent], "welcome");
    }

    #[test]
    fn doubt_defers_where_that_is_wanted() {
        use Found::{Absent, Failed, Out};
        let listed = || Found::Listed(None);
        let settings = ListsSettings { when_lists_fail: ListsFailure::Defer, ..settings() };
        check(&settings, &[Absent, Failed, Absent], "dns-lists-silent");
        check(&settings, &[Absent, Out, Absent], "dns-lists-silent");
        // It would not be enough.
        check(&settings, &[Failed, Absent, Absent], "welcome");
        check(&settings, &[listed(), Failed, listed()], "welcome");
        check(&settings, &[Absent, Absent, Failed], "welcome");
    }

    #[test]
    fn a_text_is_one_line_of_ascii() {
        let mut settings = settings();
        let say = |text: &str| Found::Listed(Some(text.into()));
        let found = [Found::Absent, say("see\r\n250 b\u{f6}s"), Found::Absent];
        let three = "192.0.2.1 is listed by three.test: ";
        check(&settings, &found, &format!("for good: {three}see??250 b??s"));
        let found = [say(&"x".repeat(5000)), say(&"y".repeat(5000)), Found::Absent];
        let Some(Refusal::Listed { text, .. }) = refusal(&settings, &found, PEER.parse().unwrap())
        else {
            panic!("it is listed");
        };
        assert_eq!(text.len(), TEXT_MAX);
        settings.lists[1].text = Some("{zone} does not like {ip}".into());
        settings.temporary = true;
        let found = [Found::Absent, say("theirs"), Found::Absent];
        check(&settings, &found, &format!("for now: {three}three.test does not like 192.0.2.1"));
    }
}
