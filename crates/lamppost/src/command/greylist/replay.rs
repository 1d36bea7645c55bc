//! greylist replay: what the greylist would have decided of mail that came.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use lamppost_config::{Config, GreylistAlgorithm};
use lamppost_greylist::replay::{Delivery, Log, LogKind, Replay, Summary};
use lamppost_greylist::{Record, Triplet};
use lamppost_roles::TripletView;
use serde::Deserialize;
use serde_json::Value;

use crate::command::out;
use crate::command::progress::Progress;
use crate::exit::{Code, Failure};
use crate::place::Place;
use crate::run::greylist_policy;

/// Bytes that are printed at once.
const PRINTED_BYTES: usize = 64 * 1024;
/// Bytes of a line that tells an attempt; of a longer one the end is not read.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// What to replay, and by which rules.
#[derive(Args, Debug)]
pub(crate) struct ReplayOptions {
    /// Decide by these rules instead of those of `policy` in [mail.greylist]
    #[arg(long, value_enum, value_name = "RULES")]
    policy: Option<Rules>,
    /// FILE is a mail log
    #[arg(long, value_enum, value_name = "SERVER")]
    from_log: Option<Server>,
    /// Begin with these rows, as `greylist list` prints them in JSON
    #[arg(long, value_name = "FILE")]
    rows: Option<PathBuf>,
    /// Print the summary alone, for people
    #[arg(long)]
    summary: bool,
    /// Attempts in the order of their time, one JSON object a line; - or nothing for standard input
    file: Option<PathBuf>,
}

/// Rules of decisions.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rules {
    Adaptive,
    Relaydelay,
}

/// Whose log it is.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Server {
    Exim,
    Lamppost,
    Postfix,
}

/// What is printed, in large pieces.
struct Printer {
    text: String,
    is_wanted: bool,
}

impl Printer {
    fn line(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        if !self.is_wanted {
            return Ok(());
        }
        let line = serde_json::to_string(value);
        let line =
            line.map_err(|error| Failure::at(Code::Software, "cannot print JSON", &error))?;
        self.text.push_str(&line);
        self.text.push('\n');
        if self.text.len() >= PRINTED_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        out::print(&std::mem::take(&mut self.text))
    }
}

#[derive(serde::Serialize)]
struct Last {
    summary: Summary,
}

impl ReplayOptions {
    pub(crate) async fn execute(self, place: &Place) -> Result<(), Failure> {
        let mut config = configuration(place)?;
        if let Some(rules) = self.policy {
            config.mail.greylist.rules.policy = match rules {
                Rules::Adaptive => GreylistAlgorithm::Adaptive,
                Rules::Relaydelay => GreylistAlgorithm::Relaydelay,
            };
        }
        let domains = config.mail.domains.iter().map(|domain| domain.to_lowercase()).collect();
        let mut replay = Replay::new(greylist_policy(&config), domains);
        let failed = |error: &dyn std::error::Error| Failure::of(Code::Software, error);
        if let Some(path) = &self.rows {
            replay.begin_with(rows(path)?).await.map_err(|error| failed(&error))?;
        }
        let mut attempts = Attempts::open(self.file.as_deref(), self.from_log)?;
        let mut printer = Printer { text: String::new(), is_wanted: !self.summary };
        let mut progress = Progress::new("attempts decided");
        while let Some(delivery) = attempts.next()? {
            let answer = replay.decide(&delivery).await.map_err(|error| failed(&error))?;
            printer.line(&answer)?;
            progress.add(1);
        }
        drop(progress);
        let summary = replay.summary();
        if self.summary {
            return out::print(&told(&summary));
        }
        printer.line(&Last { summary })?;
        printer.flush()
    }
}

/// The file's numbers; the defaults where there is no file, since the demo's are for trying out.
fn configuration(place: &Place) -> Result<Config, Failure> {
    if place.file().is_some() {
        return Ok(place.open()?.config);
    }
    Config::parse("", Path::new("defaults.toml"))
        .map_err(|error| Failure::of(Code::Software, &error))
}

/// Attempts, line by line.
struct Attempts {
    lines: Box<dyn BufRead>,
    name: String,
    number: u64,
    log: Option<Log>,
}

