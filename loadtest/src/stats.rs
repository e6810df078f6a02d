//! What the devices of a run have counted and measured so far.
//!
//! Shared by all device tasks: counters are atomic, distributions and errors sit behind a lock that
//! is taken a few times in a device's life, never per chunk.
//! Invariants: every device ends as exactly one of `done`, `wrong`, `failed` or `left`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::device::error::DeviceError;

/// Counters and distributions of one run.
#[derive(Debug)]
pub(crate) struct Stats {
    /// Devices connected at this moment.
    pub(crate) connected: Counter,
    /// Devices that were connected at least once.
    pub(crate) ever_connected: Counter,
    /// Connections that came to an end without the swarm wanting it, and were made again.
    pub(crate) reconnects: Counter,
    /// Connections that the swarm cut by its drop schedule.
    pub(crate) planned_drops: Counter,
    /// Resource bytes that devices took for the first time.
    pub(crate) bytes: Counter,
    /// Resource bytes that came again.
    pub(crate) duplicate_bytes: Counter,
    /// Chunks received.
    pub(crate) chunks: Counter,
    /// Requests that a device repeated because nothing came.
    pub(crate) stalls: Counter,
    /// Devices whose delivery is proven and acknowledged; for `connect`, that stayed to the end.
    pub(crate) done: Counter,
    /// Devices that got other bytes than the resource's.
    pub(crate) wrong: Counter,
    /// Devices that did not come to an end.
    pub(crate) failed: Counter,
    /// Slow devices that `--leave-slow` did not wait for.
    pub(crate) left: Counter,
    /// Fast devices that came to any end.
    pub(crate) fast_ended: Counter,
    /// Devices that asked after they had stayed, and were answered.
    pub(crate) answered: Counter,
    /// What became of datagrams, by CoAP.
    pub(crate) datagrams: Datagrams,
    times: Mutex<Times>,
    errors: Mutex<BTreeMap<&'static str, ErrorCount>>,
}

/// What became of the datagrams of all devices, either way.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    /// Sent by devices, before any of them is lost.
    pub(crate) sent: Counter,
    /// Lost by the run's own choice.
    pub(crate) lost: Counter,
    /// Arrived twice by the run's own choice.
    pub(crate) duplicated: Counter,
    /// Late by the run's own choice.
    pub(crate) reordered: Counter,
    /// Came while their device slept.
    pub(crate) slept_through: Counter,
    /// Source ports that were left for another one.
    pub(crate) rebinds: Counter,
    /// Requests, each with all its repetitions.
    pub(crate) exchanges: Counter,
    /// Messages of devices that went again.
    pub(crate) retransmissions: Counter,
    /// Messages of devices that nothing came for.
    pub(crate) timeouts: Counter,
}

/// A number that many tasks add to.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub(crate) fn add(&self, n: u64) {
        if n > 0 {
            self.0.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Takes `n` away.
    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The number now.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is measured of each device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timing {
    /// Scheduled start to the end of the TLS handshake.
    Tls,
    /// Scheduled start to CONNACK.
    Login,
    /// Scheduled start to SUBACK, or to the registration.
    Ready,
    /// First request for bytes to the first byte.
    FirstByte,
    /// `download` to the acknowledged `done`, devices that are not slow.
    Duration,
    /// The same of slow devices.
    SlowDuration,
}

/// Distributions in microseconds.
#[derive(Debug)]
pub(crate) struct Times([Histogram<u64>; 6]);

impl Times {
    /// The distribution of `timing`.
    pub(crate) const fn of(&self, timing: Timing) -> &Histogram<u64> {
        let [tls, login, ready, first_byte, duration, slow] = &self.0;
        match timing {
            Timing::Tls => tls,
            Timing::Login => login,
            Timing::Ready => ready,
            Timing::FirstByte => first_byte,
            Timing::Duration => duration,
            Timing::SlowDuration => slow,
        }
    }

    const fn of_mut(&mut self, timing: Timing) -> &mut Histogram<u64> {
        let [tls, login, ready, first_byte, duration, slow] = &mut self.0;
        match timing {
            Timing::Tls => tls,
            Timing::Login => login,
            Timing::Ready => ready,
            Timing::FirstByte => first_byte,
            Timing::Duration => duration,
            Timing::SlowDuration => slow,
        }
    }
}

/// How often one kind of error came, with the first one's words.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ErrorCount {
    /// How often.
    pub(crate) count: u64,
    /// Device and text of the first.
    pub(crate) first: String,
}

