//! Which configuration file, which state folder.

use std::io::{ErrorKind, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use lamppost_config::{Config, LoadError, Remark};
use rustix::fs::Access;

use crate::command::out;
use crate::exit::{Code, Failure};
use crate::{local_way, named_files, state_files};

/// The file of an installed system.
pub(crate) const SYSTEM_FILE: &str = "/etc/lamppost/lamppost.toml";

/// The state of an installed system.
const SYSTEM_STATE: &str = "/var/lib/lamppost";

/// Where the user says that things are.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Use this configuration file [default: `$LAMPPOST_CONFIG`, /etc/lamppost/lamppost.toml, else a
    /// built-in demo]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The state folder: where `run` keeps the queue, accounts and logs, and by which other commands
    /// find them and the running program [default: `state` of the file, else /var/lib/lamppost or
    /// a folder in the home]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

/// The configuration in force.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) config: Config,
    /// The file; nothing for the built-in demo.
    pub(crate) file: Option<PathBuf>,
    /// What stands in it.
    pub(crate) text: String,
    pub(crate) state: PathBuf,
    /// Whether the command line named the state folder.
    pub(crate) state_is_named: bool,
    pub(crate) control_socket: PathBuf,
}

impl Place {
    /// The file that the user names.
    pub(crate) fn named_file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| std::env::var_os("LAMPPOST_CONFIG").map(PathBuf::from))
    }

    /// The configuration file; nothing for the built-in demo.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        self.named_file().or_else(|| Some(PathBuf::from(SYSTEM_FILE)).filter(|path| path.exists()))
    }

    /// Reads the configuration and settles where the state is.
    pub(crate) fn open(&self) -> Result<Opened, Failure> {
        let file = self.file();
        let (config, text) = match &file {
            Some(path) => read_whole(path).map_err(|error| unread(&error))?,
            None => (Config::demo(), String::new()),
        };
        let has_file = file.is_some();
        Ok(Opened { text, ..self.settle(config, file, has_file)? })
    }

    /// Settles where the state is, for this configuration; one that is no demo has a file.
    pub(crate) fn settle(
        &self,
        config: Config,
        file: Option<PathBuf>,
        has_file: bool,
    ) -> Result<Opened, Failure> {
        let state = self.state.clone().or_else(|| config.server.state.clone());
        let state = match state {
            // Maildirs are named in the log and in messages: their paths must not depend on where
            // a command was called.
            Some(state) => std::path::absolute(&state).map_err(|error| {
                Failure::at(Code::Data, &format!("no folder {}", state.display()), &error)
            })?,
            None => default_state(file.as_deref(), has_file)?,
        };
        let control_socket =
            config.server.control_socket.clone().unwrap_or_else(|| state.join("control.sock"));
        let state_is_named = self.state.is_some();
        let text = String::new();
        Ok(Opened { config, file, text, state, state_is_named, control_socket })
    }
}

/// Where a running program is found.
pub(crate) struct Reached {
    pub(crate) control_socket: PathBuf,
    pub(crate) outcomes: PathBuf,
}

impl Place {
    /// Where the running program is found, also when its file was made wrong since it began: then, too, one
    /// must be able to look at it and to stop what it does.
    pub(crate) fn reach(&self) -> Result<Reached, Failure> {
        let failure = match self.open() {
            Ok(opened) => {
                let outcomes = opened.outcomes();
                return Ok(Reached { control_socket: opened.control_socket, outcomes });
            }
            Err(failure) => failure,
        };
        let file = self.file();
        let text = file.as_ref().and_then(|file| lamppost_config::read_file(file).ok());
        let (Some(file), Some(text)) = (file, text) else { return Err(failure) };
        let named = |key| match lamppost_config::text_of(&text, key) {
            Some(path) if path.starts_with('/') => Ok(Some(PathBuf::from(path))),
            // It stands there, and nobody knows what it says.
            _ if is_mentioned(&text, key) => Err(()),
            _ => Ok(None),
        };
        let state = match (&self.state, named("server.state")) {
            (Some(state), _) => Ok(Some(state.clone())),
            (None, named) => named,
        };
        let (Ok(state), Ok(control_socket)) = (state, named("server.control-socket")) else {
            return Err(
                failure.or_cure("name the state folder of the running program with --state DIR")
            );
        };
        let state = state.map_or_else(|| default_state(Some(&file), true), Ok)?;
        let control_socket = control_socket.unwrap_or_else(|| state.join("control.sock"));
        out::complain(&format!(
            "warning: {} is wrong (`lamppost check` tells all of it); the program is looked for at {}\n  \
             help: --state DIR names another place\n\n",
            file.display(),
            control_socket.display()
        ));
        Ok(Reached { control_socket, outcomes: state.join("log") })
    }
}

