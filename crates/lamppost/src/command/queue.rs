//! queue list, show, cat, retry, hold, release, delete.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use lamppost_console::Client;
use lamppost_roles::{
    Listing, MessageView, QueueId, RecipientState, RecipientView, Selection, Verb,
};
use lamppost_smtp::ReversePath;

use super::{client, out, unanswered};
use crate::exit::{Code, Failure};
use crate::place::Place;

/// Look at the queue and change what is in it.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List the messages
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a message: where it comes from and how far each recipient is
    Show {
        /// Its id
        id: QueueId,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a message as it was received
    Cat {
        /// Its id
        id: QueueId,
    },
    /// Try to deliver messages now, also those that failed for good
    Retry(Which),
    /// Hold messages: no delivery is tried until they are released
    Hold(Which),
    /// Release held messages
    Release(Which),
    /// Delete messages; nobody is told
    Delete {
        #[command(flatten)]
        which: Which,
        /// Delete all of them without being asked again
        #[arg(long)]
        yes: bool,
    },
}

/// Which messages.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// Their ids
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<QueueId>,
    /// All that are in the queue
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl QueueCommand {
    pub(crate) async fn execute(self, place: &Place) -> Result<(), Failure> {
        let client = client(place)?;
        match self {
            Self::List { json } => list(&client, json).await,
            Self::Show { id, json } => show(&client, id, json).await,
            Self::Cat { id } => {
                let path = format!("/v1/queue/{id}/content");
                client.stream(&path, out::write).await.map_err(|error| unanswered(&error))
            }
            Self::Retry(which) => change(&client, Verb::Retry, which, "retried").await,
            Self::Hold(which) => change(&client, Verb::Hold, which, "held").await,
            Self::Release(which) => change(&client, Verb::Release, which, "released").await,
            Self::Delete { which, yes } if which.all && !yes => {
                Err(Failure::new(Code::Usage, "this would delete every message in the queue")
                    .cure("add --yes if that is what you want"))
            }
            Self::Delete { which, .. } => change(&client, Verb::Delete, which, "deleted").await,
        }
    }
}

/// Page by page, so that a long queue begins to show at once.
async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let mut after = String::new();
    let mut all = Vec::new();
    loop {
        let path = format!("/v1/queue?limit=1000{after}");
        let listing: Listing = client.get(&path).await.map_err(|error| unanswered(&error))?;
        if let Some(last) = listing.messages.last() {
            after = format!("&after={}", last.id);
        }
        all.extend(listing.messages);
        if listing.next.is_none() {
            break;
        }
    }
    if json {
        return out::json(&all);
    }
    if all.is_empty() {
        return out::print("The queue is empty.\n");
    }
    let rows: Vec<_> = all.iter().flat_map(rows).collect();
    out::print(&out::table(["ID", "AGE", "SIZE", "FROM", "TO", "STATE"], &rows))
}

/// A row for each recipient that has not got its mail.
fn rows(message: &MessageView) -> Vec<[String; 6]> {
    let age = out::now_ms().saturating_sub(message.id.received().0);
    let waiting = message.recipients.iter().filter(|one| one.state != RecipientState::Delivered);
    waiting
        .map(|recipient| {
            [
                message.id.to_string(),
                out::age(Duration::from_millis(age)),
                out::size(message.size),
                sender(&message.sender),
                recipient.address.to_string(),
                state(recipient, message.held),
            ]
        })
        .collect()
}

fn sender(sender: &ReversePath) -> String {
    format!("<{sender}>")
}

fn state(recipient: &RecipientView, held: bool) -> String {
    let mut text = match recipient.state {
        _ if held => "held".into(),
        RecipientState::Waiting { due } => {
            let wait = due.0.saturating_sub(out::now_ms());
            format!("next try in {}", out::age(Duration::from_millis(wait)))
        }
        RecipientState::Delivering => "being delivered".into(),
        RecipientState::Delivered => "delivered".into(),
        RecipientState::Bounced => "bounced".to_owned(),
        RecipientState::Failed => "failed for good".to_owned(),
    };
    if let Some(last) = &recipient.last {
        let _infallible =
            write!(text, " ({} tries, last: {})", recipient.attempts, last.reason.text);
    }
    text
}

async fn show(client: &Client, id: QueueId, json: bool) -> Result<(), Failure> {
    let path = format!("/v1/queue/{id}");
    let message: MessageView = client.get(&path).await.map_err(|error| unanswered(&error))?;
    if json {
        return out::json(&message);
    }
    let Some(origin) = &message.origin else { return Ok(()) };
    let mut text = format!(
        "message   {}\nreceived  {}\nfrom      {}\nsize      {}\nclient    {} ([{}]) by {}\nsession   {}\n",
        message.id,
        out::time(origin.received.0),
        sender(&message.sender),
        out::size(message.size),
        origin.helo,
        origin.peer,
        origin.protocol,
        origin.session,
    );
    if let Some(account) = &origin.account {
        let _infallible = writeln!(text, "account   {account}");
    }
    for recipient in &message.recipients {
        let state = state(recipient, message.held);
        let _infallible = writeln!(text, "to        {}: {state}", recipient.address);
    }
    out::print(&text)
}

async fn change(client: &Client, verb: Verb, which: Which, done: &str) -> Result<(), Failure> {
    let selection = if which.all { Selection::All } else { Selection::Ids(which.ids.clone()) };
    let change = serde_json::json!({ "verb": verb, "selection": selection });
    let changed: serde_json::Value =
        client.post("/v1/queue/change", &change).await.map_err(|error| unanswered(&error))?;
    if which.json {
        return out::json(&changed);
    }
    let count = changed["changed"].as_u64().unwrap_or(0);
    if count == 0 && !which.all {
        return Err(Failure::new(
            Code::Data,
            format!("nothing was {done}: no such message, or it was so before"),
        ));
    }
    out::print(&format!("{count} {} {done}.\n", if count == 1 { "message" } else { "messages" }))
}
