//! check, init, config, explain.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use lamppost_config::{Config, LoadError, Source};

use super::out;
use crate::exit::{Code, Failure};
use crate::named_files;
use crate::place::{self, Place};

/// Check a configuration file.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The file [default: the one that `run` would read]
    file: Option<PathBuf>,
    /// Print what is wrong as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(crate) fn execute(self, place: &Place) -> Result<(), Failure> {
        let Some(file) = self.file.or_else(|| place.file()) else {
            return out::print("There is no file; `lamppost run` would use the built-in demo.\n");
        };
        if self.json {
            let problems = match Config::load(&file) {
                Err(LoadError::Problems(problems)) => Some(problems),
                Ok(config) => named_files::check(&config, &file).err(),
                Err(_) => None,
            };
            if let Some(problems) = problems {
                out::json(&problems)?;
                let what = format!("{} has {} problems", file.display(), problems.problems.len());
                return Err(Failure::new(Code::Config, what));
            }
        }
        let config = place::load_with_files(&file)?;
        if self.json {
            return out::print("{}\n");
        }
        let nothing = if config.mail.listen.is_empty() {
            " But it has no [[mail.listen]]: nothing would run."
        } else {
            ""
        };
        out::print(&format!("{} is good.{nothing}\n", file.display()))
    }
}

/// Write a configuration file to begin with.
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// The file, which must not be there yet; - prints it
    #[arg(default_value = "lamppost.toml")]
    file: PathBuf,
}

impl Init {
    pub(crate) fn execute(self) -> Result<(), Failure> {
        let text = lamppost_config::init_text();
        if self.file.as_os_str() == "-" {
            return out::print(&text);
        }
        let mut options = std::fs::File::options();
        let written = options
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&self.file)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| {
            let failure =
                Failure::at(Code::Io, &format!("cannot write {}", self.file.display()), &error);
            match error.kind() {
                ErrorKind::AlreadyExists => {
                    failure.cure("move it away first, or name another file")
                }
                _ => failure,
            }
        })?;
        out::print(&format!(
            "{} is written; `lamppost check {0}` checks it.\n",
            self.file.display()
        ))
    }
}

/// Show the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every key with its value and where that comes from
    Show {
        /// Show only what the file sets
        #[arg(long)]
        changed: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print all defaults with their explanations
    Defaults,
}

impl ConfigCommand {
    pub(crate) fn execute(self, place: &Place) -> Result<(), Failure> {
        match self {
            Self::Defaults => out::print(&lamppost_config::defaults_text()),
            Self::Show { changed, json } => show(place, changed, json),
        }
    }
}

fn show(place: &Place, changed: bool, json: bool) -> Result<(), Failure> {
    let file = place.file();
    let text = match &file {
        Some(path) => {
            place::load(path)?;
            std::fs::read_to_string(path).map_err(|error| {
                Failure::at(Code::Io, &format!("cannot read {}", path.display()), &error)
            })?
        }
        None => lamppost_config::demo_text().to_owned(),
    };
    let name = file.map_or_else(|| "demo".into(), |path| path.display().to_string());
    let source = |source| match source {
        Source::Default => "default".to_owned(),
        Source::File { line } => format!("{name}:{line}"),
    };
    let entries = Config::show(&text, changed);
    if json {
        let values = entries.iter().map(|entry| {
            serde_json::json!({ "key": entry.key, "value": entry.value, "source": source(entry.source) })
        });
        return out::json(&values.collect::<Vec<_>>());
    }
    let mut lines = String::new();
    for entry in entries {
        let _infallible =
            writeln!(lines, "{} = {}  # {}", entry.key, entry.value, source(entry.source));
    }
    out::print(&lines)
}

/// Explain a key.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// The key, such as mail.greylist.delay
    key: String,
}

impl Explain {
    pub(crate) fn execute(self) -> Result<(), Failure> {
        let Some(key) = lamppost_config::explain(&self.key) else {
            let failure = Failure::new(Code::Data, format!("there is no key `{}`", self.key));
            return Err(match lamppost_config::similar_key(&self.key) {
                Some(near) => failure.cure(format!("did you mean `{near}`?")),
                None => failure.cure("`lamppost config defaults` prints them all"),
            });
        };
        out::print(&format!("{}\n\n{}\n\ndefault: {}\n", key.name, key.text, key.default))
    }
}
