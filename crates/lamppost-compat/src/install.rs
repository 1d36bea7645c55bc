//! Putting our programs into a folder, and taking them out: never over a file of somebody else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::{error, fmt};

use crate::Stamp;

/// The names that programs of ours go by, and what each is for.
pub const NAMES: [(&str, &str); 10] = [
    ("sendmail", "hands in mail, as programs and PHP's mail() expect it"),
    ("mailq", "lists the queue"),
    ("newaliases", "does nothing, with success: there is no table of aliases to make"),
    (
        "greylisting-delete-expired",
        "has the greylist forget whose time is over, as a cron job does",
    ),
    ("qmail-envelope-scanner", "asks the greylist for qmail-smtpd, as that of the old recipe"),
    ("qmail-smtpd", "takes mail of one client on its descriptors, as that of qmail"),
    ("rblsmtpd", "refuses clients that lists in the DNS name, as that of ucspi-tcp"),
    ("tcprules", "makes the cdb of connection rules, as that of ucspi-tcp"),
    ("tcprulescheck", "tells what connection rules say of a client, as that of ucspi-tcp"),
    ("tcpserver", "has a program serve each connection that the rules allow, as that of ucspi-tcp"),
];

/// Those that are put into a folder when none is named: the ones that hand in mail.
pub const USUAL: [&str; 3] = ["sendmail", "mailq", "newaliases"];

/// Those that have nothing to do with handing in mail: the greylist may be all that there is.
pub const OF_GREYLIST: [&str; 2] = ["greylisting-delete-expired", "qmail-envelope-scanner"];

/// What stands under a name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Free,
    /// A program of ours.
    Ours(Stamp),
    /// Something else, and what it is.
    Foreign(String),
}

/// Why a program was not put into a folder, or not taken out.
#[derive(Debug)]
pub enum InstallError {
    /// Something of somebody else is there, and stays.
    Foreign {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A step failed.
    Step {
        /// The step and its file.
        step: String,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { path, what } => {
                write!(f, "{} is not Lamppost's and stays: {what}", path.display())
            }
            Self::Step { step, .. } => f.write_str(step),
        }
    }
}

impl error::Error for InstallError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Foreign { .. } => None,
            Self::Step { source, .. } => Some(source),
        }
    }
}

fn step(step: &str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let step = format!("cannot {step} {}", path.display());
    move |source| InstallError::Step { step, source }
}

/// Looks at what stands under a name.
///
/// # Errors
/// When that cannot be seen.
pub fn look(path: &Path) -> Result<Standing, InstallError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Free),
        Err(error) => return Err(step("look at", path)(error)),
    };
    if found.is_symlink() {
        let target = fs::read_link(path).map_err(step("read the link", path))?;
        return Ok(Standing::Foreign(format!("a link to {}", target.display())));
    }
    if found.is_dir() {
        return Ok(Standing::Foreign("a folder".into()));
    }
    if !found.is_file() {
        return Ok(Standing::Foreign("no plain file".into()));
    }
    match Stamp::of(path).map_err(step("read", path))? {
        Some(stamp) => Ok(Standing::Ours(stamp)),
        None => Ok(Standing::Foreign(format!("a file of {} bytes", found.len()))),
    }
}

/// Puts a copy of the program under a name into a folder, or in place of an older one of ours.
///
/// # Errors
/// When something else is there, or a step fails; then nothing has changed.
pub fn install(program: &Path, stamp: &Stamp, path: &Path) -> Result<(), InstallError> {
    let standing = look(path)?;
    if let Standing::Foreign(what) = standing {
        return Err(InstallError::Foreign { path: path.to_owned(), what });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.lamppost-{}", std::process::id()));
    let placed = write(program, stamp, &new).and_then(|()| match standing {
        // A link fails when somebody else made a file of this name meanwhile.
        Standing::Free => fs::hard_link(&new, path).map_err(step("make", path)),
        _ => fs::rename(&new, path).map_err(step("replace", path)),
    });
    // After a rename it is gone already.
    drop(fs::remove_file(&new));
    placed
}

fn write(program: &Path, stamp: &Stamp, new: &Path) -> Result<(), InstallError> {
    let mut source = File::open(program).map_err(step("read", program))?;
    let stamp = stamp.to_bytes().map_err(step("write", new))?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new);
    let mut file = file.map_err(step("make", new))?;
    let written = io::copy(&mut source, &mut file)
        .and_then(|_| file.write_all(&stamp))
        // Whatever the umask and the source's mode are: to be called by all, and nothing more.
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o755)))
        .and_then(|()| file.sync_all());
    written.map_err(step("write", new))
}

/// Takes a program of ours out of a folder; tells whether there was one.
///
/// # Errors
/// When something else is there, or it cannot be removed.
pub fn remove(path: &Path) -> Result<bool, InstallError> {
    match look(path)? {
        Standing::Free => Ok(false),
        Standing::Foreign(what) => Err(InstallError::Foreign { path: path.to_owned(), what }),
        Standing::Ours(_) => {
            fs::remove_file(path).map_err(step("remove", path))?;
            Ok(true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(version: &str) -> Stamp {
        Stamp { version: version.into(), socket: Some("/s".into()), ..Stamp::default() }
    }

    #[test]
    fn ours_is_put_renewed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (program, path) = (folder.path().join("program"), folder.path().join("sendmail"));
        fs::write(&program, "#!/bin/sh\n").unwrap();
        assert!(!remove(&path).unwrap());
        install(&program, &stamp("1"), &path).unwrap();
        assert_eq!(look(&path).unwrap(), Standing::Ours(stamp("1")));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
        install(&program, &stamp("2"), &path).unwrap();
        assert_eq!(look(&path).unwrap(), Standing::Ours(stamp("2")));
        assert!(remove(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_of_others_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (program, path) = (folder.path().join("program"), folder.path().join("sendmail"));
        fs::write(&program, "#!/bin/sh\n").unwrap();
        let check = |what: &str| {
            for error in [install(&program, &stamp("1"), &path), remove(&path).map(drop)] {
                let error = error.unwrap_err().to_string();
                assert!(
                    error.contains(what) && error.contains("is not Lamppost's and stays"),
                    "{error}"
                );
            }
            let left = fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(left, 2, "a temporary file stayed");
        };
        fs::write(&path, "theirs").unwrap();
        check("a file of 6 bytes");
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        check("a folder");
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(&program, &path).unwrap();
        check("a link to");
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    }
}
