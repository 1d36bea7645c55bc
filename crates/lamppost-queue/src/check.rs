//! A spool on which no program runs: reading it, finding what is damaged, and repairing it.

mod examine;
mod repair;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lamppost_disk::{Disk, RealDisk};
use lamppost_net::SystemClock;
use lamppost_roles::{ControlAnswer, ControlRequest, QueueId};
use lamppost_telemetry::Metrics;
use serde::Serialize;

use crate::lock::Lock;
use crate::spool::{Means, Spool};
use crate::{Settings, StartError, committer, control};

/// A spool that this process holds and that nothing runs on.
pub struct OfflineSpool {
    spool: Arc<Spool>,
    examined: examine::Examined,
    _lock: Lock,
}

/// What a spool is like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The spool.
    pub spool: PathBuf,
    /// Segments of the log.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// Messages in the queue.
    pub messages: u64,
    /// Bytes of their contents.
    pub content_bytes: u64,
    /// Large contents in files of their own.
    pub bodies: u64,
    /// Segment files made ahead, the reserve among them.
    pub spares: u64,
    /// What was found that is not as it should be.
    pub findings: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub path: PathBuf,
    /// What it is, for people.
    pub what: String,
    /// What can be done about it, for people.
    pub cure: String,
    /// The message that it costs.
    pub lost: Option<QueueId>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// What was written is not what is read.
    Damage,
    /// Left over from a program that was killed: the next start deals with it.
    Note,
}

impl Report {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }
}

/// What a repair did, and how the spool is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Repaired {
    /// What was done, a line each, for people.
    pub done: Vec<String>,
    /// Messages that were lost; what is known of each is in a file in `quarantine/`.
    pub lost: Vec<QueueId>,
    /// The spool as it is now.
    pub report: Report,
}

impl OfflineSpool {
    /// Takes the spool and reads all of it; nothing in it is changed but the lock file.
    ///
    /// # Errors
    /// When another process holds it, there is none, it cannot be read, or a newer program wrote it.
    pub fn open(settings: Settings) -> Result<Self, StartError> {
        Self::open_on(Arc::new(RealDisk), settings)
    }

    fn open_on(disk: Arc<dyn Disk>, settings: Settings) -> Result<Self, StartError> {
        let lock = Lock::take(&settings.directory)?;
        let (spool, examined) = read(disk, settings)?;
        Ok(Self { spool, examined, _lock: lock })
    }

    /// What was found.
    pub fn report(&self) -> &Report {
        &self.examined.report
    }

    /// Answers List, Show and Read as a running queue does.
    pub fn ask(&self, request: ControlRequest) -> ControlAnswer {
        match request {
            ControlRequest::Change { .. } => {
                ControlAnswer::Failed("nothing is changed while no program runs".into())
            }
            ControlRequest::Status => ControlAnswer::Status(self.spool.status()),
            request => control::read(&self.spool, request),
        }
    }

    /// Makes the spool sound: damaged parts and what is known of lost messages go to `quarantine/`,
    /// whole messages are written again out of damaged segments, and a new checkpoint is written.
    ///
    /// Call it within a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be written; what was written so far does no harm, and a repair can be repeated.
    pub fn repair(self) -> Result<Repaired, StartError> {
        let Self { spool, examined, _lock } = self;
        let (disk, settings) = (spool.disk.clone(), spool.settings.clone());
        let (done, lost) = repair::repair(&spool, &examined)?;
        drop((spool, examined));
        let (_, after) = read(disk, settings)?;
        Ok(Repaired { done, lost, report: after.report })
    }
}

/// Reads a spool without changing it.
fn read(
    disk: Arc<dyn Disk>,
    settings: Settings,
) -> Result<(Arc<Spool>, examine::Examined), StartError> {
    let (examined, replayed) = examine::examine(&*disk, &settings)?;
    // Nobody hears the orders: only what reads is called.
    let (_unheard, orders) = committer::channel();
    let means = Means { disk, clock: Arc::new(SystemClock), metrics: Metrics::new() };
    Ok((Spool::new(settings, means, replayed, orders), examined))
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StartError + use<> {
    let path = path.to_owned();
    move |source| StartError::Disk { step, path, source }
}
