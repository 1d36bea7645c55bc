//! A message in the queue as it is kept in memory: what the schedule needs, and where the rest is.
//!
//! The envelope stays in the log: a message that waits costs some two hundred bytes of memory,
//! whatever its sender and its header are.

use bytes::Bytes;
use lamppost_roles::Timestamp;
use serde::{Deserialize, Serialize};

use super::table::Handle;
use crate::record::{MessageRecord, Progress};

/// Where a message's record is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    /// Where the record begins.
    pub(crate) at: u64,
    /// Bytes of the record's text; the content follows it unless it is aside.
    pub(crate) text: u32,
}

/// A message in the queue.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, and a million of them")]
pub(crate) struct Message {
    pub(crate) place: Place,
    /// Bytes of content.
    pub(crate) size: u64,
    /// Whether the content lies in a file of its own.
    pub(crate) aside: bool,
    pub(crate) held: bool,
    /// Whether the sender was told that it takes longer.
    pub(crate) delay_told: bool,
    /// In the table of senders.
    pub(crate) sender: Handle,
    /// Whether nobody is told when it fails.
    pub(crate) is_null_sender: bool,
    pub(crate) recipients: Box<[Recipient]>,
    /// What came in just now and is about to be delivered.
    pub(crate) fresh: Option<Box<Fresh>>,
}

/// A recipient of a message in the queue.
#[derive(Clone, Debug)]
pub(crate) struct Recipient {
    /// In the table of destinations.
    pub(crate) destination: Handle,
    pub(crate) progress: Progress,
    pub(crate) attempts: u32,
    /// When the last try that did not succeed was, and why, in the table of reasons.
    pub(crate) last: Option<(Timestamp, Handle)>,
    pub(super) standing: Standing,
    /// Whether an entry of it is in a line, wanted or stale.
    pub(super) is_lined_up: bool,
}

/// Where a recipient stands in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nowhere: there is nothing to do for it, or it is held.
    Aside,
    /// Its time comes.
    Planned(Timestamp),
    /// In the line of its destination.
    InLine,
    /// Its delivery is under way.
    UnderWay,
    /// Its delivery has an outcome that is yet to be noted.
    Concluded,
}

/// A message that came in just now, kept so that its first delivery need not read it back.
#[derive(Clone, Debug)]
pub(crate) struct Fresh {
    pub(crate) record: MessageRecord,
    /// The content, unless it is aside.
    pub(crate) content: Option<Bytes>,
}

impl Fresh {
    /// Bytes of memory, roughly.
    pub(super) fn len(&self) -> usize {
        /// What a record takes beside its content.
        const RECORD: usize = 1024;
        RECORD * self.record.recipients.len().max(1) + self.content.as_ref().map_or(0, Bytes::len)
    }
}

impl Recipient {
    /// Whether its delivery is under way, or its outcome is yet to be noted.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.standing, Standing::UnderWay | Standing::Concluded)
    }
}

impl Message {
    /// Bytes that it takes in the log.
    pub(crate) fn log_bytes(&self) -> u64 {
        let content = if self.aside { 0 } else { self.size };
        crate::record::RECORD_HEADER as u64 + u64::from(self.place.text) + content
    }

    /// Whether all recipients have their mail, or the sender knows that they don't get it.
    pub(crate) fn is_done(&self) -> bool {
        self.recipients.iter().all(|recipient| recipient.progress.is_final())
    }

    /// Whether recipients failed and the sender is to be told, and nothing else is going on.
    pub(crate) fn wants_bounce(&self) -> bool {
        !self.is_null_sender
            && self.recipients.iter().any(|one| one.progress == Progress::Failed)
            && !self
                .recipients
                .iter()
                .any(|one| one.is_under_way() || one.standing == Standing::InLine)
    }
}
