//! Answers the queue: batches of messages into Maildirs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use lamppost_net::link::{Inbox, Port};
use lamppost_roles::{
    Content, ContentAnswer, ContentRequest, DeliveryAnswer, DeliveryJob, DeliveryRequest, Outcome,
    Placement, Reason,
};
use lamppost_smtp::{Address, Status};
use lamppost_telemetry::Metrics;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::maildir::Maildir;
use crate::relay::Relay;
use crate::{MaildirTemplate, name, trace};

/// Files of a batch that are written, and synced, at the same time.
const WRITERS_PER_BATCH: usize = 8;
/// Bytes of a large content that are read at once.
const PIECE_BYTES: u32 = 256 * 1024;

/// What delivery is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Maildirs are.
    pub maildir: MaildirTemplate,
    /// This host's name, as part of file names.
    pub hostname: String,
    /// Threads that write files at once, over all batches.
    pub writers_max: usize,
    /// The way to elsewhere.
    pub relay: Relay,
}

/// Answers the queue until it is gone.
pub async fn run(
    settings: Settings,
    metrics: Arc<Metrics>,
    mut inbox: Inbox<DeliveryRequest, DeliveryAnswer>,
    content: Port<ContentRequest, ContentAnswer>,
) {
    let writers = Arc::new(Semaphore::new(settings.writers_max));
    let delivery = Arc::new(Delivery { settings, metrics, content, writers });
    while let Some((request, reply)) = inbox.next().await {
        let delivery = delivery.clone();
        tokio::spawn(async move {
            let outcomes = match request {
                DeliveryRequest::Prepare(jobs) => delivery.prepare(jobs).await,
                DeliveryRequest::Publish(placements) => delivery.publish(placements).await,
                DeliveryRequest::Relay(jobs) => {
                    let Delivery { settings, content, metrics, .. } = &*delivery;
                    settings.relay.deliver(jobs, content.clone(), metrics).await
                }
            };
            reply.send(DeliveryAnswer(outcomes));
        });
    }
}

struct Delivery {
    settings: Settings,
    metrics: Arc<Metrics>,
    content: Port<ContentRequest, ContentAnswer>,
    writers: Arc<Semaphore>,
}

impl Delivery {
    /// Writes the files of a batch, several at a time so that their syncs share the disk's journal,
    /// then makes their names durable, once for each Maildir.
    async fn prepare(self: &Arc<Self>, jobs: Vec<DeliveryJob>) -> Vec<Outcome> {
        let mailboxes: Vec<_> = jobs.iter().map(|job| job.placement.mailbox.clone()).collect();
        let share = jobs.len().div_ceil(WRITERS_PER_BATCH).max(1);
        let mut jobs = jobs.into_iter();
        let mut writing = Vec::new();
        loop {
            let some: Vec<_> = jobs.by_ref().take(share).collect();
            if some.is_empty() {
                break;
            }
            writing.push(self.block(some.len(), move |delivery| {
                some.iter().map(|job| delivery.write(job)).collect()
            }));
        }
        let mut outcomes = Vec::new();
        for written in writing {
            outcomes.extend(written.await);
        }
        self.sync(mailboxes, outcomes, Maildir::sync_tmp).await
    }

    async fn publish(self: &Arc<Self>, placements: Vec<Placement>) -> Vec<Outcome> {
        let mailboxes: Vec<_> = placements.iter().map(|place| place.mailbox.clone()).collect();
        let rename = move |delivery: &Self| {
            let renamed = placements.iter().map(|placement| {
                let name = name::file_name(placement, &delivery.settings.hostname);
                done_or_deferred(delivery.maildir(&placement.mailbox).publish(&name))
            });
            renamed.collect()
        };
        let outcomes = self.block(mailboxes.len(), rename).await;
        let outcomes = self.sync(mailboxes, outcomes, Maildir::sync_new).await;
        for outcome in &outcomes {
            self.count(outcome, "delivered");
        }
        outcomes
    }

    /// Syncs a folder of each Maildir in which something was done; where that fails, nothing was.
    async fn sync(
        self: &Arc<Self>,
        mailboxes: Vec<Address>,
        outcomes: Vec<Outcome>,
        sync: impl Fn(&Maildir) -> Result<(), crate::maildir::MaildirError> + Send + 'static,
    ) -> Vec<Outcome> {
        let count = outcomes.len();
        self.block(count, move |delivery| {
            let mut synced: HashMap<Address, Outcome> = HashMap::new();
            let outcomes = outcomes.into_iter().zip(mailboxes).map(|(outcome, mailbox)| {
                if outcome != Outcome::Done {
                    delivery.count(&outcome, "");
                    return outcome;
                }
                let synced = synced.entry(mailbox).or_insert_with_key(|mailbox| {
                    done_or_deferred(sync(&delivery.maildir(mailbox)))
                });
                synced.clone()
            });
            outcomes.collect()
        })
        .await
    }

