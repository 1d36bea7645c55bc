//! The delivery role of the simulation: Maildirs on the simulated disk, in the order of
//! docs/concepts/delivery.md; and the reader, who moves, flags and deletes what lies there.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lamppost_disk::Disk;
use lamppost_net::link::{Inbox, Port};
use lamppost_roles::{
    Content, ContentAnswer, ContentRequest, DeliveryAnswer, DeliveryJob, DeliveryRequest, Outcome,
    Placement, Reason, RelayJob,
};
use lamppost_sim::{Lot, SimulatedDisk};
use lamppost_smtp::Status;
use parking_lot::Mutex;

use crate::story::{Fact, Facts};

/// Nobody has this mailbox.
pub(crate) const GONE: &str = "gone";

/// The delivery role.
#[derive(Clone)]
pub(crate) struct Deliveries {
    pub(crate) disk: SimulatedDisk,
    pub(crate) root: PathBuf,
    pub(crate) content: Port<ContentRequest, ContentAnswer>,
    pub(crate) facts: Facts,
    /// Draws what is put off; nothing when everything is to succeed.
    pub(crate) lot: Option<Arc<Mutex<Lot>>>,
}

impl Deliveries {
    pub(crate) async fn run(self, mut inbox: Inbox<DeliveryRequest, DeliveryAnswer>) {
        while let Some((request, reply)) = inbox.next().await {
            let this = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(this.draw(20))).await;
                let outcomes = match request {
                    DeliveryRequest::Prepare(jobs) => this.prepare(jobs).await,
                    DeliveryRequest::Publish(placements) => this.publish(&placements).await,
                    DeliveryRequest::Relay(jobs) => this.relay(&jobs),
                };
                tokio::time::sleep(Duration::from_millis(this.draw(20))).await;
                reply.send(DeliveryAnswer(outcomes));
            });
        }
    }

    fn draw(&self, bound: u64) -> u64 {
        self.lot.as_ref().map_or(0, |lot| lot.lock().below(bound))
    }

    fn is_put_off(&self) -> bool {
        self.lot.as_ref().is_some_and(|lot| lot.lock().one_in(5))
    }

    async fn prepare(&self, jobs: Vec<DeliveryJob>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for job in &jobs {
            let written = match self.content(job).await {
                _ if job.placement.mailbox.as_str().starts_with(GONE) => {
                    Outcome::Failed(Reason::own(Status::NO_MAILBOX, "no such mailbox"))
                }
                _ if self.is_put_off() => later("busy"),
                Ok(content) => done(self.write(&job.placement, &content)),
                Err(reason) => later(&reason),
            };
            outcomes.push(written);
            tokio::task::yield_now().await;
        }
        for (job, outcome) in jobs.iter().zip(&mut outcomes) {
            let tmp = self.mailbox(&job.placement).join("tmp");
            if *outcome == Outcome::Done {
                *outcome = done(self.disk.sync_folder(&tmp));
            }
        }
        outcomes
    }

    async fn content(&self, job: &DeliveryJob) -> Result<Vec<u8>, String> {
        let length = match &job.content {
            Content::Inline(content) => return Ok(content.to_vec()),
            Content::Aside { length } => *length,
        };
        let mut content = Vec::new();
        while (content.len() as u64) < length {
            let (id, offset) = (job.placement.id, content.len() as u64);
            let request = ContentRequest { id, offset, length_max: 700 };
            match self.content.ask(request).await {
                Ok(ContentAnswer::Piece(piece)) if !piece.is_empty() => content.extend(&piece[..]),
                other => return Err(format!("{other:?}")),
            }
        }
        Ok(content)
    }

    fn write(&self, placement: &Placement, content: &[u8]) -> io::Result<()> {
        let mailbox = self.mailbox(placement);
        for part in ["tmp", "new", "cur"] {
            self.disk.create_folder(&mailbox.join(part))?;
        }
        // Whether an earlier try has synced them is not known, so they are synced each time.
        for folder in mailbox.ancestors().take(3) {
            self.disk.sync_folder(folder)?;
        }
        let mut file = self.disk.create(&mailbox.join("tmp").join(name(placement)))?;
        file.write_at(0, &mut [IoSlice::new(content)])?;
        file.sync()
    }

    async fn publish(&self, placements: &[Placement]) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for placement in placements {
            let (mailbox, name) = (self.mailbox(placement), name(placement));
            let (tmp, new) = (mailbox.join("tmp"), mailbox.join("new"));
            let renamed = match self.disk.rename(&tmp.join(&name), &new.join(&name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.disk.look(&tmp).and_then(|there| there.map(drop).ok_or(error))
                }
                renamed => renamed,
            };
            outcomes.push(done(renamed));
            tokio::task::yield_now().await;
        }
        for (placement, outcome) in placements.iter().zip(&mut outcomes) {
            let mailbox = self.mailbox(placement);
            let sync = |part| self.disk.sync_folder(&mailbox.join(part));
            if *outcome == Outcome::Done {
                *outcome = done(sync("new").and_then(|()| sync("tmp")));
            }
            tokio::task::yield_now().await;
        }
        outcomes
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

    fn mailbox(&self, placement: &Placement) -> PathBuf {
        let (local, _) = placement.mailbox.as_str().split_once('@').unwrap();
        self.root.join("mail").join(local)
    }
}

/// The name of a message's file: of its id and its recipient alone.
fn name(placement: &Placement) -> String {
    format!("{}-{}", placement.id, placement.index)
}

fn later(text: &str) -> Outcome {
    Outcome::Deferred(Reason::own(Status::SYSTEM, text))
}

fn done(result: io::Result<()>) -> Outcome {
    result.map_or_else(|error| later(&error.to_string()), |()| Outcome::Done)
}

/// Reads mail for a while: looks into mailboxes, moves what is new, flags it, deletes it. The
/// mailboxes of senders, where bounces come, stay as they are.
pub(crate) async fn read(disk: SimulatedDisk, root: PathBuf, mut lot: Lot) {
    loop {
        tokio::time::sleep(Duration::from_millis(10 + lot.below(300))).await;
        let mailbox = root.join("mail").join(format!("m{}", lot.below(3)));
        // What the disk refuses now, the reader does another time.
        let _refused = read_one(&disk, &mailbox, &mut lot);
    }
}

fn read_one(disk: &SimulatedDisk, mailbox: &Path, lot: &mut Lot) -> io::Result<()> {
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
