//! The durable spool and the schedule of deliveries: the queue role.
//!
//! The spool is a log of checksummed records in segments (docs/reference/spool-format.md). One
//! thread, the committer, appends everything that waits as one group, syncs once and answers all;
//! the next group is what arrived meanwhile. What is in the queue is kept in an index in memory,
//! which is rebuilt from the log at the start. Deliveries are due recipients handed to the delivery
//! role in batches, a mailbox at a time.

mod bounce;
mod change;
mod check;
mod checkpoint;
mod committer;
mod control;
mod figures;
mod filter;
mod index;
mod intake;
mod load;
mod lock;
mod log;
mod notices;
mod quarantine;
mod reading;
mod record;
mod replay;
mod salvage;
mod schedule;
mod segment;
mod settings;
mod settle;
mod snapshot;
mod spares;
mod spool;
mod upkeep;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use lamppost_disk::{Disk, FileSystem, RealDisk, file_system};
use lamppost_net::link::{Inbox, Port};
use lamppost_net::{Clock, Drain};
use lamppost_roles::{
    ContentAnswer, ContentRequest, ControlAnswer, ControlRequest, DeliveryAnswer, DeliveryRequest,
    IntakeAnswer, IntakeRequest, RouteAnswer, RouteRequest,
};
use lamppost_telemetry::Metrics;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::lock::Lock;
use crate::schedule::Askers;
use crate::spool::{Means, Spool};

pub use check::{Finding, OfflineSpool, Repaired, Report, Restored, Severity};
pub use reading::Reading;
pub use replay::scan_segment;
pub use settings::{Durability, Settings};

/// The roles that talk to the queue, and the one that it talks to.
#[derive(Debug)]
pub struct Ends {
    /// The front hands in mail.
    pub intake: Inbox<IntakeRequest, IntakeAnswer>,
    /// Administrators look and change.
    pub control: Inbox<ControlRequest, ControlAnswer>,
    /// Delivery reads large contents.
    pub content: Inbox<ContentRequest, ContentAnswer>,
    /// Delivery puts messages into mailboxes.
    pub delivery: Port<DeliveryRequest, DeliveryAnswer>,
    /// Policy knows the way to those whom notices go to.
    pub routing: Port<RouteRequest, RouteAnswer>,
}

/// The running queue.
#[derive(Debug)]
pub struct Queue {
    stop: CancellationToken,
    deliveries: Drain,
    committer: committer::Committer,
    _lock: Lock,
}

/// Why the queue cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the spool.
    #[error("the spool {folder} is held by process {holder}; stop that one first")]
    Held {
        /// The spool.
        folder: PathBuf,
        /// The process.
        holder: String,
    },
    /// The spool cannot be read or written.
    #[error("cannot {step} {path}")]
    Disk {
        /// What was to be done.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The spool would not survive what it must survive.
    #[error(
        "the spool {folder} is {place}: acknowledged mail would not survive a power cut; move the state to a disk, or set accept-volatile = true in [mail.queue]"
    )]
    Volatile {
        /// The spool.
        folder: PathBuf,
        /// Where it is.
        place: &'static str,
    },
    /// A program from before the first release wrote the spool.
    #[error(
        "{path} has the spool's first format, which no release wrote: let the version that wrote it deliver what is in the queue, then remove its spool folder"
    )]
    Older {
        /// The file.
        path: PathBuf,
    },
    /// A newer program wrote the spool.
    #[error(
        "{path} has a format that only a newer version knows; use that version, or move the file away"
    )]
    Format {
        /// The file.
        path: PathBuf,
    },
}

impl Queue {
    /// Takes the spool, reads what is in it, and begins to answer and to deliver.
    ///
    /// # Errors
    /// When another process holds the spool, or it cannot be read or written.
    pub async fn start(
        settings: Settings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        ends: Ends,
    ) -> Result<Self, StartError> {
        Self::start_on(Arc::new(RealDisk), settings, (clock, metrics), ends).await
    }

