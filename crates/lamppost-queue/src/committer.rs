//! The one task that writes the log, on a thread of its own.
//!
//! It takes everything that waits as one group, writes it, syncs once and answers all; the next
//! group is what arrived meanwhile. A lone message waits for its own sync only, and a hundred at once
//! share one.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use lamppost_disk::Blocking;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::error;

use crate::log::{Log, Purpose};
use crate::record::Draft;
use crate::snapshot;
use crate::spool::Spool;
use crate::{Durability, StartError};

/// Records in a group.
const GROUP_RECORDS_MAX: usize = 4096;
/// Bytes in a group; one record may be larger.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest wait for others to join a group.
const COMPANY_WAIT_MAX: Duration = Duration::from_millis(1);
/// How long records that nobody waits for stay without a sync.
const IDLE_SYNC: Duration = Duration::from_secs(1);

/// A record to be committed.
pub(crate) struct Work {
    pub(crate) draft: Draft,
    pub(crate) purpose: Purpose,
    /// Whether somebody waits for it to be durable.
    pub(crate) sync: bool,
    /// Told on the committer's thread, in the order of the log.
    pub(crate) then: Then,
}

/// What happens once a record is committed.
pub(crate) type Then = Box<dyn FnOnce(Result<Committed, CommitFailed>) + Send>;

/// Where a record lies now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) segment: u64,
    pub(crate) at: u64,
    /// Bytes of its text.
    pub(crate) text: u32,
}

/// The record was not made durable and never happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommitFailed {
    /// There is no space.
    #[error("the spool's disk is full")]
    Full,
    /// It could not be written, or not be made durable.
    #[error("the spool could not be written")]
    Failed,
}

pub(crate) enum Order {
    Commit(Work),
    /// Something may have become free.
    Tidy,
    /// Say which files are the queue now.
    Snapshot(oneshot::Sender<snapshot::Answer>),
    Stop(oneshot::Sender<()>),
}

/// Ends the committer.
#[derive(Debug)]
pub(crate) struct Committer {
    orders: UnboundedSender<Order>,
}

/// A committer that is not started yet.
pub(crate) struct Waiting {
    orders: UnboundedSender<Order>,
    waiting: UnboundedReceiver<Order>,
}

/// The two ends of the committer's work.
///
/// The channel has no bound of its own: whoever waits for a record hands in no other meanwhile, so
/// it holds what sessions, deliveries and administrators are allowed to have under way.
pub(crate) fn channel() -> (Waiting, UnboundedSender<Order>) {
    let (orders, waiting) = unbounded_channel();
    (Waiting { orders: orders.clone(), waiting }, orders)
}

impl Waiting {
    pub(crate) fn start(self, log: Log, spool: Arc<Spool>) -> Result<Committer, StartError> {
        let path = spool.settings.directory.clone();
        let Self { orders, waiting } = self;
        let blocking = spool.settings.blocking;
        let running = run(log, spool, waiting);
        if blocking == Blocking::Inline {
            drop(tokio::spawn(running));
            return Ok(Committer { orders });
        }
        let failed = |source| StartError::Disk { step: "start the committer of", path, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(failed.clone())?;
        std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || runtime.block_on(running))
            .map_err(failed)?;
        Ok(Committer { orders })
    }
}

impl Committer {
    /// Commits what waits, makes everything durable and ends.
    pub(crate) async fn stop(self) {
        let (to, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop(to)).is_ok() {
            // A committer that ended without an answer has nothing left to write.
            drop(stopped.await);
        }
    }
}

/// How fast groups went.
#[derive(Debug, Default)]
struct Pace {
    /// Who waited for the last group.
    waiters: usize,
    /// A moving average of what a group took.
    took: Duration,
}

impl Pace {
    /// When the last group was several, more are on their way: waiting as long as a group takes lets
    /// them share this one's sync. Whoever is alone waits for nobody.
    fn wait_for_company(&self) {
        if self.waiters > 1 {
            std::thread::park_timeout(self.took.min(COMPANY_WAIT_MAX));
        }
    }

