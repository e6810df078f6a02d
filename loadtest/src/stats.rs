//! What the devices of a run have counted and measured so far.
//!
//! Shared by all device tasks: counters are atomic, distributions and errors sit behind a lock that
//! is taken a few times in a device's life and once a message, never per chunk.
//! Invariants: every device ends as exactly one of `done`, `wrong`, `failed` or `left`.

mod dump;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::device::error::DeviceError;
use crate::report::as_f64;
pub(crate) use dump::Dump;

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
    /// Messages published.
    pub(crate) sent: Counter,
    /// Messages that were acknowledged.
    pub(crate) acked: Counter,
    /// Messages that wait for an acknowledgement now.
    pub(crate) outstanding: Counter,
    /// Messages that the server refused.
    pub(crate) refused: Counter,
    /// Messages that listeners heard, each once for each listener.
    pub(crate) received: Counter,
    /// Messages that came to a listener again.
    pub(crate) duplicates: Counter,
    /// Listeners that hear.
    pub(crate) listening: Counter,
    /// Listeners that never came to hear.
    pub(crate) listeners_lost: Counter,
    /// Connections of listeners that came to an end before the run.
    pub(crate) listener_losses: Counter,
    /// Links that the run cut one by one.
    pub(crate) flaps: Counter,
    /// Links that it cut all at once.
    pub(crate) storms: Counter,
    /// Connections that their devices left without a word.
    pub(crate) half_open: Counter,
    /// Times that a device read nothing for some seconds.
    pub(crate) deaf: Counter,
    /// Forbidden packets that devices sent.
    pub(crate) malformed: Counter,
    /// Those for which the server closed the connection.
    pub(crate) malformed_refused: Counter,
    /// What became of datagrams, by CoAP.
    pub(crate) datagrams: Datagrams,
    times: Mutex<Times>,
    /// Since the last look: publish to PUBACK, publish to listener.
    recent: Mutex<[Histogram<u64>; 2]>,
    errors: Mutex<BTreeMap<Cow<'static, str>, ErrorCount>>,
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
    /// A message's due time to its acknowledgement.
    PubAck,
    /// A message's due time to a listener.
    EndToEnd,
    /// The end of a link that the run cut to the next one, from when its device wanted it.
    Reconnect,
}

impl Timing {
    /// All of them, in the order of [`Self::index`].
    pub(crate) const ALL: [Self; 9] = [
        Self::Tls,
        Self::Login,
        Self::Ready,
        Self::FirstByte,
        Self::Duration,
        Self::SlowDuration,
        Self::PubAck,
        Self::EndToEnd,
        Self::Reconnect,
    ];

    const fn index(self) -> usize {
        match self {
            Self::Tls => 0,
            Self::Login => 1,
            Self::Ready => 2,
            Self::FirstByte => 3,
            Self::Duration => 4,
            Self::SlowDuration => 5,
            Self::PubAck => 6,
            Self::EndToEnd => 7,
            Self::Reconnect => 8,
        }
    }

    /// Its name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Login => "login",
            Self::Ready => "ready",
            Self::FirstByte => "first_byte",
            Self::Duration => "duration",
            Self::SlowDuration => "slow_duration",
            Self::PubAck => "puback",
            Self::EndToEnd => "end_to_end",
            Self::Reconnect => "reconnect",
        }
    }
}

/// Distributions in microseconds.
#[derive(Debug)]
pub(crate) struct Times([Histogram<u64>; Timing::ALL.len()]);

impl Times {
    /// The distribution of `timing`.
    pub(crate) const fn of(&self, timing: Timing) -> &Histogram<u64> {
        &self.0[timing.index()]
    }

    const fn of_mut(&mut self, timing: Timing) -> &mut Histogram<u64> {
        &mut self.0[timing.index()]
    }
}

/// How often one kind of error came, with the first one's words.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct ErrorCount {
    /// How often.
    pub(crate) count: u64,
    /// Device and text of the first.
    pub(crate) first: String,
}

impl Default for Stats {
    fn default() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, MAX_MICROS, SIGNIFICANT_DIGITS)
                .expect("constant bounds are valid")
        };
        let times = std::array::from_fn(|_| histogram());
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
            sent: Counter::default(),
            acked: Counter::default(),
            outstanding: Counter::default(),
            refused: Counter::default(),
            received: Counter::default(),
            duplicates: Counter::default(),
            listening: Counter::default(),
            listeners_lost: Counter::default(),
            listener_losses: Counter::default(),
            flaps: Counter::default(),
            storms: Counter::default(),
            half_open: Counter::default(),
            deaf: Counter::default(),
            malformed: Counter::default(),
            malformed_refused: Counter::default(),
            datagrams: Datagrams::default(),
            times: Mutex::new(Times(times)),
            recent: Mutex::new([histogram(), histogram()]),
            errors: Mutex::default(),
        }
    }
}

impl Stats {
    /// Notes one measurement.
    pub(crate) fn record(&self, timing: Timing, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        self.times.lock().of_mut(timing).saturating_record(micros);
        if let Some(slot) = recent_slot(timing) {
            self.recent.lock()[slot].saturating_record(micros);
        }
    }

    /// The 99th percentiles of PUBACK and of listeners since the last look, in milliseconds.
    pub(crate) fn take_recent_p99(&self) -> [Option<f64>; 2] {
        let mut recent = self.recent.lock();
        recent.each_mut().map(|histogram| {
            let micros = (!histogram.is_empty()).then(|| histogram.value_at_quantile(0.99));
            histogram.reset();
            micros.map(|micros| as_f64(micros) / 1e3)
        })
    }

    /// Notes an error of `device`, whether or not the device recovers from it.
    pub(crate) fn error(&self, device: &str, error: &DeviceError) {
        self.problem(error.kind(), || format!("{device}: {error}"));
    }

    /// Notes a problem that is no single device's.
    pub(crate) fn problem(&self, kind: &'static str, first: impl FnOnce() -> String) {
        self.problems(kind.into(), 1, first);
    }

    fn problems(&self, kind: Cow<'static, str>, count: u64, first: impl FnOnce() -> String) {
        let mut errors = self.errors.lock();
        let entry = errors.entry(kind).or_insert_with(|| ErrorCount {
            count: 0,
            first: first(),
        });
        entry.count += count;
    }

    /// Reads the distributions.
    pub(crate) fn with_times<T>(&self, read: impl FnOnce(&Times) -> T) -> T {
        read(&self.times.lock())
    }

    /// Errors by kind so far.
    pub(crate) fn errors(&self) -> BTreeMap<Cow<'static, str>, ErrorCount> {
        self.errors.lock().clone()
    }

    /// Devices that came to an end of any kind.
    pub(crate) fn ended(&self) -> u64 {
        self.done.get() + self.wrong.get() + self.failed.get() + self.left.get()
    }
}

/// Where the recent times of `timing` are, if they are kept.
const fn recent_slot(timing: Timing) -> Option<usize> {
    match timing {
        Timing::PubAck => Some(0),
        Timing::EndToEnd => Some(1),
        _ => None,
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
