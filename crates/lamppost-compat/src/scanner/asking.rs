//! One question to the running greylist and its answer, within a deadline.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lamppost_delegation::{Heard, Question};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// How long connecting, asking and the answer may take, all in all: a client waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 4096;

/// Where the greylist is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// By a UNIX socket.
    Local(PathBuf),
    /// By TCP.
    Tcp(SocketAddr),
}

impl Place {
    /// A path, or an address and a port.
    pub(super) fn of(text: &OsStr) -> Option<Self> {
        if text.as_bytes().starts_with(b"/") {
            return Some(Self::Local(text.into()));
        }
        text.to_str()?.parse().ok().map(Self::Tcp)
    }

    /// Asks; what fails is what is to be told.
    pub(super) fn ask(&self, question: &Question) -> Result<Heard, String> {
        let due = Instant::now() + PATIENCE;
        let heard = self.connect(due).and_then(|stream| exchange(stream, question, due));
        heard.map_err(|error| self.told(&error))
    }

    fn connect(&self, due: Instant) -> io::Result<File> {
        let family = match self {
            Self::Local(_) => AddressFamily::UNIX,
            Self::Tcp(SocketAddr::V4(_)) => AddressFamily::INET,
            Self::Tcp(SocketAddr::V6(_)) => AddressFamily::INET6,
        };
        let stream = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let stream = File::from(stream);
        // It bounds connecting too, as when too many wait to be accepted.
        limit(&stream, Timeout::Send, due)?;
        match self {
            Self::Local(path) => connect(&stream, &SocketAddrUnix::new(path)?)?,
            Self::Tcp(address) => connect(&stream, address)?,
        }
        Ok(stream)
    }

    fn told(&self, error: &io::Error) -> String {
        let place = match self {
            Self::Local(path) => path.display().to_string(),
            Self::Tcp(address) => address.to_string(),
        };
        let cure = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "this user may not use it (socket-mode and socket-group in [mail.greylist.service], and the \
                 folders above it)"
            }
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "is `lamppost run` at work, and is this its place in [mail.greylist.service]?"
            }
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "its log tells why",
            _ => "`lamppost doctor` asks there too",
        };
        if is_late(error) {
            return format!("no answer on {place} within {} s; {cure}", PATIENCE.as_secs());
        }
        format!("no answer on {place}: {error}; {cure}")
    }
}

/// Whether an error is the deadline of a socket, as read(2), write(2) and connect(2) tell it.
fn is_late(error: &io::Error) -> bool {
    let is_in_progress = error.raw_os_error() == Some(libc::EINPROGRESS);
    is_in_progress || matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// Sets how long the next call may take: what is left until the deadline.
fn limit(stream: &File, which: Timeout, due: Instant) -> io::Result<()> {
    let left = due.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    // None at all would be no limit.
    Ok(set_socket_timeout(stream, which, Some(left.max(Duration::from_millis(1))))?)
}

fn exchange(mut stream: File, question: &Question, due: Instant) -> io::Result<Heard> {
    limit(&stream, Timeout::Send, due)?;
    stream.write_all(&question.to_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while answer.len() < ANSWER_BYTES_MAX {
        limit(&stream, Timeout::Recv, due)?;
        match stream.read(&mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if let Some(heard) = Heard::read(&answer) {
            return Ok(heard);
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "what answers is no greylist"))
}
