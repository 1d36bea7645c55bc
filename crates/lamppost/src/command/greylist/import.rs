//! greylist import: what postgrey and sqlgrey remember.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::{Args, Subcommand};
use lamppost_config::parse_duration;
use lamppost_console::Client;
use lamppost_greylist::import::postgrey::{self, Entry, Rules};
use lamppost_greylist::import::{Dump, Remembered, sqlgrey};
use lamppost_roles::{GreylistImported, GreylistMemory, Timestamp};
use serde::Serialize;

use super::{out, unanswered};
use crate::command::progress::Progress;
use crate::exit::{Code, Failure};

/// Rows that are handed over at once; the greylist answers mail servers between.
const AT_ONCE: usize = 500;
/// The files of postgrey.
const FILES: [&str; 2] = ["postgrey.db", "postgrey_clients.db"];
/// What makes a text of them, by the names that Debian's packages give it.
const DUMPERS: [&str; 2] = ["db5.3_dump", "db_dump"];
/// The number by which a file of a Berkeley DB tree is known, and where it stands (its `magic(5)`).
const MAGIC: (u64, [u8; 4]) = (12, 0x0005_3162_u32.to_le_bytes());

/// Take over what another greylist remembers.
///
/// Importing the same again changes nothing. How long each is known follows from [mail.greylist] here.
#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// Take over postgrey's triplets, and the clients that it lets pass
    ///
    /// Its files are read by `db5.3_dump`, of Debian's package db5.3-util, while postgrey runs or not. The text
    /// that `db5.3_dump -p -h /var/lib/postgrey postgrey.db` writes on another machine can be imported as
    /// well, and so can that of `postgrey_clients.db`.
    Postgrey(Postgrey),
    /// Take over sqlgrey's triplets, and the senders and domains that it lets pass, from its SQLite file
    Sqlgrey {
        /// The file: `db_name` of sqlgrey.conf
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Where postgrey's memory is, and what it means.
#[derive(Args, Debug)]
pub(crate) struct Postgrey {
    /// postgrey's folder (Debian: /var/lib/postgrey), one of its files, or a text that `db5.3_dump` wrote; - is
    /// standard input
    path: PathBuf,
    /// How long postgrey had senders wait, if it was started with another --delay
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    delay: Duration,
    /// After how many messages postgrey lets a client pass, if it was started with another
    /// --auto-whitelist-clients; 0 for never
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    clients_after: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is told in the end.
#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    #[serde(flatten)]
    imported: GreylistImported,
    /// Clients that have not passed often enough.
    counted: u64,
    /// Digests, of which nobody can tell whom they mean.
    digests: u64,
    /// What is none of what the other greylist writes.
    unknown: u64,
}

impl Import {
    pub(crate) async fn execute(self, client: &Client) -> Result<(), Failure> {
        let (rows, mut summary, json) = match self {
            Self::Postgrey(postgrey) => {
                let (rows, summary) = postgrey.rows()?;
                (rows, summary, postgrey.json)
            }
            Self::Sqlgrey { file, json } => {
                let read = sqlgrey::read(&file).await;
                let (rows, unknown) = read.map_err(|error| {
                    Failure::of(Code::Data, &error).cure(
                        "name the SQLite file of sqlgrey: `db_name` where sqlgrey.conf says `db_type = SQLite`",
                    )
                })?;
                (rows, Summary { unknown, ..Summary::default() }, json)
            }
        };
        hand_over(client, rows, &mut summary).await?;
        if json { out::json(&summary) } else { out::print(&summary.text()) }
    }
}

impl Summary {
    /// For people.
    fn text(&self) -> String {
        let GreylistImported { taken, unchanged, left_out } = self.imported;
        let mut text = format!("{taken} taken over, {unchanged} known already");
        for (count, what) in [
            (left_out, "left out, since their time is over or they say nothing yet"),
            (self.counted, "clients left out that have not passed often enough"),
            (self.digests, "digests (--privacy) left out, since nobody can tell whom they mean"),
            (self.unknown, "not understood"),
        ] {
            if count > 0 {
                let _infallible = write!(text, "; {count} {what}");
            }
        }
        text + ".\n"
    }
}

/// Sorted, so that what is of one network is handed over together.
async fn hand_over(
    client: &Client,
    mut rows: Vec<Remembered>,
    summary: &mut Summary,
) -> Result<(), Failure> {
    rows.sort_by_key(|row| row.client);
    let mut progress = Progress::new("rows taken over");
    for part in rows.chunks(AT_ONCE) {
        let part: Vec<_> = part.iter().map(memory).collect();
        let done = client.post::<GreylistImported>("/v1/greylist/import", &part).await;
        let GreylistImported { taken, unchanged, left_out } =
            done.map_err(|error| unanswered(&error))?;
        summary.imported.taken += taken;
        summary.imported.unchanged += unchanged;
        summary.imported.left_out += left_out;
        progress.add(part.len() as u64);
    }
    Ok(())
}

fn memory(row: &Remembered) -> GreylistMemory {
    let Remembered { client, sender, recipient, first, last, passed } = row.clone();
    let [first, last] =
        [first, last].map(|time| Timestamp(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
    GreylistMemory { client, sender, recipient, first, last, passed }
}

impl Postgrey {
    fn rows(&self) -> Result<(Vec<Remembered>, Summary), Failure> {
        let (mut rows, mut summary) = (Vec::new(), Summary::default());
        let path = &self.path;
        if path.as_os_str() == "-" {
            self.add(io::stdin().lock(), &mut rows, &mut summary)?;
        } else if path.is_dir() {
            let there: Vec<_> = FILES.iter().filter(|file| path.join(file).exists()).collect();
            if there.is_empty() {
                let what = format!("neither {} is in {}", FILES.join(" nor "), path.display());
                return Err(Failure::new(Code::Data, what)
                    .cure("name postgrey's --dbdir; Debian's is /var/lib/postgrey"));
            }
            for file in there {
                self.add_file(path, file, &mut rows, &mut summary)?;
            }
        } else if is_tree(path).map_err(|error| self.unread(&error))? {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            self.add_file(folder.unwrap_or(Path::new(".")), &name, &mut rows, &mut summary)?;
        } else {
            let file = File::open(path).map_err(|error| self.unread(&error))?;
            self.add(BufReader::new(file), &mut rows, &mut summary)?;
        }
        Ok((rows, summary))
    }

    fn unread(&self, error: &io::Error) -> Failure {
        Failure::at(Code::Data, &format!("cannot read {}", self.path.display()), error)
    }

    /// Reads one of postgrey's files by a program of its library. With the folder it also sees what a
    /// postgrey that runs has not written into the file yet.
    fn add_file(
        &self,
        folder: &Path,
        file: &str,
        rows: &mut Vec<Remembered>,
        summary: &mut Summary,
    ) -> Result<(), Failure> {
        for program in DUMPERS {
            let mut command = Command::new(program);
            command.args(["-p", "-h"]).arg(folder).arg(file);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = match command.spawn() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(Failure::at(
                        Code::System,
                        &format!("cannot run {program}"),
                        &error,
                    ));
                }
                Ok(child) => child,
            };
            let text = child.stdout.take().map(BufReader::new);
            let added = text.map_or(Ok(()), |text| self.add(text, rows, summary));
            let ended = child.wait_with_output();
            let ended = ended.map_err(|error| Failure::of(Code::System, &error))?;
            if !ended.status.success() {
                let said = String::from_utf8_lossy(&ended.stderr).trim_end().to_owned();
                let what = format!("{program} cannot read {}: {said}", folder.join(file).display());
                return Err(Failure::new(Code::Data, what)
                    .cure("run this as root or as postgrey's user, while postgrey runs or is stopped in order"));
            }
            return added;
        }
        Err(Failure::new(Code::System, format!("{} is not there to read postgrey's files", DUMPERS[0]))
            .cure("install it by `apt-get install db5.3-util`, or see `lamppost greylist import postgrey --help` for a way without it"))
    }

    fn add(
        &self,
        text: impl BufRead,
        rows: &mut Vec<Remembered>,
        summary: &mut Summary,
    ) -> Result<(), Failure> {
        let rules = Rules { delay: self.delay, clients_after: self.clients_after };
        for pair in Dump::new(text) {
            let (key, value) = pair.map_err(|problem| {
                let is_input = self.path.as_os_str() == "-";
                let path = self.path.display().to_string();
                let path = if is_input { "standard input" } else { &path };
                let what = format!("{path} is no dump of a Berkeley DB");
                Failure::at(Code::Data, &what, &problem).cure(
                    "name postgrey's folder, or what `db5.3_dump -p -h /var/lib/postgrey postgrey.db` writes",
                )
            })?;
            match postgrey::entry(&key, &value, rules) {
                Entry::Remembered(row) => rows.push(row),
                Entry::Counted => summary.counted += 1,
                Entry::Digest => summary.digests += 1,
                Entry::Unknown => summary.unknown += 1,
            }
        }
        Ok(())
    }
}

/// Whether a file is a tree of Berkeley DB's own, and not a text of one.
fn is_tree(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(io::SeekFrom::Start(MAGIC.0))?;
    let mut magic = [0; 4];
    Ok(file.read(&mut magic)? == magic.len() && magic == MAGIC.1)
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a duration with its unit: 30s, 5m, 1h".into())
}
