//! A byte stream that fails when its peer moves nothing for too long.
//!
//! Wrapped around every connection of the HTTP listeners, it covers an idle keep-alive, a body that
//! stops coming and a reader that stops reading with one timer.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Bounds the time between two bytes in either direction.
#[derive(Debug)]
pub struct IdleTimeout<S> {
    stream: S,
    timeout: Duration,
    /// Set anew only when it fires, so that a byte moved costs a clock reading and no timer.
    sleep: Pin<Box<Sleep>>,
    moved_at: Instant,
}

impl<S> IdleTimeout<S> {
    /// Wraps `stream`; the time runs from now.
    pub fn new(stream: S, timeout: Duration) -> Self {
        Self {
            stream,
            timeout,
            sleep: Box::pin(tokio::time::sleep(timeout)),
            moved_at: Instant::now(),
        }
    }

    /// Notes progress, or fails once the timeout has passed without any.
    fn observe<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.moved_at = Instant::now();
            return polled;
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let deadline = self.moved_at + self.timeout;
            if deadline <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for IdleTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.observe(cx, polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for IdleTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.observe(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.observe(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A flush with nothing to flush is ready at once and proves nothing about the peer.
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => self.observe(cx, Poll::Pending),
            Poll::Ready(flushed) => Poll::Ready(flushed),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.observe(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn silence_fails_and_progress_renews() {
        let (near, mut far) = tokio::io::duplex(4);
        let mut near = IdleTimeout::new(near, TIMEOUT);
        let started = Instant::now();
        let mut buf = [0; 4];
        while started.elapsed() < TIMEOUT * 2 {
            tokio::time::sleep(TIMEOUT / 8).await;
            far.write_all(b"x").await.expect("room");
            assert_eq!(near.read(&mut buf).await.expect("a byte"), 1);
        }
        let silent = Instant::now();
        let error = near.read(&mut buf).await.expect_err("silence");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(silent.elapsed() * 2 >= TIMEOUT);
    }

    #[tokio::test]
    async fn reader_that_stops_fails_the_writer() {
        let (near, _far) = tokio::io::duplex(4);
        let mut near = IdleTimeout::new(near, TIMEOUT);
        let error = near
            .write_all(b"more than it takes")
            .await
            .expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
