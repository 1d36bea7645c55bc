//! restore: a state out of a backup.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::Args;
use lamppost_backup::{Manifest, Sink};
use lamppost_config::Config;
use lamppost_queue::{OfflineSpool, Restored};
use rustix::fs::FlockOperation;

use super::place_back::{Placed, place_back};
use super::{CONFIG, SPOOL, STATE, open, refused, summary};
use crate::command::out;
use crate::command::progress::Progress;
use crate::command::queue::source::{settings, unopened};
use crate::exit::{Code, Failure};
use crate::local_way;
use crate::place::{self, Opened, Place};

/// Where the configuration file of a backup is put, in the state folder.
const RESTORED_CONFIG: &str = "restored.toml";

/// Make a state folder out of a backup, of a program that does not run.
#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The backup
    file: PathBuf,
    /// Put a state that is there already aside; Maildirs in it stay where they are
    #[arg(long)]
    force: bool,
    /// Let the queue go on by itself: what was delivered since the backup is delivered again
    #[arg(long)]
    go_on: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What became of the queue.
struct Queue {
    held: u64,
    is_sound: bool,
}

impl Restore {
    pub(crate) fn execute(self, place: &Place) -> Result<(), Failure> {
        if self.file == Path::new("-") {
            return Err(Failure::new(Code::Usage, "a backup is restored from a file")
                .cure("write it to a file first: it is read twice"));
        }
        // Everything is proved before anything is touched.
        let mut config = ConfigText::default();
        let manifest = lamppost_backup::read(open(&self.file)?, &mut config)
            .map_err(|error| refused(&self.file, &error))?;
        let opened = opened(place, config.text())?;
        let _lock = not_running(&opened)?;
        let is_empty = is_empty(&opened.state)?;
        if !is_empty && !self.force {
            let what = format!("there is a state in {} already", opened.state.display());
            return Err(Failure::new(Code::Data, what).cure(
                "name an empty folder with --state DIR, or put the state aside with --force",
            ));
        }
        let staged = Staged::new(&opened.state)?;
        let again = lamppost_backup::read(open(&self.file)?, &mut staged.files())
            .map_err(|error| refused(&self.file, &error))?;
        if again != manifest {
            let what = format!("{} was changed while it was read", self.file.display());
            return Err(Failure::new(Code::Data, what));
        }
        let queue = self.make_ready(&opened, &staged, &manifest)?;
        // As the program itself would make it.
        let mode = Permissions::from_mode(local_way::state_mode(&opened));
        std::fs::set_permissions(&staged.path, mode)
            .map_err(|error| unwritten(&staged.path, &error))?;
        staged.sync()?;
        let placed = place_back(&staged.path, &opened.state)?;
        staged.keep();
        self.tell((&opened, &place.options()), &manifest, (&queue, &placed))
    }

    /// Nobody knows what was delivered since, so nothing is tried before somebody says so.
    fn make_ready(
        &self,
        opened: &Opened,
        staged: &Staged,
        manifest: &Manifest,
    ) -> Result<Queue, Failure> {
        let directory = staged.path.join(SPOOL);
        if !directory.exists() {
            return Ok(Queue { held: 0, is_sound: true });
        }
        for folder in ["log", "bodies", "quarantine"] {
            make_folder(&directory.join(folder)).map_err(|error| unwritten(&directory, &error))?;
        }
        let settings = lamppost_queue::Settings { directory, ..settings(opened) };
        let spool = OfflineSpool::open(settings).map_err(|error| unopened(&error))?;
        let report = spool.report();
        if report.messages != manifest.messages {
            let what = format!(
                "the queue in {} holds {} of {}",
                self.file.display(),
                report.messages,
                out::count(manifest.messages, "message")
            );
            return Err(Failure::new(Code::Data, what).cure("nothing was changed"));
        }
        let is_sound = report.is_sound();
        let restored = if self.go_on { Restored::GoesOn } else { Restored::Held };
        let held = spool.make_ready(restored).map_err(|error| unopened(&error))?;
        Ok(Queue { held, is_sound })
    }

    fn tell(
        &self,
        (opened, options): (&Opened, &str),
        manifest: &Manifest,
        (queue, placed): (&Queue, &Placed),
    ) -> Result<(), Failure> {
        let config = opened.state.join(RESTORED_CONFIG);
        let config = config.exists().then_some(config);
        if self.json {
            return out::json(&serde_json::json!({
                "state": opened.state,
                "put-aside": placed.aside,
                "config": config,
                "held": queue.held,
                "backup": manifest,
            }));
        }
        let state = opened.state.display();
        let mut text = format!("{state} is restored.\n{}", summary(manifest));
        if let Some(aside) = &placed.aside {
            let _infallible = writeln!(text, "aside     what was there is in {}", aside.display());
        }
        text.push_str("\nNow:\n");
        if let Some(config) = &config {
            let _infallible = writeln!(
                text,
                "  look at {}, the configuration of the backup, and put it\n  where it is read; `lamppost check FILE` tells what it names and is not here",
                config.display()
            );
        }
        if !queue.is_sound {
            let _infallible = writeln!(
                text,
                "  `lamppost queue check{options}`: the queue in the backup was damaged"
            );
        }
        let _infallible = writeln!(text, "  `lamppost run{options}`");
        if queue.held > 0 {
            let is = if queue.held == 1 { "is" } else { "are" };
            let held = out::count(queue.held, "message");
            let _infallible = writeln!(
                text,
                "  {held} {is} held, since the original may have delivered what was in its queue:\n  \
                 `lamppost queue{options}`, then `lamppost queue release{options}` or `lamppost queue delete{options}`"
            );
        }
        out::print(&text)
    }
}

