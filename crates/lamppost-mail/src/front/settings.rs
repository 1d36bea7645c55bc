//! What the front is told.

use std::sync::Arc;
use std::time::Duration;

use lamppost_net::Network;
use lamppost_smtp::Kind;

/// Settings of all listeners together.
#[derive(Clone, Debug)]
pub struct FrontSettings {
    /// This host's name, for Received and Message-ID fields.
    pub hostname: String,
    /// The limits.
    pub limits: FrontLimits,
    /// What connections are decided by. Policy is asked about none for which there is nothing.
    pub grounds: Vec<Ground>,
}

/// What policy knows of a client before its session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// The rules of connections.
    Rules,
    /// Lists in the DNS.
    Lists,
}

impl Ground {
    /// Whether it counts on a listener of this kind.
    pub(super) fn counts_on(self, kind: Kind) -> bool {
        match self {
            Self::Rules => true,
            // Who hands in mail of its own comes from where lists name everybody.
            Self::Lists => kind == Kind::Mx,
        }
    }
}

/// Limits of the front that are not the protocol's.
#[derive(Clone, Debug)]
pub struct FrontLimits {
    /// Sessions at once.
    pub sessions_max: usize,
    /// Sessions at once from one address (IPv6: from one /64).
    pub sessions_per_address_max: usize,
    /// How long the greeting is held back to notice clients that talk first.
    pub greeting_delay: Duration,
    /// The longest TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// The longest wait for a proxy's PROXY header.
    pub proxy_header_timeout: Duration,
    /// Bytes per second that content must bring on average once the grace is over; 0 for any.
    pub data_rate_min: u64,
    /// How long content may come slower than that.
    pub data_rate_grace: Duration,
    /// Received fields in a message before it is taken to be in a loop (RFC 5321 §6.3).
    pub hops_max: usize,
    /// Content in bytes up to which a message goes to the queue in one piece.
    pub inline_max: usize,
    /// Bytes of all contents together that wait in memory; beyond it they go to the queue in pieces.
    pub content_memory_max: usize,
    /// How long a client may take to read a reply.
    pub write_timeout: Duration,
    /// How long the answer to a wrong password is held back.
    pub auth_failure_delay: Duration,
}

impl Default for FrontLimits {
    fn default() -> Self {
        Self {
            sessions_max: 1000,
            sessions_per_address_max: 50,
            greeting_delay: Duration::ZERO,
            tls_handshake_timeout: Duration::from_secs(30),
            proxy_header_timeout: Duration::from_secs(5),
            data_rate_min: 64,
            data_rate_grace: Duration::from_secs(60),
            hops_max: 50,
            inline_max: 256 * 1024,
            content_memory_max: 64 * 1024 * 1024,
            write_timeout: Duration::from_secs(60),
            auth_failure_delay: Duration::from_secs(2),
        }
    }
}

/// Settings of one listener.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Its name in logs and metrics, such as `127.0.0.1:2525` or a socket's path.
    pub name: String,
    /// The protocol's settings.
    pub smtp: Arc<lamppost_smtp::Settings>,
    /// When TLS begins.
    pub tls: TlsMode,
    /// Proxies whose PROXY header is believed, and expected.
    pub proxy_from: Vec<Network>,
    /// Old devices whose bare CR or LF is mended instead of refused.
    pub fix_for: Vec<Network>,
}

/// When TLS begins on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Off,
    /// After STARTTLS (RFC 3207).
    StartTls,
    /// At once (RFC 8314).
    Implicit,
}
