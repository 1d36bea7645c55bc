//! Binding everything that the file names, or telling all that cannot be bound.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use lamppost_config::{Config, Kind, Listen, TlsMode, WhenAbsent};
use lamppost_console::ListenerStatus;
use lamppost_net::{BindCause, BindError, Given, bind_socket};
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{AddressFamily, getsockname};
use tracing::warn;

use crate::exit::{Code, Failure};
use crate::place::Opened;

/// How often an absent address is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the processes of a killed program may take to be gone, and how often that is looked at.
pub(super) const ORPHANS_LAST: Duration = Duration::from_millis(500);
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A listener that the file names.
pub(super) struct Bound {
    /// How mail comes in there; nothing where mail servers ask the greylist.
    pub(super) listen: Option<Listen>,
    pub(super) address: SocketAddr,
    /// Nothing while the machine does not have the address.
    pub(super) socket: Option<TcpListener>,
    /// Whether the address is not waited for.
    pub(super) is_skipped: bool,
}

/// Sockets that this process was given, by systemd or by the program whose place it takes.
pub(super) struct Held {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
}

impl Held {
    /// Takes what the environment says was given.
    pub(super) fn take() -> std::io::Result<Self> {
        let mut given = Given::take()?;
        let listens = |one: BorrowedFd<'_>, family| {
            socket_acceptconn(one).unwrap_or(false)
                && getsockname(one).is_ok_and(|address| address.address_family() == family)
        };
        let is_tcp = |one: BorrowedFd<'_>| {
            listens(one, AddressFamily::INET) || listens(one, AddressFamily::INET6)
        };
        let tcp = std::iter::from_fn(|| given.find(is_tcp)).map(TcpListener::from).collect();
        let is_unix = |one: BorrowedFd<'_>| listens(one, AddressFamily::UNIX);
        let unix = std::iter::from_fn(|| given.find(is_unix)).map(UnixListener::from).collect();
        Ok(Self { tcp, unix })
    }

    pub(super) fn tcp(&self) -> Vec<&TcpListener> {
        self.tcp.iter().collect()
    }

    /// The socket at a path, if it was given.
    pub(super) fn unix(&mut self, path: &Path) -> Option<UnixListener> {
        let is_it = |socket: &UnixListener| {
            socket.local_addr().is_ok_and(|address| address.as_pathname() == Some(path))
        };
        let place = self.unix.iter().position(is_it)?;
        Some(self.unix.swap_remove(place))
    }

    /// Tells of sockets that were given for addresses that the file does not name.
    pub(super) fn warn_of_unnamed(&self, mail: &[Bound], metrics: &[TcpListener]) {
        let mail = mail.iter().filter_map(|bound| bound.socket.as_ref());
        let known: Vec<_> = mail.chain(metrics).filter_map(|one| one.local_addr().ok()).collect();
        for address in self.tcp.iter().filter_map(|socket| socket.local_addr().ok()) {
            if !known.contains(&address) {
                warn!(%address, "a socket was given that the configuration does not name: nobody answers there");
            }
        }
    }
}

/// The listeners in the order of the file, each with its key there: those where mail comes in, and those
/// where the greylist is asked. The place among them is their number.
pub(super) fn named(
    config: &Config,
) -> impl Iterator<Item = (String, Option<&Listen>, SocketAddr)> {
    let mail = config.mail.listen.iter().enumerate().flat_map(|(number, listen)| {
        let addresses = listen.address.iter().enumerate();
        addresses.map(move |(position, &address)| {
            (format!("mail.listen.{number}.address.{position}"), Some(listen), address)
        })
    });
    let greylist = config.mail.greylist.service.listen.iter().enumerate();
    mail.chain(greylist.map(|(position, &address)| {
        (format!("mail.greylist.service.listen.{position}"), None, address)
    }))
}

/// Binds all listeners of the mail service and of the metrics endpoint. Those that are `held` already
/// are not bound again.
pub(super) fn bind(
    opened: &Opened,
    held: &[&TcpListener],
) -> Result<(Vec<Bound>, Vec<TcpListener>), Failure> {
    let config = &opened.config;
    let mut problems = Vec::new();
    let mut mail = Vec::new();
    let bind_soon = |address| match held_at(held, address) {
        Some(socket) => Ok(socket),
        None => bind_soon(address),
    };
    for (key, listen, address) in named(config) {
        let when_absent = listen.map_or(WhenAbsent::Fail, |listen| listen.when_absent);
        let (socket, is_skipped) = match (bind_soon(address), when_absent) {
            (Ok(socket), _) => (Some(socket), false),
            (Err(error), WhenAbsent::Skip) if is_absent(&error.cause) => (None, true),
            (Err(error), WhenAbsent::Wait) if is_absent(&error.cause) => (None, false),
            (Err(error), _) => {
                problems.push(problem(&error, opened, &key));
                continue;
            }
        };
        mail.push(Bound { listen: listen.cloned(), address, socket, is_skipped });
    }
    let mut metrics = Vec::new();
    for (number, &address) in config.metrics.listen.iter().enumerate() {
        match bind_soon(address) {
            Ok(socket) => metrics.push(socket),
            Err(error) => {
                problems.push(problem(&error, opened, &format!("metrics.listen.{number}")));
            }
        }
    }
    if problems.is_empty() {
        return Ok((mail, metrics));
    }
    Err(Failure::new(Code::Unavailable, told(&problems)))
}

