//! backup and restore: all state as one file, and back (docs/guides/backup.md).

mod output;
mod place_back;
mod restore;
mod spool;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use lamppost_backup::{ArchiveError, Manifest, Nowhere, Writer, is_name};

use self::output::Output;
use super::progress::Progress;
use super::{client, out, unanswered};
use crate::exit::{Code, Failure};
use crate::place::{Opened, Place};
use crate::state_files;

pub(crate) use restore::Restore;

/// The configuration file's name in a backup.
const CONFIG: &str = "lamppost.toml";
/// The folder of a backup that holds what lies in the state folder.
const STATE: &str = "state";
/// The folder of the queue in the state folder.
const SPOOL: &str = "spool";

/// Write all state into one file, while the program runs or not.
#[derive(Args, Debug)]
pub(crate) struct Backup {
    /// The file; - is standard output
    file: PathBuf,
    /// Read the backup in FILE and tell whether it is whole
    #[arg(long)]
    check: bool,
    /// Print JSON: what is in the backup
    #[arg(long)]
    json: bool,
}

impl Backup {
    pub(crate) async fn execute(self, place: &Place) -> Result<(), Failure> {
        if self.check {
            let manifest = read_whole(&self.file)?;
            return self.tell(&format!("{} is whole.\n", self.file.display()), &manifest);
        }
        let opened = place.open()?;
        if !opened.state.is_dir() {
            let what = format!("there is no state in {}", opened.state.display());
            return Err(Failure::new(Code::Data, what)
                .cure("name the same --state or --config as `lamppost run`"));
        }
        let output = Output::begin(&self.file)?;
        let mut work = Work::begin(&self.file, &output)?;
        work.config(&opened)?;
        work.databases(&opened, &output)?;
        for folder in ["tls", "log"] {
            work.folder(&opened, folder)?;
        }
        let messages = work.spool(place, &opened).await?;
        let manifest = work.finish(&opened, messages)?;
        output.finish()?;
        self.tell(&format!("{} is written.\n", self.file.display()), &manifest)
    }

    /// With the backup itself on standard output, words go to standard error.
    fn tell(&self, first: &str, manifest: &Manifest) -> Result<(), Failure> {
        let is_output = self.file == Path::new("-") && !self.check;
        if self.json && !is_output {
            return out::json(manifest);
        }
        let text = format!("{}{}", first, summary(manifest));
        if is_output {
            out::complain(&text);
            return Ok(());
        }
        out::print(&text)
    }
}

/// What a backup is, in words.
fn summary(manifest: &Manifest) -> String {
    let Manifest { program, host, created_s, messages, files } = manifest;
    format!(
        "host      {host}\nbegun     {}, by lamppost {program}\nholds     {} in the queue, {}, {}; no Maildirs\n",
        out::time(created_s.saturating_mul(1000)),
        out::count(*messages, "message"),
        out::count(files.len() as u64, "file"),
        out::size(manifest.bytes()),
    )
}

/// Reads a backup to its end.
fn read_whole(file: &Path) -> Result<Manifest, Failure> {
    let opened = open(file)?;
    lamppost_backup::read(opened, &mut Nowhere).map_err(|error| refused(file, &error))
}

fn open(file: &Path) -> Result<Box<dyn io::Read>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(file);
    let opened = opened.map_err(|error| {
        Failure::at(Code::Io, &format!("cannot open {}", file.display()), &error)
    })?;
    Ok(Box::new(opened))
}

/// What to tell of a backup that is not to be trusted.
fn refused(file: &Path, error: &ArchiveError) -> Failure {
    let what = format!("{}: {}", file.display(), crate::exit::chain(error));
    match error {
        ArchiveError::Read(_) | ArchiveError::Put { .. } => Failure::new(Code::Io, what),
        ArchiveError::Newer { .. } => Failure::new(Code::Data, what),
        ArchiveError::NotABackup | ArchiveError::CutOff { .. } | ArchiveError::Damaged { .. } => {
            Failure::new(Code::Data, what)
                .cure("nothing was changed; use another backup, or another copy of this one")
        }
    }
}

