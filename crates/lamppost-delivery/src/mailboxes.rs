//! Batches of messages into Maildirs.

use std::collections::HashMap;
use std::sync::Arc;

use lamppost_disk::{Blocking, Disk};
use lamppost_net::link::Port;
use lamppost_roles::{
    Content, ContentAnswer, ContentRequest, DeliveryJob, Outcome, Placement, Reason,
};
use lamppost_smtp::{Address, Status};
use lamppost_telemetry::Metrics;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::maildir::{Draft, Maildir, MaildirError};
use crate::run::{Settings, count};
use crate::sync::{Choice, Way};
use crate::{name, trace};

/// Files of a batch that are written, and each synced, at the same time.
const WRITERS_PER_BATCH: usize = 8;
/// Bytes of a large content that are read at once.
const PIECE_BYTES: u32 = 256 * 1024;

/// The Maildirs of all accounts.
pub(crate) struct Mailboxes {
    settings: Settings,
    disk: Arc<dyn Disk>,
    metrics: Arc<Metrics>,
    content: Port<ContentRequest, ContentAnswer>,
    writers: Arc<Semaphore>,
    /// How files in `tmp/` are made durable, and how their names in `new/` are.
    choices: [Choice; 2],
}

/// The two steps of a delivery.
#[derive(Clone, Copy)]
enum Step {
    Prepare,
    Publish,
}

impl Mailboxes {
    pub(crate) fn new(
        settings: Settings,
        disk: Arc<dyn Disk>,
        metrics: Arc<Metrics>,
        content: Port<ContentRequest, ContentAnswer>,
    ) -> Self {
        let writers = Arc::new(Semaphore::new(settings.writers_max));
        Self { settings, disk, metrics, content, writers, choices: Default::default() }
    }

    fn way(&self, step: Step, count: usize) -> Way {
        self.settings.way.unwrap_or_else(|| self.choices[step as usize].way(count))
    }

    /// Writes the files of a batch into `tmp/` and makes them and their names durable.
    pub(crate) async fn prepare(self: &Arc<Self>, jobs: Vec<DeliveryJob>) -> Vec<Outcome> {
        let begun = Instant::now();
        let files = jobs.len();
        let way = self.way(Step::Prepare, files);
        let boxes: Vec<_> = jobs.iter().map(|job| job.placement.mailbox.clone()).collect();
        let outcomes = self.write_all(jobs, way).await;
        let outcomes = self.sync(boxes, outcomes, (Step::Prepare, way)).await;
        self.choices[Step::Prepare as usize].measured(way, files, begun.elapsed());
        outcomes
    }

    /// Renames the files of a batch into `new/` and makes that durable.
    pub(crate) async fn publish(self: &Arc<Self>, placements: Vec<Placement>) -> Vec<Outcome> {
        let boxes: Vec<_> = placements.iter().map(|place| place.mailbox.clone()).collect();
        let folders = distinct(&boxes);
        let rename = move |mailboxes: &Self| {
            let renamed = placements.iter().map(|placement| {
                let name = name::file_name(placement, &mailboxes.settings.hostname);
                done_or_deferred(mailboxes.maildir(&placement.mailbox).publish(&name))
            });
            renamed.collect()
        };
        let outcomes = self.block(boxes.len(), rename).await;
        let way = self.way(Step::Publish, folders);
        let begun = Instant::now();
        let outcomes = self.sync(boxes, outcomes, (Step::Publish, way)).await;
        self.choices[Step::Publish as usize].measured(way, folders, begun.elapsed());
        for outcome in &outcomes {
            count(&self.metrics, outcome, "delivered");
        }
        outcomes
    }

