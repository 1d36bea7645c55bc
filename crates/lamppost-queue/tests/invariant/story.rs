//! A story that a seed tells: clients hand in mail, an administrator interferes, the disk fails now
//! and then, and everything that was done to the disk is recorded.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamppost_delivery::Way;
use lamppost_disk::Blocking;
use lamppost_net::link::{Inbox, Port, link};
use lamppost_net::{Clock, TokioClock};
use lamppost_queue::{Ends, Queue, Settings};
use lamppost_roles::{
    ControlAnswer, ControlRequest, Envelope, IntakeAnswer, IntakeRequest, Origin, QueueId,
    Recipient, Route, RouteAnswer, RouteRequest, Selection, Timestamp, Verb,
};
use lamppost_sim::{Lie, Lot, SimulatedDisk};
use lamppost_smtp::ReversePath;
use lamppost_telemetry::Metrics;
use parking_lot::Mutex;

use crate::mailboxes::{self, Deliveries, GONE, mail};

/// When the first life begins; each further one begins a day later.
const BEGIN: Duration = Duration::from_secs(1_800_000_000);
/// Bytes that must stay free for new mail to be accepted.
const FREE_MIN: u64 = 24 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Something that others know of the queue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact {
    /// The message with this number was stored.
    Stored { number: u64, id: QueueId },
    /// It was refused.
    Refused { number: u64 },
    /// An administrator asked to delete a message.
    DeleteAsked { id: QueueId },
    /// And was told that it is done.
    Deleted { id: QueueId },
    /// The host for elsewhere has the message.
    Relayed { id: QueueId, to: String },
}

/// Facts with the number of operations before them.
#[derive(Clone, Default)]
pub(crate) struct Facts(Arc<Mutex<Vec<(usize, Fact)>>>);

impl Facts {
    pub(crate) fn note(&self, disk: &SimulatedDisk, fact: Fact) {
        self.0.lock().push((disk.operations(), fact));
    }

    pub(crate) fn all(&self) -> Vec<(usize, Fact)> {
        self.0.lock().clone()
    }
}

/// The roles around a running queue.
pub(crate) struct Roles {
    pub(crate) queue: Queue,
    pub(crate) intake: Port<IntakeRequest, IntakeAnswer>,
    pub(crate) control: Port<ControlRequest, ControlAnswer>,
}

/// A queue in its so-and-so-many-th life.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) number: u32,
    pub(crate) facts: Facts,
    /// Draws what is put off; nothing when everything is to succeed.
    pub(crate) lot: Option<Lot>,
    /// How deliveries are made durable; nothing for what is measured to be better.
    pub(crate) way: Option<Way>,
}

/// Starts a queue with a delivery role and a routing role.
pub(crate) async fn start(disk: &SimulatedDisk, root: &Path, life: Life) -> Result<Roles, String> {
    let ((intake, intake_end), (control, control_end)) = (link(), link());
    let ((content, content_end), (delivery_end, delivery)) = (link(), link());
    let (routing_end, routing) = link();
    let ends = Ends {
        intake: intake_end,
        control: control_end,
        content: content_end,
        delivery: delivery_end,
        routing: routing_end,
    };
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(BEGIN + DAY * life.number));
    let started =
        Queue::start_on(Arc::new(disk.clone()), settings(root), (clock, Metrics::new()), ends);
    let queue = started.await.map_err(|error| format!("the queue does not start: {error:?}"))?;
    let deliveries = Deliveries {
        disk: disk.clone(),
        root: root.to_owned(),
        facts: life.facts,
        lot: life.lot.map(|lot| Arc::new(Mutex::new(lot))),
        way: life.way,
    };
    tokio::spawn(deliveries.run(delivery, content));
    tokio::spawn(route(routing));
    Ok(Roles { queue, intake, control })
}

fn settings(root: &Path) -> Settings {
    Settings {
        directory: root.to_owned(),
        segment_size: 16 * 1024,
        memory_max: 8 * 1024,
        free_space_min: FREE_MIN,
        lifetime: DAY * 100,
        retry_first: Duration::from_secs(2),
        retry_max: Duration::from_secs(60),
        deliveries_at_once_max: 4,
        batch_max: 8,
        uploads_max: 4,
        delivery_lag: Duration::from_millis(10),
        delay_notice_after: Duration::from_secs(4),
        notice_every: Duration::from_secs(2),
        accept_volatile: true,
        blocking: Blocking::Inline,
        ..Settings::default()
    }
}

/// Every sender is here.
async fn route(mut inbox: Inbox<RouteRequest, RouteAnswer>) {
    while let Some((request, reply)) = inbox.next().await {
        reply.send(RouteAnswer::Route(Route::Mailbox(request.address)));
    }
}

