//! The outcome log: what became of each message and session, for `lamppost log ID`.
//!
//! Every event of level info and above that names a `queue_id` or a `session` becomes a line of
//! JSON in `outcomes.jsonl`. When the disk cannot keep up, lines are dropped and counted, because
//! mail must not wait for its log. Files are rotated by size.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, error, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::lines::{Lines, Writer};

/// The longest line that is read back; longer ones are damage.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The fields that an event is found by. A notice is a message about another one.
const NAMES: [&str; 3] = ["queue_id", "session", "notice"];

/// How much of the outcome log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// A file that has more bytes than this is put aside.
    pub size_max: u64,
    /// How many files there are: the current one and those put aside.
    pub files_max: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self { size_max: 64 * 1024 * 1024, files_max: 4 }
    }
}

/// The layer that collects outcomes.
pub(crate) struct Outcomes(Lines);

impl Outcomes {
    pub(crate) fn new(to: Lines) -> Self {
        Self(to)
    }
}

/// Begins to write the log in a folder.
pub(crate) fn open(folder: &Path, kept: Kept) -> io::Result<(Lines, Writer)> {
    let mut file = Current::open(folder, kept)?;
    let mut failed = false;
    Lines::begin("outcomes", move |lines, dropped| {
        if dropped > 0 {
            warn!(dropped, "lines of the outcome log were dropped: the disk is too slow");
        }
        match file.write(lines) {
            Ok(()) => failed = false,
            // Said once until it works again: a full disk must not flood the other log too.
            Err(error) if !failed => {
                failed = true;
                error!(reason = %error, "the outcome log cannot be written");
            }
            Err(_) => {}
        }
    })
}

/// Begins to pass lines on to the process that writes the log.
pub(crate) fn pass_on(mut to: UnixStream) -> io::Result<(Lines, Writer)> {
    Lines::begin("outcomes", move |lines, dropped| {
        if dropped > 0 {
            warn!(dropped, "lines of the outcome log were dropped: they are written too slowly");
        }
        // Without that process nobody can be told; it is begun again with all others.
        drop(to.write_all(lines));
    })
}

/// Hands in the whole lines that come from another process, until it is gone.
pub(crate) fn keep(mut from: UnixStream, to: &Lines) {
    let (mut bytes, mut used) = (vec![0; 2 * LINE_BYTES_MAX], 0);
    while let Ok(count @ 1..) = from.read(&mut bytes[used..]) {
        used += count;
        let whole = memchr::memrchr(b'\n', &bytes[..used]).map_or(0, |end| end + 1);
        if whole > 0 {
            to.hand_in(&bytes[..whole], Level::INFO);
        }
        bytes.copy_within(whole..used, 0);
        used -= whole;
        if used == bytes.len() {
            // No line of ours is that long.
            used = 0;
        }
    }
}

impl<S: Subscriber> Layer<S> for Outcomes {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if !fields.0.contains_key("queue_id") && !fields.0.contains_key("session") {
            return;
        }
        let Some(Value::String(message)) = fields.0.remove("message") else {
            return;
        };
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        let outcome = OutcomeEvent { at: now_ms(), level, message, fields: fields.0 };
        let Ok(mut line) = serde_json::to_vec(&outcome) else {
            return;
        };
        line.push(b'\n');
        self.0.hand_in(&line, *event.metadata().level());
    }
}

#[expect(clippy::disallowed_methods, reason = "a log line tells the machine's time")]
fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The fields of an event as JSON values.
#[derive(Default)]
struct Fields(BTreeMap<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), Value::String(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

fn path_of(folder: &Path, age: usize) -> PathBuf {
    match age {
        0 => folder.join("outcomes.jsonl"),
        age => folder.join(format!("outcomes.{age}.jsonl")),
    }
}

/// How many files there are.
fn count(folder: &Path) -> usize {
    // More than ever may be kept.
    (0..10_000).take_while(|&age| path_of(folder, age).exists()).count()
}

/// The file that is written now.
struct Current {
    folder: PathBuf,
    kept: Kept,
    file: File,
    size: u64,
}

impl Current {
    fn open(folder: &Path, kept: Kept) -> io::Result<Self> {
        let file =
            File::options().create(true).append(true).mode(0o600).open(path_of(folder, 0))?;
        let size = file.metadata()?.len();
        Ok(Self { folder: folder.to_owned(), kept, file, size })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size > self.kept.size_max {
            let files = count(&self.folder);
            for age in (0..files).rev() {
                std::fs::rename(path_of(&self.folder, age), path_of(&self.folder, age + 1))?;
            }
            // More than one when fewer are to be kept than before.
            for age in self.kept.files_max..=files {
                std::fs::remove_file(path_of(&self.folder, age))?;
            }
            *self = Self::open(&self.folder, self.kept)?;
        }
        self.size += lines.len() as u64;
        self.file.write_all(lines)
    }
}

/// One line of the outcome log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeEvent {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub at: u64,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What happened, a constant text.
    pub message: String,
    /// To what and why.
    #[serde(flatten)]
    pub fields: BTreeMap<String, Value>,
}

impl OutcomeEvent {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(Value::as_str)
    }
}

