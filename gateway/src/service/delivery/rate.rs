//! Bytes a second, given out in the order of asking.
//!
//! Whoever is about to send lines its bytes up, and is given a [`Place`]: how much has to go before them. How long that
//! takes follows from the limit as it is when it is asked, so that a limit which is changed holds for those who wait, too.
//! A limit costs one short lock for each batch, however many devices wait.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// What was not used is kept for so long: pauses between batches cost nothing.
const SLACK: Duration = Duration::from_millis(100);
/// Longer than anybody waits before it looks again.
const LONGEST: Duration = Duration::from_hours(24);

/// A limit of bytes a second, and the line of those who wait by it.
#[derive(Debug)]
pub(super) struct Rate(Mutex<Line>);

/// Counts bytes from the beginning of the limit; a double is exact to the byte beyond any number that is sent.
#[derive(Debug)]
struct Line {
    bytes_per_sec: f64,
    /// What the limit had let through at `counted_at`.
    passed: f64,
    counted_at: Instant,
    /// Where the next to come stands.
    end: f64,
}

/// A place in a line, in bytes from its beginning.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place(f64);

impl Rate {
    /// A limit of so many bytes a second, from 1.
    pub(super) fn new(bytes_per_sec: u64) -> Self {
        Self(Mutex::new(Line {
            bytes_per_sec: number(bytes_per_sec.max(1)),
            passed: 0.0,
            counted_at: Instant::now(),
            end: 0.0,
        }))
    }

    /// Holds another limit from now on, also for those who wait.
    pub(super) fn set(&self, bytes_per_sec: u64, now: Instant) {
        let mut line = self.0.lock();
        line.passed = line.passed(now);
        line.counted_at = line.counted_at.max(now);
        line.bytes_per_sec = number(bytes_per_sec.max(1));
    }

    fn line_up(&self, bytes: u64, now: Instant) -> Place {
        let mut line = self.0.lock();
        let kept = line.bytes_per_sec * SLACK.as_secs_f64();
        let start = line.end.max(line.passed(now) - kept);
        line.end = start + number(bytes);
        Place(start)
    }

    fn wait(&self, place: Place, now: Instant) -> Duration {
        let line = self.0.lock();
        let secs = (place.0 - line.passed(now)) / line.bytes_per_sec;
        Duration::try_from_secs_f64(secs.max(0.0)).map_or(LONGEST, |wait| wait.min(LONGEST))
    }

    fn give_back(&self, bytes: u64) {
        self.0.lock().end -= number(bytes);
    }
}

impl Line {
    /// What the limit has let through by now.
    fn passed(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.counted_at);
        self.bytes_per_sec.mul_add(since.as_secs_f64(), self.passed)
    }
}

/// Bytes that stand in line by every limit that there was when they were lined up; given back when it is dropped.
#[derive(Debug)]
pub struct Reserved {
    bytes: u64,
    places: [Option<(Arc<Rate>, Place)>; 2],
}

impl Reserved {
    /// Lines bytes up.
    pub(super) fn new(limits: [Option<&Arc<Rate>>; 2], bytes: u64, now: Instant) -> Self {
        Self {
            bytes,
            places: limits
                .map(|limit| limit.map(|rate| (Arc::clone(rate), rate.line_up(bytes, now)))),
        }
    }

    /// How long it is until they may go, by those limits that hold still.
    pub(super) fn wait(&self, limits: [Option<&Arc<Rate>>; 2], now: Instant) -> Duration {
        let waits = self.places.iter().flatten().filter_map(|(rate, place)| {
            let mut limits = limits.iter().flatten();
            limits
                .any(|limit| Arc::ptr_eq(limit, rate))
                .then(|| rate.wait(*place, now))
        });
        waits.max().unwrap_or_default()
    }

    /// Settles them with what was sent: the rest is given back, and what was sent beyond them is lined up.
    pub fn settle(mut self, sent: u64, now: Instant) {
        if let Some(more) = sent.checked_sub(self.bytes).filter(|more| *more > 0) {
            for (rate, _) in self.places.iter().flatten() {
                rate.line_up(more, now);
            }
        }
        self.bytes = self.bytes.saturating_sub(sent);
    }

    /// All of them were sent.
    pub fn settle_whole(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.bytes > 0 {
            for (rate, _) in self.places.iter().flatten() {
                rate.give_back(self.bytes);
            }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to eight million gigabytes"
)]
fn number(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A limit, and a time when it has been there for a while.
    fn rate(bytes_per_sec: u64) -> (Arc<Rate>, Instant) {
        let rate = Arc::new(Rate::new(bytes_per_sec));
        (rate, Instant::now() + Duration::from_secs(5))
    }

    fn wait(rate: &Rate, bytes: u64, now: Instant) -> Duration {
        let place = rate.line_up(bytes, now);
        rate.wait(place, now)
    }

    #[test]
    fn bytes_are_spread_over_time_in_their_order() {
        let (rate, now) = rate(1_000);
        let waits: Vec<u128> = (0..4)
            .map(|_| (wait(&rate, 500, now) + Duration::from_micros(500)).as_millis())
            .collect();
        assert_eq!(
            waits,
            [0, 400, 900, 1_400],
            "a tenth of a second was saved up"
        );
        let later = now + Duration::from_secs(10);
        assert_eq!(wait(&rate, 500, later), Duration::ZERO);
    }

    #[test]
    fn over_any_stretch_no_more_goes_than_the_limit_and_its_slack() {
        let (rate, start) = rate(10_000);
        let mut sent_in_time = 0_u64;
        for _ in 0..1_000 {
            if wait(&rate, 100, start) < Duration::from_secs(2) {
                sent_in_time += 100;
            }
        }
        assert!((20_000..=21_200).contains(&sent_in_time), "{sent_in_time}");
    }

    #[test]
    fn what_was_not_sent_is_there_for_others() {
        let (rate, now) = rate(1_000);
        Reserved::new([Some(&rate), None], 10_000, now).settle(0, now);
        assert!(wait(&rate, 1, now) < Duration::from_millis(1));
        Reserved::new([Some(&rate), None], 1, now).settle(10_000, now);
        assert!(wait(&rate, 1, now) > Duration::from_secs(9));
    }

    #[test]
    fn a_limit_that_is_changed_holds_for_those_who_wait() {
        let (rate, now) = rate(1_000);
        let limits = [None, Some(&rate)];
        let first = Reserved::new(limits, 100_000, now);
        let second = Reserved::new(limits, 1, now);
        assert_eq!(first.wait(limits, now), Duration::ZERO);
        assert!(second.wait(limits, now) > Duration::from_secs(99));
        rate.set(1_000_000, now);
        assert!(second.wait(limits, now) < Duration::from_millis(101));
        rate.set(10, now);
        assert!(second.wait(limits, now) > Duration::from_mins(150));
        assert_eq!(second.wait([None, None], now), Duration::ZERO, "it is gone");
    }
}
