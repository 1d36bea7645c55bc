//! compat install and list: our small programs under names of old, in a folder of the user's choice.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use lamppost_compat::{EXECUTABLE, InstallError, NAMES, OF_GREYLIST, Stamp, Standing, USUAL};

use super::out;
use crate::exit::{Code, Failure, chain};
use crate::place::{self, Opened, Place};

/// Folders in which programs look for a sendmail.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/lib", "/usr/bin", "/usr/local/sbin"];
/// Where the small executable may be, as seen from the folder of the main program: beside it, or where
/// packages put what only other programs call.
const BESIDE: [&str; 3] = [".", "../lib/lamppost", "../libexec/lamppost"];

/// The program that asks the greylist.
const SCANNER: &str = "qmail-envelope-scanner";

/// Put small programs under names of old, such as sendmail, into a folder
#[derive(Debug, Subcommand)]
pub(crate) enum CompatCommand {
    /// Put sendmail, mailq and newaliases into a folder, or programs that are named, or take them out
    ///
    /// A file of somebody else is never replaced or removed. The programs that hand in mail do so on the
    /// socket of `[mail.sendmail]`; none is setuid or setgid. After an upgrade, do it once more.
    Install(Install),
    /// Show the names, and what stands under them in a folder
    List(List),
}

#[derive(Args, Debug)]
pub(crate) struct Install {
    /// The folder, such as /usr/local/sbin
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// These: sendmail, mailq, newaliases, greylisting-delete-expired, qmail-envelope-scanner, qmail-smtpd,
    /// rblsmtpd, tcprules, tcprulescheck, tcpserver [default: the first three]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Take them out: those of Lamppost only
    #[arg(long)]
    remove: bool,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Look into these folders [default: where programs look for a sendmail]
    #[arg(value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl CompatCommand {
    pub(crate) fn execute(self, place: &Place) -> Result<(), Failure> {
        match self {
            Self::Install(install) if install.remove => install.remove(),
            Self::Install(install) => install.install(place),
            Self::List(list) => list.execute(),
        }
    }
}

impl Install {
    /// The files; those of all names when none is named.
    fn paths(&self) -> Result<Vec<PathBuf>, Failure> {
        must_be_folder(&self.folder)?;
        let known = || NAMES.iter().map(|(name, _)| *name);
        if let Some(unknown) = self.names.iter().find(|name| !known().any(|one| one == **name)) {
            let names = known().collect::<Vec<_>>().join(", ");
            return Err(Failure::new(Code::Usage, format!("there is no program {unknown}"))
                .cure(format!("the names are {names}")));
        }
        let is_wanted = |name: &str| match &self.names[..] {
            // What is taken out is all that there is.
            [] => self.remove || USUAL.contains(&name),
            names => names.iter().any(|one| one == name),
        };
        Ok(known().filter(|name| is_wanted(name)).map(|name| self.folder.join(name)).collect())
    }

    fn install(&self, place: &Place) -> Result<(), Failure> {
        let paths = self.paths()?;
        let opened = place.open()?;
        place::tell_demo(&opened);
        let (program, stamp) = (executable()?, stamp(place, &opened, &paths)?);
        // All or none: half a set would be worse than what was there.
        for path in &paths {
            if let Standing::Foreign(what) =
                lamppost_compat::look(path).map_err(|error| failed(&error))?
            {
                return Err(failed(&InstallError::Foreign { path: path.clone(), what }));
            }
        }
        let mut text = String::new();
        for path in &paths {
            lamppost_compat::install(&program, &stamp, path).map_err(|error| failed(&error))?;
            let _infallible = writeln!(text, "{} is Lamppost's now", path.display());
        }
        if let Some(socket) = stamp.socket.filter(|_| are_some_of(&paths, &USUAL)) {
            let _infallible = writeln!(text, "Mail is handed in at {}.", socket.display());
        }
        if let Some(place) = stamp.greylist.filter(|_| are_some_of(&paths, &[SCANNER])) {
            let _infallible = writeln!(text, "The greylist is asked at {}.", place.display());
        }
        out::print(&text)
    }

    fn remove(&self) -> Result<(), Failure> {
        let mut text = String::new();
        for path in self.paths()? {
            match lamppost_compat::remove(&path) {
                Ok(true) => {
                    let _infallible = writeln!(text, "{} removed", path.display());
                }
                Ok(false) => {}
                // Who names nothing wants what is ours to be gone, and it is.
                Err(error @ InstallError::Foreign { .. }) if self.names.is_empty() => {
                    let _infallible = writeln!(text, "{error}");
                }
                Err(error) => return Err(failed(&error)),
            }
        }
        let nothing = || format!("nothing of Lamppost is in {}\n", self.folder.display());
        out::print(&if text.is_empty() { nothing() } else { text })
    }
}

/// A name in a folder.
#[derive(serde::Serialize)]
struct Found {
    path: PathBuf,
    state: &'static str,
    version: Option<String>,
    /// What it asks.
    socket: Option<PathBuf>,
    what: Option<String>,
}