/// Why the outcome log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the outcome log {path}")]
pub struct ReadError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// All events of a message or a session, oldest first; the events of a message's session and of a
/// session's messages are among them. Damaged lines are skipped.
///
/// # Errors
/// When a file of the log is there and cannot be read.
pub fn read_outcomes(folder: &Path, id: &str) -> Result<Vec<OutcomeEvent>, ReadError> {
    let mut ids = vec![id.to_owned()];
    let found = events_of(folder, &ids)?;
    for event in &found {
        for name in ["queue_id", "session"] {
            let linked =
                event.field(name).filter(|&linked| !ids.iter().any(|known| known == linked));
            ids.extend(linked.map(str::to_owned));
        }
    }
    if ids.len() == 1 {
        return Ok(found);
    }
    let is_of_it = |event: &OutcomeEvent| {
        ["queue_id", "notice"].iter().any(|name| event.field(name) == Some(id))
    };
    let asked_for_message = found.iter().any(is_of_it);
    let mut found = events_of(folder, &ids)?;
    // A session may have brought other messages: they are no part of this one's story.
    found
        .retain(|event| !asked_for_message || event.field("queue_id").is_none() || is_of_it(event));
    Ok(found)
}

fn events_of(folder: &Path, ids: &[String]) -> Result<Vec<OutcomeEvent>, ReadError> {
    let mut found = Vec::new();
    for age in (0..count(folder)).rev() {
        let path = path_of(folder, age);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(ReadError { path, source }),
        };
        scan(file, ids, &mut found).map_err(|source| ReadError { path, source })?;
    }
    Ok(found)
}

fn scan(file: File, ids: &[String], found: &mut Vec<OutcomeEvent>) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1024 * 1024, file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let named = ids.iter().any(|id| memchr::memmem::find(&line, id.as_bytes()).is_some());
        if named
            && line.len() <= LINE_BYTES_MAX
            && let Ok(event) = serde_json::from_slice::<OutcomeEvent>(&line)
            && NAMES
                .iter()
                .any(|name| event.field(name).is_some_and(|value| ids.iter().any(|id| id == value)))
        {
            found.push(event);
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn messages(folder: &Path, id: &str) -> Vec<String> {
        read_outcomes(folder, id).unwrap().into_iter().map(|event| event.message).collect()
    }

    #[test]
    fn a_message_and_its_session_are_found_by_either_id() {
        let folder = tempfile::tempdir().unwrap();
        let (lines, writer) = open(folder.path(), Kept::default()).unwrap();
        let subscriber = tracing_subscriber::registry().with(Outcomes::new(lines));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(session = "s1", "recipient deferred");
            tracing::info!(session = "s1", queue_id = "q1", "message accepted");
            tracing::info!(queue_id = "q1", to = "a@b.test", "message delivered");
            tracing::info!(session = "s1", queue_id = "q2", "message accepted");
            tracing::info!(session = "s10", "recipient refused");
            tracing::info!(queue_id = "q1", notice = "q3", "sender told of delay");
            tracing::info!(queue_id = "q3", "message delivered");
            tracing::info!("something else");
        });
        drop(writer);
        assert_eq!(
            messages(folder.path(), "q1"),
            ["recipient deferred", "message accepted", "message delivered", "sender told of delay"]
        );
        assert_eq!(messages(folder.path(), "q3"), ["sender told of delay", "message delivered"]);
        assert_eq!(messages(folder.path(), "s1").len(), 5);
        assert_eq!(messages(folder.path(), "s10"), ["recipient refused"]);
        assert!(messages(folder.path(), "nothing").is_empty());
    }

    #[test]
    fn what_another_process_tells_is_kept_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let (lines, writer) = open(folder.path(), Kept::default()).unwrap();
        let (mut here, there) = UnixStream::pair().unwrap();
        let keeper = std::thread::spawn(move || keep(there, &lines));
        let line = |id| {
            format!("{{\"at\":1,\"level\":\"info\",\"message\":\"m\",\"queue_id\":\"{id}\"}}\n")
        };
        let text = format!("{}{}", line("q1"), line("q2"));
        for piece in text.as_bytes().chunks(7) {
            here.write_all(piece).unwrap();
        }
        here.write_all(&vec![b'x'; 3 * LINE_BYTES_MAX]).unwrap();
        here.write_all(format!("\n{}half a line", line("q3")).as_bytes()).unwrap();
        drop(here);
        keeper.join().unwrap();
        drop(writer);
        for id in ["q1", "q2", "q3"] {
            assert_eq!(messages(folder.path(), id), ["m"], "{id}");
        }
    }

    #[test]
    fn damaged_lines_are_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let good = r#"{"at":1,"level":"info","message":"m","queue_id":"q1"}"#;
        let text = format!("q1 garbage\n{good}\n{{\"queue_id\":\"q1\"\n");
        std::fs::write(path_of(folder.path(), 0), text).unwrap();
        assert_eq!(messages(folder.path(), "q1"), ["m"]);
    }

    #[test]
    fn a_full_file_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept { size_max: 10, files_max: 3 };
        let mut current = Current::open(folder.path(), kept).unwrap();
        let lines = ["a first line\n", "a second line\n", "a third line\n", "a fourth line\n"];
        for line in lines {
            current.write(line.as_bytes()).unwrap();
        }
        let files = || {
            let read = |age| std::fs::read_to_string(path_of(folder.path(), age)).unwrap();
            (0..count(folder.path())).map(read).collect::<Vec<_>>()
        };
        assert_eq!(files(), [lines[3], lines[2], lines[1]]);
        current.kept.files_max = 1;
        current.write(lines[0].as_bytes()).unwrap();
        assert_eq!(files(), [lines[0]]);
    }
}