    /// Writes files, those whose contents are at hand several at a time.
    async fn write_all(self: &Arc<Self>, jobs: Vec<DeliveryJob>, way: Way) -> Vec<Outcome> {
        let count = jobs.len();
        let (large, small): (Vec<_>, Vec<_>) = jobs
            .into_iter()
            .enumerate()
            .partition(|(_, job)| matches!(job.content, Content::Aside { .. }));
        // Without a sync of their own, files are made so fast that threads would only stand in each
        // other's way.
        let writers = if way == Way::Each { WRITERS_PER_BATCH } else { 1 };
        let share = small.len().div_ceil(writers).max(1);
        let mut outcomes = vec![None; count];
        let mut writing = Vec::new();
        let mut small = small.into_iter().peekable();
        while small.peek().is_some() {
            let (places, some): (Vec<_>, Vec<_>) = small.by_ref().take(share).unzip();
            let write =
                move |mailboxes: &Self| some.iter().map(|job| mailboxes.write(job, way)).collect();
            writing.push((places.clone(), self.block(places.len(), write)));
        }
        for (place, job) in large {
            let outcome = self.write_large(job, way).await;
            if let Some(slot) = outcomes.get_mut(place) {
                *slot = Some(outcome.unwrap_or_else(|outcome| outcome));
            }
        }
        for (places, written) in writing {
            for (place, outcome) in places.into_iter().zip(written.await) {
                if let Some(slot) = outcomes.get_mut(place) {
                    *slot = Some(outcome);
                }
            }
        }
        let lost = || deferred("the file was not written");
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
    }

    /// Writes one file whose content is at hand.
    fn write(&self, job: &DeliveryJob, way: Way) -> Outcome {
        let Content::Inline(content) = &job.content else {
            return deferred("the content is not at hand");
        };
        if let Some(outcome) = loops(job, content) {
            return outcome;
        }
        let lines = trace::lines(job);
        let written = self.begin(job).and_then(|mut draft| {
            draft.append(&[lines.as_bytes(), content])?;
            if way == Way::Each { draft.sync() } else { Ok(()) }
        });
        done_or_deferred(written)
    }

    /// Writes one file whose content comes from the queue piece by piece.
    async fn write_large(self: &Arc<Self>, job: DeliveryJob, way: Way) -> Result<Outcome, Outcome> {
        let Content::Aside { length } = job.content else {
            return Ok(deferred("the content is at hand"));
        };
        let mut piece = self.piece(&job, 0).await?;
        if let Some(outcome) = loops(&job, &piece) {
            return Ok(outcome);
        }
        let mut at = piece.len() as u64;
        let mut draft = {
            let (mailboxes, job) = (self.clone(), job.clone());
            self.blocked(move || {
                let lines = trace::lines(&job);
                let mut draft = mailboxes.begin(&job)?;
                draft.append(&[lines.as_bytes(), &piece])?;
                Ok(draft)
            })
            .await?
        };
        while at < length {
            piece = self.piece(&job, at).await?;
            if piece.is_empty() {
                return Ok(deferred("the message is shorter than the queue says"));
            }
            at += piece.len() as u64;
            draft = self.blocked(move || draft.append(&[&piece]).map(|()| draft)).await?;
        }
        if way == Way::Each {
            self.blocked(move || draft.sync()).await?;
        }
        Ok(Outcome::Done)
    }

    async fn piece(&self, job: &DeliveryJob, offset: u64) -> Result<bytes::Bytes, Outcome> {
        let request = ContentRequest { id: job.placement.id, offset, length_max: PIECE_BYTES };
        match self.content.ask(request).await {
            Ok(ContentAnswer::Piece(piece)) => Ok(piece),
            Ok(ContentAnswer::Failed(reason)) => Err(deferred(reason)),
            Err(gone) => Err(deferred(gone.to_string())),
        }
    }

    fn begin(&self, job: &DeliveryJob) -> Result<Draft, MaildirError> {
        let name = name::file_name(&job.placement, &self.settings.hostname);
        self.maildir(&job.placement.mailbox).begin(&name)
    }

