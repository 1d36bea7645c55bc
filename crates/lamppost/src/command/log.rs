//! log: what became of a message or a session.

use std::fmt::Write as _;

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
        let folder = place.open()?.outcomes();
        let events = read_outcomes(&folder, &self.id).map_err(|error| {
            Failure::of(Code::Io, &error).cure("run this as the user that lamppost runs as")
        })?;
        if self.json {
            return out::json(&events);
        }
        if events.is_empty() {
            if !folder.is_dir() {
                let what = format!("there is no log in {}", folder.display());
                return Err(Failure::new(Code::Data, what)
                    .cure("name the same --state or --config as `lamppost run`"));
            }
            return Err(Failure::new(Code::Data, format!("nothing is known of {}", self.id))
                .cure("ids are in the log, in the reply to the client, and in the names of files in Maildirs"));
        }
        out::print(&events.iter().map(line).collect::<String>())
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
