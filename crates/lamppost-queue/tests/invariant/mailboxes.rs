//! The delivery role of the simulation: the program's own Maildirs on the simulated disk, with trouble
//! that a seed draws in front of them; and the reader, who moves, flags and deletes what lies there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lamppost_delivery::{MaildirTemplate, Relay, Way};
use lamppost_disk::{Blocking, Disk};
use lamppost_net::link::{Inbox, Port, link};
use lamppost_roles::{
    ContentAnswer, ContentRequest, DeliveryAnswer, DeliveryJob, DeliveryRequest, Outcome, QueueId,
    Reason, RelayJob,
};
use lamppost_sim::{Lot, SimulatedDisk};
use lamppost_smtp::Status;
use lamppost_telemetry::Metrics;
use parking_lot::Mutex;

use crate::story::{Fact, Facts};

/// Nobody has this mailbox.
pub(crate) const GONE: &str = "gone";
/// The host's name in names of files.
const HOST: &str = "mail.lamppost.test";

/// Where all Maildirs are: a file system of its own, of which a sync of the spool's says nothing.
pub(crate) fn mail(root: &Path) -> PathBuf {
    root.join("mail")
}

/// The Maildir of a local part.
pub(crate) fn maildir(root: &Path, local: &str) -> PathBuf {
    mail(root).join("lamppost.test").join(local)
}

/// The name of a message's file: of its id and its recipient alone.
pub(crate) fn name(id: QueueId, index: usize) -> String {
    format!("{}.{id}-{index}.{HOST}", id.0 / 1_000_000)
}

/// What stands between the queue and delivery: it draws what is put off, knows of no mailbox that is
/// gone, and is the host for elsewhere.
#[derive(Clone)]
pub(crate) struct Deliveries {
    pub(crate) disk: SimulatedDisk,
    pub(crate) root: PathBuf,
    pub(crate) facts: Facts,
    /// Draws what is put off; nothing when everything is to succeed.
    pub(crate) lot: Option<Arc<Mutex<Lot>>>,
    /// How delivery makes batches durable.
    pub(crate) way: Option<Way>,
}

type Maildirs = Port<DeliveryRequest, DeliveryAnswer>;

impl Deliveries {
    pub(crate) async fn run(
        self,
        mut inbox: Inbox<DeliveryRequest, DeliveryAnswer>,
        content: Port<ContentRequest, ContentAnswer>,
    ) {
        let maildirs = self.maildirs(content);
        while let Some((request, reply)) = inbox.next().await {
            let (this, maildirs) = (self.clone(), maildirs.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(this.draw(20))).await;
                let outcomes = match request {
                    DeliveryRequest::Prepare(jobs) => this.prepare(&maildirs, jobs).await,
                    DeliveryRequest::Publish(_) => ask(&maildirs, request).await,
                    DeliveryRequest::Relay(jobs) => this.relay(&jobs),
                };
                tokio::time::sleep(Duration::from_millis(this.draw(20))).await;
                reply.send(DeliveryAnswer(outcomes));
            });
        }
    }

    /// The program's delivery role on the simulated disk.
    fn maildirs(&self, content: Port<ContentRequest, ContentAnswer>) -> Maildirs {
        let template = format!("{}/{{domain}}/{{local}}", mail(&self.root).display());
        let settings = lamppost_delivery::Settings {
            maildir: MaildirTemplate::new(template).unwrap(),
            hostname: HOST.into(),
            writers_max: 2,
            blocking: Blocking::Inline,
            patience: Duration::from_secs(20),
            silent_max: 16,
            health: lamppost_telemetry::Health::default(),
            way: self.way,
            relay: Relay::default(),
            owners: None,
        };
        let (port, inbox) = link();
        let disk = Arc::new(self.disk.clone());
        tokio::spawn(lamppost_delivery::run(settings, disk, Metrics::new(), inbox, content));
        port
    }

    fn draw(&self, bound: u64) -> u64 {
        self.lot.as_ref().map_or(0, |lot| lot.lock().below(bound))
    }

    fn is_put_off(&self) -> bool {
        self.lot.as_ref().is_some_and(|lot| lot.lock().one_in(5))
    }

    async fn prepare(&self, maildirs: &Maildirs, jobs: Vec<DeliveryJob>) -> Vec<Outcome> {
        let drawn: Vec<_> = jobs.iter().map(|job| self.trouble(job)).collect();
        let jobs = jobs.into_iter().zip(&drawn).filter(|(_, drawn)| drawn.is_none());
        let jobs: Vec<_> = jobs.map(|(job, _)| job).collect();
        let mut answers = if jobs.is_empty() {
            Vec::new()
        } else {
            ask(maildirs, DeliveryRequest::Prepare(jobs)).await
        }
        .into_iter();
        let outcomes = drawn.into_iter().map(|drawn| drawn.or_else(|| answers.next()).unwrap());
        outcomes.collect()
    }

    fn trouble(&self, job: &DeliveryJob) -> Option<Outcome> {
        if job.placement.mailbox.as_str().starts_with(GONE) {
            return Some(Outcome::Failed(Reason::own(Status::NO_MAILBOX, "no such mailbox")));
        }
        self.is_put_off().then(|| later("busy"))
    }

    fn relay(&self, jobs: &[RelayJob]) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for job in jobs {
            for recipient in &job.recipients {
                let put_off = self.is_put_off();
                if !put_off {
                    let fact = Fact::Relayed { id: job.id, to: recipient.to_string() };
                    self.facts.note(&self.disk, fact);
                }
                outcomes.push(if put_off { later("busy") } else { Outcome::Done });
            }
        }
        outcomes
    }
}

async fn ask(maildirs: &Maildirs, request: DeliveryRequest) -> Vec<Outcome> {
    maildirs.ask(request).await.unwrap().0
}

fn later(text: &str) -> Outcome {
    Outcome::Deferred(Reason::own(Status::SYSTEM, text))
}

/// Reads mail for a while: looks into mailboxes, moves what is new, flags it, deletes it. The
/// mailboxes of senders, where bounces come, stay as they are.
pub(crate) async fn read(disk: SimulatedDisk, root: PathBuf, mut lot: Lot) {
    loop {
        tokio::time::sleep(Duration::from_millis(10 + lot.below(300))).await;
        read_one(&disk, &root, &mut lot);
    }
}

/// Does something in a mailbox. What the disk refuses now, the reader does another time.
pub(crate) fn read_one(disk: &SimulatedDisk, root: &Path, lot: &mut Lot) {
    let mailbox = maildir(root, &format!("m{}", lot.below(3)));
    let _refused = touch(disk, &mailbox, lot);
}

fn touch(disk: &SimulatedDisk, mailbox: &Path, lot: &mut Lot) -> io::Result<()> {
    let (new, cur) = (mailbox.join("new"), mailbox.join("cur"));
    let folder = if lot.one_in(3) { &cur } else { &new };
    let there = disk.list(folder)?;
    if !there.is_empty() {
        let path = &there[lot.index(there.len())];
        let name = path.file_name().unwrap().to_str().unwrap();
        match lot.below(3) {
            0 => disk.remove(path)?,
            _ if folder == &new => disk.rename(path, &cur.join(format!("{name}:2,S")))?,
            _ => disk.rename(path, &cur.join(format!("{name}F")))?,
        }
    }
    if lot.one_in(2) {
        disk.sync_folder(&new)?;
        disk.sync_folder(&cur)?;
    }
    Ok(())
}
