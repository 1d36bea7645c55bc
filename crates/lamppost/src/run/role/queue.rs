//! The queue: the sole owner of the spool.

use std::sync::Arc;
use std::time::Duration;

use lamppost_net::SystemClock;
use lamppost_queue::{Ends, Queue};
use tracing::error;

use super::{Start, handed};
use crate::exit::{Code, Failure};
use crate::run::settings;
use crate::run::setup::{NamedBy, Setup};
use crate::state_files::folder_failure;

/// The queue at work.
pub(super) struct Running(Queue);

pub(super) async fn begin(mut start: Start) -> Result<Running, Failure> {
    start.inspected(|condition| condition)?;
    let ends = ends(&mut start)?;
    let setup = &start.setup;
    let mut settings = settings::queue(&start.config, &setup.state, &setup.hostname);
    // Whoever ended this process alone would see it begin again.
    let supervisor = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    settings.reading = start.reading.clone();
    settings.is_paused = start.is_paused;
    settings.program = supervisor.and_then(|pid| pid.try_into().ok()).unwrap_or(settings.program);
    let queue = Queue::start(settings, Arc::new(SystemClock), start.metrics.clone(), ends).await;
    queue.map(Running).map_err(|error| unstarted(&error, &start.setup))
}

/// Why the queue did not start; a folder that does not do is told with who named it.
fn unstarted(error: &lamppost_queue::StartError, setup: &Setup) -> Failure {
    match error {
        lamppost_queue::StartError::Volatile { .. } => {}
        lamppost_queue::StartError::Disk { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            return folder_failure(&setup.state.join("spool"), error);
        }
        _ => return Failure::of(Code::Unavailable, error),
    }
    let cure = match &setup.state_named_by {
        NamedBy::CommandLine => "name a folder on a disk with --state".to_owned(),
        NamedBy::File(place) => format!("`state` at {place} names the folder: name one on a disk"),
        NamedBy::Nobody => {
            "name a folder on a disk: `state` in [server], or --state DIR".to_owned()
        }
    };
    Failure::of(Code::Config, error).cure(cure)
}

fn ends(start: &mut Start) -> Result<Ends, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::of(Code::Software, error);
    let links = &mut start.links;
    let (joint, intake) = links.joint(&["intake", "imports"]).map_err(|error| failed(&error))?;
    let later = links.one("handed").map_err(|error| failed(&error))?;
    handed::receive(later, move |_, end| {
        if let Err(reason) = joint.join("intake", end) {
            error!(%reason, "a new front cannot hand in mail");
        }
    })
    .map_err(|error| failed(&error))?;
    Ok(Ends {
        intake,
        control: links.inbox("control").map_err(|error| failed(&error))?,
        content: links.inbox("content").map_err(|error| failed(&error))?,
        delivery: links.port("delivery").map_err(|error| failed(&error))?,
        routing: links.port("routes").map_err(|error| failed(&error))?,
    })
}

impl Running {
    /// Hands out no delivery for a while, or hands them out again.
    pub(super) fn pause(&self, is_paused: bool) {
        self.0.pause(is_paused);
    }

    /// Lets deliveries finish and makes everything durable.
    pub(super) async fn finish(self, grace: Duration) {
        self.0.stop(grace).await;
    }
}
