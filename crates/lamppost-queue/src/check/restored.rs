//! A spool out of a backup, before anything runs on it.

use bytes::Bytes;
use lamppost_roles::{QueueId, Timestamp};

use super::{OfflineSpool, failed};
use crate::StartError;
use crate::index::Message;
use crate::log::{Log, Purpose};
use crate::record::{Draft, Progress, RecipientRecord, Record};
use crate::spool::Spool;

/// Records that are written at once.
const GROUP: usize = 1000;

/// What may be tried of a spool out of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// Nothing before an administrator says so: every message is held.
    Held,
    /// All that was waiting.
    GoesOn,
}

impl OfflineSpool {
    /// Makes a spool out of a backup ready for a start; returns how many messages are held now that were
    /// not before.
    ///
    /// Nobody knows what the original has delivered since, so nothing is tried of what is held, and no
    /// sender is told of a failure. A file that lay beside its Maildir is not taken for delivered when
    /// it is not there: the recipient waits for another try.
    ///
    /// Call it within a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn make_ready(self, restored: Restored) -> Result<u64, StartError> {
        let spool = &self.spool;
        let folder = spool.settings.log();
        let next = self.examined.next.clone();
        let mut log = Log::begin(spool.disk.clone(), spool.settings.clone(), next)?;
        let (records, held) = records(spool, restored);
        for group in records.chunks(GROUP) {
            let drafts: Vec<_> = group.iter().map(|one| Draft::new(one, Bytes::new())).collect();
            let drafts: Vec<_> = drafts.iter().collect();
            let appended = log.append(&drafts, Purpose::State, false);
            appended.map_err(failed("write to", &folder))?;
        }
        log.sync().map_err(failed("sync", &folder))?;
        Ok(held)
    }
}

/// What must be said of the messages, and how many are held by it.
fn records(spool: &Spool, restored: Restored) -> (Vec<Record>, u64) {
    let now = spool.now();
    let index = spool.index.lock();
    let mut records = Vec::new();
    let mut held = Vec::new();
    for (id, message) in index.after(None) {
        if restored == Restored::Held && !message.held {
            held.push(id);
        }
        let recipients = waiting_again(message, restored, now).map(|(place, progress)| {
            let known = &message.recipients[place as usize];
            let last = index.last(known);
            (place, RecipientRecord { progress, attempts: known.attempts, last })
        });
        let recipients: Vec<_> = recipients.collect();
        if !recipients.is_empty() {
            records.push(Record::Progress { id, recipients });
        }
    }
    let count = held.len() as u64;
    let ids = held.chunks(GROUP).map(<[QueueId]>::to_vec);
    records.extend(ids.map(|ids| Record::Held { ids, held: true }));
    (records, count)
}

fn waiting_again(
    message: &Message,
    restored: Restored,
    now: Timestamp,
) -> impl Iterator<Item = (u32, Progress)> {
    (0_u32..).zip(&message.recipients).filter_map(move |(place, one)| match one.progress {
        Progress::Intended { due } => Some((place, Progress::Waiting { due })),
        // Its sender may have been told since.
        Progress::Failed if restored == Restored::Held => {
            Some((place, Progress::Waiting { due: now }))
        }
        _ => None,
    })
}
