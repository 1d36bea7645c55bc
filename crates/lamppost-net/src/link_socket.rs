//! The socket of a link between processes, which lets a role sleep while its peer reads.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, send, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

/// A connected UNIX stream socket.
///
/// Whenever the peer has read something, the kernel wakes whoever waits to write. On a link that would wake the
/// asking role for nothing between its question and the answer, so this one waits to write only while
/// the socket is full. The runtime's own type for sockets always waits for both, its types for the
/// two ends of a pipe wait for one; they work on any stream.
#[derive(Debug)]
pub struct LinkSocket {
    reading: pipe::Receiver,
    writing: Writing,
}

/// The same socket again, by a descriptor of its own: one that were made when it is needed could be the one
/// that the process may not have any more.
#[derive(Debug)]
enum Writing {
    /// The socket takes what is sent, as far as is known.
    Free(OwnedFd),
    /// It is full.
    Full(pipe::Sender),
    /// Watching it failed.
    Broken,
}

impl LinkSocket {
    /// Takes over a socket; inside a runtime.
    ///
    /// # Errors
    /// What the system says against watching it.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        let writing = Writing::Free(socket.try_clone()?.into());
        let reading = pipe::Receiver::from_owned_fd_unchecked(socket.into())?;
        Ok(Self { reading, writing })
    }
}

impl AsyncRead for LinkSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reading).poll_read(context, buffer)
    }
}

impl AsyncWrite for LinkSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut full = match std::mem::replace(&mut self.writing, Writing::Broken) {
            Writing::Full(full) => full,
            Writing::Free(free) => match send(&free, bytes, SendFlags::NOSIGNAL) {
                Err(Errno::AGAIN) => pipe::Sender::from_owned_fd_unchecked(free)?,
                sent => {
                    self.writing = Writing::Free(free);
                    return Poll::Ready(sent.map_err(io::Error::from));
                }
            },
            Writing::Broken => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        let written = Pin::new(&mut full).poll_write(context, bytes);
        self.writing = match written {
            Poll::Pending => Writing::Full(full),
            Poll::Ready(_) => Writing::Free(full.into_nonblocking_fd()?),
        };
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&self.reading, Shutdown::Write).map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair() -> (LinkSocket, LinkSocket) {
        let (here, there) = UnixStream::pair().unwrap();
        (LinkSocket::new(here.into()).unwrap(), LinkSocket::new(there.into()).unwrap())
    }

    #[tokio::test]
    async fn far_more_than_the_socket_holds_arrives_whole_both_ways() {
        let (here, there) = pair();
        let sent: Vec<u8> =
            (0..5_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
        let exchange = |socket: LinkSocket| {
            let sent = sent.clone();
            async move {
                let (mut from, mut to) = tokio::io::split(socket);
                let mut came = vec![0; sent.len()];
                let (read, written) = tokio::join!(from.read_exact(&mut came), to.write_all(&sent));
                read.unwrap();
                written.unwrap();
                assert!(came == sent);
            }
        };
        tokio::join!(exchange(here), exchange(there));
    }

    #[tokio::test]
    async fn the_end_and_a_peer_that_is_gone_are_told() {
        let (mut here, mut there) = pair();
        here.write_all(b"last").await.unwrap();
        here.shutdown().await.unwrap();
        let mut came = Vec::new();
        there.read_to_end(&mut came).await.unwrap();
        assert_eq!(came, b"last");
        drop(there);
        assert_eq!(here.write_all(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn it_waits_to_write_only_while_the_socket_is_full() {
        let (mut here, mut there) = pair();
        here.write_all(b"little").await.unwrap();
        assert!(matches!(here.writing, Writing::Free(_)));
        let much = vec![0; 1_000_000];
        let full = tokio::select! {
            biased;
            written = here.write_all(&much) => panic!("{written:?}"),
            () = std::future::ready(()) => matches!(here.writing, Writing::Full(_)),
        };
        assert!(full);
        let mut came = vec![0; 64 * 1024];
        let reading = async { while there.read(&mut came).await.unwrap() > 0 {} };
        tokio::select! {
            () = reading => panic!("the other end is open"),
            written = here.write_all(b"little") => written.unwrap(),
        }
        assert!(matches!(here.writing, Writing::Free(_)));
    }
}
