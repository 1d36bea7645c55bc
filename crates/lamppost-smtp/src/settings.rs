//! What a session is told before it begins.

use std::time::Duration;

/// Settings of all sessions of a listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This host's name, as it greets.
    pub hostname: String,
    /// Whom the listener is for.
    pub kind: Kind,
    /// Whether STARTTLS is offered on connections without TLS (RFC 3207).
    pub starttls: bool,
    /// When AUTH is offered (RFC 4954).
    pub auth: AuthOffer,
    /// The limits.
    pub limits: Limits,
}

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Other mail servers.
    Mx,
    /// People and programs with an account (RFC 6409): mail needs authentication.
    Submission,
}

/// When AUTH is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthOffer {
    /// Also without TLS, where passwords can be overheard.
    Always,
    /// Never.
    Never,
    /// Under TLS only.
    UnderTls,
}

/// Limits of a session; each has its name in `[mail.limits]`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a command line with its CRLF (RFC 5321 §4.5.3.1.4 and what extensions add).
    pub command_line_max: usize,
    /// Bytes of a line of AUTH (RFC 4954 §4).
    pub auth_line_max: usize,
    /// Bytes of a line of content with its CRLF (RFC 5321 §4.5.3.1.6 asks for 1000 at least).
    pub data_line_max: usize,
    /// Recipients of a message (RFC 5321 §4.5.3.1.8 asks for 100 at least).
    pub recipients_max: usize,
    /// Bytes of a message (RFC 1870).
    pub message_size_max: u64,
    /// Commands between two messages that bring no mail forward.
    pub commands_max: usize,
    /// Commands that break the protocol.
    pub errors_max: usize,
    /// Messages.
    pub messages_max: usize,
    /// Tries to authenticate that fail.
    pub auth_tries_max: usize,
    /// How long a command may take to arrive (RFC 5321 §4.5.3.2.7).
    pub command_timeout: Duration,
    /// How long content may take to begin (RFC 5321 §4.5.3.2.4).
    pub data_start_timeout: Duration,
    /// How long content may pause (RFC 5321 §4.5.3.2.5).
    pub data_block_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_line_max: 2048,
            auth_line_max: 12 * 1024,
            data_line_max: 64 * 1024,
            recipients_max: 1000,
            message_size_max: 25 * 1024 * 1024,
            commands_max: 1000,
            errors_max: 10,
            messages_max: 10_000,
            auth_tries_max: 3,
            command_timeout: Duration::from_secs(5 * 60),
            data_start_timeout: Duration::from_secs(2 * 60),
            data_block_timeout: Duration::from_secs(3 * 60),
        }
    }
}

/// What is known of a connection before its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether TLS has begun already.
    pub tls: bool,
    /// What a CR or LF alone gets from this client.
    pub bare_newline: BareNewline,
}

/// What a CR without LF, or an LF without CR, gets. Neither ever ends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNewline {
    /// It is taken as a line end of the content: for old devices.
    Fix,
    /// The message is refused and the connection closed (RFC 5321 §2.3.8).
    Refuse,
    /// An LF alone ends a command, and has a message refused and the connection closed; a CR alone is a
    /// byte of the message: as qmail does.
    RefuseInContent,
}
