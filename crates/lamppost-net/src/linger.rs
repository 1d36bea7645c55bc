//! Closing a connection so that the last reply is read.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Says that nothing more will come, then reads and drops what the client still sends.
///
/// A socket that is closed while bytes wait unread is reset, and a reset may take the last reply
/// away from the client (RFC 1122 §4.2.2.13). Bounded in bytes and time.
pub async fn close_gracefully<S>(stream: &mut S, bytes_max: u64, patience: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let closing = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(bytes_max), &mut tokio::io::sink()).await
    };
    // The session is over: what fails now concerns nobody.
    drop(timeout(patience, closing).await);
}
