//! Answers the queue: batches of messages into Maildirs, and messages for elsewhere.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lamppost_disk::{Blocking, Disk};
use lamppost_net::link::{Inbox, Port};
use lamppost_roles::{
    ContentAnswer, ContentRequest, DeliveryAnswer, DeliveryJob, DeliveryRequest, Outcome, Placement,
};
use lamppost_smtp::Address;
use lamppost_telemetry::{Health, Metrics};

use crate::MaildirTemplate;
use crate::mailboxes::{Mailboxes, deferred};
use crate::owners::Owners;
use crate::relay::Relay;
use crate::sync::Way;

/// What delivery is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Maildirs are.
    pub maildir: MaildirTemplate,
    /// This host's name, as part of file names.
    pub hostname: String,
    /// Threads that write files at once, over all batches.
    pub writers_max: usize,
    /// Where work that blocks is done.
    pub blocking: Blocking,
    /// How long a Maildir may take for one step until it is one that does not answer.
    pub patience: Duration,
    /// Mailboxes that may be without an answer at once.
    pub silent_max: usize,
    /// Where it is told which Maildirs do not answer.
    pub health: Health,
    /// How batches are made durable; nothing for whatever is measured to be better.
    pub way: Option<Way>,
    /// The way to elsewhere.
    pub relay: Relay,
    /// Users of this machine who get mail at home, if any do.
    pub owners: Option<Owners>,
}

/// Answers the queue until it is gone.
pub async fn run(
    settings: Settings,
    disk: Arc<dyn Disk>,
    metrics: Arc<Metrics>,
    mut inbox: Inbox<DeliveryRequest, DeliveryAnswer>,
    content: Port<ContentRequest, ContentAnswer>,
) {
    let (relay, owners) = (settings.relay.clone(), settings.owners.clone());
    let mailboxes = Arc::new(Mailboxes::new(settings, disk, metrics.clone(), content.clone()));
    while let Some((request, reply)) = inbox.next().await {
        let (mailboxes, relay, owners) = (mailboxes.clone(), relay.clone(), owners.clone());
        let (content, metrics) = (content.clone(), metrics.clone());
        tokio::spawn(async move {
            let outcomes = match request {
                DeliveryRequest::Prepare(jobs) => {
                    let prepare = async |own| mailboxes.prepare(own).await;
                    spread(jobs, owners.as_ref(), prepare, &metrics).await
                }
                DeliveryRequest::Publish(placements) => {
                    let publish = async |own| mailboxes.publish(own).await;
                    spread(placements, owners.as_ref(), publish, &metrics).await
                }
                DeliveryRequest::Relay(jobs) => relay.deliver(jobs, content, &metrics).await,
            };
            reply.send(DeliveryAnswer(outcomes));
        });
    }
}

/// An entry of a batch.
trait Entry: Sized {
    fn mailbox(&self) -> &Address;
    fn request(entries: Vec<Self>) -> DeliveryRequest;
    /// Counts what a user's process made of it.
    fn count(metrics: &Metrics, outcome: &Outcome);
}

impl Entry for DeliveryJob {
    fn mailbox(&self) -> &Address {
        &self.placement.mailbox
    }

    fn request(entries: Vec<Self>) -> DeliveryRequest {
        DeliveryRequest::Prepare(entries)
    }

    fn count(metrics: &Metrics, outcome: &Outcome) {
        if *outcome != Outcome::Done {
            count(metrics, outcome, "");
        }
    }
}

impl Entry for Placement {
    fn mailbox(&self) -> &Address {
        &self.mailbox
    }

    fn request(entries: Vec<Self>) -> DeliveryRequest {
        DeliveryRequest::Publish(entries)
    }

    fn count(metrics: &Metrics, outcome: &Outcome) {
        count(metrics, outcome, "delivered");
    }
}

/// Has a batch carried out: what lies in homes by the processes of their users, the rest by this role.
async fn spread<E: Entry>(
    entries: Vec<E>,
    owners: Option<&Owners>,
    own: impl AsyncFnOnce(Vec<E>) -> Vec<Outcome>,
    metrics: &Metrics,
) -> Vec<Outcome> {
    let Some(owners) = owners else { return own(entries).await };
    let mut outcomes = vec![None; entries.len()];
    let mut rest = (Vec::new(), Vec::new());
    let mut homes: HashMap<Address, (Vec<usize>, Vec<E>)> = HashMap::new();
    for (place, entry) in entries.into_iter().enumerate() {
        let (places, some) = if owners.is_theirs(entry.mailbox()) {
            homes.entry(entry.mailbox().clone()).or_default()
        } else {
            &mut rest
        };
        places.push(place);
        some.push(entry);
    }
    let (mut places, mut requests) = (Vec::new(), Vec::new());
    for (mailbox, (those, some)) in homes {
        requests.push((mailbox, some.len(), E::request(some)));
        places.push(those);
    }
    let is_alone = requests.len() == 1 && rest.1.is_empty();
    let (in_homes, others) = tokio::join!(owners.deliver(requests, is_alone), own(rest.1));
    for outcome in in_homes.iter().flatten() {
        E::count(metrics, outcome);
    }
    let of_homes = places.into_iter().flatten().zip(in_homes.into_iter().flatten());
    for (place, outcome) in of_homes.chain(rest.0.into_iter().zip(others)) {
        outcomes[place] = Some(outcome);
    }
    let lost = || deferred("nobody delivered it");
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
}

/// Counts outcomes; `done` names a success.
pub(crate) fn count(metrics: &Metrics, outcome: &Outcome, done: &'static str) {
    match outcome {
        Outcome::Done => metrics.delivery(done),
        Outcome::Deferred(_) => metrics.delivery("deferred"),
        Outcome::Failed(_) => metrics.delivery("failed"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lamppost_disk::RealDisk;
    use lamppost_net::link::{carry_answers, carry_questions, link};
    use lamppost_roles::{Content, QueueId};

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
            blocking: Blocking::Threads,
            patience: Duration::from_secs(20),
            silent_max: 16,
            health: Health::default(),
            way: None,
            relay: Relay::default(),
            owners: None,
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
        tokio::spawn(run(settings, Arc::new(RealDisk), Metrics::new(), far_inbox, content));
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
