//! A disk in memory that knows what is durable, and the roles around the queue.

#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses a part of this")]

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamppost_net::link::{Inbox, Port, link};
use lamppost_net::{Clock, SystemClock};
use lamppost_queue::{Disk, DiskFile, Ends, Queue, Settings};
use lamppost_roles::{
    ContentAnswer, ContentRequest, ControlAnswer, ControlRequest, DeliveryAnswer, DeliveryRequest,
    Envelope, IntakeAnswer, IntakeRequest, Origin, Outcome, QueueId, Recipient, Route, Timestamp,
};
use lamppost_smtp::ReversePath;
use lamppost_telemetry::Metrics;
use parking_lot::Mutex;

/// A file: what was written, and how much of it a power cut leaves.
#[derive(Clone, Debug, Default)]
struct Stored {
    bytes: Vec<u8>,
    durable: usize,
    /// Whether its name is durable.
    named: bool,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Stored>,
    /// Writes and syncs that still succeed; after that all fail until it is set again.
    good: Option<u64>,
    syncs: u64,
}

/// A disk in memory; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryDisk {
    state: Arc<Mutex<State>>,
    /// Whoever holds it holds up all syncs.
    pub(crate) gate: Arc<Mutex<()>>,
}

impl MemoryDisk {
    /// What a power cut leaves: of each file whose name is durable its durable bytes, and of the rest
    /// of them as much as `tear` says, 0 for nothing and 255 for all.
    pub(crate) fn after_power_cut(&self, tear: u8) -> Self {
        let mut files = BTreeMap::new();
        for (path, file) in &self.state.lock().files {
            let torn = (file.bytes.len() - file.durable) * usize::from(tear) / 255;
            let bytes = file.bytes[..file.durable + torn].to_vec();
            if file.named {
                files.insert(path.clone(), Stored { durable: bytes.len(), bytes, named: true });
            }
        }
        Self {
            state: Arc::new(Mutex::new(State { files, ..State::default() })),
            gate: Arc::default(),
        }
    }

    /// All writes and syncs after the next `good` ones fail.
    pub(crate) fn fail_after(&self, good: u64) {
        self.state.lock().good = Some(good);
    }

    /// Writes and syncs succeed again.
    pub(crate) fn mend(&self) {
        self.state.lock().good = None;
    }

    /// How often a file was synced.
    pub(crate) fn syncs(&self) -> u64 {
        self.state.lock().syncs
    }

    /// The files whose path holds a text.
    pub(crate) fn files(&self, text: &str) -> Vec<PathBuf> {
        let paths = self.state.lock().files.keys().cloned().collect::<Vec<_>>();
        paths.into_iter().filter(|path| path.to_string_lossy().contains(text)).collect()
    }

