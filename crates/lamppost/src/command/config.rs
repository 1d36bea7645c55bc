//! check, init, config, explain.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use lamppost_config::{Config, Key, LoadError, Severity, Source};

use super::{out, remarks};
use crate::exit::{Code, Failure};
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
        let Some(file) = self.file.clone().or_else(|| place.file()) else {
            if self.json {
                return out::json(&serde_json::json!({ "file": null, "problems": [] }));
            }
            return out::print("There is no file; `lamppost run` would use the built-in demo.\n");
        };
        let (problems, users) = match place::read(&file) {
            Ok(_) => {
                let opened =
                    Place { config: Some(file.clone()), state: place.state.clone() }.open()?;
                let postmaster = super::wait(remarks::unknown_postmaster(&opened))?;
                let problems = remarks::of(&opened, postmaster.into_iter().collect());
                (problems, remarks::users(&opened))
            }
            Err(LoadError::Problems(problems)) => (problems, None),
            Err(error) => return Err(place::unread(&error)),
        };
        if self.json {
            out::json(&problems)?;
        } else if !problems.problems.is_empty() {
            out::complain(&format!("{}\n\n", problems.render(io::stderr().is_terminal())));
        }
        // It is about this machine, not about the file.
        if let Some((what, cure)) = users.filter(|_| !self.json) {
            out::complain(&format!("warning: {what}\n  help: {cure}\n\n"));
        }
        let count_of = |severity| {
            problems.problems.iter().filter(|problem| problem.severity == severity).count() as u64
        };
        match (count_of(Severity::Error), count_of(Severity::Warning)) {
            (0, _) if self.json => Ok(()),
            (0, 0) => out::print(&format!("{} is good.\n", file.display())),
            (0, odd) => {
                let odd = out::count(odd, "warning");
                out::print(&format!("{} can be used, with {odd}.\n", file.display()))
            }
            (wrong, _) => {
                let wrong = out::count(wrong, "problem");
                Err(Failure::new(Code::Config, format!("{} has {wrong}", file.display())))
            }
        }
    }
}

/// Write a configuration file to begin with.
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// The file, which must not be there yet; - prints it [default: that of --config, else
    /// lamppost.toml]
    file: Option<PathBuf>,
}

impl Init {
    pub(crate) fn execute(self, place: &Place) -> Result<(), Failure> {
        let file = match (self.file, place.config.clone()) {
            (Some(file), Some(config)) if file != config => {
                let what =
                    format!("two files are named: {} and {}", file.display(), config.display());
                return Err(
                    Failure::new(Code::Usage, what).cure("name the one that is to be written")
                );
            }
            (file, config) => file.or(config).unwrap_or_else(|| "lamppost.toml".into()),
        };
        let text = lamppost_config::init_text();
        if file.as_os_str() == "-" {
            return out::print(&text);
        }
        let mut options = std::fs::File::options();
        let written = options
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&file)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| {
            let failure =
                Failure::at(Code::Io, &format!("cannot write {}", file.display()), &error);
            match error.kind() {
                ErrorKind::AlreadyExists => {
                    failure.cure("move it away first, or name another file")
                }
                ErrorKind::NotFound => failure.cure("make its folder first, or name another file"),
                ErrorKind::PermissionDenied => {
                    failure.cure("name a file in a folder where you may write, or use sudo")
                }
                _ => failure,
            }
        })?;
        out::print(&format!("{} is written; `lamppost check {0}` checks it.\n", file.display()))
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
            lamppost_config::read_file(path).map_err(|error| place::unread(&error))?
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
            serde_json::json!({ "key": entry.key, "value": entry.parsed(), "source": source(entry.source) })
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

/// Explain a key or a section.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// The key, such as mail.greylist.delay, or the section, such as mail.greylist
    key: String,
}

impl Explain {
    pub(crate) fn execute(self, place: &Place) -> Result<(), Failure> {
        if let Some(key) = lamppost_config::explain(&self.key) {
            let mut text = format!("{}\n\n{}\n\ndefault: {}\n", key.name, key.text, key.default);
            // What the machine makes of an empty value is told as it is here.
            if let Some(here) = here(&key.name, place) {
                let _infallible = writeln!(text, "here:    {here}");
            }
            return out::print(&text);
        }
        let keys = lamppost_config::explain_section(&self.key);
        if !keys.is_empty() {
            let line = |key: Key| format!("# {}\n{} = {}\n", key.text, key.name, key.default);
            return out::print(&keys.into_iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        let failure =
            Failure::new(Code::Data, format!("there is no key or section `{}`", self.key));
        Err(match lamppost_config::similar_key(&self.key) {
            Some(near) => failure.cure(format!("did you mean `{near}`?")),
            None => failure.cure("`lamppost config defaults` prints them all"),
        })
    }
}

/// The value of a key that depends on the user and the machine.
fn here(key: &str, place: &Place) -> Option<String> {
    let opened = place.open().ok()?;
    match key {
        "server.state" => Some(opened.state.display().to_string()),
        "server.control-socket" => Some(opened.control_socket.display().to_string()),
        "server.hostname" => Some(opened.hostname()),
        _ => None,
    }
}