    fn measured(&mut self, waiters: usize, took: Duration) {
        self.waiters = waiters;
        self.took = (self.took * 7 + took) / 8;
    }
}

/// What the committer waits for next.
enum Next {
    Order(Order),
    /// Nothing came for a while, and something is not durable yet.
    Idle,
    /// Everybody who could order something is gone.
    Gone,
}

async fn run(mut log: Log, spool: Arc<Spool>, mut waiting: UnboundedReceiver<Order>) {
    let mut left = None;
    let mut pace = Pace::default();
    let mut dirty_since = None;
    loop {
        dirty_since = log.is_dirty().then(|| dirty_since.unwrap_or_else(Instant::now));
        if dirty_since.is_some_and(|since: Instant| since.elapsed() >= IDLE_SYNC) {
            sync(&mut log, &spool);
            dirty_since = None;
        }
        let next = match left.take() {
            Some(order) => Next::Order(order),
            None => next(log.is_dirty() || spool.upkeep.has_unsaid(), &mut waiting).await,
        };
        let stopping = match next {
            Next::Order(Order::Stop(stopped)) => Some(stopped),
            Next::Order(Order::Tidy) => {
                // Nothing goes before the records that let it go are durable.
                settle(&mut log, &spool);
                if !log.is_dirty() {
                    spool.tidy(&mut log);
                }
                None
            }
            Next::Order(Order::Snapshot(to)) => {
                settle(&mut log, &spool);
                // Who asked may have stopped waiting.
                let _gone = to.send(spool.snapshot(&log));
                None
            }
            Next::Order(Order::Commit(work)) => {
                if work.sync && spool.settings.blocking == Blocking::Threads {
                    pace.wait_for_company();
                }
                let group = gather(work, &mut waiting, &log, spool.settings.durability);
                let waiters = group.works.iter().filter(|work| work.sync).count();
                let begun = Instant::now();
                commit(&mut log, &spool, group.works);
                pace.measured(waiters, begun.elapsed());
                left = group.left;
                group.stopping
            }
            Next::Idle => {
                settle(&mut log, &spool);
                None
            }
            Next::Gone => return,
        };
        if let Some(stopped) = stopping {
            if let Some(Order::Commit(work)) = left.take() {
                commit(&mut log, &spool, vec![work]);
            }
            settle(&mut log, &spool);
            spool.checkpoint_now(&log);
            // Who asked may have stopped waiting.
            let _gone = stopped.send(());
            return;
        }
        if spool.settings.blocking == Blocking::Inline {
            tokio::task::yield_now().await;
        }
    }
}

async fn next(is_dirty: bool, waiting: &mut UnboundedReceiver<Order>) -> Next {
    let received = if is_dirty {
        match timeout(IDLE_SYNC, waiting.recv()).await {
            Ok(received) => received,
            Err(_) => return Next::Idle,
        }
    } else {
        waiting.recv().await
    };
    received.map_or(Next::Gone, Next::Order)
}

/// What is committed together.
struct Group {
    works: Vec<Work>,
    /// What came after it and is for the next.
    left: Option<Order>,
    stopping: Option<oneshot::Sender<()>>,
}

/// Everything that waits, as far as a group and the segment reach.
fn gather(
    first: Work,
    waiting: &mut UnboundedReceiver<Order>,
    log: &Log,
    durability: Durability,
) -> Group {
    let mut bytes = first.draft.len();
    let room = log.room().min(GROUP_BYTES_MAX);
    let mut group = Group { works: vec![first], left: None, stopping: None };
    while durability != Durability::Each && group.works.len() < GROUP_RECORDS_MAX {
        match waiting.try_recv() {
            Ok(Order::Commit(work)) => {
                bytes += work.draft.len();
                if bytes > room {
                    group.left = Some(Order::Commit(work));
                    break;
                }
                group.works.push(work);
            }
            Ok(Order::Tidy) => {}
            Ok(snapshot @ Order::Snapshot(_)) => {
                group.left = Some(snapshot);
                break;
            }
            Ok(Order::Stop(stopped)) => {
                group.stopping = Some(stopped);
                break;
            }
            Err(_) => break,
        }
    }
    group
}

