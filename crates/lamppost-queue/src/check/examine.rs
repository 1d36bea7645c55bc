//! Reading every part of a spool, and telling what is not as it should be.

mod messages;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use lamppost_disk::Disk;
use lamppost_roles::QueueId;
use lamppost_telemetry::count;

use super::{Finding, Report, Severity, failed};
use crate::checkpoint::{self, Position, Standing};
use crate::index::{Entry, Index};
use crate::log::Next;
use crate::quarantine;
use crate::record::Record;
use crate::replay::{
    Replayed, Segment, before_gap, behind, failures, named, restore, take_in, voided,
};
use crate::salvage;
use crate::segment::{
    Behind, Found, Head, SEGMENT_HEADER, SegmentHeader, Unproved, read_head, scan, take_unproved,
};
use crate::spares;
use crate::{Settings, StartError};

/// What was found, and what a repair needs to know of it.
#[derive(Default)]
pub(crate) struct Examined {
    pub(crate) report: Report,
    /// Segments with damaged or missing records.
    pub(crate) damaged: BTreeSet<u64>,
    /// The damaged parts: segment, place, length.
    pub(crate) holes: Vec<(u64, u64, u64)>,
    /// Segments of which one copy of the header is damaged.
    pub(crate) headers: Vec<SegmentHeader>,
    /// Files in `log/` without a header.
    pub(crate) headless: Vec<(u64, PathBuf)>,
    /// Segments of another life, and what else nobody needs.
    pub(crate) dead: Vec<PathBuf>,
    /// Messages whose record or content is lost, and why.
    pub(crate) lost: Vec<(QueueId, String)>,
    /// Where the log goes on.
    pub(crate) next: Next,
}

/// What was seen of the segments.
#[derive(Default)]
struct Seen {
    /// Those that are replayed.
    replayed: Vec<Segment>,
    /// Messages whose records are whole, by segment and place, with the sums of contents aside.
    whole: HashMap<(u64, u64), (QueueId, u32)>,
    /// Messages of whose records the content alone is damaged, by segment and place.
    known: HashMap<(u64, u64), QueueId>,
    /// Records of which the content alone is damaged: segment, place, number.
    contents: Vec<(u64, u64, u64)>,
    /// For each segment: its first sequence number by its header, and those of its records.
    sequences: BTreeMap<u64, (u64, Vec<u64>)>,
    /// Those that are there, with a header.
    segments: BTreeSet<u64>,
    /// Records that never happened.
    void: BTreeSet<(u64, u64)>,
    /// Damaged parts behind the last record of a segment.
    tails: BTreeMap<u64, (u64, u64)>,
    /// Segments at whose end there is what may have been a message.
    torn: BTreeSet<u64>,
}

/// Reads everything; changes nothing.
pub(crate) fn examine(
    disk: &dyn Disk,
    settings: &Settings,
) -> Result<(Examined, Replayed), StartError> {
    let (out, seen) = (Examined::default(), Seen::default());
    let quarantined = quarantine::known(disk, settings)?;
    let mut work = Examination { disk, settings, quarantined, out, seen };
    work.out.report.spool.clone_from(&settings.directory);
    let (standing, entries) = work.checkpoint()?;
    let position = standing.newest;
    let covered = position.unwrap_or(Position { begin: 0, sequence: 1, last_id: QueueId(0) });
    let mut replayed = Replayed {
        index: Index::default(),
        last_id: covered.last_id,
        next: Next { segment: covered.begin.max(1), sequence: covered.sequence, ..Next::default() },
        standing,
        wants_checkpoint: false,
        damage: Vec::new(),
        doubtful: Vec::new(),
        damaged: Vec::new(),
        quarantined: work.quarantined.clone(),
        failures: BTreeSet::new(),
    };
    work.log(&mut replayed)?;
    work.sequences(position);
    let mut lost = quarantine::segments(disk, settings)?;
    lost.extend(work.out.headless.iter().map(|(number, _)| *number));
    restore(&mut replayed.index, &replayed.next, (entries, &lost));
    let segments = std::mem::take(&mut work.seen.replayed);
    let (sequence, last_id) = take_in(&mut replayed.index, &segments);
    replayed.next.sequence = replayed.next.sequence.max(sequence);
    replayed.last_id = replayed.last_id.max(last_id);
    work.out.next = replayed.next.clone();
    work.messages(&replayed.index)?;
    work.torn();
    work.bodies(&replayed.index)?;
    replayed.failures = failures(&replayed.index);
    if position.is_none() {
        replayed.doubtful = before_gap(&replayed.index, &replayed.next);
        work.doubtful(&replayed.doubtful);
    }
    Ok((work.out, replayed))
}