impl Default for Stats {
    fn default() -> Self {
        let times = std::array::from_fn(|_| {
            Histogram::new_with_bounds(1, MAX_MICROS, SIGNIFICANT_DIGITS)
                .expect("constant bounds are valid")
        });
        Self {
            connected: Counter::default(),
            ever_connected: Counter::default(),
            reconnects: Counter::default(),
            planned_drops: Counter::default(),
            bytes: Counter::default(),
            duplicate_bytes: Counter::default(),
            chunks: Counter::default(),
            stalls: Counter::default(),
            done: Counter::default(),
            wrong: Counter::default(),
            failed: Counter::default(),
            left: Counter::default(),
            fast_ended: Counter::default(),
            answered: Counter::default(),
            datagrams: Datagrams::default(),
            times: Mutex::new(Times(times)),
            errors: Mutex::default(),
        }
    }
}

impl Stats {
    /// Notes one measurement.
    pub(crate) fn record(&self, timing: Timing, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.times
            .lock()
            .of_mut(timing)
            .saturating_record(micros.max(1));
    }

    /// Notes an error of `device`, whether or not the device recovers from it.
    pub(crate) fn error(&self, device: &str, error: &DeviceError) {
        self.problem(error.kind(), || format!("{device}: {error}"));
    }

    /// Notes a problem that is no single device's.
    pub(crate) fn problem(&self, kind: &'static str, first: impl FnOnce() -> String) {
        let mut errors = self.errors.lock();
        let entry = errors.entry(kind).or_insert_with(|| ErrorCount {
            count: 0,
            first: first(),
        });
        entry.count += 1;
    }

    /// Reads the distributions.
    pub(crate) fn with_times<T>(&self, read: impl FnOnce(&Times) -> T) -> T {
        read(&self.times.lock())
    }

    /// Errors by kind so far.
    pub(crate) fn errors(&self) -> BTreeMap<&'static str, ErrorCount> {
        self.errors.lock().clone()
    }

    /// Devices that came to an end of any kind.
    pub(crate) fn ended(&self) -> u64 {
        self.done.get() + self.wrong.get() + self.failed.get() + self.left.get()
    }
}

/// A day: longer than any run's timeout by default.
const MAX_MICROS: u64 = 24 * 3_600 * 1_000_000;
/// Two digits: within 1 %, 100 KB for all distributions.
const SIGNIFICANT_DIGITS: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_apart() {
        let stats = Stats::default();
        stats.record(Timing::Tls, Duration::from_millis(10));
        stats.record(Timing::Duration, Duration::from_secs(2));
        stats.record(Timing::Duration, Duration::from_secs(200_000));
        stats.with_times(|times| {
            assert_eq!(times.of(Timing::Tls).len(), 1);
            assert_eq!(times.of(Timing::Duration).len(), 2);
            assert_eq!(times.of(Timing::Ready).len(), 0);
            let tls = times.of(Timing::Tls).value_at_quantile(0.5);
            assert!((9_900..10_100).contains(&tls), "{tls}");
        });
    }

    #[test]
    fn errors_are_counted_by_kind_with_the_first_example() {
        let stats = Stats::default();
        stats.error("d1", &DeviceError::Closed);
        stats.error("d2", &DeviceError::Closed);
        stats.error("d3", &DeviceError::Silent);
        let errors = stats.errors();
        assert_eq!(errors["closed_by_gateway"].count, 2);
        assert!(errors["closed_by_gateway"].first.starts_with("d1: "));
        assert_eq!(errors.len(), 2);
    }
}
