//! Where a backup goes: a file that has its name only once it is whole, or standard output.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};

use super::unwritten;
use crate::exit::{Code, Failure};

/// Where a backup goes.
pub(super) enum Output {
    /// A file, under another name until it is whole.
    Named { path: PathBuf, partial: PathBuf, file: File, is_whole: bool },
    /// Standard output.
    Standard,
}

impl Output {
    pub(super) fn begin(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self::Standard);
        }
        if path.symlink_metadata().is_ok() {
            return Err(Failure::new(Code::Data, format!("{} is there already", path.display()))
                .cure("name another file; nothing is written over"));
        }
        let partial = beside(path, "partial")?;
        // What a killed backup left under this name is used again.
        let mut options = File::options();
        options.create(true).truncate(false).write(true).mode(0o600);
        options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(&partial).map_err(|error| unwritten(path, &error))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let what = format!("another backup is being written to {}", path.display());
            Failure::new(Code::Unavailable, what)
        })?;
        file.set_len(0).map_err(|error| unwritten(path, &error))?;
        Ok(Self::Named { path: path.to_owned(), partial, file, is_whole: false })
    }

    pub(super) fn writer(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match self {
            Self::Named { file, .. } => Box::new(BufWriter::new(file.try_clone()?)),
            Self::Standard => Box::new(io::stdout()),
        })
    }

    /// A place for a copy that is soon removed: the state's own disk only where there is no other.
    pub(super) fn beside(&self, state: &Path, name: &str) -> PathBuf {
        match self {
            Self::Named { partial, .. } => {
                let mut path = partial.clone().into_os_string();
                path.push(format!("-{name}"));
                path.into()
            }
            Self::Standard => state.join(format!("backup-{}-{name}", std::process::id())),
        }
    }

    /// Makes the file durable, then gives it its name.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        let Self::Named { path, partial, file, is_whole } = &mut self else { return Ok(()) };
        let folder = folder_of(path);
        let named = file
            .sync_all()
            .and_then(|()| std::fs::rename(&*partial, &*path))
            .and_then(|()| File::open(folder)?.sync_all());
        named.map_err(|error| unwritten(path, &error))?;
        *is_whole = true;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Self::Named { partial, is_whole: false, .. } = self {
            drop(std::fs::remove_file(partial));
        }
    }
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A hidden name in the same folder.
fn beside(path: &Path, end: &str) -> Result<PathBuf, Failure> {
    let name = path.file_name().ok_or_else(|| {
        Failure::new(Code::Usage, format!("{} is no name of a file", path.display()))
    })?;
    Ok(folder_of(path).join(format!(".{}.{end}", name.to_string_lossy())))
}
