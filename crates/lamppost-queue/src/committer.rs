//! The one thread that writes the log.
//!
//! It takes everything that waits as one group, writes it, syncs once and answers all; the next
//! group is what arrived meanwhile. There is no timer: a lone message waits for its own sync only,
//! and a hundred at once share one.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel as std_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::error;

use crate::log::Log;
use crate::record::Draft;
use crate::spool::Spool;
use crate::{Durability, StartError};

/// Records in a group.
const GROUP_RECORDS_MAX: usize = 4096;
/// Bytes in a group; one record may be larger.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long records that nobody waits for stay without a sync.
const IDLE_SYNC: Duration = Duration::from_secs(1);

/// A record to be committed.
pub(crate) struct Work {
    pub(crate) draft: Draft,
    /// Whether somebody waits for it to be durable.
    pub(crate) sync: bool,
    /// Told on the committer's thread, in the order of the log.
    pub(crate) then: Then,
}

/// What happens once a record is committed.
pub(crate) type Then = Box<dyn FnOnce(Result<Committed, CommitFailed>) + Send>;

/// Where a record's content lies now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) segment: u64,
    pub(crate) content: u64,
}

/// The record was not made durable and never happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the spool could not be written")]
pub(crate) struct CommitFailed;

pub(crate) enum Order {
    Commit(Work),
    Stop(oneshot::Sender<()>),
}

/// Ends the thread.
#[derive(Debug)]
pub(crate) struct Committer {
    orders: Sender<Order>,
}

/// A committer that is not started yet.
pub(crate) struct Waiting {
    orders: Sender<Order>,
    waiting: Receiver<Order>,
}

/// The two ends of the committer's work.
pub(crate) fn channel() -> (Waiting, Sender<Order>) {
    let (orders, waiting) = std_channel();
    (Waiting { orders: orders.clone(), waiting }, orders)
}

impl Waiting {
    pub(crate) fn start(self, log: Log, spool: Arc<Spool>) -> Result<Committer, StartError> {
        let path = spool.settings.directory.clone();
        let Self { orders, waiting } = self;
        std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || run(log, &spool, &waiting))
            .map_err(|source| StartError::Disk { step: "start the committer of", path, source })?;
        Ok(Committer { orders })
    }
}

impl Committer {
    /// Commits what waits, makes everything durable and ends.
    pub(crate) async fn stop(self) {
        let (to, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop(to)).is_ok() {
            // A thread that ended without an answer has nothing left to write.
            drop(stopped.await);
        }
    }
}

fn run(mut log: Log, spool: &Spool, waiting: &Receiver<Order>) {
    loop {
        let first = if log.is_dirty() {
            waiting.recv_timeout(IDLE_SYNC)
        } else {
            waiting.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        let stopping = match first {
            Ok(Order::Stop(stopped)) => Some(stopped),
            Ok(Order::Commit(work)) => {
                let (group, stopping) = gather(work, waiting, spool.settings.durability);
                commit(&mut log, spool, group);
                stopping
            }
            Err(RecvTimeoutError::Timeout) => {
                sync(&mut log, spool);
                None
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Some(stopped) = stopping {
            sync(&mut log, spool);
            // Who asked may have stopped waiting.
            let _gone = stopped.send(());
            return;
        }
    }
}

/// Everything that waits, as far as a group reaches.
fn gather(
    first: Work,
    waiting: &Receiver<Order>,
    durability: Durability,
) -> (Vec<Work>, Option<oneshot::Sender<()>>) {
    let mut bytes = first.draft.len();
    let mut group = vec![first];
    while durability != Durability::Each
        && group.len() < GROUP_RECORDS_MAX
        && bytes < GROUP_BYTES_MAX
    {
        match waiting.try_recv() {
            Ok(Order::Commit(work)) => {
                bytes += work.draft.len();
                group.push(work);
            }
            Ok(Order::Stop(stopped)) => return (group, Some(stopped)),
            Err(_) => break,
        }
    }
    (group, None)
}

fn commit(log: &mut Log, spool: &Spool, group: Vec<Work>) {
    let sync = spool.settings.durability != Durability::None && group.iter().any(|work| work.sync);
    let mut drafts = Vec::with_capacity(group.len());
    let mut thens = Vec::with_capacity(group.len());
    for work in group {
        drafts.push(work.draft);
        thens.push(work.then);
    }
    let segments = log.segments();
    let begun = Instant::now();
    let appended = log.append(&drafts, sync);
    drop(drafts);
    match appended {
        Ok(written) => {
            for (then, content) in thens.into_iter().zip(written.contents) {
                then(Ok(Committed { segment: written.segment, content }));
            }
            spool.well();
        }
        Err(error) => {
            error!(reason = %error, "the spool could not be written; its segment is closed");
            spool.ill(format!("the spool could not be written: {error}"));
            for then in thens {
                then(Err(CommitFailed));
            }
        }
    }
    if sync {
        spool.synced(begun.elapsed());
        spool.tidy(log);
    }
    if log.segments() > segments {
        spool.forward(log);
    }
    spool.measured(log.bytes());
}

fn sync(log: &mut Log, spool: &Spool) {
    let begun = Instant::now();
    match log.sync() {
        Ok(()) => {
            spool.synced(begun.elapsed());
            spool.tidy(log);
            spool.measured(log.bytes());
        }
        // What was not durable is redone after a restart; the next group begins another segment.
        Err(error) => {
            error!(reason = %error, "the spool could not be synced; its segment is closed");
            spool.ill(format!("the spool could not be synced: {error}"));
        }
    }
}
