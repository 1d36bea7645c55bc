//! One line for the administrator: on standard error, which is tcpserver's log, or in the system's log where
//! standard error leads nowhere or to the client.

use std::io;
use std::os::unix::net::UnixDatagram;

use rustix::fs::{FileType, fstat, major, minor};
use rustix::net::{AddressFamily, getsockname};

use crate::words;

/// Where the system's log takes lines.
const LOG: &str = "/dev/log";
/// A warning of mail (syslog(3): `LOG_MAIL | LOG_WARNING`).
const PRIORITY: u8 = (2 << 3) | 4;
/// /dev/null.
const NOTHING: (u32, u32) = (1, 3);

/// Tells a line.
pub(super) fn tell(text: &str) {
    let text: String =
        text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let line = format!("qmail-envelope-scanner: warning: {text}");
    if is_read() {
        words::tell(line.as_bytes());
    } else {
        let line = line.replacen(':', &format!("[{}]:", std::process::id()), 1);
        // Where there is no log either, nobody can be told.
        drop(log(&line));
    }
}

/// Whether somebody may read what is written to standard error, and it is not the client, as under inetd.
fn is_read() -> bool {
    let Ok(found) = fstat(io::stderr()) else { return false };
    match FileType::from_raw_mode(found.st_mode) {
        FileType::CharacterDevice => (major(found.st_rdev), minor(found.st_rdev)) != NOTHING,
        FileType::Socket => {
            let address = getsockname(io::stderr());
            address.is_ok_and(|address| address.address_family() == AddressFamily::UNIX)
        }
        _ => true,
    }
}

fn log(line: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // A log that is full is not waited for.
    socket.set_nonblocking(true)?;
    socket.send_to(format!("<{PRIORITY}>{line}").as_bytes(), LOG).map(drop)
}
