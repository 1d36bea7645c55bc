//! The mail transaction of a session (RFC 5321 §3.3): what was said since MAIL.

use crate::content::Decoder;

/// A message that is being handed in.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// Whether addresses may be UTF-8 (RFC 6531).
    pub(crate) smtputf8: bool,
    /// The size that the client announced, or 0.
    pub(crate) announced: u64,
    /// Recipients that were accepted.
    pub(crate) recipients: usize,
    /// The chunks that came so far, if the message comes by BDAT.
    pub(crate) chunks: Option<Decoder>,
    /// Bytes of content so far.
    pub(crate) size: u64,
}

impl Transaction {
    pub(crate) fn new(smtputf8: bool, announced: u64) -> Self {
        Self { smtputf8, announced, recipients: 0, chunks: None, size: 0 }
    }
}
