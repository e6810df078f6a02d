//! How much went on in the last hour, for the console's charts.
//!
//! A task takes a sample every ten seconds out of the metrics; nobody else pays for it. Invariant: as many samples are
//! kept as an hour has, no more.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::core::{Atomic, GenericCounter};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::metrics::Metrics;

/// Between two samples.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Samples of an hour.
pub const SAMPLES: usize = 360;

/// What was counted within one interval, and what stood at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sample {
    /// Devices connected by MQTT.
    pub online_mqtt: i64,
    /// Devices connected by CoAP.
    pub online_coap: i64,
    /// Devices that came in, a second.
    pub connects: f64,
    /// Bytes to devices, a second.
    pub bytes_out: f64,
    /// Bytes from devices, a second.
    pub bytes_in: f64,
}

/// The last hour; clones share it.
#[derive(Debug, Clone)]
pub struct Trend {
    metrics: Metrics,
    samples: Arc<Mutex<VecDeque<Sample>>>,
}

/// Counters as they stood.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    connects: u64,
    bytes_out: u64,
    bytes_in: u64,
}

impl Trend {
    /// Nothing so far.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            samples: Arc::default(),
        }
    }

    /// Takes samples until it is dropped.
    pub async fn run(self) {
        let mut turn = interval(INTERVAL);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        turn.tick().await;
        let (mut at, mut before) = (Instant::now(), self.counted());
        loop {
            turn.tick().await;
            let (now, counted) = (Instant::now(), self.counted());
            self.keep(self.sample(before, counted, now - at));
            (at, before) = (now, counted);
        }
    }

    /// The samples, the oldest first.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().iter().copied().collect()
    }

    fn keep(&self, sample: Sample) {
        let mut samples = self.samples.lock();
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    fn sample(&self, before: Counted, now: Counted, time: Duration) -> Sample {
        let rate = |before: u64, now: u64| {
            // Both are far below 2^53 for as long as a process lives.
            #[expect(clippy::cast_precision_loss, reason = "a chart needs three digits")]
            let count = now.saturating_sub(before) as f64;
            count / time.as_secs_f64().max(0.001)
        };
        Sample {
            online_mqtt: self.metrics.devices_by_mqtt(),
            online_coap: self.metrics.devices_by_coap(),
            connects: rate(before.connects, now.connects),
            bytes_out: rate(before.bytes_out, now.bytes_out),
            bytes_in: rate(before.bytes_in, now.bytes_in),
        }
    }

    fn counted(&self) -> Counted {
        fn sum<P: Atomic<T = u64>>(counters: &[&GenericCounter<P>]) -> u64 {
            counters.iter().map(|counter| counter.get()).sum()
        }
        let attempts = &self.metrics.connect_attempts;
        let bytes = &self.metrics.bytes;
        Counted {
            connects: sum(&[
                &attempts.accepted,
                &attempts.accepted_coap,
                &attempts.accepted_coaps,
            ]),
            bytes_out: sum(&[
                &bytes.out_mqtt,
                &bytes.out_coap,
                &bytes.out_coaps,
                &bytes.out_files,
            ]),
            bytes_in: sum(&[
                &bytes.in_mqtt,
                &bytes.in_coap,
                &bytes.in_coaps,
                &bytes.in_files,
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_what_changed_a_second() {
        let metrics = Metrics::new();
        let trend = Trend::new(metrics.clone());
        let before = trend.counted();
        metrics.connect_attempts.accepted.inc_by(5);
        metrics.bytes.out_mqtt.inc_by(1_000);
        metrics.bytes.in_files.inc_by(200);
        metrics.connections_coap.set(2);
        metrics.connections_coaps.secret.set(1);
        let sample = trend.sample(before, trend.counted(), Duration::from_secs(10));
        let wanted = Sample {
            online_mqtt: 0,
            online_coap: 3,
            connects: 0.5,
            bytes_out: 100.0,
            bytes_in: 20.0,
        };
        assert_eq!(sample, wanted);
    }

    #[test]
    fn an_hour_is_kept() {
        let trend = Trend::new(Metrics::new());
        for number in 0..SAMPLES + 5 {
            trend.keep(Sample {
                online_mqtt: i64::try_from(number).expect("small"),
                ..Sample::default()
            });
        }
        let samples = trend.samples();
        assert_eq!((samples.len(), samples[0].online_mqtt), (SAMPLES, 5));
    }
}
