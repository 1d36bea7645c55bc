//! A spool on which no program runs: reading it, finding what is damaged, and repairing it.

mod examine;
mod repair;
mod restored;

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

pub use restored::Restored;

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
    /// Records that are missing, and of which nothing else tells what was in them.
    pub unknown: u64,
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
    /// Messages that are damaged for good. What is left of each is in `quarantine/`; they stay in the
    /// queue until the next start gives them up and tells their senders.
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
        let lock = Lock::take(&settings.directory, settings.program)?;
        let (spool, examined) = read(disk, settings)?;
        Ok(Self { spool, examined, _lock: lock })
    }

    /// What was found.
    pub fn report(&self) -> &Report {
        &self.examined.report
    }

    /// Answers all that changes nothing as a running queue does.
    pub fn ask(&self, request: ControlRequest) -> ControlAnswer {
        match request {
            ControlRequest::Change { .. } => {
                ControlAnswer::Failed("nothing is changed while no program runs".into())
            }
            ControlRequest::Snapshot => {
                let segments = self.examined.next.segments.keys().copied();
                match self.spool.keep_snapshot(segments, None) {
                    Ok(snapshot) => ControlAnswer::Snapshot(snapshot),
                    Err(reason) => ControlAnswer::Failed(reason),
                }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lamppost_roles::{Envelope, Origin, Recipient, Route, Timestamp};
    use parking_lot::Mutex;

    use super::*;
    use crate::checkpoint::{self, Position};
    use crate::index::{Index, Place};
    use crate::log::{Log, Next, Purpose};
    use crate::record::{Draft, MessageRecord, RecipientRecord, Record};

    fn settings(folder: &Path) -> Settings {
        Settings { directory: folder.to_owned(), segment_size: 1024 * 1024, ..Settings::default() }
    }

    fn message(id: u64) -> MessageRecord {
        let origin = Origin {
            session: "s".into(),
            peer: "127.0.0.1".parse().unwrap(),
            helo: "h".into(),
            host: "h".into(),
            protocol: "ESMTP".into(),
            tls: None,
            account: None,
            received: Timestamp(1),
        };
        let address: lamppost_smtp::Address = "demo@lamppost.test".parse().unwrap();
        let recipients =
            vec![Recipient { address: address.clone(), route: Route::Mailbox(address) }];
        let sender = "a@b.test".parse().unwrap();
        MessageRecord {
            id: QueueId(id),
            envelope: Envelope { sender, recipients, origin },
            recipients: vec![RecipientRecord::new(Timestamp(1))],
            held: false,
            delay_told: false,
            size: 9,
            aside: false,
            aside_sum: 0,
        }
    }

    /// A spool with messages 1 to 3 in its first segment, as a program left it that was killed; with
    /// a checkpoint, as one left it that was stopped. Returns the places of their records.
    fn spool(folder: &Path, with_checkpoint: bool) -> Vec<u64> {
        let settings = settings(folder);
        let disk = Arc::new(RealDisk);
        for folder in [settings.log(), settings.bodies()] {
            disk.create_folder(&folder).unwrap();
        }
        let next = Next { segment: 1, sequence: 1, ..Next::default() };
        let mut log = Log::begin(disk.clone(), settings.clone(), next).unwrap();
        let records = [1, 2, 3].map(|id| Record::Message(message(id)));
        let drafts =
            records.each_ref().map(|one| Draft::new(one, Bytes::from_static(b"a: b\n\nc\n\n")));
        let [first, second, third] = &drafts;
        let mut written = log.append(&[first, second], Purpose::Mail, true).unwrap();
        // In a group of its own: it says that those before it were whole once.
        let last = log.append(&[third], Purpose::Mail, true).unwrap();
        written.places.extend(last.places);
        if with_checkpoint {
            let mut index = Index::default();
            index.add_segment(log.current().unwrap());
            for ((id, at), draft) in (1..).zip(&written.places).zip(&drafts) {
                let text = u32::try_from(draft.text.len()).unwrap();
                index.put(&message(id), Place { segment: written.segment, at: *at, text });
            }
            let (begin, sequence) = (log.next_segment(), log.next_sequence());
            let position = Position { begin, sequence, last_id: QueueId(3) };
            checkpoint::write(&*disk, &settings, &Mutex::new(index), (position, 0)).unwrap();
        }
        written.places
    }

    fn flip(folder: &Path, at: u64) {
        let path = settings(folder).segment(1);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[usize::try_from(at).unwrap()] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    /// What is found, in short, and which messages are in the queue.
    fn found(folder: &Path) -> (Vec<(Severity, String)>, Vec<u64>) {
        let spool = OfflineSpool::open(settings(folder)).unwrap();
        let findings = spool.report().findings.iter();
        let findings = findings.map(|one| (one.severity, one.what.clone())).collect();
        let filter = lamppost_roles::Filter::default();
        let list = spool.ask(ControlRequest::List { after: None, limit: 10, filter });
        let ControlAnswer::Listing(listing) = list else { panic!("{list:?}") };
        (findings, listing.messages.iter().map(|one| one.id.0).collect())
    }

    fn repair(folder: &Path) -> Vec<QueueId> {
        let repaired = OfflineSpool::open(settings(folder)).unwrap().repair().unwrap();
        assert!(repaired.report.is_sound(), "{repaired:#?}");
        let findings = repaired.report.findings.iter();
        let told = findings.filter(|one| one.what.contains("is damaged: its ")).count();
        assert_eq!(repaired.report.findings.len(), told, "nothing else is left to be told");
        assert_eq!(repaired.lost.len(), told, "they wait for the next start");
        repaired.lost
    }

    #[tokio::test]
    async fn a_whole_spool_is_sound_with_and_without_a_checkpoint() {
        for with_checkpoint in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            spool(folder.path(), with_checkpoint);
            assert_eq!(found(folder.path()), (vec![], vec![1, 2, 3]));
            assert_eq!(repair(folder.path()), []);
            assert_eq!(found(folder.path()), (vec![], vec![1, 2, 3]));
        }
    }

    /// The checkpoint of [`spool`] once more, under the other name.
    fn second_checkpoint(folder: &Path) {
        let settings = settings(folder);
        let [first, second] = settings.checkpoints();
        std::fs::copy(first, second).unwrap();
    }

    fn damage(path: &Path) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[50] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    #[tokio::test]
    async fn one_of_two_checkpoints_is_enough() {
        for name in [0, 1] {
            let folder = tempfile::tempdir().unwrap();
            spool(folder.path(), true);
            second_checkpoint(folder.path());
            assert_eq!(found(folder.path()).0, []);
            damage(&settings(folder.path()).checkpoints()[name]);
            let (findings, messages) = found(folder.path());
            assert_eq!((findings.len(), messages), (1, vec![1, 2, 3]));
            assert!(findings[0].1.contains("the other one and the log"), "{findings:?}");
            assert_eq!(repair(folder.path()), []);
            assert_eq!(found(folder.path()), (vec![], vec![1, 2, 3]));
        }
    }

    #[tokio::test]
    async fn without_checkpoints_and_with_a_gap_a_repair_holds_what_may_be_over() {
        let folder = tempfile::tempdir().unwrap();
        spool(folder.path(), true);
        let settings = settings(folder.path());
        // A second segment came and went, and the third goes on.
        let segments = [(1, 1024 * 1024)].into();
        let next = Next { segment: 3, sequence: 9, segments, voids: Vec::new() };
        drop(Log::begin(Arc::new(RealDisk), settings.clone(), next).unwrap());
        damage(&settings.checkpoints()[0]);
        let (findings, _) = found(folder.path());
        assert!(findings.iter().any(|one| one.1.contains("delivered long ago")), "{findings:?}");
        assert_eq!(repair(folder.path()), []);
        let spool = OfflineSpool::open(settings).unwrap();
        let ControlAnswer::Status(status) = spool.ask(ControlRequest::Status) else { panic!() };
        assert_eq!((status.messages, status.held), (3, 3));
    }

    /// Without a checkpoint nobody knows that the last record was once whole.
    #[tokio::test]
    async fn a_torn_end_is_no_damage_unless_something_should_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let places = spool(folder.path(), false);
        flip(folder.path(), places[2] + 40);
        let (findings, messages) = found(folder.path());
        assert_eq!((findings[0].0, findings.len(), messages), (Severity::Note, 1, vec![1, 2]));
        assert!(findings[0].1.contains("torn write"), "{findings:?}");

        let folder = tempfile::tempdir().unwrap();
        let places = spool(folder.path(), true);
        flip(folder.path(), places[2] + 40);
        let (findings, _) = found(folder.path());
        assert!(findings.iter().all(|one| one.0 == Severity::Damage), "{findings:?}");
        assert!(findings.iter().any(|one| one.1.contains("is lost")), "{findings:?}");
        assert_eq!(repair(folder.path()), [QueueId(3)]);
        assert_eq!(found(folder.path()).1, [1, 2, 3]);
        assert!(settings(folder.path()).quarantine().join(format!("{}.json", QueueId(3))).exists());
    }

    /// The last byte of a record is one of its content.
    #[tokio::test]
    async fn a_message_whose_content_alone_is_damaged_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let places = spool(folder.path(), false);
        flip(folder.path(), places[2] - 1);
        let (findings, messages) = found(folder.path());
        assert_eq!((findings.len(), messages), (2, vec![1, 2, 3]), "{findings:?}");
        assert!(findings[1].1.contains("its content in the record"), "{findings:?}");
        let before = OfflineSpool::open(settings(folder.path())).unwrap().report().unknown;
        assert_eq!(before, 0);
        assert_eq!(repair(folder.path()), [QueueId(2)]);
        let (findings, messages) = found(folder.path());
        assert_eq!((findings.len(), messages), (1, vec![1, 2, 3]), "{findings:?}");
        assert_eq!(findings[0].0, Severity::Note);
        let file = |end| {
            let name = format!("{}.{end}", QueueId(2));
            std::fs::read(settings(folder.path()).quarantine().join(name)).unwrap()
        };
        assert_eq!(file("eml"), b"a: b\n\nc\n\x0b");
        assert!(file("damaged").starts_with(b"LREC"));
        assert!(String::from_utf8(file("json")).unwrap().contains("demo@lamppost.test"));
    }

    /// The checkpoint covers the segment, and the one behind it is gone: no numbers tell.
    #[tokio::test]
    async fn a_damaged_end_with_a_message_in_it_is_no_torn_write() {
        let folder = tempfile::tempdir().unwrap();
        let places = spool(folder.path(), true);
        let settings = settings(folder.path());
        let loaded = checkpoint::load(&RealDisk, &settings.checkpoints()[0], |_, _| {}).unwrap();
        let checkpoint::Loaded::Whole(position) = loaded else { panic!() };
        // As if more segments had come and gone.
        let index = Mutex::new(Index::default());
        let entries = Mutex::new(Vec::new());
        checkpoint::load(&RealDisk, &settings.checkpoints()[0], |_, one| entries.lock().push(one))
            .unwrap();
        for entry in entries.into_inner() {
            index.lock().restore(entry);
        }
        let position = Position { begin: position.begin + 5, sequence: 99, ..position };
        checkpoint::write(&RealDisk, &settings, &index, (position, 0)).unwrap();
        assert_eq!(found(folder.path()), (vec![], vec![1, 2, 3]));
        flip(folder.path(), places[2] + 40);
        let (findings, _) = found(folder.path());
        assert!(findings.iter().all(|one| one.0 == Severity::Damage), "{findings:?}");
        assert_eq!(repair(folder.path()), [QueueId(3)]);
        // The part of the segment, and three of the message.
        assert_eq!(std::fs::read_dir(settings.quarantine()).unwrap().count(), 4);
    }

    /// A start moved it there; the messages in it are lost and not done.
    #[tokio::test]
    async fn messages_of_a_segment_in_the_quarantine_are_lost() {
        let folder = tempfile::tempdir().unwrap();
        spool(folder.path(), true);
        let settings = settings(folder.path());
        std::fs::create_dir(settings.quarantine()).unwrap();
        let aside = settings.quarantine().join("0000000001.seg");
        std::fs::rename(settings.segment(1), aside).unwrap();
        let (findings, messages) = found(folder.path());
        assert_eq!(messages, [1, 2, 3]);
        assert!(findings.iter().any(|one| one.1.contains("its segment is lost")), "{findings:?}");
        assert_eq!(repair(folder.path()), [1, 2, 3].map(QueueId));
        assert_eq!(found(folder.path()).1, [1, 2, 3], "the next start tells their senders");
    }

    #[tokio::test]
    async fn a_record_that_nobody_else_knows_of_is_missed_by_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let places = spool(folder.path(), false);
        flip(folder.path(), places[1] + 40);
        let (findings, messages) = found(folder.path());
        assert_eq!(messages, [1, 3]);
        assert!(
            findings.iter().any(|one| one.1 == "the record number 2 is missing"),
            "{findings:?}"
        );
        let spool = OfflineSpool::open(settings(folder.path())).unwrap();
        assert_eq!(spool.report().unknown, 1);
        drop(spool);
        assert_eq!(repair(folder.path()), []);
        assert_eq!(found(folder.path()), (vec![], vec![1, 3]));
        let copies = std::fs::read_dir(settings(folder.path()).quarantine()).unwrap().count();
        assert_eq!(copies, 1);
    }

    #[tokio::test]
    async fn a_spool_that_is_held_or_not_there_is_told() {
        let folder = tempfile::tempdir().unwrap();
        spool(folder.path(), false);
        let _held = OfflineSpool::open(settings(folder.path())).unwrap();
        let again = OfflineSpool::open(settings(folder.path()));
        assert!(matches!(again, Err(StartError::Held { .. })));
        let nowhere = OfflineSpool::open(settings(Path::new("/nonexistent")));
        assert!(matches!(nowhere, Err(StartError::Disk { .. })));
    }
}
