//! Where the databases of the state are; and why files of the state cannot be used, and what to do about
//! it: whose they are, or a full disk.

use std::error::Error;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lamppost_database::DatabaseError;
use lamppost_sandbox::User;
use rustix::fs::{Access, access, statvfs};
use rustix::io::Errno;

use crate::exit::{Code, Failure};

/// With less than this nothing can be written.
const FREE_BYTES_MIN: u64 = 256 * 1024;

/// The database of accounts.
pub(crate) const ACCOUNTS: &str = "state.db";
/// The database of the greylist.
pub(crate) const GREYLIST: &str = "greylist.db";
/// What was decided while the greylist's shared database was away.
pub(crate) const JOURNAL: &str = "greylist-journal.db";

/// The folder of the databases. `SQLite` makes files beside a database, so whoever may use one may write its
/// whole folder: they have one of their own.
pub(crate) fn databases(state: &Path) -> PathBuf {
    state.join("policy")
}

/// A database of the state. Before [`gather_databases`] it may lie where it did once, and does in a state
/// that was restored.
pub(crate) fn database(state: &Path, name: &str) -> PathBuf {
    let (here, once) = (databases(state).join(name), state.join(name));
    if !here.exists() && once.exists() { once } else { here }
}

/// Makes the folder of the databases, for the user whose the state is.
pub(crate) fn make_database_folder(state: &Path) -> Result<(), Failure> {
    let folder = databases(state);
    let made = match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        made => made.and_then(|()| {
            hand_over(state, &folder)?;
            File::open(state)?.sync_all()
        }),
    };
    made.map_err(|error| {
        let step = format!("cannot make {}: {error}", folder.display());
        folder_failure(state, &std::io::Error::other(step))
    })
}

/// Gives a file to whom the state belongs. Nobody but root can, or needs to.
pub(crate) fn hand_over(state: &Path, path: &Path) -> std::io::Result<()> {
    if rustix::process::geteuid().is_root() {
        let owner = state.metadata()?;
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// Moves databases that lie beside their folder into it. The original goes last.
pub(crate) fn gather_databases(state: &Path) -> Result<(), Failure> {
    for name in [ACCOUNTS, GREYLIST] {
        let (here, once) = (databases(state).join(name), state.join(name));
        if !once.exists() {
            continue;
        }
        let moved = || -> Result<(), Box<dyn Error>> {
            if !here.exists() {
                let copy = databases(state).join(format!(".{name}.moving"));
                drop(std::fs::remove_file(&copy));
                lamppost_database::copy(&once, &copy)?;
                hand_over(state, &copy)?;
                File::open(&copy)?.sync_all()?;
                std::fs::rename(&copy, &here)?;
                File::open(databases(state))?.sync_all()?;
            }
            for end in ["-wal", "-shm", ""] {
                let path = state.join(format!("{name}{end}"));
                if path.exists() {
                    std::fs::remove_file(path)?;
                }
            }
            Ok(())
        };
        moved().map_err(|error| {
            let step = format!("cannot move {} into {}", once.display(), here.display());
            Failure::at(Code::Io, &step, &*error)
        })?;
    }
    Ok(())
}

/// A database that cannot be opened, read or written.
pub(crate) fn database_failure(path: &Path, error: &DatabaseError) -> Failure {
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let files = [path.to_owned(), beside("-wal"), beside("-shm")];
    failure(path, &files, error)
}

/// A folder in which something cannot be written.
pub(crate) fn folder_failure(folder: &Path, error: &dyn Error) -> Failure {
    let inside = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files: Vec<_> =
        std::iter::once(folder.to_owned()).chain(inside.map(|entry| entry.path())).collect();
    failure(folder, &files, error)
}

/// What failed at a path, by the first of the files that says why.
fn failure(path: &Path, files: &[PathBuf], error: &dyn Error) -> Failure {
    let folder = path.parent().unwrap_or(path);
    // In a folder of another user its files are that user's too.
    let strange =
        [folder].into_iter().chain(files.iter().map(PathBuf::as_path)).find_map(Strange::of);
    if let Some(Strange { path, owner, user }) = strange {
        let (whose, me) = (name(owner), name(user));
        let is_folder = path.is_dir();
        let path = path.display();
        let why = format!("{path} belongs to {whose}, and this runs as {me}");
        let failure = Failure::new(Code::Permission, format!("{error}: {why}"));
        // A stray file among one's own is a mistake; a whole folder may well be right as it is.
        return if is_folder {
            failure.cure(format!(
                "run this as {whose}; if lamppost is to run as {me}, give it all of the folder as \
                 root: `chown -R {me} {path}`"
            ))
        } else {
            failure.cure(format!("give it to {me} as root: `chown {me} {path}`"))
        };
    }
    if is_full(folder) {
        return Failure::new(
            Code::Io,
            format!("{error}: the disk of {} is full", folder.display()),
        )
        .cure("make room on it, then do this again: nothing was changed");
    }
    Failure::of(Code::Io, error)
}

/// Whose a folder is when this runs as root and it is another user's.
pub(crate) fn other_owner(folder: &Path) -> Option<User> {
    let owner = std::fs::metadata(folder).ok()?;
    let is_anothers = rustix::process::geteuid().is_root() && owner.uid() != 0;
    is_anothers.then(|| User { uid: owner.uid(), gid: owner.gid() })
}

/// A file that this user may not write, being another's.
struct Strange<'a> {
    path: &'a Path,
    owner: u32,
    user: u32,
}

impl<'a> Strange<'a> {
    fn of(path: &'a Path) -> Option<Self> {
        match access(path, Access::READ_OK | Access::WRITE_OK) {
            Err(Errno::ACCESS | Errno::PERM) => {}
            _ => return None,
        }
        let owner = std::fs::metadata(path).ok()?.uid();
        let user = rustix::process::geteuid().as_raw();
        (owner != user).then_some(Self { path, owner, user })
    }
}

fn is_full(folder: &Path) -> bool {
    statvfs(folder).is_ok_and(|found| {
        found.f_bavail.saturating_mul(found.f_frsize) < FREE_BYTES_MIN
            || found.f_favail == 0 && found.f_files > 0
    })
}

/// The users of this machine, as they were when this was called first: a role may not read the file any
/// more once it began.
pub(crate) fn users() -> &'static str {
    static USERS: OnceLock<String> = OnceLock::new();
    USERS.get_or_init(|| std::fs::read_to_string("/etc/passwd").unwrap_or_default())
}

/// A user that this machine lists.
pub(crate) fn user_named(name: &str) -> Option<User> {
    users().lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next()? == name;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        is_it.then_some(User { uid, gid })
    })
}

/// A user's name, as /etc/passwd has it; else the number.
pub(crate) fn name(user: u32) -> String {
    let users = users();
    let number = user.to_string();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    found.unwrap_or(number)
}
