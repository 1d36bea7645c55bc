//! Making a damaged spool sound; nothing vanishes without a copy in `quarantine/`.

use std::io::{self, IoSlice};
use std::path::Path;

use bytes::Bytes;
use lamppost_roles::QueueId;

use super::examine::Examined;
use super::failed;
use crate::StartError;
use crate::checkpoint::{self, Position};
use crate::index::Place;
use crate::log::{Log, Purpose};
use crate::notices::known;
use crate::quarantine::keep;
use crate::record::{Draft, MessageRecord, Progress, Record};
use crate::salvage;
use crate::spool::Spool;

/// Bytes of messages that are written again as one group.
const GROUP_BYTES: usize = 1024 * 1024;

/// Repairs what was found; returns what was done, and the messages that are lost.
pub(super) fn repair(
    spool: &Spool,
    examined: &Examined,
) -> Result<(Vec<String>, Vec<QueueId>), StartError> {
    let mut work = Repair { spool, examined, done: Vec::new() };
    work.make_quarantine()?;
    work.copy_holes()?;
    work.write_headers()?;
    let lost = work.copy_lost()?;
    work.set_headless_aside()?;
    let mut log = work.begin_log()?;
    work.write_lost(&mut log, &lost)?;
    work.write_again(&mut log)?;
    work.checkpoint(&log)?;
    work.remove_damaged()?;
    Ok((work.done, examined.lost.iter().map(|(id, _)| *id).collect()))
}

struct Repair<'a> {
    spool: &'a Spool,
    examined: &'a Examined,
    done: Vec<String>,
}