impl Place {
    /// What a further command must be told to be about the same.
    pub(crate) fn options(&self) -> String {
        let options = [("--config", &self.config), ("--state", &self.state)];
        let named = options.into_iter().filter_map(|(option, path)| Some((option, path.as_ref()?)));
        let words = named.flat_map(|(option, path)| [option.to_owned(), out::quoted(path)]);
        words.flat_map(|word| [" ".to_owned(), word]).collect()
    }
}

/// Whether a key seems to be set in a text that cannot be read whole, and not to nothing.
fn is_mentioned(text: &str, key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    let sets = |line: &str| {
        let parts = line.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        parts.is_some_and(|(key, value)| key == name && !value.starts_with("\"\""))
    };
    text.lines().any(sets)
}

/// Says that a command is about the demo, where nobody asked for it.
pub(crate) fn tell_demo(opened: &Opened) {
    if opened.file.is_none() {
        out::complain(&format!(
            "note: there is no {SYSTEM_FILE}, so this is about the built-in demo; --config FILE names a file\n"
        ));
    }
}

impl Opened {
    /// Looks at the files that the configuration names, which the program will need.
    pub(crate) fn check_files(&self) -> Result<(), Failure> {
        self.file.as_ref().map_or(Ok(()), |file| check_files(file, &self.config))
    }

    /// Makes the state folder, into which nobody else may look.
    pub(crate) fn make_state(&self) -> Result<(), Failure> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(local_way::state_mode(self)).create(&self.state).map_err(
            |error| {
                let step = format!("cannot make the state folder {}", self.state.display());
                Failure::at(Code::Io, &step, &error).cure("choose another with --state DIR")
            },
        )?;
        // What is made in it would fail later, and in words that name no cure.
        rustix::fs::access(&self.state, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| {
                let step = format!("cannot write into the state folder {}", self.state.display());
                let cause = std::io::Error::other(format!("{step}: {error}"));
                state_files::folder_failure(&self.state, &cause).or_cure(
                    "run this as the user that lamppost runs as, or choose another with --state DIR",
                )
            })?;
        state_files::make_database_folder(&self.state)
    }

    /// Where a key stands, as `FILE:LINE`; nothing when the file does not set it.
    pub(crate) fn place_of(&self, key: &str) -> Option<String> {
        let file = self.file.as_ref()?;
        let text = lamppost_config::read_file(file).ok()?;
        let line = lamppost_config::line_of(&text, key)?;
        Some(format!("{}:{line}", file.display()))
    }

    /// The name by which this host greets: the file's, or the machine's own (uname(2)).
    pub(crate) fn hostname(&self) -> String {
        let machine_name = || {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            if name.is_empty() || name == "(none)" { "localhost".into() } else { name }
        };
        self.config.server.hostname.clone().unwrap_or_else(machine_name)
    }

    /// The socket by which local programs hand in mail; nothing when it is off.
    pub(crate) fn submit_socket(&self) -> Option<PathBuf> {
        let sendmail = &self.config.mail.sendmail;
        let usual = || match self.state.to_str() {
            Some(SYSTEM_STATE) => PathBuf::from(lamppost_compat::SYSTEM_SOCKET),
            _ => self.state.join("submit.sock"),
        };
        sendmail.enabled.then(|| sendmail.socket.clone().unwrap_or_else(usual))
    }

    /// Where this machine's programs ask the greylist: a socket's path, or an address and a port; nothing when
    /// it is asked nowhere.
    pub(crate) fn greylist_place(&self) -> Option<PathBuf> {
        let service = &self.config.mail.greylist.service;
        let by_tcp = || {
            let address = service.listen.first()?;
            Some(reached(*address).to_string().into())
        };
        service.socket.clone().or_else(by_tcp)
    }

    /// Where the outcome log is.
    pub(crate) fn outcomes(&self) -> PathBuf {
        self.state.join("log")
    }

    /// The database of accounts.
    pub(crate) fn accounts(&self) -> PathBuf {
        state_files::database(&self.state, state_files::ACCOUNTS)
    }
}