impl Found {
    fn at(path: &Path) -> Self {
        let found =
            |state| Self { path: path.to_owned(), state, version: None, socket: None, what: None };
        match lamppost_compat::look(path) {
            Ok(Standing::Free) => found("free"),
            Ok(Standing::Foreign(what)) => Self { what: Some(what), ..found("foreign") },
            Ok(Standing::Ours(Stamp { version, socket, greylist, .. })) => {
                let socket = if path.ends_with(SCANNER) { greylist } else { socket };
                Self { version: Some(version), socket, ..found("lamppost") }
            }
            Err(error) => Self { what: Some(chain(&error)), ..found("unknown") },
        }
    }

    fn detail(&self) -> String {
        let Some(version) = &self.version else { return self.what.clone().unwrap_or_default() };
        let is_current = version == env!("CARGO_PKG_VERSION");
        let age = if is_current { "" } else { ", of another version" };
        match &self.socket {
            Some(socket) if USUAL.iter().any(|name| self.path.ends_with(name)) => {
                format!("hands in at {}{age}", socket.display())
            }
            Some(socket) if self.path.ends_with(SCANNER) => {
                format!("asks at {}{age}", socket.display())
            }
            _ => format!("version {version}{age}"),
        }
    }
}

impl List {
    fn execute(self) -> Result<(), Failure> {
        let folders = match &self.folders[..] {
            [] => FOLDERS.iter().map(PathBuf::from).collect(),
            named => named.to_vec(),
        };
        folders
            .iter()
            .filter(|_| !self.folders.is_empty())
            .try_for_each(|it| must_be_folder(it))?;
        let files = folders
            .iter()
            .flat_map(|folder| NAMES.iter().map(|(name, _)| Found::at(&folder.join(name))));
        let files: Vec<_> = files.collect();
        if self.json {
            return out::json(&files);
        }
        let names = NAMES.map(|(name, does)| [name.to_owned(), does.to_owned()]);
        let rows = files.iter().filter(|file| file.state != "free");
        let rows: Vec<_> = rows
            .map(|file| [file.path.display().to_string(), file.state.to_owned(), file.detail()])
            .collect();
        let mut text = out::table(["NAME", "WHAT IT DOES"], &names);
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&out::table(["FILE", "WHOSE", "WHAT"], &rows));
        }
        out::print(&text)
    }
}

/// Whether some of the files have one of these names.
fn are_some_of(paths: &[PathBuf], names: &[&str]) -> bool {
    paths.iter().any(|path| names.iter().any(|name| path.ends_with(name)))
}

fn must_be_folder(folder: &Path) -> Result<(), Failure> {
    let what = match std::fs::metadata(folder) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => format!("{} is no folder", folder.display()),
        Err(error) => format!("cannot look at the folder {}: {error}", folder.display()),
    };
    Err(Failure::new(Code::Data, what).cure("make it first, or name another"))
}

/// The small executable that comes with this program.
fn executable() -> Result<PathBuf, Failure> {
    let own = own_path()?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    let places = BESIDE.map(|beside| folder.join(beside).join(EXECUTABLE));
    places.iter().find(|place| place.is_file()).cloned().ok_or_else(|| {
        let places = places.each_ref().map(|place| place.display().to_string()).join(", ");
        Failure::new(Code::Unavailable, format!("{EXECUTABLE} is not there; looked for {places}"))
            .cure("install it beside this program; `cargo build --release` makes both")
    })
}

fn own_path() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::at(Code::System, "cannot tell where this program is", &error))
}

/// What the copies are told: to be called by anybody, they read no configuration.
fn stamp(place: &Place, opened: &Opened, paths: &[PathBuf]) -> Result<Stamp, Failure> {
    let (socket, greylist) = (opened.submit_socket(), opened.greylist_place());
    let is_of_greylist = |path: &&PathBuf| OF_GREYLIST.iter().any(|name| path.ends_with(name));
    if socket.is_none() && !paths.iter().all(|path| is_of_greylist(&path)) {
        let what = "no mail of local programs is taken: `enabled` in [mail.sendmail] is false";
        return Err(Failure::new(Code::Config, what).cure("set it to true"));
    }
    if greylist.is_none() && are_some_of(paths, &[SCANNER]) {
        let what =
            "the greylist is asked nowhere: [mail.greylist.service] names no socket and no address";
        let cure = format!(
            "set `socket = \"{}\"` there, and `socket-group` to the group that qmail-smtpd runs as; then \
             `lamppost reload`",
            lamppost_compat::GREYLIST_SOCKET
        );
        return Err(Failure::new(Code::Config, what).cure(cure));
    }
    let whole = |path: &Option<PathBuf>| path.as_ref().and_then(|it| std::path::absolute(it).ok());
    Ok(Stamp {
        version: env!("CARGO_PKG_VERSION").into(),
        socket,
        greylist,
        program: own_path()?,
        config: whole(&place.named_file()),
        state: whole(&place.state),
    })
}

fn failed(error: &InstallError) -> Failure {
    match error {
        InstallError::Foreign { .. } => Failure::of(Code::Data, error).cure(
            "choose another folder, or remove it by the tools of the package that it belongs to \
             (`dpkg -S FILE` names it)",
        ),
        InstallError::Step { source, .. } => match source.kind() {
            std::io::ErrorKind::PermissionDenied => Failure::of(Code::Permission, error)
                .cure("run this as root, or choose a folder that you may write to"),
            _ => Failure::of(Code::Io, error),
        },
    }
}
