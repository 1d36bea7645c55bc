//! Batches of messages into Maildirs.

use std::collections::HashMap;
use std::sync::Arc;

use lamppost_disk::{Blocking, Cut, Disk};
use lamppost_net::link::Port;
use lamppost_roles::{
    Content, ContentAnswer, ContentRequest, DeliveryJob, Outcome, Placement, Reason,
};
use lamppost_smtp::{Address, Status};
use lamppost_telemetry::Metrics;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::maildir::{Draft, Maildir, MaildirError};
use crate::run::{Settings, count};
use crate::silence::{Share, Silence};
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
    silence: Silence,
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
        let silence = Silence::new(settings.silent_max, settings.health.clone());
        Self { settings, disk, metrics, content, writers, silence, choices: Default::default() }
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
        let rename = move |mailboxes: &Self, at: usize| {
            let placement: &Placement = &placements[at];
            let name = name::file_name(placement, &mailboxes.settings.hostname);
            done_or_deferred(mailboxes.maildir(&placement.mailbox).publish(&name))
        };
        let outcomes = self.block(boxes.clone(), rename).await;
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
            let boxes = some.iter().map(|job: &DeliveryJob| job.placement.mailbox.clone());
            let boxes = boxes.collect();
            let write = move |mailboxes: &Self, at: usize| mailboxes.write(&some[at], way);
            writing.push((places, self.block(boxes, write)));
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
        done_or_deferred(written.inspect_err(|_| self.discard(job)))
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
        let mailbox = job.placement.mailbox.clone();
        let mut draft = {
            let (mailboxes, job) = (self.clone(), job.clone());
            self.blocked(&mailbox, move || {
                let lines = trace::lines(&job);
                let mut draft = mailboxes.begin(&job)?;
                let written = draft.append(&[lines.as_bytes(), &piece]);
                written.map(|()| draft).inspect_err(|_| mailboxes.discard(&job))
            })
            .await?
        };
        while at < length {
            piece = self.piece(&job, at).await?;
            if piece.is_empty() {
                return Ok(deferred("the message is shorter than the queue says"));
            }
            at += piece.len() as u64;
            let (mailboxes, job) = (self.clone(), job.clone());
            let append = move || {
                let written = draft.append(&[&piece]);
                written.map(|()| draft).inspect_err(|_| mailboxes.discard(&job))
            };
            draft = self.blocked(&mailbox, append).await?;
        }
        if way == Way::Each {
            self.blocked(&mailbox, move || draft.sync()).await?;
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

    fn discard(&self, job: &DeliveryJob) {
        let name = name::file_name(&job.placement, &self.settings.hostname);
        self.maildir(&job.placement.mailbox).discard(&name);
    }

    /// Makes durable what was done in a batch; where that fails, nothing was done.
    async fn sync(
        self: &Arc<Self>,
        boxes: Vec<Address>,
        outcomes: Vec<Outcome>,
        (step, way): (Step, Way),
    ) -> Vec<Outcome> {
        // By mailbox, or by the number of its file system.
        let mut synced: HashMap<Address, Outcome> = HashMap::new();
        let mut file_systems: HashMap<Option<u64>, Outcome> = HashMap::new();
        let all = boxes.clone();
        let sync = move |mailboxes: &Self, at: usize| {
            if outcomes[at] != Outcome::Done {
                count(&mailboxes.metrics, &outcomes[at], "");
                return outcomes[at].clone();
            }
            let synced = synced.entry(all[at].clone()).or_insert_with_key(|mailbox| {
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
        };
        self.block(boxes, sync).await
    }

    /// Does file operations for each of these mailboxes where they may block, when one of the writers
    /// is free.
    fn block(
        self: &Arc<Self>,
        boxes: Vec<Address>,
        mut unit: impl FnMut(&Self, usize) -> Outcome + Send + 'static,
    ) -> impl Future<Output = Vec<Outcome>> + Send + 'static {
        let (mailboxes, blocking, entries) = (self.clone(), self.settings.blocking, boxes.len());
        let share = Arc::new(Share::new(boxes, self.silence.clone()));
        let running = async move {
            let writer = mailboxes.writers.clone().acquire_owned().await;
            let (worker, shared) = (mailboxes.clone(), share.clone());
            let working = blocking.run(move || shared.work(|entry| unit(&worker, entry)));
            let outcomes = mailboxes.await_share(&share, working).await;
            drop(writer);
            outcomes
        };
        // Begun at once, so that several run at the same time.
        let running = match blocking {
            Blocking::Threads => Ok(tokio::spawn(running)),
            Blocking::Inline => Err(running),
        };
        async move {
            match running {
                Ok(spawned) => {
                    spawned.await.unwrap_or_else(|error| vec![deferred(error.to_string()); entries])
                }
                Err(inline) => inline.await,
            }
        }
    }

    /// Waits until a share is done, or a Maildir in it does not answer.
    async fn await_share(
        &self,
        share: &Share,
        working: impl Future<Output = Result<(), Cut>>,
    ) -> Vec<Outcome> {
        let mut working = std::pin::pin!(working);
        loop {
            let before = share.progress();
            tokio::select! {
                biased;
                done = &mut working => {
                    let cut = done.err().map(|cut| cut.to_string()).unwrap_or_default();
                    return share.outcomes(&deferred(cut));
                }
                () = tokio::time::sleep(self.settings.patience) => {
                    if share.progress() == before && share.give_up() {
                        return share.outcomes(&deferred("it waited behind a Maildir that does not answer"));
                    }
                }
            }
        }
    }

    /// Does something in one Maildir where it may block.
    async fn blocked<T: Send + 'static>(
        &self,
        mailbox: &Address,
        work: impl FnOnce() -> Result<T, MaildirError> + Send + 'static,
    ) -> Result<T, Outcome> {
        let share = Arc::new(Share::new(vec![mailbox.clone()], self.silence.clone()));
        let result = Arc::new(Mutex::new(None));
        let (shared, slot) = (share.clone(), result.clone());
        let mut work = Some(work);
        let unit = move |_| match work.take().map(|work| work()) {
            Some(Ok(done)) => {
                *slot.lock() = Some(done);
                Outcome::Done
            }
            Some(Err(error)) => put_off(&error),
            None => deferred("it was done before"),
        };
        let working = self.settings.blocking.run(move || shared.work(unit));
        let outcome = self.await_share(&share, working).await.pop();
        match (result.lock().take(), outcome) {
            (Some(done), Some(Outcome::Done)) => Ok(done),
            (_, outcome) => Err(outcome.unwrap_or_else(|| deferred("the work was cut short"))),
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

pub(crate) fn deferred(text: impl Into<String>) -> Outcome {
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
