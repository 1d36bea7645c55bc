//! Control to queue: what an administrator sees and changes.

use bytes::Bytes;
use lamppost_smtp::ReversePath;
use serde::{Deserialize, Serialize};

use crate::{Origin, QueueId, Reason, Timestamp};

/// What the control role asks of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlRequest {
    /// Figures of the whole queue.
    Status,
    /// The messages in the queue by id, at most `limit` after `after`.
    List {
        /// Where the page before ended.
        after: Option<QueueId>,
        /// How many at most.
        limit: u32,
        /// Which of them.
        filter: Filter,
    },
    /// One message.
    Show(QueueId),
    /// A piece of a message's content.
    Read {
        /// The message.
        id: QueueId,
        /// Where the piece begins.
        offset: u64,
        /// How much to give at most.
        length_max: u32,
    },
    /// Change messages; answered once the change is durable.
    Change {
        /// What to do.
        verb: Verb,
        /// To which messages.
        selection: Selection,
        /// Who asks, for the log.
        by: String,
    },
    /// The files that are the whole queue at one moment; they stay as they are until
    /// [`ControlRequest::EndSnapshot`], or until nothing of them was read for a while.
    Snapshot,
    /// A piece of a file of a snapshot.
    ReadSnapshot {
        /// The snapshot.
        snapshot: u64,
        /// Which of its files, from 0.
        file: u32,
        /// Where the piece begins.
        offset: u64,
        /// How much to give at most.
        length_max: u32,
    },
    /// Nobody reads this snapshot any more.
    EndSnapshot(u64),
}

/// What an administrator can do to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Try its waiting recipients now.
    Retry,
    /// Try it no more until it is released.
    Hold,
    /// Try it again as before the hold.
    Release,
    /// Forget it; nobody is told.
    Delete,
    /// Give it up: the sender gets a bounce.
    Return,
}

/// Which messages are wanted: those for which all that is named holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Filter {
    /// The sender's address, `@domain`, or `<>` for none.
    pub sender: Option<String>,
    /// A recipient's address, or `@domain`.
    pub recipient: Option<String>,
    /// The domain of the sender or of a recipient.
    pub domain: Option<String>,
    /// It came before this time.
    pub before: Option<Timestamp>,
    /// It came at this time or after.
    pub since: Option<Timestamp>,
    /// It has at least so many bytes.
    pub larger: Option<u64>,
    /// It has at most so many bytes.
    pub smaller: Option<u64>,
    /// A recipient is in this state.
    pub state: Option<StateFilter>,
}

/// A state that messages can be asked for by: that of a recipient ([`RecipientState`]), or held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateFilter {
    /// A recipient waits for its first try.
    New,
    /// A recipient was tried in vain and waits for the next try.
    Deferred,
    /// A try is under way.
    Delivering,
    /// A recipient has its mail.
    Delivered,
    /// A recipient failed for good.
    Failed,
    /// A recipient failed for good, and the sender was told.
    Bounced,
    /// An administrator holds the message.
    Held,
}

/// Which messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// All that are in the queue.
    All,
    /// These.
    Ids(Vec<QueueId>),
}

/// What the queue answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlAnswer {
    /// To Status.
    Status(QueueStatus),
    /// To List.
    Listing(Listing),
    /// To Show.
    Message(MessageView),
    /// To Read and `ReadSnapshot`: empty at the end.
    Piece(Bytes),
    /// To Change.
    Changed(Changes),
    /// To Snapshot.
    Snapshot(Snapshot),
    /// To `EndSnapshot`.
    Ended,
    /// There is no such message.
    NotFound,
    /// It could not be done; the reason is for people.
    Failed(String),
}

/// The whole queue at one moment, as files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// What it is asked for by.
    pub snapshot: u64,
    /// Messages in the queue at that moment.
    pub messages: u64,
    /// Its files.
    pub files: Vec<SnapshotFile>,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SnapshotFile {
    /// Its path in the spool.
    pub name: String,
    /// The bytes of it that belong to the snapshot.
    pub length: u64,
}

