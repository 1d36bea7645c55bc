//! Front to queue: handing in mail.

use bytes::Bytes;
use lamppost_smtp::Refusal;
use serde::{Deserialize, Serialize};

use crate::{Envelope, QueueId};

/// A message on its way in, larger than one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UploadId(pub u64);

/// What the front asks of the queue.
///
/// Content has LF line ends and nothing added by this host except what submission adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntakeRequest {
    /// May a message of about this size come? Asked before DATA is answered with 354.
    Room {
        /// The size that the client announced, or 0.
        size: u64,
    },
    /// A whole message in one piece: answered once it is durable.
    Submit {
        /// Its envelope.
        envelope: Envelope,
        /// Its content.
        content: Bytes,
    },
    /// A large message begins.
    Begin,
    /// The next piece of it.
    Append {
        /// Which message.
        upload: UploadId,
        /// The piece.
        piece: Bytes,
    },
    /// A large message is complete: answered once it is durable.
    Finish {
        /// Which message.
        upload: UploadId,
        /// Its envelope.
        envelope: Envelope,
    },
    /// A large message will not be completed.
    Abort {
        /// Which message.
        upload: UploadId,
    },
}

/// What the queue answers the front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IntakeAnswer {
    /// To Room, Append and Abort: go on.
    Proceed,
    /// To Room: go on, and so long nobody needs to ask it for a message that comes in one piece.
    Plenty {
        /// How long, in milliseconds.
        lasts_ms: u32,
    },
    /// To Begin.
    Upload(UploadId),
    /// To Submit and Finish: durable under this id.
    Stored(QueueId),
    /// Nothing was stored; an upload that was refused is gone.
    Refused(Refusal),
}
