//! Descriptors that one process gives another: by name when it is started, as systemd does
//! (`LISTEN_FDS`, `sd_listen_fds(3)`), and one by one later (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use command_fds::{CommandFdExt, FdMapping};
use rustix::io::FdFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The first descriptor that is given (`sd_listen_fds(3)`, `SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// More than any process of ours is given.
const GIVEN_MAX: usize = 1024;

/// What this process was given, by name.
#[derive(Debug, Default)]
pub struct Given {
    descriptors: Vec<(String, OwnedFd)>,
}

/// A descriptor that was to be given was not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no descriptor `{name}` was given: this role is started by `lamppost run` only")]
pub struct NotGiven {
    name: String,
}

impl Given {
    /// Takes what the environment says was given to this process. Only the first call takes it.
    ///
    /// # Errors
    /// When the environment speaks of descriptors that are not there.
    pub fn take() -> io::Result<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let variable = |name| std::env::var(name).ok();
        let count: usize = variable("LISTEN_FDS").and_then(|text| text.parse().ok()).unwrap_or(0);
        let own = std::process::id().to_string();
        let is_ours = variable("LISTEN_PID").is_none_or(|pid| pid == own);
        if count == 0 || count > GIVEN_MAX || !is_ours || TAKEN.swap(true, Ordering::SeqCst) {
            return Ok(Self::default());
        }
        let names = variable("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
        let numbers = FIRST..FIRST + RawFd::try_from(count).unwrap_or(0);
        let descriptors = names.zip(numbers).map(|(name, number)| Ok((name, own_it(number)?)));
        Ok(Self { descriptors: descriptors.collect::<io::Result<_>>()? })
    }

    /// Takes the descriptor of a name.
    ///
    /// # Errors
    /// When there is none.
    pub fn one(&mut self, name: &str) -> Result<OwnedFd, NotGiven> {
        let place = self.descriptors.iter().position(|(given, _)| given == name);
        let place = place.ok_or_else(|| NotGiven { name: name.to_owned() })?;
        Ok(self.descriptors.swap_remove(place).1)
    }

    /// Takes the first descriptor that is what is looked for.
    pub fn find(&mut self, is_it: impl Fn(BorrowedFd<'_>) -> bool) -> Option<OwnedFd> {
        let place = self.descriptors.iter().position(|(_, one)| is_it(one.as_fd()))?;
        Some(self.descriptors.swap_remove(place).1)
    }
}

/// Takes over a descriptor by its number.
fn own_it(number: RawFd) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "a number from the environment becomes a descriptor")]
    // SAFETY: whoever started this process opened the descriptor for it, nothing else in this process
    // knows the number, and `Given::take` comes here once for each.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    // It is nobody else's, and it tells whether it is there at all.
    if let Err(error) = rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC) {
        // There is nothing to close.
        let _number = descriptor.into_raw_fd();
        return Err(io::Error::other(format!("descriptor {number} was not given: {error}")));
    }
    Ok(descriptor)
}

/// Makes a command give its process these descriptors, each by a name without a colon.
///
/// # Errors
/// When there are two mappings to one number, which cannot be.
pub fn give(command: &mut Command, descriptors: Vec<(String, OwnedFd)>) -> io::Result<()> {
    let (names, descriptors): (Vec<_>, Vec<_>) = descriptors.into_iter().unzip();
    command.env("LISTEN_FDS", names.len().to_string());
    command.env("LISTEN_FDNAMES", names.join(":"));
    command.env_remove("LISTEN_PID");
    let mapped = (FIRST..).zip(descriptors);
    let mapped = mapped.map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd });
    command.fd_mappings(mapped.collect()).map_err(io::Error::other)?;
    Ok(())
}

/// Sends a descriptor with a number that says what it is.
///
/// # Errors
/// When the other side is gone.
pub fn send_descriptor(to: &UnixStream, what: u32, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let what = what.to_le_bytes();
    let sent = sendmsg(to, &[IoSlice::new(&what)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == what.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Waits for the next descriptor; nothing when the other side is gone.
///
/// # Errors
/// `InvalidData` when what came is no descriptor, or this process had no room for it; the next may come
/// nevertheless.
pub fn receive_descriptor(from: &UnixStream) -> io::Result<Option<(u32, OwnedFd)>> {
    let mut what = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut what)];
    let received = recvmsg(from, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let is_cut = received.flags.intersects(ReturnFlags::CTRUNC) || received.bytes != 4;
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    match descriptors.next().and_then(|mut one| one.next()) {
        Some(descriptor) if !is_cut => Ok(Some((u32::from_le_bytes(what), descriptor))),
        _ => {
            let what = "a message without a descriptor, or none is left for it";
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_descriptor_travels() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut one, other) = UnixStream::pair().unwrap();
        send_descriptor(&here, 7, other.as_fd()).unwrap();
        drop(other);
        let (what, received) = receive_descriptor(&there).unwrap().unwrap();
        assert_eq!(what, 7);
        UnixStream::from(received).write_all(b"x").unwrap();
        let mut text = String::new();
        one.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
        drop(here);
        assert!(receive_descriptor(&there).unwrap().is_none());
    }

    #[test]
    fn what_is_no_descriptor_is_an_error() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&[0; 4]).unwrap();
        assert!(receive_descriptor(&there).is_err());
    }

    #[test]
    fn a_child_finds_its_descriptors_by_number_and_name() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let (_other, another) = UnixStream::pair().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "printf %s \"$LISTEN_FDS $LISTEN_FDNAMES ${LISTEN_PID-none}\" >&4"]);
        let given = vec![("first".into(), another.into()), ("second".into(), there.into())];
        give(&mut command, given).unwrap();
        assert!(command.status().unwrap().success());
        drop(command);
        let mut text = String::new();
        here.read_to_string(&mut text).unwrap();
        assert_eq!(text, "2 first:second none");
    }

    #[test]
    fn nothing_is_given_to_who_was_not_started_so() {
        // The tests' own environment says nothing.
        let mut given = Given::take().unwrap();
        assert_eq!(given.one("x").unwrap_err(), NotGiven { name: "x".into() });
        assert!(given.find(|_| true).is_none());
    }
}
