//! queue export: messages as plain files.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use lamppost_console::ClientError;
use lamppost_roles::{MessageView, QueueId};

use super::filters::Which;
use super::source::Source;
use super::{client, count, out};
use crate::command::progress::Progress;
use crate::exit::{Code, Failure};
use crate::place::Place;

/// Write messages into a folder, as files that only you may read.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// The folder; it is made when it is not there
    directory: PathBuf,
    #[command(flatten)]
    which: Which,
    /// Read the spool itself, of a program that does not run
    #[arg(long)]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What became of the messages.
#[derive(Default)]
struct Tally {
    exported: Vec<QueueId>,
    count: u64,
    failed: u64,
}

impl Export {
    pub(super) async fn execute(self, place: &Place) -> Result<(), Failure> {
        let source = self.source(place).await?;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.directory).map_err(|error| {
            let step = format!("cannot make the folder {}", self.directory.display());
            Failure::at(Code::Io, &step, &error)
        })?;
        let mut progress = Progress::new("messages exported");
        let mut tally = Tally::default();
        if self.which.ids.is_empty() {
            let mut pages = source.pages(self.which.filters.filter());
            while let Some(page) = pages.next().await? {
                for message in page {
                    self.message(&source, &message, &mut tally).await?;
                    progress.add(1);
                }
            }
        }
        for &id in &self.which.ids {
            match source.show(id).await? {
                Some(message) => self.message(&source, &message, &mut tally).await?,
                None => tally.fail(&format!("no message {id} in the queue")),
            }
            progress.add(1);
        }
        drop(progress);
        self.sync()?;
        self.report(&tally)
    }

    /// The running program; without one, the spool itself.
    async fn source(&self, place: &Place) -> Result<Source, Failure> {
        if self.offline {
            return Source::offline(&place.open()?);
        }
        let client = client(place)?;
        match client.get::<serde_json::Value>("/v1/status").await {
            Err(ClientError::NotRunning { .. }) => {
                let opened = place.open()?;
                let source = Source::offline(&opened)?;
                let spool = opened.state.join("spool");
                tell(&format!("lamppost is not running; reading {} itself", spool.display()));
                Ok(source)
            }
            // Whatever else is wrong is told by the first question.
            _ => Ok(Source::Running(client)),
        }
    }

    async fn message(
        &self,
        source: &Source,
        message: &MessageView,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let id = message.id;
        let (content, envelope) = (self.path(id, "eml"), self.path(id, "json"));
        if let Some(there) = [&content, &envelope].into_iter().find(|path| path.exists()) {
            tally.fail(&format!("{} is there already", there.display()));
            return Ok(());
        }
        let written = write_content(source, id, &content).await;
        match written {
            Ok(true) => {}
            // It left the queue meanwhile.
            Ok(false) => return remove(&content),
            Err(failure) => {
                remove(&content)?;
                tally.fail(&format!("message {id}: {}", failure.text()));
                return Ok(());
            }
        }
        let text = serde_json::to_string_pretty(message);
        let text =
            text.map_err(|error| Failure::at(Code::Software, "cannot write JSON", &error))?;
        let written = create(&envelope).and_then(|mut file| writeln!(file, "{text}"));
        written.map_err(|error| unwritten(&envelope, &error))?;
        tally.count += 1;
        if self.json {
            tally.exported.push(id);
        }
        Ok(())
    }

    fn path(&self, id: QueueId, end: &str) -> PathBuf {
        self.directory.join(format!("{id}.{end}"))
    }

    /// Makes all files durable at once.
    fn sync(&self) -> Result<(), Failure> {
        let synced = File::open(&self.directory).and_then(|folder| Ok(rustix::fs::syncfs(folder)?));
        synced.map_err(|error| unwritten(&self.directory, &error))
    }

    fn report(&self, tally: &Tally) -> Result<(), Failure> {
        if self.json {
            out::json(&serde_json::json!({ "exported": tally.exported, "failed": tally.failed }))?;
        } else {
            let exported = count(tally.count, "message");
            out::print(&format!("{exported} exported to {}.\n", self.directory.display()))?;
        }
        match tally.failed {
            0 => Ok(()),
            failed => {
                let what = format!("{} could not be exported", count(failed, "message"));
                Err(Failure::new(Code::Data, what))
            }
        }
    }
}

impl Tally {
    fn fail(&mut self, what: &str) {
        self.failed += 1;
        tell(&format!("error: {what}"));
    }
}

/// Tells something on the way; with standard error closed there is nobody to tell.
pub(super) fn tell(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

async fn write_content(source: &Source, id: QueueId, path: &Path) -> Result<bool, Failure> {
    let file = create(path).map_err(|error| unwritten(path, &error))?;
    let mut file = BufWriter::new(file);
    let is_there = source.content(id, |piece| file.write_all(piece)).await?;
    file.flush().map_err(|error| unwritten(path, &error))?;
    Ok(is_there)
}

/// A new file that only its owner may read.
fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritten(path, &error)),
        _ => Ok(()),
    }
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::at(Code::Io, &format!("cannot write {}", path.display()), error)
}
