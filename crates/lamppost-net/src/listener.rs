//! Listening on exactly the addresses that are named.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::accept::accept_next;
use crate::user_name;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listening TCP socket.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    address: SocketAddr,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub cause: BindCause,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindCause {
    /// No interface of this machine has the address.
    #[error("this machine has no such address")]
    Absent,
    /// Another socket listens there.
    #[error("it is taken by {holder}")]
    Taken {
        /// Who holds it, as far as that can be seen.
        holder: String,
    },
    /// The port needs a privilege.
    #[error("ports below 1024 need a privilege")]
    NotPermitted,
    /// Anything else.
    #[error("{0}")]
    Other(io::Error),
}

impl Listener {
    /// Listens on exactly this address: an IPv6 address takes no IPv4 connections.
    ///
    /// # Errors
    /// The address and why it cannot be listened on.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let bound = bind_socket(address)?;
        Self::from_std(bound).map_err(|error| BindError { address, cause: BindCause::Other(error) })
    }

    /// Takes over a socket that listens already.
    ///
    /// # Errors
    /// When the socket is none that listens.
    pub fn from_std(socket: std::net::TcpListener) -> io::Result<Self> {
        // Replies are whole when they are sent; waiting for more only delays them. Accepted sockets
        // inherit it.
        socket2::SockRef::from(&socket).set_tcp_nodelay(true)?;
        let inner = TcpListener::from_std(socket)?;
        let address = inner.local_addr()?;
        Ok(Self { inner, address })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, as [`accept_next`] takes it.
    pub async fn accept(&self) -> (TcpStream, SocketAddr) {
        accept_next(self.address, || self.inner.accept()).await
    }
}

/// Listens on exactly this address, for whoever is given the socket: an IPv6 address takes no IPv4
/// connections.
///
/// # Errors
/// The address and why it cannot be listened on.
pub fn bind_socket(address: SocketAddr) -> Result<std::net::TcpListener, BindError> {
    let bound = try_bind(address);
    bound.map_err(|error| BindError { address, cause: BindCause::of(error, address) })
}

fn try_bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for connections of the past that linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl BindCause {
    fn of(error: io::Error, address: SocketAddr) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::ADDRNOTAVAIL) => Self::Absent,
            Some(Errno::ADDRINUSE) => Self::Taken { holder: holder(address) },
            Some(Errno::ACCESS | Errno::PERM) if address.port() < 1024 => Self::NotPermitted,
            _ => Self::Other(error),
        }
    }
}

/// Who listens on the port, for people; as much as /proc lets this user see.
pub fn holder(address: SocketAddr) -> String {
    let sockets = listening(address);
    sockets.iter().find_map(|(inode, _)| process_with_socket(inode)).unwrap_or_else(|| {
        let user = sockets.first().map(|(_, uid)| format!(" of {}", name_of(*uid)));
        let user = user.unwrap_or_default();
        format!("a process{user} (`ss -ltnp 'sport = :{}'` as root names it)", address.port())
    })
}

/// Whether anybody listens on the address, or on one that covers it.
pub fn is_held(address: SocketAddr) -> bool {
    !listening(address).is_empty()
}

fn name_of(uid: u32) -> String {
    user_name(uid).unwrap_or_else(|| format!("user {uid}"))
}

/// The inodes of the sockets that listen on an address, each with its user (proc(5), /proc/net/tcp).
fn listening(address: SocketAddr) -> Vec<(String, u32)> {
    const LISTEN: &str = "0A";
    let mut sockets = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(text) = std::fs::read_to_string(table) else {
            continue;
        };
        for line in text.lines().skip(1) {
            let columns: Vec<_> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(&LISTEN), Some(uid), Some(inode)) =
                (columns.get(1), columns.get(3), columns.get(7), columns.get(9))
            else {
                continue;
            };
            let Some((ip, port)) = local.rsplit_once(':') else { continue };
            if u16::from_str_radix(port, 16) == Ok(address.port()) && covers(ip, address.ip()) {
                sockets.push(((*inode).to_owned(), uid.parse().unwrap_or(u32::MAX)));
            }
        }
    }
    sockets
}

/// Whether a socket on this address, in the kernel's hexadecimal words, is in the way of one on `ip`.
fn covers(listening: &str, ip: IpAddr) -> bool {
    let word = |bytes: &[u8]| {
        bytes
            .try_into()
            .map(|bytes| format!("{:08X}", u32::from_ne_bytes(bytes)))
            .unwrap_or_default()
    };
    let its = match ip {
        IpAddr::V4(ip) => word(&ip.octets()),
        IpAddr::V6(ip) => ip.octets().chunks(4).map(word).collect(),
    };
    let is_all = listening.bytes().all(|digit| digit == b'0');
    ip.is_unspecified() || is_all || listening == its
}

/// The process that has a descriptor of the socket, as `NAME of USER (pid N)`.
fn process_with_socket(inode: &str) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = descriptors.flatten().any(|descriptor| {
            std::fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == &*wanted)
        });
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let user = process.metadata().map_or_else(|_| "?".into(), |found| name_of(found.uid()));
            return Some(format!("{} of {user} (pid {pid})", name.trim()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(address: &str) -> Result<Listener, BindError> {
        Listener::bind(address.parse().unwrap())
    }

    #[tokio::test]
    async fn a_taken_address_names_its_holder() {
        let first = bind("127.0.0.1:0").unwrap();
        let error = bind(&first.address().to_string()).unwrap_err().to_string();
        assert!(error.contains(&first.address().to_string()), "{error}");
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_absent() {
        let error = bind("192.0.2.1:0").unwrap_err();
        assert!(matches!(error.cause, BindCause::Absent), "{error}");
    }

    #[tokio::test]
    async fn only_the_named_address_is_taken() {
        let v4 = bind("127.0.0.1:0").unwrap();
        let other = format!("127.0.0.2:{}", v4.address().port());
        bind(&other).unwrap();
    }

    #[tokio::test]
    async fn connections_are_accepted() {
        let listener = bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.address()).await.unwrap();
        let (stream, peer) = listener.accept().await;
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
    }
}