    fn step(&self) -> io::Result<()> {
        match &mut self.state.lock().good {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(good) => {
                *good -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    path: PathBuf,
}

impl Disk for MemoryDisk {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.step()?;
        self.state.lock().files.insert(path.to_owned(), Stored::default());
        Ok(Box::new(MemoryFile { disk: self.clone(), path: path.to_owned() }))
    }

    fn read(&self, path: &Path, offset: u64, length_max: usize) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        let file = state.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(offset).unwrap().min(file.bytes.len());
        let to = from.saturating_add(length_max).min(file.bytes.len());
        Ok(file.bytes[from..to].to_vec())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state.lock();
        Ok(state.files.keys().filter(|file| file.parent() == Some(path)).cloned().collect())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state.lock().files.remove(path);
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        for (file, stored) in &mut self.state.lock().files {
            stored.named |= file.parent() == Some(path);
        }
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl DiskFile for MemoryFile {
    fn append(&mut self, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let failed = self.disk.step();
        let mut state = self.disk.state.lock();
        let file = state.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        for slice in slices {
            // A write that fails may have written a part.
            let written = if failed.is_err() { slice.len() / 2 } else { slice.len() };
            file.bytes.extend_from_slice(&slice[..written]);
        }
        failed
    }

    fn sync(&mut self) -> io::Result<()> {
        drop(self.disk.gate.lock());
        self.disk.step()?;
        let mut state = self.disk.state.lock();
        state.syncs += 1;
        let file = state.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        file.durable = file.bytes.len();
        Ok(())
    }
}

/// The queue with the roles around it in the test's hands.
pub(crate) struct Around {
    pub(crate) queue: Queue,
    pub(crate) intake: Port<IntakeRequest, IntakeAnswer>,
    pub(crate) control: Port<ControlRequest, ControlAnswer>,
    pub(crate) content: Port<ContentRequest, ContentAnswer>,
    pub(crate) delivery: Inbox<DeliveryRequest, DeliveryAnswer>,
}

/// Starts a queue whose lock is in `folder` and whose files are on `disk`.
pub(crate) async fn start(
    disk: &MemoryDisk,
    folder: &Path,
    change: impl FnOnce(&mut Settings),
) -> Around {
    let mut settings =
        Settings { directory: folder.to_owned(), free_space_min: 0, ..Settings::default() };
    change(&mut settings);
    let ((intake, i), (control, c), (content, t)) = (link(), link(), link());
    let (d, delivery) = link();
    let ends = Ends { intake: i, control: c, content: t, delivery: d };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let disk = Arc::new(disk.clone());
    let queue = Queue::start_on(disk, settings, (clock, Metrics::new()), ends).await.unwrap();
    Around { queue, intake, control, content, delivery }
}

/// An envelope to mailboxes of `lamppost.test`.
pub(crate) fn envelope(mailboxes: &[&str]) -> Envelope {
    let recipient = |mailbox: &&str| {
        let address: lamppost_smtp::Address = format!("{mailbox}@lamppost.test").parse().unwrap();
        Recipient { address: address.clone(), route: Route::Mailbox(address) }
    };
    Envelope {
        sender: ReversePath::Null,
        recipients: mailboxes.iter().map(recipient).collect(),
        origin: Origin {
            session: "s1".into(),
            peer: "192.0.2.1".parse().unwrap(),
            helo: "client.test".into(),
            host: "mail.lamppost.test".into(),
            protocol: "ESMTP".into(),
            tls: None,
            account: None,
            received: Timestamp(u64::try_from(SystemClock.now().as_millis()).unwrap()),
        },
    }
}

/// Hands a message in.
pub(crate) async fn submit(around: &Around, mailbox: &str, content: &str) -> IntakeAnswer {
    let content = Bytes::copy_from_slice(content.as_bytes());
    around
        .intake
        .ask(IntakeRequest::Submit { envelope: envelope(&[mailbox]), content })
        .await
        .unwrap()
}

/// The id of a message that was stored.
#[track_caller]
pub(crate) fn stored(answer: &IntakeAnswer) -> QueueId {
    let IntakeAnswer::Stored(id) = answer else { panic!("{answer:?}") };
    *id
}

/// The ids of all messages in the queue.
pub(crate) async fn listed(around: &Around) -> Vec<QueueId> {
    let request = ControlRequest::List { after: None, limit: 1000 };
    let ControlAnswer::Listing(listing) = around.control.ask(request).await.unwrap() else {
        panic!()
    };
    listing.messages.iter().map(|message| message.id).collect()
}

/// Waits until the queue is as it should be.
pub(crate) async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(tokio::time::Instant::now() < patience, "it never came about");
        tokio::task::yield_now().await;
    }
}

/// Answers one question of the queue with the same outcome for each entry.
pub(crate) async fn deliver(around: &mut Around, outcome: &Outcome) -> DeliveryRequest {
    let (request, reply) = around.delivery.next().await.unwrap();
    let entries = match &request {
        DeliveryRequest::Prepare(jobs) => jobs.len(),
        DeliveryRequest::Publish(placements) => placements.len(),
        DeliveryRequest::Relay(jobs) => jobs.iter().map(|job| job.recipients.len()).sum(),
    };
    reply.send(DeliveryAnswer(vec![outcome.clone(); entries]));
    request
}
