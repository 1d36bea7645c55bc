//! What a client is told before it begins.

use std::time::Duration;

use crate::Secret;

/// Settings of all connections to a host.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// This host's name, as it introduces itself.
    pub hostname: String,
    /// What becomes of a connection without TLS (RFC 3207).
    pub starttls: StartTls,
    /// Who this host is to the other, if it must say so (RFC 4954).
    pub credentials: Option<Credentials>,
    /// How long the other host may take.
    pub timeouts: ClientTimeouts,
}

/// What becomes of a connection that begins without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTls {
    /// It stays without.
    Never,
    /// It gets TLS or carries no mail.
    Required,
    /// It gets TLS when the host offers it.
    WhenOffered,
}

/// A name and its password.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// Whether the password may travel without TLS, where it can be overheard.
    pub without_tls: bool,
}

/// How long the other host may take (RFC 5321 §4.5.3.2).
#[derive(Clone, Copy, Debug)]
pub struct ClientTimeouts {
    /// For its greeting.
    pub greeting: Duration,
    /// For the reply to MAIL, RCPT and all commands that have no time of their own.
    pub command: Duration,
    /// For the reply to DATA.
    pub data_start: Duration,
    /// For taking a piece of content.
    pub data_block: Duration,
    /// For the reply to the end of the content.
    pub data_end: Duration,
    /// For the reply to QUIT, which changes nothing any more.
    pub quit: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(5 * 60),
            command: Duration::from_secs(5 * 60),
            data_start: Duration::from_secs(2 * 60),
            data_block: Duration::from_secs(3 * 60),
            data_end: Duration::from_secs(10 * 60),
            quit: Duration::from_secs(5),
        }
    }
}
