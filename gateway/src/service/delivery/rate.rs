//! Bytes a second, given out in the order of asking.
//!
//! Whoever is about to send reserves its bytes and is told how long to wait; it does not ask again
//! after the wait. So a limit costs one atomic step for each batch, however many devices wait.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// A limit of bytes a second.
#[derive(Debug)]
pub(super) struct Rate {
    /// Bits of a number with decimals: a node's part of a limit changes.
    nanos_per_byte: AtomicU64,
    origin: Instant,
    /// When what has been reserved is used up, in nanoseconds since `origin`.
    free_at: AtomicU64,
}

/// What was not used is kept for so long: pauses between batches cost nothing.
const SLACK: Duration = Duration::from_millis(100);

impl Rate {
    /// A limit of so many bytes a second, from 1.
    pub(super) fn new(bytes_per_sec: u64) -> Self {
        let rate = Self {
            nanos_per_byte: AtomicU64::new(0),
            origin: Instant::now(),
            free_at: AtomicU64::new(0),
        };
        rate.set(bytes_per_sec);
        rate
    }

    /// Holds another limit from now on; what was reserved stays as it is.
    pub(super) fn set(&self, bytes_per_sec: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
        let bytes_per_sec = bytes_per_sec.max(1) as f64;
        let nanos = 1e9 / bytes_per_sec;
        self.nanos_per_byte
            .store(nanos.to_bits(), Ordering::Relaxed);
    }

    /// Reserves bytes; gives how long to wait before they may be sent.
    pub(super) fn reserve(&self, bytes: u64, now: Instant) -> Duration {
        let cost = self.cost(bytes);
        let now = nanos(now.saturating_duration_since(self.origin));
        let earliest = now.saturating_sub(nanos(SLACK));
        let before = self
            .free_at
            .update(Ordering::Relaxed, Ordering::Relaxed, |free_at| {
                free_at.max(earliest).saturating_add(cost)
            });
        Duration::from_nanos(before.saturating_sub(now))
    }

    /// Gives back bytes that were reserved and not sent.
    pub(super) fn give_back(&self, bytes: u64) {
        let cost = self.cost(bytes);
        self.free_at
            .update(Ordering::Relaxed, Ordering::Relaxed, |free_at| {
                free_at.saturating_sub(cost)
            });
    }

    fn cost(&self, bytes: u64) -> u64 {
        let nanos_per_byte = f64::from_bits(self.nanos_per_byte.load(Ordering::Relaxed));
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and a rate need not be exact"
        )]
        let cost = (bytes as f64 * nanos_per_byte) as u64;
        cost
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_spread_over_time_in_their_order() {
        let rate = Rate::new(1_000);
        let now = Instant::now() + Duration::from_secs(1);
        let waits: Vec<u128> = (0..4).map(|_| rate.reserve(500, now).as_millis()).collect();
        assert_eq!(
            waits,
            [0, 400, 900, 1_400],
            "a tenth of a second was saved up"
        );
        let later = now + Duration::from_secs(10);
        assert_eq!(rate.reserve(500, later), Duration::ZERO);
    }

    #[test]
    fn over_any_stretch_no_more_goes_than_the_limit_and_its_slack() {
        let rate = Rate::new(10_000);
        let start = Instant::now() + Duration::from_secs(5);
        let mut sent_in_time = 0_u64;
        for _ in 0..1_000 {
            if rate.reserve(100, start) < Duration::from_secs(2) {
                sent_in_time += 100;
            }
        }
        assert!((20_000..=21_200).contains(&sent_in_time), "{sent_in_time}");
    }

    #[test]
    fn what_was_not_sent_is_there_for_others() {
        let rate = Rate::new(1_000);
        let now = Instant::now() + Duration::from_secs(1);
        rate.reserve(10_000, now);
        rate.give_back(10_000);
        assert!(rate.reserve(1, now) < Duration::from_millis(1));
    }
}
