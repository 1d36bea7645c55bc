//! What is left of damaged messages, for people: a copy of it, and a file that says whose it was.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use lamppost_disk::Disk;
use lamppost_roles::{MessageView, QueueId, RecipientState};
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::control::view;
use crate::record::RECORD_HEADER;
use crate::salvage::{self, Salvaged};
use crate::spool::Spool;
use crate::{Settings, StartError};

/// Bytes that are copied at once.
const PIECE: usize = 1024 * 1024;
/// Bytes of a file that says whose a message was.
const NOTE_MAX: usize = 1024 * 1024;

/// Why a message is in the quarantine, and what is known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Why it is lost.
    pub(crate) lost: String,
    pub(crate) message: Option<MessageView>,
}

impl Note {
    /// The text of its file.
    pub(crate) fn text(&self) -> io::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n").map_err(io::Error::other)
    }
}

/// Writes a file durably; its name is durable with a sync of its folder.
pub(crate) fn keep(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = disk.create(path)?;
    file.write_at(0, &mut [IoSlice::new(bytes)])?;
    file.sync()
}

/// The messages that lie in the quarantine, with the reasons.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn known(
    disk: &dyn Disk,
    settings: &Settings,
) -> Result<BTreeMap<QueueId, String>, StartError> {
    let notes = list(disk, settings)?.into_iter().filter_map(|path| {
        let is_note = path.extension().is_some_and(|end| end == "json");
        let id: QueueId = path.file_stem().filter(|_| is_note)?.to_str()?.parse().ok()?;
        let lost = note(disk, &path).map_or_else(|| "it is damaged".into(), |note| note.lost);
        Some((id, lost))
    });
    Ok(notes.collect())
}

fn note(disk: &dyn Disk, path: &Path) -> Option<Note> {
    serde_json::from_slice(&disk.read(path, 0, NOTE_MAX).ok()?).ok()
}

/// The segments without a header that were set aside: messages in them are lost, and not done.
///
/// # Errors
/// When the folder cannot be read.
pub(crate) fn segments(disk: &dyn Disk, settings: &Settings) -> Result<BTreeSet<u64>, StartError> {
    let numbers = list(disk, settings)?.into_iter().filter_map(|path| {
        let is_segment = path.extension().is_some_and(|end| end == "seg");
        path.file_stem().filter(|_| is_segment)?.to_str()?.parse().ok()
    });
    Ok(numbers.collect())
}

fn list(disk: &dyn Disk, settings: &Settings) -> Result<Vec<PathBuf>, StartError> {
    let path = settings.quarantine();
    match disk.list(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|source| StartError::Disk { step: "list", path, source }),
    }
}

impl Spool {
    /// Copies what is left of a damaged message to the quarantine, once, and says so to everybody who
    /// looks: the message goes on to its end, and its copy stays until somebody removes it.
    ///
    /// # Errors
    /// When it cannot be copied durably.
    pub(crate) fn quarantine(&self, id: QueueId, why: &str) -> io::Result<()> {
        if self.quarantined.lock().contains_key(&id) {
            return Ok(());
        }
        let Some(view) = view(self, id) else { return Ok(()) };
        let folder = self.settings.quarantine();
        self.copy_content(id)?;
        let copy = folder.join(format!("{id}.json"));
        let (from, recipients) = (view.sender.to_string(), &view.recipients);
        let to = recipients.iter().map(|one| one.address.as_str()).collect::<Vec<_>>().join(", ");
        let text = Note { lost: why.to_owned(), message: Some(view.clone()) }.text()?;
        keep(&*self.disk, &copy, text.as_bytes())?;
        self.disk.sync_folder(&folder)?;
        error!(queue_id = %id, from, to, reason = why, copy = %copy.display(), "a message is damaged in the spool; what is left of it was copied");
        self.damaged(format!(
            "message {id} from <{from}> to {to} is damaged ({why}); what is left of it is in {}",
            folder.display()
        ));
        self.quarantined.lock().insert(id, why.to_owned());
        Ok(())
    }

    /// Says which messages lie in the quarantine, until somebody looks after them.
    pub(crate) fn tell_quarantined(&self) {
        /// Messages that are named; the folder tells the others.
        const NAMED_MAX: usize = 10;
        let known = self.quarantined.lock();
        if known.is_empty() {
            return;
        }
        let named: Vec<_> = known.keys().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = if known.len() > NAMED_MAX { " …" } else { "" };
        let folder = self.settings.quarantine();
        let (messages, them, their) = match known.len() {
            1 => ("1 damaged message is".to_owned(), "it", "its"),
            count => (format!("{count} damaged messages are"), "them", "their"),
        };
        self.damaged(format!(
            "{messages} in {}: {}{more}; look at {them}, and remove {their} files",
            folder.display(),
            named.join(" ")
        ));
    }

    /// Copies a message's envelope as it lies in the log, and its content.
    fn copy_content(&self, id: QueueId) -> io::Result<()> {
        let Some((place, aside, size)) =
            self.index.lock().message(id).map(|one| (one.place, one.aside, one.size))
        else {
            return Ok(());
        };
        let folder = self.settings.quarantine();
        let (envelope, content) =
            (folder.join(format!("{id}.damaged")), folder.join(format!("{id}.eml")));
        let segment = self.settings.segment(place.segment);
        let head = (RECORD_HEADER + place.text as usize) as u64;
        // Of one that was set aside there are no records that could be told from old ones.
        self.copy(&segment, (place.at, head), &envelope)?;
        if aside {
            self.copy(&self.settings.body(id), (0, size), &content)
        } else {
            self.copy(&segment, (place.at + head, size), &content)
        }
    }

    /// Copies a part of a file that is there, with zeros for what the disk does not give.
    fn copy(&self, from: &Path, (at, length): (u64, u64), to: &Path) -> io::Result<()> {
        if !self.disk.look(from).is_ok_and(|look| look.is_some()) {
            return Ok(());
        }
        let mut file = self.disk.create(to)?;
        let mut done = 0;
        while done < length {
            let most = usize::try_from(length - done).unwrap_or(PIECE).min(PIECE);
            let Salvaged { bytes, .. } = salvage::read(&*self.disk, from, at + done, most)?;
            if bytes.is_empty() {
                break;
            }
            file.write_at(done, &mut [IoSlice::new(&bytes)])?;
            done += bytes.len() as u64;
        }
        file.sync()
    }

    /// A message that is no longer in the queue and lies in the quarantine.
    pub(crate) fn quarantined(&self, id: QueueId) -> Option<MessageView> {
        let why = self.quarantined.lock().get(&id).cloned()?;
        let folder = self.settings.quarantine();
        let mut message = note(&*self.disk, &folder.join(format!("{id}.json")))?.message?;
        let fault = format!(
            "{why}; it left the queue (`lamppost log {id}` tells how), and what is left of it is in {}",
            folder.display()
        );
        // The file tells how they were when the damage was found.
        for recipient in message.recipients.iter_mut().filter(|one| !one.state.is_settled()) {
            (recipient.state, recipient.due) = (RecipientState::Failed, None);
        }
        Some(MessageView { fault: Some(fault), held: false, ..message })
    }
}