    /// Runs file operations on a thread that may block, when one of the writers is free.
    fn block(
        self: &Arc<Self>,
        count: usize,
        work: impl FnOnce(&Self) -> Vec<Outcome> + Send + 'static,
    ) -> impl Future<Output = Vec<Outcome>> + 'static {
        let delivery = self.clone();
        let running = tokio::spawn(async move {
            let writer = delivery.writers.clone().acquire_owned().await;
            let blocking = tokio::task::spawn_blocking(move || {
                let outcomes = work(&delivery);
                drop(writer);
                outcomes
            });
            blocking.await
        });
        async move {
            match running.await {
                Ok(Ok(outcomes)) => outcomes,
                Ok(Err(error)) | Err(error) => {
                    let reason = Reason::own(Status::SYSTEM, error.to_string());
                    vec![Outcome::Deferred(reason); count]
                }
            }
        }
    }

    fn maildir(&self, mailbox: &Address) -> Maildir {
        Maildir::new(self.settings.maildir.path(mailbox))
    }

    /// Writes one file into `tmp/`.
    fn write(&self, job: &DeliveryJob) -> Outcome {
        let first = match self.first_piece(job) {
            Ok(first) => first,
            Err(reason) => return Outcome::Deferred(Reason::own(Status::SYSTEM, reason)),
        };
        if trace::is_loop(&first, &job.recipient) {
            let text =
                format!("the message was delivered to {} before: it is in a loop", job.recipient);
            return Outcome::Failed(Reason::own(Status::LOOP, text));
        }
        let maildir = self.maildir(&job.placement.mailbox);
        let name = name::file_name(&job.placement, &self.settings.hostname);
        let lines = trace::lines(job);
        let written = maildir.create().and_then(|()| {
            maildir.write(&name, |file| {
                write_both(file, lines.as_bytes(), &first)?;
                self.write_rest(file, job, first.len() as u64)
            })
        });
        done_or_deferred(written)
    }

    fn first_piece(&self, job: &DeliveryJob) -> Result<bytes::Bytes, String> {
        match &job.content {
            Content::Inline(content) => Ok(content.clone()),
            Content::Aside { .. } => self.piece(job, 0),
        }
    }

    /// Writes what comes after the first piece of a large content, piece by piece.
    fn write_rest(&self, file: &mut File, job: &DeliveryJob, from: u64) -> io::Result<()> {
        let Content::Aside { length } = job.content else {
            return Ok(());
        };
        let mut at = from;
        while at < length {
            let piece = self.piece(job, at).map_err(io::Error::other)?;
            if piece.is_empty() {
                return Err(io::Error::other("the message is shorter than the queue says"));
            }
            file.write_all(&piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn piece(&self, job: &DeliveryJob, offset: u64) -> Result<bytes::Bytes, String> {
        let request = ContentRequest { id: job.placement.id, offset, length_max: PIECE_BYTES };
        match Handle::current().block_on(self.content.ask(request)) {
            Ok(ContentAnswer::Piece(piece)) => Ok(piece),
            Ok(ContentAnswer::Failed(reason)) => Err(reason),
            Err(gone) => Err(gone.to_string()),
        }
    }

    fn count(&self, outcome: &Outcome, done: &'static str) {
        match outcome {
            Outcome::Done => self.metrics.delivery(done),
            Outcome::Deferred(_) => self.metrics.delivery("deferred"),
            Outcome::Failed(_) => self.metrics.delivery("failed"),
        }
    }
}

fn done_or_deferred<E: std::fmt::Display>(result: Result<(), E>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Deferred(Reason::own(Status::SYSTEM, error.to_string())),
    }
}

fn write_both(file: &mut File, lines: &[u8], content: &[u8]) -> io::Result<()> {
    let mut slices = &mut [IoSlice::new(lines), IoSlice::new(content)][..];
    while !slices.is_empty() {
        let written = file.write_vectored(slices)?;
        if written == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lamppost_net::link::{carry_answers, carry_questions, link};
    use lamppost_roles::QueueId;

    use super::*;
    use crate::trace::tests::job;

    /// A delivery role at the other end of a socket, as between processes.
    fn role(
        folder: &std::path::Path,
        aside: &'static [u8],
    ) -> Port<DeliveryRequest, DeliveryAnswer> {
        let template = format!("{}/{{domain}}/{{local}}", folder.display());
        let settings = Settings {
            maildir: MaildirTemplate::new(template).unwrap(),
            hostname: "mail.lamppost.test".into(),
            writers_max: 4,
            relay: Relay::default(),
        };
        let (content, mut contents) = link::<ContentRequest, ContentAnswer>();
        tokio::spawn(async move {
            while let Some((ContentRequest { offset, length_max, .. }, reply)) =
                contents.next().await
            {
                let rest = &aside[usize::try_from(offset).unwrap().min(aside.len())..];
                let piece = &rest[..rest.len().min(length_max as usize)];
                reply.send(ContentAnswer::Piece(Bytes::from_static(piece)));
            }
        });
        let (port, asked) = link();
        let (here, there) = tokio::net::UnixStream::pair().unwrap();
        let (far_port, far_inbox) = link();
        tokio::spawn(carry_questions(asked, here));
        tokio::spawn(carry_answers(far_port, there));
        tokio::spawn(run(settings, Metrics::new(), far_inbox, content));
        port
    }

    async fn prepare(
        port: &Port<DeliveryRequest, DeliveryAnswer>,
        jobs: Vec<DeliveryJob>,
    ) -> Vec<Outcome> {
        port.ask(DeliveryRequest::Prepare(jobs)).await.unwrap().0
    }

    async fn publish(
        port: &Port<DeliveryRequest, DeliveryAnswer>,
        jobs: &[DeliveryJob],
    ) -> Vec<Outcome> {
        let placements = jobs.iter().map(|job| job.placement.clone()).collect();
        port.ask(DeliveryRequest::Publish(placements)).await.unwrap().0
    }

    fn delivered(folder: &std::path::Path) -> Vec<Vec<u8>> {
        let new = folder.join("lamppost.test/demo/new");
        let files = std::fs::read_dir(new).unwrap();
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_batch_arrives_whole() {
        let folder = tempfile::tempdir().unwrap();
        let port = role(folder.path(), b"");
        let jobs: Vec<_> = (1..=50).map(|id| job(id, b"Subject: x\n\nbody\n")).collect();
        assert_eq!(prepare(&port, jobs.clone()).await, vec![Outcome::Done; 50]);
        assert_eq!(publish(&port, &jobs).await, vec![Outcome::Done; 50]);
        let delivered = delivered(folder.path());
        assert_eq!(delivered.len(), 50);
        for message in delivered {
            assert!(message.starts_with(b"Return-Path: <sender@elsewhere.test>\nDelivered-To: "));
            assert!(message.ends_with(b"Subject: x\n\nbody\n"));
        }
    }

    #[tokio::test]
    async fn a_repeated_delivery_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let port = role(folder.path(), b"");
        let jobs = vec![job(1, b"Subject: x\n\nbody\n")];
        for _ in 0..2 {
            // A crash before the intent: prepared again, over the file of the first try.
            assert_eq!(prepare(&port, jobs.clone()).await, [Outcome::Done]);
        }
        assert_eq!(publish(&port, &jobs).await, [Outcome::Done]);
        // A crash before the outcome: published again.
        assert_eq!(publish(&port, &jobs).await, [Outcome::Done]);
        assert_eq!(delivered(folder.path()).len(), 1);
    }

    #[tokio::test]
    async fn a_large_content_comes_in_pieces() {
        static LARGE: [u8; 700_001] = [b'x'; 700_001];
        let folder = tempfile::tempdir().unwrap();
        let port = role(folder.path(), &LARGE);
        let large = |length| DeliveryJob { content: Content::Aside { length }, ..job(1, b"") };
        assert_eq!(prepare(&port, vec![large(700_001)]).await, [Outcome::Done]);
        publish(&port, &[large(700_001)]).await;
        assert!(delivered(folder.path())[0].ends_with(&LARGE));
        let short = prepare(&port, vec![large(700_002)]).await;
        assert!(matches!(&short[0], Outcome::Deferred(reason) if reason.text.contains("shorter")));
    }

    #[tokio::test]
    async fn one_bad_mailbox_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("lamppost.test")).unwrap();
        std::fs::write(folder.path().join("lamppost.test/blocked"), "in the way").unwrap();
        let port = role(folder.path(), b"");
        let mut blocked = job(2, b"x\n");
        blocked.placement.mailbox = "blocked@lamppost.test".parse().unwrap();
        let looping = job(3, b"Delivered-To: demo@lamppost.test\n\n");
        let outcomes = prepare(&port, vec![job(1, b"x\n"), blocked, looping]).await;
        assert_eq!(outcomes[0], Outcome::Done);
        assert!(
            matches!(&outcomes[1], Outcome::Deferred(reason) if reason.text.contains("blocked"))
        );
        assert!(matches!(&outcomes[2], Outcome::Failed(reason) if reason.text.contains("loop")));
        assert_eq!(QueueId(1), job(1, b"").placement.id);
    }
}