fn commit(log: &mut Log, spool: &Arc<Spool>, works: Vec<Work>) {
    let before = log.current();
    if let Err((failed, works)) = append(log, spool, works) {
        // A full disk takes no new mail, and what is in the queue goes on.
        let (mail, state): (Vec<_>, Vec<_>) =
            works.into_iter().partition(|work| work.purpose == Purpose::Mail);
        for work in mail {
            (work.then)(Err(failed));
        }
        if !state.is_empty()
            && let Err((failed, works)) = append(log, spool, state)
        {
            for work in works {
                (work.then)(Err(failed));
                if !work.sync {
                    spool.upkeep.failed(work.draft);
                }
            }
        }
    }
    if log.current() != before {
        spool.rotated(log);
    }
    spool.forward(log);
    spool.measured(log.bytes());
}

/// Appends a group and tells everybody; gives back those whom a failure must still be told.
fn append(
    log: &mut Log,
    spool: &Arc<Spool>,
    works: Vec<Work>,
) -> Result<(), (CommitFailed, Vec<Work>)> {
    // What must be said again comes before whatever builds on it.
    let again = spool.upkeep.take_unsaid().into_iter();
    let again = again.map(|draft| Work {
        draft,
        purpose: Purpose::State,
        sync: false,
        then: Box::new(|_| {}),
    });
    let works: Vec<_> = again.chain(works).collect();
    let is_waited_for = works.iter().any(|work| work.sync);
    let sync = is_waited_for && spool.settings.durability != Durability::None;
    let purpose = works.iter().map(|work| work.purpose).max().unwrap_or(Purpose::State);
    let before = log.current();
    let begun = Instant::now();
    let drafts: Vec<_> = works.iter().map(|work| &work.draft).collect();
    let appended = log.append(&drafts, purpose, sync);
    spool.has_segment(log.current());
    match appended {
        Ok(written) => {
            if sync {
                spool.synced(begun.elapsed());
            }
            if log.current() != before {
                // The segment before was synced; the next checkpoint does not replay it.
                spool.settle(true);
            }
            for (work, at) in works.into_iter().zip(written.places) {
                let text = u32::try_from(work.draft.text.len()).unwrap_or(u32::MAX);
                (work.then)(Ok(Committed { segment: written.segment, at, text }));
                if !work.sync {
                    spool.upkeep.wrote(work.draft);
                }
            }
            spool.well(log);
            // What nobody waits for is not durable yet, and what it ends must stay.
            if sync || (is_waited_for && spool.settings.durability == Durability::None) {
                spool.settle(true);
                spool.tidy(log);
            }
            Ok(())
        }
        Err(error) => {
            let failed = match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => CommitFailed::Full,
                _ => CommitFailed::Failed,
            };
            error!(reason = %error, "the spool could not be written");
            spool.settle(false);
            spool.ill(format!("the spool could not be written: {error}"));
            Err((failed, works))
        }
    }
}

/// Makes everything durable, what must be said again too.
fn settle(log: &mut Log, spool: &Arc<Spool>) {
    if spool.upkeep.has_unsaid() {
        commit(log, spool, Vec::new());
    }
    if log.is_dirty() {
        sync(log, spool);
    }
}

fn sync(log: &mut Log, spool: &Arc<Spool>) {
    let begun = Instant::now();
    match log.sync() {
        Ok(()) => {
            spool.synced(begun.elapsed());
            spool.settle(true);
            spool.tidy(log);
            spool.measured(log.bytes());
        }
        // What was not durable is redone after a restart; the next group begins another segment.
        Err(error) => {
            error!(reason = %error, "the spool could not be synced; its segment is closed");
            spool.settle(false);
            spool.ill(format!("the spool could not be synced: {error}"));
        }
    }
}
