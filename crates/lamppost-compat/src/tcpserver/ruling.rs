//! The rules of `-x`: looked at for each connection, and read again when the file has changed.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lamppost_rules::{Cdb, Client, Effect, Found, Keys, look_up};

use crate::words;

/// A file that changed so little ago may have changed again within the same tick of its clock.
const FRESH: Duration = Duration::from_secs(2);

/// The rules as they were read last.
#[derive(Debug, Default)]
pub(super) struct Ruling {
    last: Mutex<Option<(Stamp, Arc<[u8]>)>>,
}

/// What tells that a file is another or has changed.
type Stamp = [i64; 7];

/// What the rules say of a client.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) is_denied: bool,
    /// Names and values, in their order.
    pub(super) variables: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Ruling {
    /// Looks a client up; why that cannot be is what is to be told.
    pub(super) fn of(
        &self,
        file: &OsStr,
        may_lack: bool,
        client: &Client<'_>,
    ) -> Result<Verdict, String> {
        let bytes = match self.bytes(file) {
            Ok(bytes) => bytes,
            Err(error) if may_lack && error.kind() == io::ErrorKind::NotFound => {
                return Ok(Verdict::default());
            }
            Err(error) => return Err(words::of(&error)),
        };
        // Networks stand under keys that nobody else has.
        let found = look_up(&Cdb::new(&bytes), client, Keys::Networks);
        let mut verdict = Verdict::default();
        for effect in found.map_err(|_| words::PROTOCOL)?.iter().flat_map(Found::effects) {
            match effect {
                Effect::Deny => verdict.is_denied = true,
                Effect::Set(variable) => {
                    if let Some(equals) = variable.iter().position(|&byte| byte == b'=') {
                        let (name, value) = (&variable[..equals], &variable[equals + 1..]);
                        verdict.variables.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
        }
        Ok(verdict)
    }

    /// What the file holds now.
    fn bytes(&self, file: &OsStr) -> io::Result<Arc<[u8]>> {
        let found = std::fs::metadata(file)?;
        let stamp = stamp(&found);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, bytes)) = &*last
            && *known == stamp
            && found
                .modified()
                .and_then(|at| at.elapsed().map_err(io::Error::other))
                .is_ok_and(|age| age > FRESH)
        {
            return Ok(bytes.clone());
        }
        let bytes: Arc<[u8]> = std::fs::read(file)?.into();
        if bytes.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        *last = Some((stamp, bytes.clone()));
        Ok(bytes)
    }
}

fn stamp(found: &Metadata) -> Stamp {
    let number = |number: u64| number.cast_signed();
    [
        number(found.dev()),
        number(found.ino()),
        number(found.size()),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ]
}
