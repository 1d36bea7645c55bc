//! queue retry, hold, release, return, delete.

use clap::Args;
use lamppost_console::Client;
use lamppost_roles::{MessageView, QueueId, RecipientState, Selection, Verb};

use super::filters::Which;
use super::list::Printer;
use super::progress::Progress;
use super::source::Source;
use super::{client, count, out, unanswered};
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
        let mut changed = 0;
        if self.which.ids.is_empty() {
            let mut pages = source.pages(self.which.filters.filter());
            while let Some(page) = pages.next().await? {
                let concerned = page.iter().filter(|message| is_concerned(message, verb));
                let ids: Vec<_> = concerned.map(|message| message.id).collect();
                if !ids.is_empty() {
                    changed += change(&client, verb, ids).await?;
                }
                progress.add(page.len() as u64);
            }
        }
        for ids in self.which.ids.chunks(CHUNK) {
            changed += change(&client, verb, ids.to_vec()).await?;
            progress.add(ids.len() as u64);
        }
        drop(progress);
        self.report(verb, changed)
    }

    fn report(&self, verb: Verb, changed: u64) -> Result<(), Failure> {
        let done = words(verb).0;
        if self.json {
            return out::json(&serde_json::json!({ "changed": changed }));
        }
        if changed == 0 && !self.which.ids.is_empty() {
            return Err(Failure::new(
                Code::Data,
                format!("nothing was {done}: no such message, or it was so before"),
            ));
        }
        out::print(&format!("{} {done}.\n", count(changed, "message")))
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
        for &id in &self.which.ids {
            let message = source.show(id).await?.filter(|message| is_concerned(message, verb));
            printer.page_of(message.as_slice())?;
        }
        let messages = printer.messages;
        printer.end("")?;
        if self.json {
            return Ok(());
        }
        let done = words(verb).0;
        out::print(&format!("Dry run: {} would be {done}.\n", count(messages, "message")))
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

/// Whether a verb changes anything in a message, as the queue will see it.
fn is_concerned(message: &MessageView, verb: Verb) -> bool {
    let mut states = message.recipients.iter().map(|recipient| recipient.state);
    match verb {
        Verb::Hold => !message.held,
        Verb::Release => message.held,
        Verb::Delete => true,
        Verb::Retry => {
            states.any(|one| matches!(one, RecipientState::Waiting { .. } | RecipientState::Failed))
        }
        Verb::Return => states.any(|one| matches!(one, RecipientState::Waiting { .. })),
    }
}

async fn change(client: &Client, verb: Verb, ids: Vec<QueueId>) -> Result<u64, Failure> {
    let change = serde_json::json!({ "verb": verb, "selection": Selection::Ids(ids) });
    let changed: serde_json::Value =
        client.post("/v1/queue/change", &change).await.map_err(|error| unanswered(&error))?;
    Ok(changed["changed"].as_u64().unwrap_or(0))
}