    /// As [`Queue::start`], on another disk.
    ///
    /// # Errors
    /// When another process holds the spool, or it cannot be read or written.
    pub async fn start_on(
        disk: Arc<dyn Disk>,
        settings: Settings,
        (clock, metrics): (Arc<dyn Clock>, Arc<Metrics>),
        ends: Ends,
    ) -> Result<Self, StartError> {
        let folder = settings.directory.clone();
        let (blocking, is_paused) = (settings.blocking, settings.is_paused);
        let means = Means { disk, clock, metrics };
        let opened = blocking.run(move || open(settings, means)).await;
        let opened = opened.map_err(|cut| StartError::Disk {
            step: "read the spool",
            path: folder,
            source: io::Error::other(cut),
        })?;
        let Opened { spool, log, waiting, lock } = opened?;
        spool.checkpoint_soon(&log);
        let committer = waiting.start(log, spool.clone())?;
        let stop = CancellationToken::new();
        let deliveries = Drain::default();
        deliveries.pause(is_paused);
        tokio::spawn(intake::serve(spool.clone(), ends.intake));
        tokio::spawn(control::serve(spool.clone(), ends.control));
        tokio::spawn(control::serve_content(spool.clone(), ends.content));
        tokio::spawn(notices::run(spool.clone(), stop.clone()));
        let askers = Askers { delivery: ends.delivery, routing: ends.routing };
        tokio::spawn(schedule::run(spool, askers, deliveries.clone(), stop.clone()));
        Ok(Self { stop, deliveries, committer, _lock: lock })
    }

    /// Hands out no delivery until it is said otherwise; those under way go on, and mail is taken.
    pub fn pause(&self, is_paused: bool) {
        self.deliveries.pause(is_paused);
    }

    /// Begins no delivery any more, waits for those that run, and makes everything durable.
    pub async fn stop(self, grace: std::time::Duration) {
        self.stop.cancel();
        let left = self.deliveries.finish(grace).await;
        if left > 0 {
            warn!(left, "deliveries cut short; they are repeated at the next start");
        }
        self.committer.stop().await;
    }
}

/// A spool that was read, before anything runs.
struct Opened {
    spool: Arc<Spool>,
    log: log::Log,
    waiting: committer::Waiting,
    lock: Lock,
}

fn open(settings: Settings, means: Means) -> Result<Opened, StartError> {
    let disk = means.disk.clone();
    make_folders(&*disk, &settings)?;
    let lock = Lock::wait(&settings.directory, settings.program)?;
    check_file_system(&settings)?;
    let mut replayed = replay::replay(&*disk, &settings)?;
    settle::settle(&*disk, &settings, &replayed);
    let messages = replayed.index.messages();
    let mut log = log::Log::begin(disk, settings.clone(), std::mem::take(&mut replayed.next))?;
    info!(messages, spool = %settings.directory.display(), "spool opened");
    let (waiting, orders) = committer::channel();
    let damaged = std::mem::take(&mut replayed.damaged);
    let spool = Spool::new(settings, means, replayed, orders);
    spool.has_segment(log.current());
    for (id, why) in damaged {
        if let Err(error) = spool.quarantine(id, &why) {
            // It is copied when its turn comes.
            warn!(queue_id = %id, reason = %error, "a damaged message cannot be copied");
        }
    }
    spool.checkpoint_replayed(&mut log);
    spool.measured(log.bytes());
    Ok(Opened { spool, log, waiting, lock })
}

fn make_folders(disk: &dyn Disk, settings: &Settings) -> Result<(), StartError> {
    for folder in
        [settings.directory.clone(), settings.log(), settings.bodies(), settings.quarantine()]
    {
        let made = disk.create_folder(&folder).and_then(|()| match folder.parent() {
            Some(parent) => match disk.sync_folder(parent) {
                // Whoever may not open the folder above has not made this one: it is durable already.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                synced => synced,
            },
            None => Ok(()),
        });
        made.map_err(|source| StartError::Disk { step: "make the folder", path: folder, source })?;
    }
    Ok(())
}

/// What was acknowledged must survive a power cut, unless the administrator says otherwise.
fn check_file_system(settings: &Settings) -> Result<(), StartError> {
    let folder = settings.directory.clone();
    let kind = file_system(&folder).map_err(|source| StartError::Disk {
        step: "ask for the file system of",
        path: folder.clone(),
        source,
    })?;
    let place = match kind {
        FileSystem::Disk => return Ok(()),
        FileSystem::Overlay => {
            warn!(spool = %folder.display(), "the spool is on a container's layers: mail goes with the container unless its state is on a volume");
            return Ok(());
        }
        FileSystem::Memory => "in memory (tmpfs)",
        FileSystem::Network => "on another machine (a network file system)",
    };
    if !settings.accept_volatile {
        return Err(StartError::Volatile { folder, place });
    }
    warn!(spool = %folder.display(), place, "the spool may not survive a power cut (accept-volatile)");
    Ok(())
}
