//! When each message of a device is due.
//!
//! A message is due when the plan says so, whatever became of the ones before it: a server that
//! hesitates does not slow its load down, and what it answers late is counted from when it was due.
//! That is how the distributions are corrected for coordinated omission.

use std::time::Duration;

/// The plan of all devices: one message each `interval`, reached over `ramp`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    /// Between two messages of a device.
    pub(crate) interval: Duration,
    /// The rate grows from nothing to its full height in this time.
    pub(crate) ramp: Duration,
}

impl Schedule {
    /// When message `seq` is due, from the start; `phase` (0 to 1) spreads devices over an interval.
    pub(crate) fn due(&self, seq: u64, phase: f64) -> Duration {
        let interval = self.interval.as_secs_f64();
        let ramp = self.ramp.as_secs_f64();
        let n = crate::report::as_f64(seq) + phase;
        // The rate is t / ramp / interval at first: so many messages are due while it grows.
        let in_ramp = ramp / (2.0 * interval);
        let at = if n < in_ramp {
            (2.0 * ramp * interval * n).sqrt()
        } else {
            ramp / 2.0 + n * interval
        };
        Duration::from_secs_f64(at)
    }

    /// The first message that is due at `at` or later.
    pub(crate) fn first_from(&self, at: Duration, phase: f64) -> u64 {
        let (mut low, mut high) = (0, 1_u64);
        while self.due(high, phase) < at {
            low = high;
            high = high.saturating_mul(2);
        }
        while low < high {
            let middle = low.midpoint(high);
            if self.due(middle, phase) < at {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_ramp_messages_are_an_interval_apart() {
        let schedule = Schedule {
            interval: Duration::from_millis(500),
            ramp: Duration::ZERO,
        };
        assert_eq!(schedule.due(0, 0.5), Duration::from_millis(250));
        assert_eq!(schedule.due(3, 0.5), Duration::from_millis(1_750));
        assert_eq!(schedule.first_from(Duration::from_secs(1), 0.5), 2);
        assert_eq!(schedule.first_from(Duration::ZERO, 0.5), 0);
    }

    #[test]
    fn a_ramp_sends_half_of_what_comes_later() {
        let schedule = Schedule {
            interval: Duration::from_secs(1),
            ramp: Duration::from_secs(10),
        };
        let due = |seq| schedule.due(seq, 0.0).as_secs_f64();
        assert!((due(5) - 10.0).abs() < 1e-9);
        assert!((due(6) - 11.0).abs() < 1e-9);
        // The rate grows: gaps become shorter until they are the interval.
        let gaps: Vec<_> = (0..8).map(|n| due(n + 1) - due(n)).collect();
        assert!(
            gaps.windows(2).all(|two| two[0] >= two[1] - 1e-9),
            "{gaps:?}"
        );
    }
}
