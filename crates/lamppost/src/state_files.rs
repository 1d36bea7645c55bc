//! Why files of the state cannot be used, and what to do about it: whose they are, or a full disk.

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lamppost_database::DatabaseError;
use rustix::fs::{Access, access, statvfs};
use rustix::io::Errno;

use crate::exit::{Code, Failure};

/// With less than this nothing can be written.
const FREE_BYTES_MIN: u64 = 256 * 1024;

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
pub(crate) fn other_owner(folder: &Path) -> Option<String> {
    let owner = std::fs::metadata(folder).ok()?.uid();
    (rustix::process::geteuid().is_root() && owner != 0).then(|| name(owner))
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

/// A user's name, as /etc/passwd has it; else the number.
fn name(user: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = user.to_string();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    found.unwrap_or(number)
}
