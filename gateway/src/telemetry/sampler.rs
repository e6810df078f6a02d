//! Log lines that strangers can cause: a few each second, and how many were left out.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Lines of one kind in each second.
const PER_SECOND: u64 = 10;

/// Lets through some lines of one kind, however many there are.
#[derive(Debug)]
pub struct Sampler {
    since: Instant,
    second: AtomicU64,
    lines: AtomicU64,
    left_out: AtomicU64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            second: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }
}

impl Sampler {
    /// Whether the next line is to be written, and how many were left out since the last one.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let second = now.saturating_duration_since(self.since).as_secs();
        // Two threads at the turn of a second may let a line more through.
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.lines.store(0, Ordering::Relaxed);
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) >= PER_SECOND {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_left_out_is_counted_and_told_later() {
        let sampler = Sampler::default();
        let now = Instant::now();
        let admitted = (0..100).filter(|_| sampler.admit(now) == Some(0)).count();
        assert_eq!(admitted, 10);
        assert_eq!(sampler.admit(now + Duration::from_secs(2)), Some(90));
    }
}