/// What became of the messages that were to change. A message that is named twice is one message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Changes {
    /// Messages in which something changed.
    pub changed: u64,
    /// Of these, those that an administrator holds: they are tried once they are released.
    pub held: u64,
    /// Ids that were named, and no message in the queue has them.
    pub unknown: Vec<QueueId>,
    /// Messages that were named and stay as they were.
    pub unchanged: Vec<Unchanged>,
}

/// A message that stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Unchanged {
    /// The message.
    pub id: QueueId,
    /// Why.
    pub why: WhyUnchanged,
}

/// Why a message stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhyUnchanged {
    /// It was so before.
    SoBefore,
    /// It is being delivered at this moment.
    Delivering,
    /// No recipient waits for it any more.
    Settled,
    /// It has no sender whom it could be returned to: it is a bounce itself.
    NoSender,
}

/// Figures of the whole queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct QueueStatus {
    /// Messages in the queue.
    pub messages: u64,
    /// Of these, held by an administrator.
    pub held: u64,
    /// Recipients that wait for their next try.
    pub waiting: u64,
    /// Of these, for the host of `relay-to`.
    #[serde(default)]
    pub waiting_for_relay: u64,
    /// Recipients that failed for good and wait for an administrator.
    pub failed: u64,
    /// Bytes of the spool on disk.
    pub spool_bytes: u64,
    /// Messages accepted since the start.
    pub accepted: u64,
    /// Recipients delivered since the start.
    pub delivered: u64,
    /// Syncs of the log since the start.
    pub syncs: u64,
    /// What is wrong with the spool, if anything; for people.
    pub fault: Option<String>,
    /// Parts of the spool that were found damaged since the start; for people.
    pub damage: Vec<String>,
}

/// A page of messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Listing {
    /// The messages in the order of their ids.
    pub messages: Vec<MessageView>,
    /// Where the next page begins; nothing at the end. A page may be empty before the end: that of
    /// a long queue in which few messages are wanted.
    pub next: Option<QueueId>,
    /// The newest message that came before the page was made: what has a later id came since.
    pub newest: QueueId,
}

/// A message as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MessageView {
    /// Its id.
    pub id: QueueId,
    /// Where a bounce would go.
    pub sender: ReversePath,
    /// The size of its content in bytes.
    pub size: u64,
    /// Where it came from; nothing when its record is damaged.
    pub origin: Option<Origin>,
    /// Why its record cannot be read; for people.
    pub fault: Option<String>,
    /// Whether an administrator holds it.
    pub held: bool,
    /// All recipients, with those that have their mail already.
    pub recipients: Vec<RecipientView>,
}

/// A recipient as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RecipientView {
    /// The address in RCPT TO.
    pub address: String,
    /// How far its delivery is.
    pub state: RecipientState,
    /// When the next try is, if it waits for one.
    pub due: Option<Timestamp>,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// The last try that did not succeed.
    pub last: Option<Attempt>,
}

/// How far a recipient's delivery is. Lists are narrowed by the same words ([`StateFilter`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipientState {
    /// Waits for its first try.
    New,
    /// Was tried in vain and waits for the next try.
    Deferred,
    /// A try is under way.
    Delivering,
    /// It has its mail.
    Delivered,
    /// It failed for good.
    Failed,
    /// It failed for good, and the sender was told.
    Bounced,
}

impl RecipientState {
    /// Whether the recipient waits for a try, its first or another.
    pub fn is_waiting(self) -> bool {
        matches!(self, Self::New | Self::Deferred)
    }

    /// Whether nothing more becomes of it: it has its mail, or its sender was told.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Delivered | Self::Bounced)
    }
}

/// A try that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Attempt {
    /// When it was.
    pub at: Timestamp,
    /// Why it did not succeed.
    pub reason: Reason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_narrowed_by_the_words_that_they_show() {
        let states = [
            RecipientState::New,
            RecipientState::Deferred,
            RecipientState::Delivering,
            RecipientState::Delivered,
            RecipientState::Failed,
            RecipientState::Bounced,
        ];
        for state in states {
            let word = serde_json::to_string(&state).unwrap();
            let filter: StateFilter = serde_json::from_str(&word).unwrap();
            assert_eq!(serde_json::to_string(&filter).unwrap(), word);
        }
    }
}
