//! Who is asked: Lamppost, postgrey and sqlgrey over their stores, and a server that knows one answer.
//!
//! The peers are Debian's, unpacked, with their whitelists and their durable defaults; a triplet must
//! wait no more than a second in each.

use std::fs::{Permissions, set_permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use lamppost_load::Mariadb;

use crate::bench::lamppost::Place;
use crate::bench::peer::{Peer, package_version};
use crate::bench::process::{Usage, end, leashed};
use crate::bench::{await_port, write};
use crate::machine::{output, root, unpacked};

/// A user whom every Debian has stands in for those of the packages.
const NOBODY: u32 = 65534;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    Lamppost,
    LamppostMariadb,
    Postgrey,
    Sqlgrey,
    SqlgreyMariadb,
    Probe,
}

impl Subject {
    /// All that are measured unless others are named.
    pub(super) const USUAL: [Self; 5] =
        [Self::Lamppost, Self::Postgrey, Self::Sqlgrey, Self::SqlgreyMariadb, Self::Probe];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lamppost => "Lamppost",
            Self::LamppostMariadb => "Lamppost, MariaDB",
            Self::Postgrey => "postgrey",
            Self::Sqlgrey => "sqlgrey, SQLite",
            Self::SqlgreyMariadb => "sqlgrey, MariaDB",
            Self::Probe => "DUNNO",
        }
    }

    /// A word for its folder.
    pub(super) fn folder(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn port(self) -> u16 {
        match self {
            Self::Lamppost => 22540,
            Self::LamppostMariadb => 22541,
            Self::Postgrey => 22542,
            Self::Sqlgrey => 22543,
            Self::SqlgreyMariadb => 22544,
            Self::Probe => 22545,
        }
    }

    /// Its version, for people; nothing where another subject tells it.
    pub(super) fn version(self) -> Option<String> {
        let known = |name: &str, package| {
            format!("{name} {}", package_version(package, package).unwrap_or_default())
        };
        match self {
            Self::Lamppost => Some(Peer::Lamppost.version()),
            Self::Postgrey => Some(known("postgrey", "postgrey")),
            Self::Sqlgrey => Some(known("sqlgrey", "sqlgrey")),
            Self::SqlgreyMariadb => {
                let version = package_version("mariadb", "mariadb-server-core");
                Some(format!("MariaDB {}", version.unwrap_or_default()))
            }
            Self::LamppostMariadb | Self::Probe => None,
        }
    }

    /// Starts it in an empty folder.
    pub(super) fn start(self, folder: &Path) -> Result<Running> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port()));
        let is_taken = std::net::TcpStream::connect(address).is_ok();
        ensure!(!is_taken, "something else listens on {address}");
        std::fs::create_dir_all(folder)?;
        let database = match self {
            Self::LamppostMariadb | Self::SqlgreyMariadb => {
                Some(Mariadb::start_in(folder, &[]).context("cannot start MariaDB")?)
            }
            _ => None,
        };
        let child = match self {
            Self::Lamppost | Self::LamppostMariadb => lamppost(folder, address, database.as_ref())?,
            Self::Postgrey => postgrey(folder, address)?,
            Self::Sqlgrey | Self::SqlgreyMariadb => sqlgrey(folder, address, database.as_ref())?,
            Self::Probe => {
                let program = root().join("target/release/examples/dunno");
                logged(leashed(&[program.into(), address.to_string().into()]), folder)?
            }
        };
        let running = Running { address, child, database };
        await_port(&address.to_string())
            .with_context(|| format!("see {}", folder.join("log").display()))?;
        Ok(running)
    }
}

/// One that runs. It ends when it is dropped.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    child: Child,
    database: Option<Mariadb>,
}

impl Running {
    /// Its process and its database's; children count too.
    fn usage(&self) -> impl Iterator<Item = Usage> {
        let database = self.database.as_ref().and_then(Mariadb::pid);
        [Some(self.child.id()), database].into_iter().flatten().map(Usage::of)
    }

    /// Seconds of CPU time so far.
    pub(super) fn cpu_s(&self) -> f64 {
        self.usage().map(|usage| usage.cpu_s).sum()
    }

    /// MiB of memory (PSS), without its database.
    pub(super) fn memory_mib(&self) -> f64 {
        Usage::of(self.child.id()).memory_mib
    }

