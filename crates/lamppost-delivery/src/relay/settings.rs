//! What is known of the host that takes mail for elsewhere.

use std::time::Duration;

use lamppost_net::ClientTls;
use lamppost_smtp::{ClientTimeouts, Credentials};

/// The host that takes mail for elsewhere, and how to reach it.
#[derive(Clone, Debug)]
pub struct RelaySettings {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// This host's name, as it introduces itself.
    pub hostname: String,
    /// TLS to it.
    pub tls: RelayTls,
    /// Who this host is to it, if it must say so.
    pub credentials: Option<Credentials>,
    /// Connections to it at once.
    pub connections_max: usize,
    /// How long each of its addresses may take to answer, and a TLS handshake.
    pub connect_timeout: Duration,
    /// How long a connection is kept for the next message.
    pub idle_timeout: Duration,
    /// How long it may take for each step.
    pub timeouts: ClientTimeouts,
}

impl RelaySettings {
    /// `host:port`, as the host is named to people.
    pub fn name(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// TLS to the host that takes mail for elsewhere.
#[derive(Clone, Debug)]
pub enum RelayTls {
    /// From the first byte.
    Implicit(ClientTls),
    /// Never.
    Off,
    /// By STARTTLS where that succeeds.
    Opportunistic(ClientTls),
    /// By STARTTLS, or no mail.
    StartTls(ClientTls),
}