/// Reads a file; what is wrong with it ends the program with `EX_CONFIG`.
pub(crate) fn load(path: &Path) -> Result<Config, Failure> {
    read(path).map_err(|error| unread(&error))
}

/// Reads a file, or tells all that is wrong with it.
pub(crate) fn read(path: &Path) -> Result<Config, LoadError> {
    read_whole(path).map(|(config, _)| config)
}

/// As [`read`], with the file's text.
fn read_whole(path: &Path) -> Result<(Config, String), LoadError> {
    let text = lamppost_config::read_file(path)?;
    let config = Config::parse(&text, path).map_err(LoadError::Problems)?;
    // The file's own check knows no grammar of addresses.
    if let Some(postmaster) = &config.mail.postmaster
        && let Err(error) = postmaster.parse::<lamppost_smtp::Address>()
    {
        let what = format!("`postmaster` is no address: {error}");
        let cure = "write it as an address, such as \"admin@example.org\"";
        let remarks = vec![Remark::error("mail.postmaster", what, cure)];
        return Err(LoadError::Problems(lamppost_config::placed(path, &text, remarks)));
    }
    Ok((config, text))
}

fn check_files(path: &Path, config: &Config) -> Result<(), Failure> {
    let wrong = named_files::remarks(config);
    if wrong.is_empty() {
        return Ok(());
    }
    // Without its text, as when it is gone by now, the places are not shown.
    let text = lamppost_config::read_file(path).unwrap_or_default();
    Err(unread(&LoadError::Problems(lamppost_config::placed(path, &text, wrong))))
}

/// What to tell when a file cannot be loaded.
pub(crate) fn unread(error: &LoadError) -> Failure {
    let cure = match error {
        LoadError::Problems(problems) => {
            let text = problems.render(std::io::stderr().is_terminal());
            return Failure::new(Code::Config, text);
        }
        LoadError::TooLarge { .. } => "name lamppost's own file with --config FILE",
        LoadError::NotText { .. } => "save it as UTF-8",
        LoadError::Read { source, .. } => match source.kind() {
            ErrorKind::NotFound => "`lamppost init FILE` writes one to begin with",
            ErrorKind::PermissionDenied => {
                "run this as a user who may read it, or name another file with --config FILE"
            }
            ErrorKind::IsADirectory => "name the file in that folder with --config FILE",
            _ => "name another file with --config FILE",
        },
    };
    Failure::of(Code::Config, error).cure(cure)
}

/// Where the state is when nobody says.
fn default_state(file: Option<&Path>, has_file: bool) -> Result<PathBuf, Failure> {
    // The service of an installed system is not root, and what root asks must be about the same state.
    let is_installed = file == Some(Path::new(SYSTEM_FILE));
    if is_installed || (has_file && rustix::process::geteuid().is_root()) {
        return Ok(PathBuf::from(SYSTEM_STATE));
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

/// An address by which this machine reaches a listener, also one on all addresses.
pub(crate) fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
