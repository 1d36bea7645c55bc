//! What the queue is told.

use std::path::PathBuf;
use std::time::Duration;

use lamppost_disk::Blocking;

use crate::Reading;

/// What an acknowledged message survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Anything: each message waits for a sync of its own.
    Each,
    /// Anything: messages that arrive together share a sync.
    Group,
    /// A killed process only: nothing waits for the disk, and a power cut loses mail.
    None,
}

/// Settings of the queue.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The process that must end before another may have the spool: the whole program's.
    pub program: u32,
    /// Whether it hands out no delivery until it is told to.
    pub is_paused: bool,
    /// Told how far the start has come.
    pub reading: Reading,
    /// The spool's folder; it is made when it is not there.
    pub directory: PathBuf,
    /// What an acknowledged message survives.
    pub durability: Durability,
    /// Bytes of a segment of the log once much mail comes; the first ones are smaller.
    pub segment_size: u64,
    /// Bytes of all contents that are kept in memory for their first delivery.
    pub memory_max: usize,
    /// Bytes that must stay free on the disk for new mail to be accepted.
    pub free_space_min: u64,
    /// How long a message is tried before its recipients fail for good.
    pub lifetime: Duration,
    /// How long a recipient waits after its first failed try; each wait is twice the one before.
    pub retry_first: Duration,
    /// The longest wait between two tries.
    pub retry_max: Duration,
    /// Batches of deliveries at once, each to one mailbox.
    pub deliveries_at_once_max: usize,
    /// Recipients in a batch.
    pub batch_max: usize,
    /// Bytes of contents in a batch; one message may be larger.
    pub batch_size_max: u64,
    /// Large messages on their way in at once.
    pub uploads_max: usize,
    /// How long a large message may pause before it is forgotten: longer than the front waits.
    pub upload_pause_max: Duration,
    /// Segments that are kept to be used again.
    pub spare_segments_max: usize,
    /// Reports of damage that the status keeps.
    pub damage_told_max: usize,
    /// Batches at once for the host that takes mail for elsewhere.
    pub relays_at_once_max: usize,
    /// How long a message waits for others to share the syncs of its delivery.
    pub delivery_lag: Duration,
    /// How long a message waits before its sender is told; zero for never.
    pub delay_notice_after: Duration,
    /// How often it is looked for what senders must be told.
    pub notice_every: Duration,
    /// Whether the spool may be in memory or on another machine.
    pub accept_volatile: bool,
    /// This host's name, for notices.
    pub hostname: String,
    /// Where work that blocks is done.
    pub blocking: Blocking,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("spool"),
            durability: Durability::Group,
            segment_size: 64 * 1024 * 1024,
            memory_max: 64 * 1024 * 1024,
            free_space_min: 64 * 1024 * 1024,
            lifetime: Duration::from_secs(5 * 24 * 60 * 60),
            retry_first: Duration::from_secs(60),
            retry_max: Duration::from_secs(60 * 60),
            deliveries_at_once_max: 16,
            batch_max: 256,
            program: std::process::id(),
            is_paused: false,
            reading: Reading::default(),
            batch_size_max: 8 * 1024 * 1024,
            uploads_max: 1000,
            upload_pause_max: Duration::from_secs(60 * 60),
            spare_segments_max: 4,
            damage_told_max: 100,
            relays_at_once_max: 4,
            delivery_lag: Duration::from_millis(50),
            delay_notice_after: Duration::from_secs(4 * 60 * 60),
            notice_every: Duration::from_secs(60),
            accept_volatile: false,
            hostname: "localhost".into(),
            blocking: Blocking::Threads,
        }
    }
}

impl Settings {
    /// Bytes of the first segment of a spool; each is twice the one before, up to the size that is
    /// set, so that a host with little mail has a small spool.
    pub(crate) fn first_capacity(&self) -> u64 {
        const CAPACITY_FIRST: u64 = 1024 * 1024;
        CAPACITY_FIRST.min(self.segment_size / 4)
    }

    /// Bytes that are reserved for changes of state.
    pub(crate) fn reserve(&self) -> u64 {
        const RESERVE: u64 = 1024 * 1024;
        RESERVE.min(self.segment_size / 4)
    }

    /// Where the log's segments are.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The index as it was written the last two times, under two names in turn.
    pub(crate) fn checkpoints(&self) -> [PathBuf; 2] {
        ["checkpoint", "checkpoint.2"].map(|name| self.directory.join(name))
    }

    /// Where large contents are.
    pub(crate) fn bodies(&self) -> PathBuf {
        self.directory.join("bodies")
    }

    /// Where damaged parts of the log are put.
    pub(crate) fn quarantine(&self) -> PathBuf {
        self.directory.join("quarantine")
    }

    /// A segment's file.
    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.log().join(format!("{number:010}.seg"))
    }

    /// A large content's file.
    pub(crate) fn body(&self, id: lamppost_roles::QueueId) -> PathBuf {
        self.bodies().join(id.to_string())
    }
}
