//! Only one process has the spool.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::StartError;

/// How long a program waits for the spool, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The right to the spool, given back when dropped or when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock as soon as whoever has it only for a moment, as a command that reads the spool,
    /// gives it back.
    pub(crate) fn wait(folder: &Path, program: u32) -> Result<Self, StartError> {
        let begun = Instant::now();
        loop {
            match Self::take(folder, program) {
                Err(StartError::Held { .. }) if begun.elapsed() < PATIENCE => {
                    std::thread::park_timeout(LOOK_AGAIN);
                }
                taken => return taken,
            }
        }
    }

    /// Takes the lock and writes into it the number of the process that others would have to end.
    pub(crate) fn take(folder: &Path, program: u32) -> Result<Self, StartError> {
        let path = folder.join("lock");
        let failed = |source| StartError::Disk { step: "lock", path: path.clone(), source };
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(failed)?;
                let (folder, holder) = (folder.to_owned(), holder.trim().to_owned());
                return Err(StartError::Held { folder, holder });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let write = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            writeln!(file, "{program}")
        };
        write(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_was_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path(), 7).unwrap();
        let error = Lock::take(folder.path(), 7).unwrap_err().to_string();
        assert!(error.contains("held by process 7"), "{error}");
        drop(first);
        Lock::take(folder.path(), 7).unwrap();
    }

    #[test]
    fn who_has_it_for_a_moment_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::take(folder.path(), 7).unwrap();
        let giving_back = std::thread::spawn(move || {
            std::thread::park_timeout(LOOK_AGAIN * 3);
            drop(first);
        });
        Lock::wait(folder.path(), 7).unwrap();
        giving_back.join().unwrap();
    }
}
