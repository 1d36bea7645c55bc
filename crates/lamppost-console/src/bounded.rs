//! Connections that are bounded: so many at once, and no longer silent than they may be. What others hold
//! open must not take the descriptors that the role needs itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Places for connections.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    /// How long a connection may be silent.
    patience: Option<Duration>,
}

/// A connection that has a place.
#[derive(Debug)]
pub(crate) struct Placed<S> {
    stream: S,
    silence: Option<(Duration, Pin<Box<Sleep>>)>,
    _place: Option<OwnedSemaphorePermit>,
}

/// A free place.
pub(crate) struct Place(Option<OwnedSemaphorePermit>);

impl Places {
    pub(crate) fn new(count: usize, patience: Option<Duration>) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), patience }
    }

    /// Waits for a free place.
    pub(crate) async fn free(&self) -> Place {
        // The semaphore is never closed.
        Place(self.free.clone().acquire_owned().await.ok())
    }

    /// Gives a connection its place.
    pub(crate) fn give<S>(&self, Place(place): Place, stream: S) -> Placed<S> {
        let silence = self.patience.map(|patience| (patience, Box::pin(sleep(patience))));
        Placed { stream, silence, _place: place }
    }
}

impl<S> Placed<S> {
    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// Whether it was silent for too long; anything that comes or goes ends a silence.
    fn is_silent<T>(&mut self, cx: &mut Context<'_>, moved: &Poll<T>) -> bool {
        let Some((patience, until)) = &mut self.silence else { return false };
        if moved.is_ready() {
            until.as_mut().reset(Instant::now() + *patience);
            return false;
        }
        until.as_mut().poll(cx).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Placed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if self.is_silent(cx, &moved) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        moved
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Placed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if self.is_silent(cx, &moved) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Ready(ready!(moved))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_loses_the_place() {
        let places = Places::new(1, Some(Duration::from_secs(60)));
        let (mut here, there) = duplex(64);
        let mut placed = places.give(places.free().await, there);
        assert_eq!(places.free.available_permits(), 0);
        let mut letter = [0];
        for _ in 0..3 {
            let writing = async {
                sleep(Duration::from_secs(50)).await;
                here.write_all(b"x").await.unwrap();
            };
            let ((), read) = tokio::join!(writing, placed.read(&mut letter));
            assert_eq!(read.unwrap(), 1);
        }
        let error = placed.read(&mut letter).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(placed);
        assert_eq!(places.free.available_permits(), 1);
    }
}