struct Examination<'a> {
    disk: &'a dyn Disk,
    settings: &'a Settings,
    quarantined: BTreeMap<QueueId, String>,
    out: Examined,
    seen: Seen,
}

impl Examination<'_> {
    fn damage(&mut self, path: &Path, what: String, cure: &str) {
        self.find(Severity::Damage, path, (what, cure), None);
    }

    fn note(&mut self, path: &Path, what: String, cure: &str) {
        self.find(Severity::Note, path, (what, cure), None);
    }

    fn find(
        &mut self,
        severity: Severity,
        path: &Path,
        (what, cure): (String, &str),
        lost: Option<QueueId>,
    ) {
        let cure = cure.to_owned();
        self.out.report.findings.push(Finding {
            severity,
            path: path.to_owned(),
            what,
            cure,
            lost,
        });
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, StartError> {
        match self.disk.list(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(failed("list", folder)),
        }
    }

    fn length(&self, path: &Path) -> Result<Option<u64>, StartError> {
        let look = self.disk.look(path).map_err(failed("look at", path))?;
        Ok(look.map(|look| look.length))
    }

    fn checkpoint(&mut self) -> Result<(Standing, Vec<Entry>), StartError> {
        let choice = checkpoint::choose(self.disk, self.settings, true)?;
        for path in &choice.damaged {
            let instead = match choice.standing.newest {
                Some(_) => "the other one and the log say the same",
                None => "the whole log says what is in the queue",
            };
            let what = format!("the checkpoint is damaged; {instead}");
            self.damage(path, what, "--repair writes a new one");
        }
        Ok((choice.standing, choice.entries))
    }

    /// Tells of messages that may have been delivered long ago.
    fn doubtful(&mut self, doubtful: &[QueueId]) {
        if doubtful.is_empty() {
            return;
        }
        let what = format!(
            "there is no whole checkpoint: {} may have been delivered long ago",
            count(doubtful.len() as u64, "message")
        );
        let cure = "the next start holds them, and so does --repair; look at each, and release or \
                    delete it";
        self.damage(&self.settings.directory, what, cure);
    }

    fn log(&mut self, replayed: &mut Replayed) -> Result<(), StartError> {
        let mut has_reserve = false;
        let paths = self.list(&self.settings.log())?;
        let number = |path: &PathBuf| {
            let name = path.file_name()?.to_str()?;
            name.strip_suffix(".seg")?.parse::<u64>().ok()
        };
        let segments: Vec<_> =
            paths.iter().filter_map(|path| Some((number(path)?, path.clone()))).collect();
        for path in paths {
            if let Some(number) = number(&path) {
                replayed.next.segment = replayed.next.segment.max(number + 1);
                let behind = behind(self.disk, &segments, number, replayed.standing.newest);
                self.segment((number, behind), &path, replayed)?;
            } else if spares::number(&path).is_some() {
                let length = self.length(&path)?.unwrap_or(0);
                self.out.report.spares += 1;
                has_reserve |= length == self.settings.reserve();
                if length < self.settings.reserve() {
                    let what = format!(
                        "a segment that was being made ahead has {}",
                        count(length, "byte")
                    );
                    self.note(&path, what, "the next start removes it");
                }
            } else {
                self.note(&path, "not a file of the spool".into(), "move it elsewhere");
            }
        }
        if !has_reserve {
            self.note(
                &self.settings.log(),
                "no space is reserved for changes of state on a full disk".into(),
                "the next start reserves it, and so does --repair",
            );
        }
        Ok(())
    }

    /// Reads a segment whole, also one that the checkpoint covers.
    fn segment(
        &mut self,
        (number, behind): (u64, Behind),
        path: &Path,
        replayed: &mut Replayed,
    ) -> Result<(), StartError> {
        let bytes = self.bytes(number, path)?;
        let header = match read_head(&bytes) {
            Head::Ours(header) if header.id.number == number => header,
            Head::Newer => return Err(StartError::Format { path: path.to_owned() }),
            Head::Older => return Err(StartError::Older { path: path.to_owned() }),
            Head::Ours(_) => {
                let what = "its content is that of another life of the file, and needed no more";
                self.note(path, what.into(), "the next start removes it");
                self.out.dead.push(path.to_owned());
                return Ok(());
            }
            Head::Broken => {
                self.damage(
                    path,
                    "both copies of its header are damaged: none of its records can be told from \
                     old ones"
                        .into(),
                    "--repair moves it to quarantine/",
                );
                self.out.headless.push((number, path.to_owned()));
                return Ok(());
            }
        };
        if bytes.get(..SEGMENT_HEADER) != Some(&header.encode()[..]) {
            self.damage(
                path,
                "one of the two copies of its header is damaged".into(),
                "--repair writes it again from the other",
            );
            self.out.headers.push(header);
        }
        self.out.report.segments += 1;
        self.seen.segments.insert(number);
        replayed.next.segments.insert(number, bytes.len() as u64);
        replayed.next.sequence = replayed.next.sequence.max(header.sequence);
        replayed.index.add_segment(header.id);
        let mut found = scan(header.id, &bytes);
        let unproved = take_unproved(&mut found, bytes.len() as u64, behind);
        replayed.next.voids.extend(self.unproved(number, unproved));
        self.records(number, header.sequence, &found);
        if number >= replayed.standing.covered_below() {
            self.seen.replayed.push(Segment { id: header.id, first: header.sequence, found });
        } else {
            let covered = [Segment { id: header.id, first: header.sequence, found }];
            self.seen.void.extend(voided(&covered));
        }
        Ok(())
    }

    /// The bytes of a segment; what the disk does not give is zero.
    fn bytes(&mut self, number: u64, path: &Path) -> Result<Vec<u8>, StartError> {
        let read = salvage::read(self.disk, path, 0, usize::MAX).map_err(failed("read", path))?;
        if let Some(fault) = read.fault {
            self.damage(
                path,
                format!("the disk does not give all of it: {fault}"),
                "--repair writes what is whole again elsewhere",
            );
            self.out.damaged.insert(number);
        }
        Ok(read.bytes)
    }

    fn records(&mut self, number: u64, first: u64, found: &[Found]) {
        let mut sequences = Vec::new();
        for (place, found_here) in found.iter().enumerate() {
            match found_here {
                Found::Record { record, sequence, at, is_whole, .. } => {
                    self.out.report.records += 1;
                    sequences.push(*sequence);
                    let here = (number, *at);
                    if let Record::Message(message) | Record::Notice { message, .. } = &**record {
                        if *is_whole || message.aside {
                            self.seen.whole.insert(here, (message.id, message.aside_sum));
                        } else {
                            self.seen.known.insert(here, message.id);
                        }
                    }
                    if !is_whole {
                        self.seen.contents.push((number, *at, *sequence));
                    }
                }
                &Found::Hole { at, length } if place + 1 == found.len() => {
                    self.seen.tails.insert(number, (at, length));
                }
                &Found::Hole { at, length } => self.hole(number, at, length),
            }
        }
        self.seen.sequences.insert(number, (first, sequences));
    }

    fn hole(&mut self, number: u64, at: u64, length: u64) {
        let what = format!("damaged: {} from {at} on", count(length, "byte"));
        let cure = "--repair copies them to quarantine/ and writes what is whole again elsewhere";
        self.damage(&self.settings.segment(number), what, cure);
        self.out.damaged.insert(number);
        self.out.holes.push((number, at, length));
    }

    /// Tells of records whose text alone is whole.
    fn contents(&mut self, void: &BTreeSet<(u64, u64)>) {
        for (number, at, sequence) in std::mem::take(&mut self.seen.contents) {
            if void.contains(&(number, sequence)) {
                continue;
            }
            let what = format!("the content of the record at {at} is damaged");
            let cure = "--repair writes what is whole again elsewhere";
            self.damage(&self.settings.segment(number), what, cure);
            self.out.damaged.insert(number);
        }
    }

    /// Tells of records without their whole contents that were perhaps never acknowledged.
    /// Returns what voids those whose numbers are not given again.
    fn unproved(&mut self, number: u64, unproved: Vec<Unproved>) -> Vec<Record> {
        let mut voids = Vec::new();
        for Unproved { record, sequence, at, is_torn } in unproved {
            let what = format!("{}, at {at}, is not whole", named(&record));
            let cure = "unless it was damaged later, nobody was told that it is stored; the next start \
                        copies it to quarantine/, and so does --repair";
            self.note(&self.settings.segment(number), what, cure);
            if is_torn {
                self.seen.torn.insert(number);
            } else {
                self.seen.void.insert((number, sequence));
                voids.push(Record::Void { segment: number, first: sequence, last: sequence });
            }
        }
        voids
    }

    /// Looks for records that are missing: their numbers follow one another through all segments.
    ///
    /// A damaged end of a segment after which no number is missing is a torn write: it was
    /// acknowledged to nobody, and its numbers were given again.
    fn sequences(&mut self, position: Option<Position>) {
        let void: BTreeSet<_> =
            self.seen.void.iter().copied().chain(voided(&self.seen.replayed)).collect();
        self.contents(&void);
        let sequences = std::mem::take(&mut self.seen.sequences);
        let tails = std::mem::take(&mut self.seen.tails);
        for (&number, (first, records)) in &sequences {
            let after = match sequences.get(&(number + 1)) {
                Some((next, _)) => Some(*next),
                // The checkpoint of a program that was stopped properly is behind the last segment.
                None => position.filter(|one| one.begin == number + 1).map(|one| one.sequence),
            };
            let mut expected = *first;
            let mut missing = Vec::new();
            for next in records.iter().copied().chain(after) {
                let gap = (expected..next).take(1 << 20);
                missing.extend(gap.filter(|sequence| !void.contains(&(number, *sequence))));
                expected = next + 1;
            }
            // The number behind the last record is none of its own.
            let tail_counts =
                after.is_some_and(|after| missing.last().is_some_and(|last| *last + 1 == after));
            match tails.get(&number) {
                Some(&(at, length)) if tail_counts => self.hole(number, at, length),
                Some(&tail) => {
                    self.seen.tails.insert(number, tail);
                }
                None => {}
            }
            if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
                let what = match missing.len() {
                    1 => format!("the record number {first} is missing"),
                    many => {
                        format!("{many} records are missing between numbers {first} and {last}")
                    }
                };
                self.damage(
                    &self.settings.segment(number),
                    what,
                    "what was in there is unknown; --repair goes on without it",
                );
                self.out.damaged.insert(number);
                self.out.report.unknown += missing.len() as u64;
            }
        }
    }

    fn torn(&mut self) {
        for (number, (at, length)) in std::mem::take(&mut self.seen.tails) {
            if self.seen.torn.contains(&number) {
                self.out.holes.push((number, at, length));
            }
            self.note(
                &self.settings.segment(number),
                format!(
                    "a torn write, acknowledged to nobody: {} from {at} on",
                    count(length, "byte")
                ),
                "nothing need be done",
            );
        }
    }

    fn bodies(&mut self, index: &Index) -> Result<(), StartError> {
        for path in self.list(&self.settings.bodies())? {
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|id| id.parse().ok());
            if id.and_then(|id| index.message(id)).is_some_and(|message| message.aside) {
                self.out.report.bodies += 1;
            } else {
                let what = "a large content that no message in the queue names".to_owned();
                self.note(&path, what, "the next start removes it");
            }
        }
        Ok(())
    }
}
