//! Binding everything that the file names, or telling all that cannot be bound.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use lamppost_config::{Config, Kind, Listen, TlsMode, WhenAbsent};
use lamppost_console::ListenerStatus;
use lamppost_net::{BindCause, BindError, bind_socket};

use crate::exit::{Code, Failure};

/// How often an absent address is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the processes of a killed program may take to be gone, and how often that is looked at.
const ORPHANS_LAST: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A listener that the file names.
pub(super) struct Bound {
    pub(super) listen: Listen,
    pub(super) address: SocketAddr,
    /// Nothing while the machine does not have the address.
    pub(super) socket: Option<TcpListener>,
    /// Whether the address is not waited for.
    pub(super) is_skipped: bool,
}

/// The mail listeners in the order of the file; the place among them is their number.
pub(super) fn named(config: &Config) -> impl Iterator<Item = (&Listen, SocketAddr)> {
    config
        .mail
        .listen
        .iter()
        .flat_map(|listen| listen.address.iter().map(move |&address| (listen, address)))
}

/// Binds all listeners of the mail service and of the metrics endpoint.
pub(super) fn bind(config: &Config) -> Result<(Vec<Bound>, Vec<TcpListener>), Failure> {
    let mut problems = Vec::new();
    let mut mail = Vec::new();
    for (listen, address) in named(config) {
        let (socket, is_skipped) = match (bind_soon(address), listen.when_absent) {
            (Ok(socket), _) => (Some(socket), false),
            (Err(error), WhenAbsent::Skip) if is_absent(&error.cause) => (None, true),
            (Err(error), WhenAbsent::Wait) if is_absent(&error.cause) => (None, false),
            (Err(error), _) => {
                problems.push(error.to_string());
                continue;
            }
        };
        mail.push(Bound { listen: listen.clone(), address, socket, is_skipped });
    }
    let mut metrics = Vec::new();
    for &address in &config.metrics.listen {
        match bind_soon(address) {
            Ok(socket) => metrics.push(socket),
            Err(error) => problems.push(format!("{error} ([metrics] listen)")),
        }
    }
    if problems.is_empty() {
        return Ok((mail, metrics));
    }
    Err(Failure::new(Code::Unavailable, problems.join("\nerror: "))
        .cure("stop what holds the address, or change the address in the configuration file"))
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
        ListenerStatus {
            address: self.address.to_string(),
            kind: match self.listen.kind {
                Kind::Mx => "other servers (mx)",
                Kind::Submission => "submission",
            }
            .into(),
            tls: match self.listen.tls {
                TlsMode::Off => "off",
                TlsMode::StartTls => "STARTTLS",
                TlsMode::Implicit => "implicit",
            }
            .into(),
            listening: self.socket.is_some(),
        }
    }
}
