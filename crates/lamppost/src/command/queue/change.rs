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
        if self.which.ids.is_empty() {
            let mut pages = source.pages(self.which.filters.filter());
            while let Some(page) = pages.next().await? {
                // What it changes nothing in needs no words: it was not named.
                let concerned = page.iter().filter(|message| is_concerned(message, verb));
                let ids: Vec<_> = concerned.map(|message| message.id).collect();
                if !ids.is_empty() {
                    add(&mut changes, unnamed(verb, change(&client, verb, ids).await?));
                }
                progress.add(page.len() as u64);
            }
        }
        for ids in self.ids().chunks(CHUNK) {
            add(&mut changes, change(&client, verb, ids.to_vec()).await?);
            progress.add(ids.len() as u64);
        }
        drop(progress);
        self.report(verb, &changes)
    }

    /// The ids that were named, each once.
    fn ids(&self) -> Vec<QueueId> {
        let mut seen = HashSet::new();
        self.which.ids.iter().copied().filter(|id| seen.insert(*id)).collect()
    }

    fn report(&self, verb: Verb, changes: &Changes) -> Result<(), Failure> {
        if self.json {
            out::json(changes)?;
        } else {
            out::print(&text(verb, changes))?;
        }
        let undone = changes.unchanged.iter().filter(|one| one.why != WhyUnchanged::SoBefore);
        match changes.unknown.len() as u64 + undone.count() as u64 {
            0 => Ok(()),
            count => {
                let what = format!("{} not {}", out::count(count, "message"), words(verb).0);
                Err(Failure::new(Code::Data, what).cure(
                    "`lamppost queue` lists what is in the queue, `lamppost log ID` what became of the rest",
                ))
            }
        }
    }

    /// The messages that would be changed.
    async fn show(&self, source: &Source, verb: Verb) -> Result<(), Failure> {
        let mut printer = Printer::new(self.json);
        if self.which.ids.is_empty() {
            let mut pages = source.pages(self.which.filters.filter());
            while let Some(mut page) = pages.next().await? {
                page.retain(|message| is_concerned(message, verb));
                printer.page_of(&page)?;
            }
        }
        let mut unknown = Vec::new();
        for id in self.ids() {
            match source.show(id).await? {
                None => unknown.push(id),
                Some(message) if is_concerned(&message, verb) => printer.page_of(&[message])?,
                Some(_) => {}
            }
        }
        let messages = printer.messages;
        printer.end("")?;
        if !self.json {
            let done = words(verb).0;
            out::print(&format!("Dry run: {} would be {done}.\n", count(messages, "message")))?;
        }
        if unknown.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = unknown.iter().map(QueueId::to_string).collect();
        let what = format!("no message in the queue has the id {}", ids.join(" or "));
        Err(Failure::new(Code::Data, what))
    }
}

impl Printer {
    fn page_of(&mut self, messages: &[MessageView]) -> Result<(), Failure> {
        if messages.is_empty() { Ok(()) } else { self.page(messages) }
    }
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
fn text(verb: Verb, changes: &Changes) -> String {
    let (done, _) = words(verb);
    let mut text = String::new();
    for id in &changes.unknown {
        let _infallible = writeln!(text, "{id}: no message in the queue has this id");
    }
    for &Unchanged { id, why } in &changes.unchanged {
        let why = match why {
            WhyUnchanged::SoBefore if verb == Verb::Return => "was given up before",
            WhyUnchanged::SoBefore if verb == Verb::Release => "is not held",
            WhyUnchanged::SoBefore => "is held already",
            WhyUnchanged::Delivering => "is being delivered at this moment",
            WhyUnchanged::Settled => "nobody waits for it any more",
            WhyUnchanged::NoSender => {
                "has no sender whom it could be returned to, as bounces have none; \
                 `lamppost queue delete` removes it"
            }
        };
        let _infallible = writeln!(text, "{id}: {why}");
    }
    let _infallible = writeln!(text, "{} {done}.", count(changes.changed, "message"));
    if changes.held > 0 {
        let held = match changes.held {
            1 if changes.changed == 1 => "It is held, and stays so".to_owned(),
            1 => "1 of them is held, and stays so".to_owned(),
            held => format!("{held} of them are held, and stay so"),
        };
        let _infallible = writeln!(text, "{held} until `lamppost queue release`.");
    }
    text
}

/// Whether a verb changes anything in a message, as the queue will see it.
fn is_concerned(message: &MessageView, verb: Verb) -> bool {
    let mut states = message.recipients.iter().map(|recipient| recipient.state);
    let is_failed = |state| state == RecipientState::Failed;
    match verb {
        Verb::Hold => !message.held,
        Verb::Release => message.held,
        Verb::Delete => true,
        Verb::Retry => states.any(|state| state.is_waiting() || is_failed(state)),
        Verb::Return => {
            message.sender != ReversePath::Null && states.any(RecipientState::is_waiting)
        }
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