    /// Makes durable what was done in a batch; where that fails, nothing was done.
    async fn sync(
        self: &Arc<Self>,
        boxes: Vec<Address>,
        outcomes: Vec<Outcome>,
        (step, way): (Step, Way),
    ) -> Vec<Outcome> {
        let count_of = outcomes.len();
        let sync = move |mailboxes: &Self| {
            // By mailbox, or by the number of its file system.
            let mut synced: HashMap<Address, Outcome> = HashMap::new();
            let mut file_systems: HashMap<Option<u64>, Outcome> = HashMap::new();
            let outcomes = outcomes.into_iter().zip(boxes).map(|(outcome, mailbox)| {
                if outcome != Outcome::Done {
                    count(&mailboxes.metrics, &outcome, "");
                    return outcome;
                }
                let synced = synced.entry(mailbox).or_insert_with_key(|mailbox| {
                    let maildir = mailboxes.maildir(mailbox);
                    mailboxes.metrics.delivery_sync(way.name());
                    match (way, step) {
                        (Way::Each, Step::Prepare) => done_or_deferred(maildir.sync_tmp()),
                        (Way::Each, Step::Publish) => done_or_deferred(maildir.sync_new()),
                        (Way::FileSystem, _) => file_systems
                            .entry(maildir.device())
                            .or_insert_with(|| done_or_deferred(maildir.sync_file_system()))
                            .clone(),
                    }
                });
                synced.clone()
            });
            outcomes.collect()
        };
        self.block(count_of, sync).await
    }

    /// Does file operations where they may block, when one of the writers is free.
    fn block(
        self: &Arc<Self>,
        count: usize,
        work: impl FnOnce(&Self) -> Vec<Outcome> + Send + 'static,
    ) -> impl Future<Output = Vec<Outcome>> + Send + 'static {
        let mailboxes = self.clone();
        let blocking = self.settings.blocking;
        let running = async move {
            let writer = mailboxes.writers.clone().acquire_owned().await;
            let worker = mailboxes.clone();
            let outcomes = blocking.run(move || work(&worker)).await;
            drop(writer);
            outcomes.unwrap_or_else(|cut| vec![deferred(cut.to_string()); count])
        };
        // Begun at once, so that several run at the same time.
        let running = match blocking {
            Blocking::Threads => Ok(tokio::spawn(running)),
            Blocking::Inline => Err(running),
        };
        async move {
            match running {
                Ok(spawned) => {
                    spawned.await.unwrap_or_else(|error| vec![deferred(error.to_string()); count])
                }
                Err(inline) => inline.await,
            }
        }
    }

    async fn blocked<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, MaildirError> + Send + 'static,
    ) -> Result<T, Outcome> {
        match self.settings.blocking.run(work).await {
            Ok(done) => done.map_err(|error| put_off(&error)),
            Err(cut) => Err(deferred(cut.to_string())),
        }
    }

    fn maildir(&self, mailbox: &Address) -> Maildir<'_> {
        Maildir::new(&*self.disk, self.settings.maildir.path(mailbox))
    }
}

fn distinct(boxes: &[Address]) -> usize {
    boxes.iter().collect::<std::collections::HashSet<_>>().len()
}

/// The outcome of a message that was delivered to this recipient before.
fn loops(job: &DeliveryJob, first: &[u8]) -> Option<Outcome> {
    trace::is_loop(first, &job.recipient).then(|| {
        let text =
            format!("the message was delivered to {} before: it is in a loop", job.recipient);
        Outcome::Failed(Reason::own(Status::LOOP, text))
    })
}

fn deferred(text: impl Into<String>) -> Outcome {
    Outcome::Deferred(Reason::own(Status::SYSTEM, text))
}

fn done_or_deferred(result: Result<(), MaildirError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) => put_off(&error),
    }
}

fn put_off(error: &MaildirError) -> Outcome {
    Outcome::Deferred(Reason::own(error.status(), error.to_string()))
}