/// The place of the state: as the command line says, or a configuration file that is there, or the one
/// in the backup.
fn opened(place: &Place, text: Option<&str>) -> Result<Opened, Failure> {
    let file = place.file().filter(|file| file.exists());
    let config = match (&file, text) {
        (Some(file), _) => place::load(file)?,
        (None, Some(text)) => Config::parse(text, Path::new(CONFIG))
            .map_err(|problems| Failure::new(Code::Data, problems.render(false)))?,
        (None, None) => Config::demo(),
    };
    let mut opened = place.settle(config, file, text.is_some())?;
    // What is beside it is meant to be beside the folder itself, whatever leads there.
    let state = std::fs::canonicalize(&opened.state);
    opened.state = state.unwrap_or_else(|_| opened.state.components().collect());
    Ok(opened)
}

/// Makes sure that no program runs on the state, and that none starts while this is held.
fn not_running(opened: &Opened) -> Result<Option<File>, Failure> {
    let running = || {
        let what = format!("lamppost is running on {}", opened.state.display());
        Failure::new(Code::Unavailable, what).cure("stop it first")
    };
    if UnixStream::connect(&opened.control_socket).is_ok() {
        return Err(running());
    }
    let lock = opened.state.join(SPOOL).join("lock");
    let file = match File::options().write(true).open(&lock) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| unwritten(&lock, &error))?,
    };
    let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    locked.map_err(|_| running())?;
    Ok(Some(file))
}

fn is_empty(folder: &Path) -> Result<bool, Failure> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => {
            Err(Failure::at(Code::Io, &format!("cannot look into {}", folder.display()), &error))
        }
    }
}

/// Keeps the configuration file, and looks at the rest.
#[derive(Default)]
struct ConfigText {
    is_now: bool,
    bytes: Vec<u8>,
}

impl ConfigText {
    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok().filter(|text| !text.is_empty())
    }
}

impl Sink for ConfigText {
    fn file(&mut self, name: &str, _: u64) -> io::Result<()> {
        self.is_now = name == CONFIG;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_now {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }
}

/// A state folder in the making, beside the place where it belongs; it goes unless it is kept.
struct Staged {
    path: PathBuf,
    is_kept: std::cell::Cell<bool>,
}

impl Staged {
    fn new(state: &Path) -> Result<Self, Failure> {
        let mut path = state.as_os_str().to_owned();
        path.push(format!(".restoring-{}", std::process::id()));
        let path = PathBuf::from(path);
        make_folder(super::output::folder_of(&path))
            .and_then(|()| std::fs::DirBuilder::new().mode(0o700).create(&path))
            .map_err(|error| {
                unwritten(&path, &error).cure(
                    "the state is made beside its place: run this as a user who may write there",
                )
            })?;
        Ok(Self { path, is_kept: false.into() })
    }

    fn files(&self) -> Files<'_> {
        Files {
            folder: &self.path,
            file: None,
            folders: HashSet::new(),
            progress: Progress::new("KiB restored"),
        }
    }

    fn sync(&self) -> Result<(), Failure> {
        let synced = File::open(&self.path).and_then(|folder| Ok(rustix::fs::syncfs(folder)?));
        synced.map_err(|error| unwritten(&self.path, &error))
    }

    /// It is in its place.
    fn keep(&self) {
        self.is_kept.set(true);
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_kept.get() {
            drop(std::fs::remove_dir_all(&self.path));
        }
    }
}

/// Puts the files of a backup into a folder.
struct Files<'a> {
    folder: &'a Path,
    file: Option<File>,
    folders: HashSet<PathBuf>,
    progress: Progress,
}

impl Sink for Files<'_> {
    fn file(&mut self, name: &str, length: u64) -> io::Result<()> {
        let in_state = name.strip_prefix(STATE).and_then(|rest| rest.strip_prefix('/'));
        let name = match in_state {
            Some(in_state) => in_state,
            None if name == CONFIG => RESTORED_CONFIG,
            None => return Err(io::Error::other("it belongs nowhere")),
        };
        let path = self.folder.join(name);
        if let Some(parent) = path.parent()
            && self.folders.insert(parent.to_owned())
        {
            make_folder(parent)?;
        }
        let mut options = File::options();
        self.file = Some(options.write(true).create_new(true).mode(0o600).open(path)?);
        self.progress.add(length / 1024);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes))
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    super::unwritten(path, error)
}