/// The socket that listens on an address already.
fn held_at(held: &[&TcpListener], address: SocketAddr) -> Option<TcpListener> {
    let is_it = |socket: &&&TcpListener| socket.local_addr().is_ok_and(|at| at == address);
    held.iter().find(is_it).and_then(|socket| socket.try_clone().ok())
}

/// Each problem on a line; neighbours with the same cure share it.
fn told(problems: &[Problem]) -> String {
    let mut lines = Vec::new();
    for alike in problems.chunk_by(|one, other| one.cure == other.cure) {
        lines.extend(alike.iter().map(|problem| format!("error: {}", problem.what)));
        lines.extend(alike.first().map(|problem| format!("  help: {}", problem.cure)));
    }
    lines.join("\n")
}

/// Why an address cannot be listened on, and what to do about it.
struct Problem {
    what: String,
    cure: String,
}

/// An address that cannot be listened on: where it stands, why, and what to do about it.
fn problem(error: &BindError, opened: &Opened, key: &str) -> Problem {
    let BindError { address, cause } = error;
    let port = address.port();
    let place = opened.place_of(key).map(|place| format!(" ({place})")).unwrap_or_default();
    let cure = match cause {
        _ if is_absent(cause) => {
            let wait = if key.starts_with("mail.listen") {
                ", or set `when-absent = \"wait\"`, which listens once it appears"
            } else {
                ""
            };
            format!("`ip address` lists those that it has: correct the address{wait}")
        }
        BindCause::Taken { .. } if opened.file.is_none() => {
            "stop what holds it: the addresses of the demo are fixed".to_owned()
        }
        BindCause::Taken { holder }
            if holder.ends_with(&format!("(pid {})", std::process::id())) =>
        {
            "one of its own that covers it, or that it covers, is listened on now: restart the \
             program to change from one to the other"
                .to_owned()
        }
        BindCause::Taken { .. } => "stop what holds it, or name another address".to_owned(),
        BindCause::NotPermitted => format!(
            "begin it as root or with the capability CAP_NET_BIND_SERVICE (`AmbientCapabilities=` \
             of a systemd unit), or name a port from 1024 on instead of {port}"
        ),
        _ => "name an address that can be listened on".to_owned(),
    };
    Problem { what: format!("cannot listen on {address}{place}: {cause}"), cure }
}

/// Binds an address; the processes of a program that was killed a moment ago may still have it.
fn bind_soon(address: SocketAddr) -> Result<TcpListener, BindError> {
    let begun = Instant::now();
    loop {
        match bind_socket(address) {
            Err(BindError { cause: BindCause::Taken { .. }, .. })
                if begun.elapsed() < ORPHANS_LAST =>
            {
                std::thread::park_timeout(LOOK_AGAIN);
            }
            bound => return bound,
        }
    }
}

/// Waits until the machine has the address.
pub(super) async fn appear(address: SocketAddr) -> TcpListener {
    loop {
        match bind_socket(address) {
            Ok(socket) => return socket,
            Err(error) if is_absent(&error.cause) => {}
            Err(error) => {
                tracing::error!(reason = %error, "an awaited address cannot be listened on");
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_absent(cause: &BindCause) -> bool {
    // Without IPv6 in the kernel its addresses are absent too.
    match cause {
        BindCause::Absent => true,
        BindCause::Other(error) => {
            error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
        }
        BindCause::Taken { .. } | BindCause::NotPermitted => false,
    }
}

impl Bound {
    pub(super) fn status(&self) -> ListenerStatus {
        let (kind, tls) = match &self.listen {
            None => ("greylist", "off"),
            Some(Listen { kind, tls, .. }) => {
                let kind = match kind {
                    Kind::Mx => "mx",
                    Kind::Submission => "submission",
                };
                let tls = match tls {
                    TlsMode::Off => "off",
                    TlsMode::StartTls => "starttls",
                    TlsMode::Implicit => "implicit",
                };
                (kind, tls)
            }
        };
        ListenerStatus {
            address: self.address.to_string(),
            kind: kind.into(),
            tls: tls.into(),
            listening: self.socket.is_some(),
        }
    }
}
