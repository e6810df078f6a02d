//! What paces a swarm: connects per second, and slow devices' reading.
//!
//! [`Pacer`] gives each device its scheduled start, so that latencies are measured from when a
//! device wanted to connect. [`Throttle`] stands below TLS and leaves unread bytes in the kernel,
//! where the gateway feels them as a full socket.
//! Invariants: neither ever runs ahead of its rate by more than one second's worth.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Even schedule of starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pacer {
    start: Instant,
    per_sec: Option<u32>,
}

impl Pacer {
    /// A schedule from `start`; `per_sec` absent or 0 means no pace at all.
    pub(crate) fn new(start: Instant, per_sec: Option<u32>) -> Self {
        Self {
            start,
            per_sec: per_sec.filter(|&n| n > 0),
        }
    }

    /// When device `index` may start; `None` when there is no schedule.
    pub(crate) fn start_of(&self, index: u32) -> Option<Instant> {
        let per_sec = self.per_sec?;
        let nanos = u64::from(index) * 1_000_000_000 / u64::from(per_sec);
        Some(self.start + Duration::from_nanos(nanos))
    }
}

/// Bytes allowed by a rate since a starting point, with at most one second saved up.
#[derive(Debug)]
struct Budget {
    bytes_per_sec: u64,
    available: u64,
    filled_at: Instant,
}

impl Budget {
    fn new(now: Instant, bytes_per_sec: u64) -> Self {
        let bytes_per_sec = bytes_per_sec.max(1);
        Self {
            bytes_per_sec,
            available: bytes_per_sec.min(MIN_READ_BYTES),
            filled_at: now,
        }
    }

    /// Adds what the time since the last call earned.
    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at);
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let earned = micros.saturating_mul(self.bytes_per_sec) / 1_000_000;
        if earned > 0 {
            let cap = self.bytes_per_sec.max(MIN_READ_BYTES);
            self.available = self.available.saturating_add(earned).min(cap);
            self.filled_at = now;
        }
    }

    /// How long until a read is worth its wake-up.
    fn wait(&self) -> Duration {
        let wanted = MIN_READ_BYTES
            .min(self.bytes_per_sec)
            .saturating_sub(self.available);
        Duration::from_micros(wanted.saturating_mul(1_000_000) / self.bytes_per_sec + 1)
    }
}

/// A socket that is read at most at a given rate; writes pass.
#[derive(Debug)]
pub(crate) struct Throttle<S> {
    inner: S,
    limit: Option<Box<Limit>>,
}

/// State of a slow socket; boxed, for most sockets have none.
#[derive(Debug)]
struct Limit {
    budget: Budget,
    sleep: Pin<Box<Sleep>>,
}

impl<S> Throttle<S> {
    /// `bytes_per_sec` absent means no limit and no cost.
    pub(crate) fn new(inner: S, bytes_per_sec: Option<u64>) -> Self {
        let limit = bytes_per_sec.map(|rate| {
            let now = Instant::now();
            let sleep = Box::pin(tokio::time::sleep_until(now));
            Box::new(Limit {
                budget: Budget::new(now, rate),
                sleep,
            })
        });
        Self { inner, limit }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Throttle<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(limit) = &mut this.limit else {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        };
        loop {
            limit.budget.refill(Instant::now());
            if limit.budget.available > 0 {
                break;
            }
            let due = Instant::now() + limit.budget.wait();
            limit.sleep.as_mut().reset(due);
            ready!(limit.sleep.as_mut().poll(cx));
        }
        let mut scratch = [0_u8; SCRATCH_BYTES];
        let allowed = usize::try_from(limit.budget.available).unwrap_or(usize::MAX);
        let take = allowed.min(buf.remaining()).min(SCRATCH_BYTES);
        let mut part = ReadBuf::new(&mut scratch[..take]);
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        limit.budget.available -= part.filled().len() as u64;
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Throttle<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Smallest read that is worth a wake-up, where the rate allows it.
const MIN_READ_BYTES: u64 = 256;
/// Largest read of a slow socket.
const SCRATCH_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_socket_reads_at_its_rate() {
        let (mut far, near) = tokio::io::duplex(1 << 20);
        far.write_all(&[7; 10_000]).await.unwrap();
        let mut slow = Throttle::new(near, Some(1_000));
        let start = Instant::now();
        let mut got = vec![0; 10_000];
        slow.read_exact(&mut got).await.unwrap();
        let elapsed = start.elapsed();
        assert!(elapsed > Duration::from_millis(9_500), "{elapsed:?}");
        assert!(elapsed < Duration::from_millis(10_500), "{elapsed:?}");
        assert!(got.iter().all(|&b| b == 7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_earns_one_second_at_most() {
        let (mut far, near) = tokio::io::duplex(1 << 20);
        far.write_all(&[7; 10_000]).await.unwrap();
        let mut slow = Throttle::new(near, Some(1_000));
        tokio::time::sleep(Duration::from_secs(100)).await;
        let start = Instant::now();
        slow.read_exact(&mut [0; 3_000]).await.unwrap();
        assert!(
            start.elapsed() > Duration::from_millis(1_900),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_waits() {
        let (mut far, near) = tokio::io::duplex(1 << 20);
        far.write_all(&[7; 10_000]).await.unwrap();
        let mut open = Throttle::new(near, None);
        let start = Instant::now();
        open.read_exact(&mut [0; 10_000]).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn starts_are_spread_evenly() {
        let now = Instant::now();
        let pacer = Pacer::new(now, Some(200));
        assert_eq!(pacer.start_of(0), Some(now));
        assert_eq!(pacer.start_of(1), Some(now + Duration::from_millis(5)));
        assert_eq!(pacer.start_of(200), Some(now + Duration::from_secs(1)));
        assert_eq!(Pacer::new(now, None).start_of(9), None);
        assert_eq!(Pacer::new(now, Some(0)).start_of(9), None);
    }
}