impl Attempts {
    fn open(file: Option<&Path>, from_log: Option<Server>) -> Result<Self, Failure> {
        let file = file.filter(|file| *file != Path::new("-"));
        let name = file.map_or("standard input".to_owned(), |file| file.display().to_string());
        let lines: Box<dyn BufRead> = match file {
            None => Box::new(io::stdin().lock()),
            Some(path) => Box::new(BufReader::new(File::open(path).map_err(|error| {
                Failure::at(Code::Io, &format!("cannot open {name}"), &error)
                    .cure("name a file with attempts, or give them on standard input")
            })?)),
        };
        let kind = from_log.map(|server| match server {
            Server::Exim => LogKind::Exim,
            Server::Lamppost => LogKind::Lamppost,
            Server::Postfix => LogKind::Postfix,
        });
        Ok(Self { lines, name, number: 0, log: kind.map(Log::new) })
    }

    /// The next attempt; nothing after the last.
    fn next(&mut self) -> Result<Option<Delivery>, Failure> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            self.number += 1;
            let mut line = io::Read::take(&mut self.lines, LINE_BYTES_MAX);
            let read = line.read_until(b'\n', &mut bytes).map_err(|error| {
                Failure::at(Code::Io, &format!("cannot read {}", self.name), &error)
            })?;
            if read == 0 {
                return Ok(self.log.as_mut().and_then(Log::end));
            }
            // Addresses that are no UTF-8 are rare, and alike enough to themselves afterwards.
            let line = String::from_utf8_lossy(&bytes);
            match &mut self.log {
                Some(log) => {
                    if let Some(delivery) = log.read(&line) {
                        return Ok(Some(delivery));
                    }
                }
                None if line.trim().is_empty() => {}
                None => {
                    return Delivery::of_json(&line).map(Some).map_err(|error| self.wrong(&error));
                }
            }
        }
    }

    fn wrong(&self, error: &dyn std::error::Error) -> Failure {
        let step = format!("{} line {}", self.name, self.number);
        Failure::at(Code::Data, &step, error).cure(
            "an attempt looks like {\"t\": 1700000000, \"ip\": \"192.0.2.1\", \"helo\": \"mx.example.org\", \
             \"host\": null, \"from\": \"a@example.org\", \"to\": [\"b@example.net\"], \"auth\": false, \
             \"spf\": \"pass\", \"data\": true}; mail logs need --from-log",
        )
    }
}

/// Rows as they are listed: one after the other, or in lists.
fn rows(path: &Path) -> Result<Vec<(Triplet, Record)>, Failure> {
    let shown = path.display();
    let file = File::open(path)
        .map_err(|error| Failure::at(Code::Io, &format!("cannot open {shown}"), &error))?;
    let wrong = |error: &dyn std::error::Error| {
        Failure::at(Code::Data, &format!("{shown} holds no rows"), error)
            .cure("write them with `lamppost greylist list --json`")
    };
    let mut rows = Vec::new();
    for value in serde_json::Deserializer::from_reader(BufReader::new(file)).into_iter::<Value>() {
        let values = match value.map_err(|error| wrong(&error))? {
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            let view = TripletView::deserialize(value).map_err(|error| wrong(&error))?;
            rows.push(row(view));
        }
    }
    Ok(rows)
}

fn row(view: TripletView) -> (Triplet, Record) {
    let TripletView { network, sender, recipient, passes_from, expires, deferred, passed } = view;
    let record = Record {
        block_expires: Duration::from_millis(passes_from.0),
        record_expires: Duration::from_millis(expires.0),
        blocked_count: deferred,
        passed_count: passed,
        aborted_count: 0,
    };
    (Triplet { network, sender, recipient }, record)
}

/// The summary for people.
fn told(summary: &Summary) -> String {
    let Summary { recipients, reasons, delayed, stopped, waiting, other_delays } = summary;
    let age = |seconds: u64| out::age(Duration::from_secs(seconds));
    let mut text = format!("{} of mail were decided:\n", out::count(*recipients, "recipient"));
    for (reason, count) in reasons {
        let _infallible = writeln!(text, "  {count:>10}  {reason}");
    }
    let _infallible = write!(
        text,
        "Delayed and then taken: {}, for {} in the mean, half for {} at most, nine tenths for {}, all for {}.\n\
         Never came back: {stopped}. Could still come back: {waiting}.\n\
         Other delays, by network, sender and recipient alone:\n",
        delayed.count,
        age(delayed.mean),
        age(delayed.median),
        age(delayed.p90),
        age(delayed.max)
    );
    let rows: Vec<_> = other_delays
        .iter()
        .map(|other| {
            let (delayed, stopped) = (other.delayed.to_string(), other.stopped.to_string());
            [age(other.delay), delayed, age(other.mean), stopped]
        })
        .collect();
    text.push_str(&out::table(["DELAY", "TAKEN LATE", "MEAN WAIT", "NEVER CAME BACK"], &rows));
    text
}