/// A backup that is being written.
struct Work {
    writer: Writer<Box<dyn Write + Send>>,
    progress: Progress,
    file: PathBuf,
}

impl Work {
    fn begin(file: &Path, output: &Output) -> Result<Self, Failure> {
        let begun = output.writer().and_then(|out| Writer::begin(out, out::now_ms() / 1000));
        let writer = begun.map_err(|error| unwritten(file, &error))?;
        let progress = Progress::new("KiB saved");
        Ok(Self { writer, progress, file: file.to_owned() })
    }

    /// A file as it is now; one that is not there is left out, and what is appended meanwhile too.
    fn add(&mut self, name: &str, path: &Path) -> Result<(), Failure> {
        let found = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(|error| unread(path, &error))?,
        };
        let copied = self.writer.copy(name, length, file);
        copied.map_err(|error| {
            let step = format!("cannot copy {} to {}", path.display(), self.file.display());
            Failure::at(Code::Io, &step, &error)
        })?;
        self.progress.add(length / 1024);
        Ok(())
    }

    fn config(&mut self, opened: &Opened) -> Result<(), Failure> {
        opened.file.as_ref().map_or(Ok(()), |path| self.add(CONFIG, path))
    }

    /// The databases, each as it is at one moment whoever writes into it.
    fn databases(&mut self, opened: &Opened, output: &Output) -> Result<(), Failure> {
        for name in [state_files::ACCOUNTS, state_files::GREYLIST] {
            let path = state_files::database(&opened.state, name);
            if !path.exists() {
                continue;
            }
            let copy = output.beside(&opened.state, name);
            let copied = lamppost_database::copy(&path, &copy)
                .map_err(|error| Failure::of(Code::Io, &error))
                .and_then(|()| self.add(&format!("{STATE}/{name}"), &copy));
            drop(std::fs::remove_file(&copy));
            copied?;
        }
        Ok(())
    }

    /// The files of a folder in the state folder.
    fn folder(&mut self, opened: &Opened, folder: &str) -> Result<(), Failure> {
        let path = opened.state.join(folder);
        let entries = match std::fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|error| unread(&path, &error))?,
        };
        let entries: io::Result<Vec<_>> = entries.collect();
        let mut entries = entries.map_err(|error| unread(&path, &error))?;
        // One state gives one backup, whatever order the file system tells its files in.
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = format!("{STATE}/{folder}/{}", entry.file_name().to_string_lossy());
            if is_name(&name) && entry.path().is_file() {
                self.add(&name, &entry.path())?;
            } else {
                out::complain(&format!(
                    "{} is left out: it is none of ours\n",
                    entry.path().display()
                ));
            }
        }
        Ok(())
    }

    /// The queue at one moment; returns how many messages are in it.
    async fn spool(&mut self, place: &Place, opened: &Opened) -> Result<u64, Failure> {
        let client = client(place)?;
        match client.get::<serde_json::Value>("/v1/status").await {
            Err(lamppost_console::ClientError::NotRunning { .. }) => spool::offline(self, opened),
            Err(error) => Err(unanswered(&error)),
            Ok(_) => spool::running(self, &client).await,
        }
    }

    fn finish(self, opened: &Opened, messages: u64) -> Result<Manifest, Failure> {
        let Self { writer, file, .. } = self;
        let about = Manifest {
            program: env!("CARGO_PKG_VERSION").into(),
            host: opened.hostname(),
            messages,
            ..Manifest::default()
        };
        let finished = writer.finish(about);
        finished.map(|(_, manifest)| manifest).map_err(|error| unwritten(&file, &error))
    }
}

fn unread(path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => Code::Permission,
        _ => Code::Io,
    };
    Failure::at(code, &format!("cannot read {}", path.display()), error)
        .cure("run this as root or as the user that lamppost runs as")
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::at(Code::Io, &format!("cannot write {}", path.display()), error)
}