    /// How many statements its database was sent so far, if it has one of its own.
    pub(super) fn statements(&self) -> Option<f64> {
        let found = self.database.as_ref()?.execute("SHOW GLOBAL STATUS LIKE 'Questions'").ok()?;
        found.split_whitespace().nth(1)?.parse().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// As the others it asks no name servers.
fn lamppost(folder: &Path, address: SocketAddr, database: Option<&Mariadb>) -> Result<Child> {
    let password = folder.join("password");
    let place = database.map(|database| {
        let (url, file) = (database.url(Mariadb::DATABASE), password.display());
        format!("database = \"{url}\"\ndatabase-password = \"{file}\"\n")
    });
    let text = format!(
        "[server]\nhostname = \"mail.lamppost.test\"\n[log]\nlevel = \"info\"\n[metrics]\nlisten = []\n\
         [mail.sendmail]\nenabled = false\n[mail.greylist]\ndelay = \"1s\"\nlookup-timeout = \"0s\"\n{}\
         [mail.greylist.service]\nlisten = [\"{address}\"]\n",
        place.unwrap_or_default()
    );
    let place = Place::with_file(folder, &text)?;
    if database.is_some() {
        write(&password, &format!("{}\n", Mariadb::PASSWORD))?;
        set_permissions(&password, Permissions::from_mode(0o600))?;
        output(place.command().args(["greylist", "init"]))?;
    }
    let (child, _) = place.start(place.leashed(None))?;
    Ok(child)
}

fn postgrey(folder: &Path, address: SocketAddr) -> Result<Child> {
    let lists = unpacked().join("postgrey/usr/share/postgrey");
    let store = own(&folder.join("store"))?;
    let mut command = perl("postgrey", &["-T"]);
    command.arg(format!("--inet={address}")).arg(format!("--dbdir={}", store.display()));
    command.args(["--user=nobody", "--group=nogroup", "--delay=1"]);
    command.arg("--hostname=mail.lamppost.test");
    for list in ["whitelist_clients", "whitelist_recipients"] {
        let option = list.replace('_', "-");
        command.arg(format!("--{option}={}", lists.join(list).display()));
    }
    logged(command, folder)
}

fn sqlgrey(folder: &Path, address: SocketAddr, database: Option<&Mariadb>) -> Result<Child> {
    let store = own(&folder.join("store"))?;
    let database = match database {
        None => format!("db_type = SQLite\ndb_name = {}\n", store.join("sqlgrey.db").display()),
        Some(database) => format!(
            "db_type = mysql\ndb_name = {}\ndb_host = 127.0.0.1\ndb_port = {}\ndb_user = {}\n\
             db_pass = {}\n",
            Mariadb::DATABASE,
            database.address().port(),
            Mariadb::USER,
            Mariadb::PASSWORD
        ),
    };
    let lists = unpacked().join("sqlgrey/etc/sqlgrey");
    let config = folder.join("sqlgrey.conf");
    write(
        &config,
        &format!(
            "conf_dir = {}\nuser = nobody\ngroup = nogroup\ninet = {address}\nadmin_mail =\n\
             reconnect_delay = 0\n{database}",
            lists.display()
        ),
    )?;
    let mut command = perl("sqlgrey", &[]);
    logged(command.arg("-f").arg(config), folder)
}

/// A program of Debian's in Perl, with the modules that came with it. Where a script is tainted Perl
/// reads no `PERL5LIB`.
fn perl(name: &str, switches: &[&str]) -> Command {
    let root = unpacked().join(name);
    let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let mut words = vec!["perl".into(), "-w".into()];
    words.extend(switches.iter().map(Into::into));
    for folder in [root.join("usr/share/perl5"), libraries.join("perl5/5.36")] {
        words.extend(["-I".into(), folder.into()]);
    }
    words.push(root.join("usr/sbin").join(name).into());
    let mut command = leashed(&words);
    command.env("LD_LIBRARY_PATH", libraries);
    command
}

/// Makes a folder that is nobody's.
fn own(folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    set_permissions(folder, Permissions::from_mode(0o755))?;
    chown(folder, Some(NOBODY), None).context("only root can give a folder away")?;
    Ok(folder.to_owned())
}

/// Runs it with its log in its folder.
fn logged(mut command: impl std::borrow::BorrowMut<Command>, folder: &Path) -> Result<Child> {
    let log = std::fs::File::create(folder.join("log"))?;
    let command = command.borrow_mut().stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("cannot run {command:?}"))
}
