//! The durable spool and the schedule of deliveries: the queue role.
//!
//! The spool is a log of checksummed records in segments (docs/reference/spool-format.md). One
//! thread, the committer, appends everything that waits as one group, syncs once and answers all;
//! the next group is what arrived meanwhile. What is in the queue is kept in an index in memory,
//! which is rebuilt from the log at the start. Deliveries are due recipients handed to the delivery
//! role in batches, a mailbox at a time.

mod committer;
mod control;
mod disk;
mod index;
mod intake;
mod lock;
mod log;
mod record;
mod replay;
mod schedule;
mod settings;
mod spool;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use lamppost_net::link::{Inbox, Port};
use lamppost_net::{Clock, Drain};
use lamppost_roles::{
    ContentAnswer, ContentRequest, ControlAnswer, ControlRequest, DeliveryAnswer, DeliveryRequest,
    IntakeAnswer, IntakeRequest,
};
use lamppost_telemetry::Metrics;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::lock::Lock;
use crate::spool::Spool;

pub use disk::{Disk, DiskFile, RealDisk};
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
    /// A newer program wrote the spool.
    #[error(
        "{path} is no segment of a format that this version knows; use the newer version, or move it away"
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
        let opening = tokio::task::spawn_blocking(move || open(disk, settings, clock, metrics));
        let opened = opening.await.map_err(|error| StartError::Disk {
            step: "read the spool",
            path: folder,
            source: io::Error::other(error),
        })?;
        let (spool, committer, lock) = opened?;
        let stop = CancellationToken::new();
        let deliveries = Drain::default();
        tokio::spawn(intake::serve(spool.clone(), ends.intake));
        tokio::spawn(control::serve(spool.clone(), ends.control));
        tokio::spawn(control::serve_content(spool.clone(), ends.content));
        let schedule = schedule::run(spool, ends.delivery, deliveries.clone(), stop.clone());
        tokio::spawn(schedule);
        Ok(Self { stop, deliveries, committer, _lock: lock })
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

fn open(
    disk: Arc<dyn Disk>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) -> Result<(Arc<Spool>, committer::Committer, Lock), StartError> {
    for folder in
        [settings.directory.clone(), settings.log(), settings.bodies(), settings.quarantine()]
    {
        disk.create_folder(&folder).map_err(|source| StartError::Disk {
            step: "make the folder",
            path: folder,
            source,
        })?;
    }
    let lock = Lock::take(&settings.directory)?;
    let mut replayed = replay::replay(&*disk, &settings)?;
    let messages = replayed.index.messages();
    let log = log::Log::begin(disk.clone(), settings.clone(), std::mem::take(&mut replayed.next))?;
    info!(messages, spool = %settings.directory.display(), "spool opened");
    let (committer, work) = committer::channel();
    let spool = Spool::new(settings, disk, clock, metrics, replayed, work);
    let committer = committer.start(log, spool.clone())?;
    Ok((spool, committer, lock))
}
