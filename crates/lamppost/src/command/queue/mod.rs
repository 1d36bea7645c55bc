//! queue list, show, cat, retry, hold, release, return, delete, export, import, check.

mod change;
mod check;
mod envelope;
mod export;
mod filters;
mod import;
mod known;
mod list;
mod show;
pub(super) mod source;

use clap::{Args, Subcommand};
use lamppost_console::ClientError;
use lamppost_roles::{QueueId, Verb};

use super::out::count;
use super::{client, out, unanswered};
use crate::exit::{Code, Failure};
use crate::place::Place;

/// Look at the queue and change what is in it; alone, list it.
#[derive(Args, Debug)]
pub(crate) struct Queue {
    /// Alone, the command takes what `list` takes.
    #[command(flatten)]
    list: list::List,
    #[command(subcommand)]
    command: Option<QueueCommand>,
}

impl Queue {
    pub(crate) async fn execute(self, place: &Place) -> Result<(), Failure> {
        match self.command {
            None => self.list.execute(place).await,
            Some(command) if self.list.is_plain() => command.execute(place).await,
            // What stands before the verb would narrow nothing.
            Some(_) => {
                Err(Failure::new(Code::Usage, "an option stands before the verb of `queue`")
                    .cure("write it behind: `lamppost queue VERB OPTIONS`"))
            }
        }
    }
}

/// What is done with the queue.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List the messages, all or those that filters name
    List(list::List),
    /// Show a message: where it comes from and how far each recipient is
    Show {
        /// Its id
        id: QueueId,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a message as it was received, with LF line ends
    Cat {
        /// Its id
        id: QueueId,
    },
    /// Try to deliver messages now, also those that failed for good
    ///
    /// A message that is held stays held: it is tried once it is released.
    Retry(change::Change),
    /// Hold messages: no delivery is tried until they are released
    Hold(change::Change),
    /// Release held messages
    Release(change::Change),
    /// Give messages up: their senders get bounces
    ///
    /// A message without a sender, as bounces are, cannot be returned and stays: delete it.
    Return(change::Sweep),
    /// Delete messages; nobody is told
    Delete(change::Sweep),
    /// Write messages into a folder: ID.eml with the content, ID.json with the envelope
    ///
    /// ID.eml is the message as it was received, with LF line ends, and nothing added; ID.json is its
    /// envelope as `queue show --json` prints it. Only you may read the files. Nothing is
    /// overwritten, and nothing leaves the queue. Without ids and filters, all messages are written.
    Export(export::Export),
    /// Put mail from files into the queue of the running program
    ///
    /// Each .eml file is taken with the .json file beside it, as `queue export` and the spool's
    /// quarantine/ have them;
    /// recipients that have their mail are left out. For a file without one, name --from and --to.
    /// Line ends may be CRLF or LF. A line that names the new id is printed once the message is
    /// durable. What is in the queue already, and what was imported before, is left out, so that an
    /// import that broke off can be run again; a file NAME.imported beside NAME.eml remembers it.
    Import(import::Import),
    /// Look for damage in the spool of a program that does not run, and repair it
    ///
    /// Every segment of the log, both checkpoints and every large content are looked at. With
    /// --repair, damaged parts and what is left of lost messages are copied to `quarantine/` in the
    /// spool, and the rest is made sound; the next start tells the senders of lost messages. Ends
    /// with code 65 when something is damaged and not repaired.
    Check(check::Check),
}

impl QueueCommand {
    async fn execute(self, place: &Place) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.execute(place).await,
            Self::Show { id, json } => show::show(&client(place)?, id, json).await,
            Self::Cat { id } => {
                let path = format!("/v1/queue/{id}/content");
                client(place)?.stream(&path, out::write).await.map_err(|error| absent(id, &error))
            }
            Self::Retry(change) => change.execute(place, Verb::Retry).await,
            Self::Hold(change) => change.execute(place, Verb::Hold).await,
            Self::Release(change) => change.execute(place, Verb::Release).await,
            Self::Return(sweep) => sweep.execute(place, Verb::Return).await,
            Self::Delete(sweep) => sweep.execute(place, Verb::Delete).await,
            Self::Export(export) => export.execute(place).await,
            Self::Import(import) => import.execute(place).await,
            Self::Check(check) => check.execute(place),
        }
    }
}

/// What to tell when a message cannot be shown.
fn absent(id: QueueId, error: &ClientError) -> Failure {
    match error {
        ClientError::NotFound(_) => {
            Failure::new(Code::Data, format!("no message in the queue has the id {id}"))
                .cure(format!("`lamppost log {id}` tells what became of it"))
        }
        error => unanswered(error),
    }
}
