//! Which configuration file, which state folder.

use std::io::IsTerminal;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use lamppost_config::{Config, LoadError, Problems};

use crate::exit::{Code, Failure};
use crate::named_files;

/// The file of an installed system.
const SYSTEM_FILE: &str = "/etc/lamppost/lamppost.toml";

/// Where the user says that things are.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Read this file [default: `$LAMPPOST_CONFIG`, /etc/lamppost/lamppost.toml, else a built-in demo]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Keep the state in this folder [default: what the file says]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

/// The configuration in force.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) config: Config,
    /// The file; nothing for the built-in demo.
    pub(crate) file: Option<PathBuf>,
    pub(crate) state: PathBuf,
    pub(crate) control_socket: PathBuf,
}

impl Place {
    /// The configuration file; nothing for the built-in demo.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let named =
            self.config.clone().or_else(|| std::env::var_os("LAMPPOST_CONFIG").map(PathBuf::from));
        named.or_else(|| Some(PathBuf::from(SYSTEM_FILE)).filter(|path| path.exists()))
    }

    /// Reads the configuration and settles where the state is.
    pub(crate) fn open(&self) -> Result<Opened, Failure> {
        let file = self.file();
        let config = match &file {
            Some(path) => load(path)?,
            None => Config::demo(),
        };
        let state = self.state.clone().or_else(|| config.server.state.clone());
        let state = match state {
            // Maildirs are named in the log and in messages: their paths must not depend on where
            // a command was called.
            Some(state) => std::path::absolute(&state).map_err(|error| {
                Failure::at(Code::Data, &format!("no folder {}", state.display()), &error)
            })?,
            None => default_state(file.is_some())?,
        };
        let control_socket =
            config.server.control_socket.clone().unwrap_or_else(|| state.join("control.sock"));
        Ok(Opened { config, file, state, control_socket })
    }
}

impl Opened {
    /// Looks at the files that the configuration names, which the program will need.
    pub(crate) fn check_files(&self) -> Result<(), Failure> {
        match &self.file {
            Some(file) => {
                named_files::check(&self.config, file).map_err(|problems| told(&problems))
            }
            None => Ok(()),
        }
    }

    /// Makes the state folder, which nobody else may enter.
    pub(crate) fn make_state(&self) -> Result<(), Failure> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.state).map_err(|error| {
            let step = format!("cannot make the state folder {}", self.state.display());
            Failure::at(Code::Io, &step, &error).cure("choose another with --state DIR")
        })
    }

    /// Where the outcome log is.
    pub(crate) fn outcomes(&self) -> PathBuf {
        self.state.join("log")
    }

    /// The database of accounts.
    pub(crate) fn accounts(&self) -> PathBuf {
        self.state.join("state.db")
    }
}

/// Reads a file; what is wrong with it ends the program with `EX_CONFIG`.
pub(crate) fn load(path: &Path) -> Result<Config, Failure> {
    let config = read(path)?;
    // The file's own check knows no grammar of addresses.
    if let Some(postmaster) = &config.mail.postmaster
        && let Err(error) = postmaster.parse::<lamppost_smtp::Address>()
    {
        let what = format!("error: {}: mail.postmaster `{postmaster}` is {error}", path.display());
        return Err(Failure::new(Code::Config, what));
    }
    Ok(config)
}

/// As [`load`], with a look at the files that it names.
pub(crate) fn load_with_files(path: &Path) -> Result<Config, Failure> {
    let config = load(path)?;
    named_files::check(&config, path).map_err(|problems| told(&problems))?;
    Ok(config)
}

fn told(problems: &Problems) -> Failure {
    Failure::new(Code::Config, problems.render(std::io::stderr().is_terminal()))
}

fn read(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| match error {
        LoadError::Problems(problems) => told(&problems),
        error => {
            Failure::of(Code::Config, &error).cure("`lamppost init FILE` writes one to begin with")
        }
    })
}

/// Where the state is when nobody says.
fn default_state(has_file: bool) -> Result<PathBuf, Failure> {
    if has_file && rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/lamppost"));
    }
    let variable =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    base.map(|base| base.join("lamppost")).ok_or_else(|| {
        Failure::new(
            Code::Config,
            "no folder for the state: neither XDG_STATE_HOME nor HOME is set",
        )
        .cure("name one with --state DIR")
    })
}
