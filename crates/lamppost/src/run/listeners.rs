//! Binding everything that the file names, or telling all that cannot be bound.

use std::net::SocketAddr;
use std::time::Duration;

use lamppost_config::{Config, Kind, Listen, TlsMode, WhenAbsent};
use lamppost_console::ListenerStatus;
use lamppost_net::{BindCause, Listener};

use crate::exit::{Code, Failure};

/// How often an absent address is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A listener that the file names.
pub(super) struct Bound {
    pub(super) listen: Listen,
    pub(super) address: SocketAddr,
    /// Nothing while the machine does not have the address.
    pub(super) listener: Option<Listener>,
}

/// Binds all listeners of the mail service and of the metrics endpoint.
pub(super) fn bind(config: &Config) -> Result<(Vec<Bound>, Vec<Listener>), Failure> {
    let mut problems = Vec::new();
    let mut mail = Vec::new();
    for listen in &config.mail.listen {
        for &address in &listen.address {
            let listener = match (Listener::bind(address), listen.when_absent) {
                (Ok(listener), _) => Some(listener),
                (Err(error), WhenAbsent::Skip) if is_absent(&error.cause) => continue,
                (Err(error), WhenAbsent::Wait) if is_absent(&error.cause) => None,
                (Err(error), _) => {
                    problems.push(error.to_string());
                    continue;
                }
            };
            mail.push(Bound { listen: listen.clone(), address, listener });
        }
    }
    let mut metrics = Vec::new();
    for &address in &config.metrics.listen {
        match Listener::bind(address) {
            Ok(listener) => metrics.push(listener),
            Err(error) => problems.push(format!("{error} ([metrics] listen)")),
        }
    }
    if problems.is_empty() {
        return Ok((mail, metrics));
    }
    Err(Failure::new(Code::Unavailable, problems.join("\nerror: "))
        .cure("stop what holds the address, or change the address in the configuration file"))
}

/// Waits until the machine has the address.
pub(super) async fn appear(address: SocketAddr) -> Listener {
    loop {
        match Listener::bind(address) {
            Ok(listener) => return listener,
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
                Kind::Mx => "mx",
                Kind::Submission => "submission",
            }
            .into(),
            tls: match self.listen.tls {
                TlsMode::Off => "off",
                TlsMode::StartTls => "starttls",
                TlsMode::Implicit => "implicit",
            }
            .into(),
            listening: self.listener.is_some(),
        }
    }
}
