//! The client's user as its host tells it (RFC 1413), within a deadline.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

/// The port that answers.
const PORT: u16 = 113;
/// Bytes of an answer that are read, and of a user that are taken.
const ANSWER_MAX: usize = 1024;
const USER_MAX: usize = 256;

/// Asks for the user of a connection; nothing when nobody answers in time, and an empty one when there is
/// none.
pub(super) fn user(local: SocketAddr, remote: SocketAddr, patience: Duration) -> Option<Vec<u8>> {
    let until = Instant::now() + patience;
    let mut stream = connected(local, remote, until).ok()?;
    stream.set_write_timeout(Some(left(until)?)).ok()?;
    let question = format!("{} , {}\r\n", remote.port(), local.port());
    stream.write_all(question.as_bytes()).ok()?;
    let (mut user, mut colons) = (Vec::new(), 0);
    for _ in 0..ANSWER_MAX {
        stream.set_read_timeout(Some(left(until)?)).ok()?;
        let mut byte = [0; 1];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        match byte[0] {
            // What a variable cannot hold ends it too; blanks are no part of it.
            b'\n' | 0 => return Some(user),
            b' ' | b'\t' | b'\r' => {}
            b':' if colons < 3 => colons += 1,
            _ if colons < 3 => {}
            letter => user.push(letter),
        }
        if user.len() == USER_MAX {
            return Some(user);
        }
    }
    None
}

/// The time that is left; nothing when there is none.
fn left(until: Instant) -> Option<Duration> {
    Some(until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
}

/// A connection from the same address to the port that answers.
fn connected(local: SocketAddr, remote: SocketAddr, until: Instant) -> io::Result<TcpStream> {
    let family = if remote.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let at = |mut address: SocketAddr, port| {
        address.set_port(port);
        address
    };
    bind(&socket, &at(local, 0))?;
    // It bounds a connect(2) too (socket(7)).
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, left(until))?;
    connect(&socket, &at(remote, PORT))?;
    Ok(socket.into())
}
