//! queue retry, hold, release, return, delete.

use std::collections::HashSet;
use std::fmt::Write as _;

use clap::Args;
use lamppost_console::Client;
use lamppost_roles::{
    Changes, MessageView, QueueId, RecipientState, Selection, Unchanged, Verb, WhyUnchanged,
};
use lamppost_smtp::ReversePath;

use super::filters::Which;
use super::list::Printer;
use super::source::Source;
use super::{client, count, out, unanswered};
use crate::command::progress::Progress;
use crate::exit::{Code, Failure};
use crate::place::Place;

/// Messages that are changed at once: all of them are durable when the next ones are looked for.
const CHUNK: usize = 1000;

/// What is said of a message whose delivery is under way.
const DELIVERING: &str = "is being delivered at this moment";
/// What becomes of it when it was to be retried.
const AGAIN: &str = "it is tried again at once if that fails";

/// Change messages.
#[derive(Args, Debug)]
pub(crate) struct Change {
    #[command(flatten)]
    which: Which,
    /// All that are in the queue
    #[arg(long, conflicts_with_all = [
        "ids", "sender", "recipient", "domain", "older", "newer", "larger", "smaller", "in_state",
    ])]
    all: bool,
    /// Show what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Change messages in a way that cannot be taken back.
#[derive(Args, Debug)]
pub(crate) struct Sweep {
    #[command(flatten)]
    change: Change,
    /// Do it to all that the filters name, without being asked again
    #[arg(long)]
    yes: bool,
}

impl Sweep {
    pub(super) async fn execute(self, place: &Place, verb: Verb) -> Result<(), Failure> {
        let Change { which, all, dry_run, .. } = &self.change;
        if (*all || !which.filters.is_empty()) && !self.yes && !dry_run {
            let what = match (verb, all) {
                (Verb::Return, true) => "this would return every message in the queue",
                (Verb::Return, false) => "this would return all messages that the filters name",
                (_, true) => "this would delete every message in the queue",
                (_, false) => "this would delete all messages that the filters name",
            };
            return Err(Failure::new(Code::Usage, what)
                .cure("look at them with --dry-run; add --yes if that is what you want"));
        }
        self.change.execute(place, verb).await
    }
}

impl Change {
    pub(super) async fn execute(self, place: &Place, verb: Verb) -> Result<(), Failure> {
        if self.which.is_empty() && !self.all {
            return Err(Failure::new(Code::Usage, "this names no message")
                .cure("name ids or a filter, such as --domain example.org, or --all"));
        }
        let client = client(place)?;
        let source = Source::Running(client.clone());
        if self.dry_run {
            return self.show(&source, verb).await;
        }
        let mut progress = Progress::new(words(verb).1);
        let mut changes = Changes::default();
        // Of those that were not named one by one.
        let mut delivering = 0;
        if self.which.ids.is_empty() {
            let mut pages = source.pages(self.which.filters.filter());
            while let Some(page) = pages.next().await? {
                // What it changes nothing in needs no words: it was not named.
                let concerned = page.iter().filter(|message| is_concerned(message, verb));
                let ids: Vec<_> = concerned.map(|message| message.id).collect();
                if !ids.is_empty() {
                    let some = change(&client, verb, ids).await?;
                    delivering +=
                        some.unchanged.iter().filter(|one| is_remembered(verb, one)).count() as u64;
                    add(&mut changes, unnamed(verb, some));
                }
                progress.add(page.len() as u64);
            }
        }
        for ids in self.ids().chunks(CHUNK) {
            add(&mut changes, change(&client, verb, ids.to_vec()).await?);
            progress.add(ids.len() as u64);
        }
        drop(progress);
        self.report(verb, &changes, delivering)
    }

    /// The ids that were named, each once.
    fn ids(&self) -> Vec<QueueId> {
        let mut seen = HashSet::new();
        self.which.ids.iter().copied().filter(|id| seen.insert(*id)).collect()
    }

