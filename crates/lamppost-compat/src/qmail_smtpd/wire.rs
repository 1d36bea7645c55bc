//! The client, on descriptors 0 and 1: each read and write within its time.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::stdio::{stdin, stdout};

use super::program::ready;

/// Bytes that are written at once: what a descriptor takes that is ready for more at all.
const WRITTEN_AT_ONCE: usize = 512;
/// Bytes that are read at once.
pub(super) const READ_AT_ONCE: usize = 32 * 1024;

/// Why nothing more comes of the client.
#[derive(Debug)]
pub(super) enum Gone {
    /// It closed the connection, or that broke.
    Away,
    /// It did not say anything in time.
    Silent,
}

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self::Away
    }
}

/// Reads what is there, or waits for it.
pub(super) fn read(bytes: &mut [u8], deadline: Instant) -> Result<usize, Gone> {
    loop {
        if !ready(&stdin(), PollFlags::IN, deadline)? {
            return Err(Gone::Silent);
        }
        match rustix::io::read(stdin(), &mut *bytes) {
            Ok(0) => return Err(Gone::Away),
            Ok(count) => return Ok(count),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return Err(Gone::Away),
        }
    }
}

/// Writes all; a client that takes nothing for so long is as good as gone.
pub(super) fn write(bytes: &[u8], patience: Duration) -> Result<(), Gone> {
    let mut left = bytes;
    while !left.is_empty() {
        if !ready(&stdout(), PollFlags::OUT, Instant::now() + patience)? {
            return Err(Gone::Away);
        }
        match rustix::io::write(stdout(), &left[..left.len().min(WRITTEN_AT_ONCE)]) {
            Ok(count) => left = &left[count..],
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return Err(Gone::Away),
        }
    }
    Ok(())
}
