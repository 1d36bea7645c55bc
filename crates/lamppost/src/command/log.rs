//! log: what became of a message or a session.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use clap::Args;
use lamppost_telemetry::{OutcomeEvent, read_outcomes};

use super::out;
use crate::exit::{Code, Failure};
use crate::place::Place;

/// Tell what became of a message or a session.
#[derive(Args, Debug)]
pub(crate) struct Log {
    /// The id of a message or of a session, as in the log and in the reply to the client
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Log {
    /// Reads the outcome log itself, so that it works also when nothing runs.
    pub(crate) fn execute(self, place: &Place) -> Result<(), Failure> {
        let folder = place.reach()?.outcomes;
        let events =
            std::fs::read_dir(&folder).map_err(|error| unread(&folder, &error)).and_then(|_| {
                read_outcomes(&folder, &self.id).map_err(|error| unread(&folder, &error))
            })?;
        if self.json {
            out::json(&events)?;
        }
        if events.is_empty() {
            return Err(Failure::new(Code::Data, format!("nothing is known of {}", self.id))
                .cure("ids are in the log, in the reply to the client, and in the names of files in Maildirs"));
        }
        if self.json {
            return Ok(());
        }
        out::print(&events.iter().map(line).collect::<String>())
    }
}

fn unread(folder: &Path, error: &(dyn Error + 'static)) -> Failure {
    let io = std::iter::successors(Some(error), |&error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>());
    let what = format!("cannot read the outcome log in {}", folder.display());
    match io.map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => {
            Failure::new(Code::Data, format!("there is no outcome log in {}", folder.display()))
                .cure("name the same --state or --config as `lamppost run`")
        }
        Some(io::ErrorKind::PermissionDenied) => Failure::at(Code::Permission, &what, error)
            .cure("run this as root or as the user that lamppost runs as"),
        _ => Failure::at(Code::Io, &what, error),
    }
}

fn line(event: &OutcomeEvent) -> String {
    let mut line = format!("{}  {:4}  {}", out::time(event.at), event.level, event.message);
    for (name, value) in &event.fields {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _infallible = write!(line, "  {name}={value}");
    }
    line.push('\n');
    line
}