    fn report(&self, verb: Verb, changes: &Changes, delivering: u64) -> Result<(), Failure> {
        if self.json {
            out::json(changes)?;
        } else {
            let mut text = text((verb, words(verb).0), changes);
            match delivering {
                0 => {}
                1 => {
                    let _infallible = writeln!(text, "1 {DELIVERING}; {AGAIN}.");
                }
                _ => {
                    let _infallible = writeln!(
                        text,
                        "{delivering} are being delivered at this moment; they are tried again at \
                         once if that fails."
                    );
                }
            }
            out::print(&text)?;
        }
        unchanged(verb, words(verb).0, changes)
    }

    /// The messages that would be changed.
    async fn show(&self, source: &Source, verb: Verb) -> Result<(), Failure> {
        let mut printer = Printer::new(self.json);
        let mut changes = Changes::default();
        let is_held = |message: &MessageView| u64::from(verb == Verb::Retry && message.held);
        if self.which.ids.is_empty() {
            let mut pages = source.pages(self.which.filters.filter());
            while let Some(mut page) = pages.next().await? {
                page.retain(|message| is_concerned(message, verb));
                changes.held += page.iter().map(is_held).sum::<u64>();
                printer.page_of(&page)?;
            }
        }
        for id in self.ids() {
            match source.show(id).await? {
                None => changes.unknown.push(id),
                Some(message) => match why_unchanged(&message, verb) {
                    None => {
                        changes.held += is_held(&message);
                        printer.page_of(&[message])?;
                    }
                    Some(why) => changes.unchanged.push(Unchanged { id, why }),
                },
            }
        }
        changes.changed = printer.messages;
        printer.end("")?;
        self.dry_report(verb, &changes)
    }

    /// What a dry run tells beside the list, in the words of a real one.
    fn dry_report(&self, verb: Verb, changes: &Changes) -> Result<(), Failure> {
        let done = format!("would be {}", words(verb).0);
        if self.json {
            return unchanged(verb, &done, changes);
        }
        let text = text((verb, &done), changes);
        let reasons_end = text.trim_end().rfind('\n').map_or(0, |at| at + 1);
        let (reasons, summary) = text.split_at(reasons_end);
        out::print(&format!("{reasons}Dry run: {summary}"))?;
        unchanged(verb, &done, changes)
    }
}

impl Printer {
    fn page_of(&mut self, messages: &[MessageView]) -> Result<(), Failure> {
        if messages.is_empty() { Ok(()) } else { self.page(messages) }
    }
}

/// Fails when what was named is not as it was to be.
fn unchanged(verb: Verb, done: &str, changes: &Changes) -> Result<(), Failure> {
    let undone = |one: &&Unchanged| one.why != WhyUnchanged::SoBefore && !is_remembered(verb, one);
    let undone = changes.unchanged.iter().filter(undone);
    match changes.unknown.len() as u64 + undone.count() as u64 {
        0 => Ok(()),
        count => {
            let done = done
                .strip_prefix("would be ")
                .map_or_else(|| format!("not {done}"), |done| format!("would not be {done}"));
            let what = format!("{} {done}", out::count(count, "message"));
            Err(Failure::new(Code::Data, what).cure(
                "`lamppost queue` lists what is in the queue, `lamppost log ID` what became of the rest",
            ))
        }
    }
}

/// Whether the queue remembers to try a message again when the try that is under way fails.
fn is_remembered(verb: Verb, unchanged: &Unchanged) -> bool {
    verb == Verb::Retry && unchanged.why == WhyUnchanged::Delivering
}

/// What a verb does, and the noun of its progress.
fn words(verb: Verb) -> (&'static str, &'static str) {
    match verb {
        Verb::Retry => ("retried", "messages retried"),
        Verb::Hold => ("held", "messages held"),
        Verb::Release => ("released", "messages released"),
        Verb::Delete => ("deleted", "messages deleted"),
        Verb::Return => ("returned", "messages returned"),
    }
}

