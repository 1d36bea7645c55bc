//! What an import finds there already: in the queue, or by what earlier imports remembered beside
//! their files. It is told by recipient, so that nobody gets a message twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use lamppost_console::ImportHead;
use lamppost_roles::{Filter, MessageView, QueueId, Timestamp};
use lamppost_smtp::ReversePath;
use serde::{Deserialize, Serialize};

use super::out;
use super::source::Source;
use crate::exit::Failure;

/// What the sessions of imported files without an envelope begin with; the content's sum follows.
pub(super) const SESSION: &str = "import-";

/// A content as the queue would hold it, with LF line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) size: u64,
    sum: u128,
    held_cr: bool,
}

/// What makes a message the same one, as far as a list tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    session: String,
    received: Timestamp,
    sender: ReversePath,
    size: u64,
}

/// A message that is there.
struct There {
    id: QueueId,
    recipients: Vec<String>,
    /// Of its content; nothing when it was not read yet.
    sum: Option<u128>,
}

/// All that may be what is imported.
pub(super) struct Known<'a> {
    source: &'a Source,
    messages: HashMap<Key, Vec<There>>,
}

/// A line of the file that remembers an import.
#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    id: QueueId,
    at: Timestamp,
    sender: ReversePath,
    recipients: Vec<String>,
    sum: String,
}

impl Content {
    /// Reads a content to its end.
    pub(super) fn of(mut from: impl Read) -> io::Result<Self> {
        let mut content = Self::empty();
        let mut piece = vec![0; 64 * 1024];
        loop {
            match from.read(&mut piece)? {
                0 => break,
                length => content.put(&piece[..length]),
            }
        }
        content.end();
        Ok(content)
    }

    /// FNV-1a of 128 bits: chance makes no two contents alike.
    fn empty() -> Self {
        Self { size: 0, sum: 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, held_cr: false }
    }

    fn put(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if std::mem::take(&mut self.held_cr) {
                self.add(b'\n');
                if byte == b'\n' {
                    continue;
                }
            }
            match byte {
                b'\r' => self.held_cr = true,
                other => self.add(other),
            }
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.held_cr) {
            self.add(b'\n');
        }
    }

    fn add(&mut self, byte: u8) {
        const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
        self.size += 1;
        self.sum = (self.sum ^ u128::from(byte)).wrapping_mul(PRIME);
    }

    /// The session of such a content when no session brought it.
    pub(super) fn session(&self) -> String {
        format!("{SESSION}{:032x}", self.sum)
    }
}

impl Key {
    fn of(head: &ImportHead, size: u64) -> Self {
        let origin = head.origin.as_ref();
        let session = origin.map(|origin| origin.session.clone()).unwrap_or_default();
        let received = origin.map_or(Timestamp(0), |origin| origin.received);
        Self::new(session, received, head.sender.clone(), size)
    }

    fn new(session: String, received: Timestamp, sender: ReversePath, size: u64) -> Self {
        // Such a session names the content; it came whenever it was imported.
        let received = if session.starts_with(SESSION) { Timestamp(0) } else { received };
        Self { session, received, sender, size }
    }
}

impl<'a> Known<'a> {
    /// Nothing is known.
    pub(super) fn nothing(source: &'a Source) -> Self {
        Self { source, messages: HashMap::new() }
    }

    /// All in the queue whose sizes could be those of files of `least` to `most` bytes.
    pub(super) async fn in_queue(
        source: &'a Source,
        (least, most): (u64, u64),
    ) -> Result<Self, Failure> {
        let mut known = Self::nothing(source);
        // With CRLF a file has at most twice the bytes of the message.
        let filter =
            Filter { larger: Some(least / 2), smaller: Some(most + 1), ..Filter::default() };
        let mut pages = source.pages(filter);
        while let Some(page) = pages.next().await? {
            for message in page {
                known.add_view(message);
            }
        }
        Ok(known)
    }

