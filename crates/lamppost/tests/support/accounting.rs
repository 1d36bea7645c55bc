//! Whether everything that was sent is accounted for: the proof's conclusion.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use lamppost_load::{Outcome, Report, Sent, Token};

use super::reader::Arrival;

/// The queue's ids under which a message came to a mailbox.
type Ids<'a> = BTreeMap<(&'a str, Token), Vec<&'a str>>;

/// Everything that is wrong: lost, doubled, out of nowhere, or for somebody else.
pub(crate) fn problems(reports: &[Report], arrivals: &[Arrival]) -> Vec<String> {
    let mut ids = Ids::new();
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for Arrival { mailbox, id, token } in arrivals {
        ids.entry((mailbox, *token)).or_default().push(id);
        if !seen.insert((mailbox, id)) {
            problems.push(format!("doubled: {id} came to {mailbox} again"));
        }
    }
    for sent in reports.iter().flat_map(|report| &report.sent) {
        let came: Vec<_> = sent
            .recipients
            .iter()
            .map(|recipient| ids.remove(&(recipient.as_str(), sent.token)).unwrap_or_default())
            .collect();
        problems.extend(judge(sent, &came));
    }
    for (mailbox, token) in ids.keys() {
        problems.push(format!("{token} came to {mailbox}, and was not sent there"));
    }
    problems
}

/// Where the books in memory and the journal, which was on disk before the next message went, differ on
/// what was acknowledged.
pub(crate) fn journal_problems(journal: &Path, report: &Report) -> Vec<String> {
    let journal = std::fs::read_to_string(journal).unwrap();
    let noted: BTreeSet<Token> = journal.lines().map(|line| line.parse().unwrap()).collect();
    let known: BTreeSet<Token> = report.acknowledged().map(|sent| sent.token).collect();
    let differ = noted.symmetric_difference(&known);
    differ.map(|token| format!("{token} is in one of journal and report only")).collect()
}

/// Where the disk died, a message that was refused may come nevertheless, whole and once: it may have
/// been written in part, and nothing can be written that voids it. Its sender tries again.
pub(crate) fn forgive_refusals(report: &mut Report) {
    for sent in &mut report.sent {
        if matches!(sent.outcome, Outcome::Refused(_)) {
            sent.outcome = Outcome::Unknown;
        }
    }
}

/// What is wrong with one message, given the ids under which it came to each of its recipients.
fn judge(sent: &Sent, came: &[Vec<&str>]) -> Option<String> {
    let token = sent.token;
    let is_once = |id: &str| came.iter().all(|ids| ids.as_slice() == [id]);
    match &sent.outcome {
        Outcome::Acknowledged(text) => {
            let id = text.split(' ').next_back().unwrap_or_default();
            let kind = if came.iter().any(Vec::is_empty) { "lost" } else { "doubled" };
            let told = format!("{kind}: {token}, acknowledged as {id}, came as {came:?}");
            (!is_once(id)).then_some(told)
        }
        Outcome::Unknown => {
            let first = came.iter().flatten().next();
            let told = format!("{token}, not answered, came to some or again: {came:?}");
            first.is_some_and(|id| !is_once(id)).then_some(told)
        }
        Outcome::Refused(_) | Outcome::Cut => {
            let told = format!("{token}, {:?}, came as {came:?}", sent.outcome);
            came.iter().any(|ids| !ids.is_empty()).then_some(told)
        }
    }
}