/// What became of the messages, for people.
fn text((verb, done): (Verb, &str), changes: &Changes) -> String {
    let mut text = String::new();
    for id in &changes.unknown {
        let _infallible = writeln!(text, "{id}: no message in the queue has this id");
    }
    for &Unchanged { id, why } in &changes.unchanged {
        let why = match why {
            WhyUnchanged::SoBefore if verb == Verb::Return => "was given up before",
            WhyUnchanged::SoBefore if verb == Verb::Release => "is not held",
            WhyUnchanged::SoBefore => "is held already",
            WhyUnchanged::Delivering if verb == Verb::Retry => {
                let _infallible = writeln!(text, "{id}: {DELIVERING}; {AGAIN}");
                continue;
            }
            WhyUnchanged::Delivering => DELIVERING,
            WhyUnchanged::Settled => "nobody waits for it any more",
            WhyUnchanged::NoSender => {
                "has no sender whom it could be returned to, as bounces have none; \
                 `lamppost queue delete` removes it"
            }
        };
        let _infallible = writeln!(text, "{id}: {why}");
    }
    match changes.held {
        0 => {}
        1 => text.push_str("1 message is held: it is tried after `lamppost queue release`.\n"),
        held => {
            let _infallible = writeln!(
                text,
                "{held} messages are held: they are tried after `lamppost queue release`."
            );
        }
    }
    let changed = changes.changed.saturating_sub(changes.held);
    let _infallible = writeln!(text, "{} {done}.", count(changed, "message"));
    text
}

/// Whether a verb changes anything in a message, as the queue will see it.
fn is_concerned(message: &MessageView, verb: Verb) -> bool {
    matches!(why_unchanged(message, verb), None | Some(WhyUnchanged::Delivering))
}

/// Why a verb changes nothing in a message, as the queue will see it; nothing when it does.
fn why_unchanged(message: &MessageView, verb: Verb) -> Option<WhyUnchanged> {
    let has = |wanted: &dyn Fn(RecipientState) -> bool| {
        message.recipients.iter().any(|recipient| wanted(recipient.state))
    };
    let is_failed = |state| state == RecipientState::Failed;
    match verb {
        Verb::Hold => message.held.then_some(WhyUnchanged::SoBefore),
        Verb::Release => (!message.held).then_some(WhyUnchanged::SoBefore),
        Verb::Delete => None,
        Verb::Return if message.sender == ReversePath::Null => Some(WhyUnchanged::NoSender),
        _ if has(&RecipientState::is_waiting) => None,
        Verb::Retry if has(&is_failed) => None,
        _ if has(&|state| state == RecipientState::Delivering) => Some(WhyUnchanged::Delivering),
        _ if has(&is_failed) => Some(WhyUnchanged::SoBefore),
        _ => Some(WhyUnchanged::Settled),
    }
}

async fn change(client: &Client, verb: Verb, ids: Vec<QueueId>) -> Result<Changes, Failure> {
    let change = serde_json::json!({ "verb": verb, "selection": Selection::Ids(ids) });
    client.post("/v1/queue/change", &change).await.map_err(|error| unanswered(&error))
}

fn add(all: &mut Changes, some: Changes) {
    let Changes { changed, held, unknown, unchanged } = some;
    all.changed += changed;
    all.held += held;
    all.unknown.extend(unknown);
    all.unchanged.extend(unchanged);
}

/// Changes of messages that filters found: those that left the queue meanwhile were named by nobody, and
/// what is being delivered at this moment needs no retry.
fn unnamed(verb: Verb, mut changes: Changes) -> Changes {
    changes.unknown.clear();
    let is_tried = |one: &Unchanged| verb == Verb::Retry && one.why == WhyUnchanged::Delivering;
    changes.unchanged.retain(|one| !is_tried(one));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_the_queue_is_missed_only_where_it_was_named() {
        let unchanged = vec![Unchanged { id: QueueId(2), why: WhyUnchanged::Delivering }];
        let found = Changes { changed: 1, held: 0, unknown: vec![QueueId(1)], unchanged };
        let left = unnamed(Verb::Return, found.clone());
        assert_eq!(
            (left.changed, left.unknown, left.unchanged),
            (1, vec![], found.unchanged.clone())
        );
        let left = unnamed(Verb::Retry, found);
        assert_eq!((left.changed, left.unknown, left.unchanged), (1, vec![], vec![]));
    }
}
