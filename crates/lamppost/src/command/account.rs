//! account add, list, passwd, delete: on the state database itself, whether the program runs or not.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use lamppost_accounts::{AccountError, Accounts, DatabaseError, Settings};
use lamppost_database::{Database, Survives};
use lamppost_smtp::{Address, Secret};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::out;
use crate::exit::{Code, Failure};
use crate::place::{self, Opened, Place};
use crate::state_files::database_failure;

/// Bytes of a password.
const PASSWORD_BYTES_MAX: u64 = 1024;

/// Manage the accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Add an account; its password is asked for, read, or made and printed
    Add {
        /// Its address
        address: Address,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// List the accounts
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give an account another password
    Passwd {
        /// Its address
        address: Address,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Delete an account; its Maildir stays
    Delete {
        /// Its address
        address: Address,
    },
}

/// Where a password comes from. Never the command line, which everybody can see.
#[derive(Args, Debug)]
pub(crate) struct PasswordSource {
    /// Read the password from the first line of this file; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    password_file: Option<PathBuf>,
    /// Make a password and print it
    #[arg(long)]
    generate: bool,
}

impl AccountCommand {
    pub(crate) async fn execute(self, place: &Place) -> Result<(), Failure> {
        let opened = place.open()?;
        // One in whose domain it serves is told by itself.
        if !matches!(self, Self::Add { .. }) {
            place::tell_demo(&opened);
        }
        match &self {
            Self::Add { address, .. } => {
                check_domain(&opened, address)?;
                place::tell_demo(&opened);
            }
            Self::List { json } => return list(&opened, *json).await,
            Self::Passwd { .. } | Self::Delete { .. } => {}
        }
        let accounts = open(&opened).await?;
        let failure = |error: &AccountError| failure(&opened, error);
        match self {
            Self::List { .. } => Ok(()),
            Self::Add { address, password } => {
                let (password, made) = password.read(&opened)?;
                accounts.add(&address, &password).await.map_err(|error| failure(&error))?;
                tell_password(&address, &password, made, "added")
            }
            Self::Passwd { address, password } => {
                let (password, made) = password.read(&opened)?;
                accounts
                    .set_password(&address, &password)
                    .await
                    .map_err(|error| failure(&error))?;
                tell_password(&address, &password, made, "changed")
            }
            Self::Delete { address } => {
                accounts.delete(&address).await.map_err(|error| failure(&error))?;
                out::print(&format!("{address} is deleted; its Maildir stays.\n"))
            }
        }
    }
}

async fn open(opened: &Opened) -> Result<Accounts, Failure> {
    opened.make_state()?;
    let path = opened.accounts();
    let database = Database::open(&path, Survives::PowerCut);
    let database = database.map_err(|error| database_failure(&path, &error))?;
    let accounts = Accounts::open(database, Settings::default()).await;
    accounts.map_err(|error| database_failure(&path, &error))
}

/// Only reads, so that nothing needs to be writable.
async fn list(opened: &Opened, json: bool) -> Result<(), Failure> {
    let path = opened.accounts();
    // Before the first account there is no file.
    let accounts = if path.try_exists().unwrap_or(true) {
        let failed = |error: &DatabaseError| match std::fs::File::open(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {
                Failure::at(Code::Permission, &error.to_string(), &cause)
                    .cure("run this as root or as the user that lamppost runs as")
            }
            _ => Failure::of(Code::Io, error),
        };
        let database = Database::open_to_read(&path).map_err(|error| failed(&error))?;
        lamppost_accounts::listed(&database).await.map_err(|error| failed(&error))?
    } else {
        Vec::new()
    };
    if json {
        return out::json(&accounts);
    }
    let lines = accounts.iter().flat_map(|account| [account.as_str(), "\n"]);
    out::print(&lines.collect::<String>())
}

fn failure(opened: &Opened, error: &AccountError) -> Failure {
    let code = match error {
        AccountError::Database(error) => return database_failure(&opened.accounts(), error),
        AccountError::Hash(_) => Code::Software,
        AccountError::Exists(_) | AccountError::Unknown(_) | AccountError::EmptyPassword => {
            Code::Data
        }
    };
    let failure = Failure::of(code, error);
    match error {
        AccountError::Exists(address) => {
            failure.cure(format!("`lamppost account passwd {address}` changes its password"))
        }
        AccountError::Unknown(_) => failure.cure("`lamppost account list` lists them"),
        _ => failure,
    }
}

/// An account in a domain that is not served would never get mail.
fn check_domain(opened: &Opened, address: &Address) -> Result<(), Failure> {
    let domain = address.domain().to_lowercase();
    let mail = &opened.config.mail;
    // A user of this machine hands in mail with the password of an account.
    if mail.domains.contains(&domain) || mail.system_users.domains.contains(&domain) {
        return Ok(());
    }
    if let Some(file) = &opened.file {
        let mut domains = opened.config.mail.domains.clone();
        domains.push(domain.clone());
        let list = domains.iter().map(|domain| format!("\"{domain}\"")).collect::<Vec<_>>();
        let list = list.join(", ");
        let (what, cure) = match opened.place_of("mail.domains") {
            Some(place) => (
                format!("{domain} is not in `domains` ({place})"),
                format!("add it to the list: `domains = [{list}]`"),
            ),
            None => (
                format!("{domain} is not served: {} has no `domains` in [mail]", file.display()),
                format!("add the list to [mail]: `domains = [{list}]`"),
            ),
        };
        return Err(Failure::new(Code::Data, what).cure(cure));
    }
    let domains = opened.config.mail.domains.join(", ");
    let what = format!("{domain} is not served by the built-in demo, which has {domains}");
    Err(Failure::new(Code::Data, what)
        .cure("name the file that serves it with --config FILE; `lamppost init` writes one"))
}

fn tell_password(
    address: &Address,
    password: &Secret,
    made: bool,
    done: &str,
) -> Result<(), Failure> {
    if made {
        return out::print(&format!(
            "{address} is {done}; its password is {}\n",
            password.expose()
        ));
    }
    out::print(&format!("{address} is {done}.\n"))
}

impl PasswordSource {
    /// The password, and whether it was made here; one that is too short is refused.
    fn read(&self, opened: &Opened) -> Result<(Secret, bool), Failure> {
        let (password, made) = self.take()?;
        let (length, least) =
            (password.expose().chars().count(), opened.config.mail.auth.password_length_min);
        if length >= least {
            return Ok((password, made));
        }
        let place = opened.place_of("mail.auth.password-length-min");
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        let what = format!(
            "the password has {}, and `password-length-min` in [mail.auth]{place} wants {least}",
            out::count(length as u64, "letter")
        );
        let cure = "choose a longer one, such as four words, or have one made with --generate";
        Err(Failure::new(Code::Data, what).cure(cure))
    }

    fn take(&self) -> Result<(Secret, bool), Failure> {
        let failed = |error: io::Error| Failure::at(Code::Io, "cannot read the password", &error);
        match &self.password_file {
            Some(path) if path.as_os_str() == "-" => first_line(io::stdin().lock()).map_err(failed),
            Some(path) => std::fs::File::open(path).and_then(first_line).map_err(|error| {
                let step = format!("cannot read the password from {}", path.display());
                Failure::at(Code::Io, &step, &error)
            }),
            None if self.generate => {
                let made = lamppost_accounts::generate_password();
                let made = made.map_err(|error| Failure::of(Code::System, &error))?;
                return Ok((made, true));
            }
            None if io::stdin().is_terminal() => ask().map_err(failed),
            None => Err(Failure::new(Code::Usage, "no password is given")
                .cure("use --password-file FILE, --password-file - or --generate")),
        }
        .map(|password| (password, false))
    }
}

fn first_line(from: impl Read) -> io::Result<Secret> {
    let mut line = String::new();
    io::BufReader::new(from.take(PASSWORD_BYTES_MAX)).read_line(&mut line)?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Asks on the terminal, which shows nothing of what is typed.
fn ask() -> io::Result<Secret> {
    let terminal = io::stdin();
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    write!(io::stderr(), "Password: ")?;
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let line = first_line(terminal.lock());
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    writeln!(io::stderr())?;
    line
}