impl Repair<'_> {
    fn make_quarantine(&self) -> Result<(), StartError> {
        let settings = &self.spool.settings;
        for folder in [settings.log(), settings.bodies(), settings.quarantine()] {
            let made = self.spool.disk.create_folder(&folder);
            made.map_err(failed("make the folder", &folder))?;
        }
        let made = self.spool.disk.sync_folder(&settings.directory);
        made.map_err(failed("sync", &settings.directory))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StartError> {
        keep(&*self.spool.disk, path, bytes).map_err(failed("write", path))
    }

    fn sync_quarantine(&self) -> Result<(), StartError> {
        let folder = self.spool.settings.quarantine();
        self.spool.disk.sync_folder(&folder).map_err(failed("sync", &folder))
    }

    fn copy_holes(&mut self) -> Result<(), StartError> {
        let settings = &self.spool.settings;
        for &(number, at, length) in &self.examined.holes {
            let path = settings.segment(number);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let read = salvage::read(&*self.spool.disk, &path, at, length);
            let bytes = read.map_err(failed("read", &path))?.bytes;
            let copy = settings.quarantine().join(format!("{number:010}-{at}.damaged"));
            self.write(&copy, &bytes)?;
            self.done
                .push(format!("copied a damaged part of segment {number} to {}", copy.display()));
        }
        Ok(())
    }

    fn write_headers(&mut self) -> Result<(), StartError> {
        for header in &self.examined.headers {
            let path = self.spool.settings.segment(header.id.number);
            let written = self.spool.disk.open(&path).and_then(|mut file| {
                file.write_at(0, &mut [IoSlice::new(&header.encode())])?;
                file.sync()
            });
            written.map_err(failed("write the header of", &path))?;
            self.done.push(format!("wrote the header of {} again", path.display()));
        }
        Ok(())
    }

    /// Copies what is left of lost messages; returns their records. Without their contents they wait
    /// for the next start, which finds them damaged, gives them up and tells their senders.
    fn copy_lost(&mut self) -> Result<Vec<MessageRecord>, StartError> {
        let spool = self.spool;
        let folder = spool.settings.quarantine();
        let mut records = Vec::new();
        for (id, why) in &self.examined.lost {
            spool.quarantine(*id, why).map_err(failed("copy a message to", &folder))?;
            self.done.push(format!(
                "copied what is left of message {id} ({why}) to {}",
                folder.join(id.to_string()).display()
            ));
            let read = spool.load_record(*id).ok().flatten();
            let Some(mut record) = read.or_else(|| known(spool, *id)) else {
                spool.index.lock().take(*id);
                continue;
            };
            for one in &mut record.recipients {
                if let Progress::Waiting { due } = &mut one.progress {
                    *due = spool.now();
                }
            }
            records.push(MessageRecord { aside: true, aside_sum: 0, ..record });
        }
        self.sync_quarantine()?;
        for (id, _) in &self.examined.lost {
            let body = spool.settings.body(*id);
            spool.disk.remove(&body).map_err(failed("remove", &body))?;
        }
        Ok(records)
    }

    fn set_headless_aside(&mut self) -> Result<(), StartError> {
        let spool = self.spool;
        for (number, path) in &self.examined.headless {
            let target = spool.settings.quarantine().join(format!("{number:010}.seg"));
            spool.disk.rename(path, &target).map_err(failed("move", path))?;
            self.done.push(format!("moved {} to {}", path.display(), target.display()));
        }
        self.sync_quarantine()
    }

    /// Begins a segment behind all others; that makes the reserve too.
    fn begin_log(&self) -> Result<Log, StartError> {
        let spool = self.spool;
        let log =
            Log::begin(spool.disk.clone(), spool.settings.clone(), self.examined.next.clone())?;
        spool.has_segment(log.current());
        Ok(log)
    }

    /// Writes lost messages again, without the contents that are damaged.
    fn write_lost(&self, log: &mut Log, lost: &[MessageRecord]) -> Result<(), StartError> {
        let spool = self.spool;
        let folder = spool.settings.log();
        for record in lost {
            let draft = Draft::new(&Record::Message(record.clone()), Bytes::new());
            let written = log.append(&[&draft], Purpose::State, false);
            let written = written.map_err(failed("write to", &folder))?;
            spool.has_segment(log.current());
            let text = u32::try_from(draft.text.len()).unwrap_or(u32::MAX);
            for at in written.places {
                spool.index.lock().put(record, Place { segment: written.segment, at, text });
            }
        }
        log.sync().map_err(failed("sync", &folder))
    }

    /// Writes the messages of damaged segments again, so that nothing needs these any more.
    fn write_again(&mut self, log: &mut Log) -> Result<(), StartError> {
        let spool = self.spool;
        let folder = spool.settings.log();
        let mut count = 0;
        for &number in &self.examined.damaged {
            let ids = spool.index.lock().of_segment(number, usize::MAX);
            let mut group = Vec::new();
            let mut bytes = 0;
            for id in ids {
                let path = spool.settings.segment(number);
                let Some((place, draft)) =
                    spool.written_again(id).map_err(failed("read", &path))?
                else {
                    continue;
                };
                bytes += draft.len();
                group.push((id, place, draft));
                count += 1;
                if bytes >= GROUP_BYTES {
                    append(spool, log, &group).map_err(failed("write to", &folder))?;
                    group.clear();
                    bytes = 0;
                }
            }
            append(spool, log, &group).map_err(failed("write to", &folder))?;
        }
        log.sync().map_err(failed("sync", &folder))?;
        if count > 0 {
            let messages = lamppost_telemetry::count(count, "whole message");
            self.done.push(format!("wrote {messages} again out of damaged segments"));
        }
        Ok(())
    }

    /// Covers everything: no record of a damaged segment is needed any more, by either of the two.
    fn checkpoint(&mut self, log: &Log) -> Result<(), StartError> {
        let spool = self.spool;
        let last_id = *spool.last_id.lock();
        let (begin, sequence) = (log.next_segment(), log.next_sequence());
        let position = Position { begin, sequence, last_id };
        for (name, path) in spool.settings.checkpoints().iter().enumerate() {
            let to = (position, name);
            let written = checkpoint::write(&*spool.disk, &spool.settings, &spool.index, to);
            written.map_err(failed("write", path))?;
        }
        self.done.push("wrote a new checkpoint".into());
        Ok(())
    }

    fn remove_damaged(&mut self) -> Result<(), StartError> {
        let spool = self.spool;
        let damaged = self.examined.damaged.iter().map(|&number| spool.settings.segment(number));
        for path in damaged.chain(self.examined.dead.iter().cloned()) {
            spool.disk.remove(&path).map_err(failed("remove", &path))?;
            self.done.push(format!("removed {}, which nothing needs any more", path.display()));
        }
        let folder = spool.settings.log();
        spool.disk.sync_folder(&folder).map_err(failed("sync", &folder))
    }
}

fn append(spool: &Spool, log: &mut Log, group: &[(QueueId, Place, Draft)]) -> io::Result<()> {
    if group.is_empty() {
        return Ok(());
    }
    let drafts: Vec<_> = group.iter().map(|(_, _, draft)| draft).collect();
    let written = log.append(&drafts, Purpose::State, true)?;
    spool.has_segment(log.current());
    let mut index = spool.index.lock();
    for ((id, from, draft), at) in group.iter().zip(written.places) {
        let text = u32::try_from(draft.text.len()).unwrap_or(u32::MAX);
        index.relocate(*id, *from, Place { segment: written.segment, at, text });
    }
    Ok(())
}