    fn add_view(&mut self, message: MessageView) {
        // One that is damaged there is not what a file brings.
        let MessageView { id, sender, size, origin: Some(origin), recipients, fault: None, .. } =
            message
        else {
            return;
        };
        let recipients = recipients.into_iter().map(|recipient| recipient.address).collect();
        let key = Key::new(origin.session, origin.received, sender, size);
        self.messages.entry(key).or_default().push(There { id, recipients, sum: None });
    }

    /// Notes what was imported just now.
    pub(super) fn add(&mut self, head: &ImportHead, content: Content, id: QueueId) {
        let recipients = head.recipients.iter().map(ToString::to_string).collect();
        let there = There { id, recipients, sum: Some(content.sum) };
        self.messages.entry(Key::of(head, content.size)).or_default().push(there);
    }

    /// Takes away the recipients of a file for whom it is in the queue; returns the message.
    pub(super) async fn take_away(
        &mut self,
        head: &mut ImportHead,
        content: Content,
    ) -> Result<Option<QueueId>, Failure> {
        let key = Key::of(head, content.size);
        let is_named = key.session.starts_with(SESSION);
        let mut found = None;
        for there in self.messages.get_mut(&key).into_iter().flatten() {
            let sum = match there.sum {
                Some(sum) => Some(sum),
                None if is_named => Some(content.sum),
                None => sum_of(self.source, there.id).await?,
            };
            there.sum = sum;
            if sum == Some(content.sum) && take(head, &there.recipients) {
                found = Some(there.id);
            }
        }
        Ok(found)
    }
}

/// Takes recipients away; whether there were any of them.
fn take(head: &mut ImportHead, had: &[String]) -> bool {
    let before = head.recipients.len();
    head.recipients.retain(|recipient| !had.contains(&recipient.to_string()));
    head.recipients.len() < before
}

async fn sum_of(source: &Source, id: QueueId) -> Result<Option<u128>, Failure> {
    let mut content = Content::empty();
    let is_there = source.content(id, |piece| {
        content.put(piece);
        Ok(())
    });
    let is_there = is_there.await?;
    content.end();
    Ok(is_there.then_some(content.sum))
}

/// Where an import is remembered: beside the file.
fn memory(file: &Path) -> PathBuf {
    file.with_extension("imported")
}

/// Remembers beside a file that it was imported.
pub(super) fn remember(
    file: &Path,
    head: &ImportHead,
    (content, id): (Content, QueueId),
) -> io::Result<()> {
    let line = Memory {
        id,
        at: Timestamp(out::now_ms()),
        sender: head.sender.clone(),
        recipients: head.recipients.iter().map(ToString::to_string).collect(),
        sum: format!("{:032x}", content.sum),
    };
    let line = serde_json::to_string(&line)?;
    let memory = memory(file);
    let mut to = File::options().append(true).create(true).open(&memory)?;
    // A line that a crash cut off before must not take this one with it.
    write!(to, "\n{line}\n")?;
    to.sync_data()?;
    let folder = memory.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Takes away the recipients for whom a file was imported before; returns the id and the time.
pub(super) fn take_remembered(
    file: &Path,
    head: &mut ImportHead,
    content: Content,
) -> io::Result<Option<(QueueId, Timestamp)>> {
    let from = match File::open(memory(file)) {
        Ok(from) => from,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let sum = format!("{:032x}", content.sum);
    let mut found = None;
    for line in BufReader::new(from).lines() {
        // A line that a crash cut off remembers nothing; the queue is asked too.
        let Ok(line) = serde_json::from_str::<Memory>(&line?) else { continue };
        if line.sum == sum && line.sender == head.sender && take(head, &line.recipients) {
            found = Some((line.id, line.at));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_the_same_whatever_its_line_ends() {
        let of = |text: &str| Content::of(text.as_bytes()).unwrap();
        let lf = of("a\nb\n\nc\n");
        assert_eq!(lf.size, 7);
        assert_eq!(of("a\r\nb\r\n\r\nc\r"), lf);
        assert_ne!(of("a\nb\n\nd\n"), lf);
        // FNV-1a's own test: the sum of "a".
        assert_eq!(of("a").session(), "import-d228cb696f1a8caf78912b704e4a8964");
    }
}