/// What a seed told.
pub(crate) struct Story {
    pub(crate) disk: SimulatedDisk,
    pub(crate) facts: Vec<(usize, Fact)>,
    /// How deliveries were made durable.
    pub(crate) way: Option<Way>,
}

/// Tells the story of a seed, perhaps on a disk that lies.
pub(crate) fn tell(seed: u64, root: &Path, lie: Option<Lie>) -> Story {
    let disk = SimulatedDisk::with_mounts(root, &[mail(root)]);
    if let Some(lie) = lie {
        disk.lie(lie);
    }
    let facts = Facts::default();
    runtime().block_on(live(seed, &disk, root, &facts));
    Story { disk, facts: facts.all(), way: way(seed) }
}

/// Stories differ in how deliveries are made durable.
fn way(seed: u64) -> Option<Way> {
    [Some(Way::Each), Some(Way::FileSystem), None][usize::try_from(seed % 3).unwrap()]
}

/// One thread, and a clock that goes on when nothing else does: each run of a seed is the same.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap()
}

async fn live(seed: u64, disk: &SimulatedDisk, root: &Path, facts: &Facts) {
    let mut lots = Lot::new(seed);
    let mut lot = || Lot::new(lots.draw());
    let life = Life { number: 0, facts: facts.clone(), lot: Some(lot()), way: way(seed) };
    let roles = start(disk, root, life).await.unwrap();
    tokio::spawn(mailboxes::read(disk.clone(), root.to_owned(), lot()));
    tokio::spawn(fail(disk.clone(), lot()));
    tokio::spawn(fill(disk.clone(), root.to_owned(), lot()));
    tokio::spawn(administer(roles.control.clone(), disk.clone(), facts.clone(), lot()));
    let clients: Vec<_> = (0..3)
        .map(|client| {
            let client = Client {
                number: client,
                intake: roles.intake.clone(),
                disk: disk.clone(),
                facts: facts.clone(),
            };
            tokio::spawn(client.run(lot()))
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(20)).await;
    drop(roles.queue);
}

/// Lets the disk fail now and then.
async fn fail(disk: SimulatedDisk, mut lot: Lot) {
    loop {
        tokio::time::sleep(Duration::from_millis(500 + lot.below(3000))).await;
        disk.fail_after(lot.below(6), lot.draw());
        tokio::time::sleep(Duration::from_millis(lot.below(60))).await;
        disk.mend();
    }
}

/// Lets the disk of the spool, or that of the mailboxes, be full for a while.
async fn fill(disk: SimulatedDisk, root: PathBuf, mut lot: Lot) {
    loop {
        tokio::time::sleep(Duration::from_millis(300 + lot.below(2000))).await;
        let full = if lot.one_in(2) { root.clone() } else { mail(&root) };
        let kind = if lot.one_in(2) { ErrorKind::StorageFull } else { ErrorKind::QuotaExceeded };
        let left = if lot.one_in(2) { lot.below(2 * FREE_MIN) } else { lot.below(2000) };
        disk.limit(&full, Some((disk.used_at(&full) + left, kind)));
        tokio::time::sleep(Duration::from_millis(lot.below(800))).await;
        disk.limit(&full, None);
    }
}

/// Holds, releases, retries, returns and deletes messages.
async fn administer(
    control: Port<ControlRequest, ControlAnswer>,
    disk: SimulatedDisk,
    facts: Facts,
    mut lot: Lot,
) {
    loop {
        tokio::time::sleep(Duration::from_millis(100 + lot.below(900))).await;
        let stored: Vec<_> = facts
            .all()
            .into_iter()
            .filter_map(|(_, fact)| match fact {
                Fact::Stored { id, .. } => Some(id),
                _ => None,
            })
            .collect();
        let recent = stored.len().saturating_sub(8);
        let Some(&id) = stored.get(recent + lot.index(stored.len() - recent)) else { continue };
        let verb = match lot.below(8) {
            0 | 1 => Verb::Hold,
            2 | 3 => Verb::Release,
            4 | 5 => Verb::Retry,
            6 => Verb::Return,
            _ => Verb::Delete,
        };
        if verb == Verb::Delete {
            facts.note(&disk, Fact::DeleteAsked { id });
        }
        let selection = Selection::Ids(vec![id]);
        let request = ControlRequest::Change { verb, selection, by: "story".into() };
        let answer = control.ask(request).await.unwrap();
        if verb == Verb::Delete && matches!(answer, ControlAnswer::Changed(_)) {
            facts.note(&disk, Fact::Deleted { id });
        }
    }
}

/// Hands in the message with this number.
pub(crate) async fn submit(roles: &Roles, disk: &SimulatedDisk, facts: &Facts, number: u64) {
    let message = Message::of(number);
    let (envelope, content) = (message.envelope(), message.content());
    let answer = roles.intake.ask(IntakeRequest::Submit { envelope, content }).await.unwrap();
    facts.note(disk, fact(number, &answer));
}

fn fact(number: u64, answer: &IntakeAnswer) -> Fact {
    match *answer {
        IntakeAnswer::Stored(id) => Fact::Stored { number, id },
        _ => Fact::Refused { number },
    }
}

struct Client {
    number: u64,
    intake: Port<IntakeRequest, IntakeAnswer>,
    disk: SimulatedDisk,
    facts: Facts,
}

impl Client {
    async fn run(self, mut lot: Lot) {
        for turn in 0..14 {
            if !lot.one_in(4) {
                tokio::time::sleep(Duration::from_millis(lot.below(400))).await;
            }
            let message = Message::of(self.number * 1000 + turn);
            let answer = if lot.one_in(4) {
                self.upload(&message, &mut lot).await
            } else {
                let (envelope, content) = (message.envelope(), message.content());
                self.intake.ask(IntakeRequest::Submit { envelope, content }).await.unwrap()
            };
            self.facts.note(&self.disk, fact(message.number, &answer));
        }
    }

    async fn upload(&self, message: &Message, lot: &mut Lot) -> IntakeAnswer {
        let begun = self.intake.ask(IntakeRequest::Begin).await.unwrap();
        let IntakeAnswer::Upload(upload) = begun else { return begun };
        let content = message.content();
        let middle = lot.index(content.len());
        for piece in [content.slice(..middle), content.slice(middle..)] {
            let request = IntakeRequest::Append { upload, piece };
            let answer = self.intake.ask(request).await.unwrap();
            if answer != IntakeAnswer::Proceed {
                return answer;
            }
        }
        let envelope = message.envelope();
        self.intake.ask(IntakeRequest::Finish { upload, envelope }).await.unwrap()
    }
}

/// A message, all of which follows from its number.
pub(crate) struct Message {
    pub(crate) number: u64,
    /// Nothing for the null sender.
    pub(crate) sender: Option<String>,
    pub(crate) recipients: Vec<String>,
    size: usize,
}

impl Message {
    pub(crate) fn of(number: u64) -> Self {
        let mut lot = Lot::new(number);
        let sender = (!lot.one_in(5)).then(|| format!("s{}@lamppost.test", lot.below(2)));
        let recipients = (0..=lot.below(3)).map(|_| match lot.below(8) {
            0 => format!("{GONE}@lamppost.test"),
            1 => "far@elsewhere.test".to_owned(),
            _ => format!("m{}@lamppost.test", lot.below(3)),
        });
        let recipients = recipients.collect();
        let size_max = if lot.one_in(6) { 6000 } else { 1200 };
        let size = lot.index(size_max);
        Self { number, sender, recipients, size }
    }

    pub(crate) fn content(&self) -> Bytes {
        let mut content = format!("X-Number: {}\nSubject: test\n\n", self.number).into_bytes();
        content.extend(
            (0..self.size)
                .map(|at| b'a' + u8::try_from((at as u64 * 7 + self.number) % 26).unwrap()),
        );
        content.into()
    }

    /// What lies in the Maildir of a recipient.
    pub(crate) fn delivered(&self, id: QueueId, to: &str) -> Vec<u8> {
        let sender = self.sender.as_deref().unwrap_or_default();
        let lines = format!(
            "Return-Path: <{sender}>\nDelivered-To: {to}\nReceived: from client.test ([192.0.2.1])\n\t\
             by mail.lamppost.test with ESMTP\n\tid {id} for <{to}>; Fri, 15 Jan 2027 08:00:00 +0000\n"
        );
        [lines.as_bytes(), &self.content()].concat()
    }

    fn envelope(&self) -> Envelope {
        let recipients = self.recipients.iter().map(|address| {
            let address: lamppost_smtp::Address = address.parse().unwrap();
            let is_here = address.domain() == "lamppost.test";
            let route = if is_here { Route::Mailbox(address.clone()) } else { Route::Relay };
            Recipient { address, route }
        });
        Envelope {
            sender: self
                .sender
                .as_ref()
                .map_or(ReversePath::Null, |sender| sender.parse().unwrap()),
            recipients: recipients.collect(),
            origin: Origin {
                session: format!("s{}", self.number),
                peer: "192.0.2.1".parse().unwrap(),
                helo: "client.test".into(),
                host: "mail.lamppost.test".into(),
                protocol: "ESMTP".into(),
                tls: None,
                account: None,
                received: Timestamp(1_800_000_000_000),
            },
        }
    }
}

/// Where the spool of a test is: its disk is simulated, and its lock is real.
pub(crate) fn root() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}
