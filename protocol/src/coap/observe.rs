//! The order of notifications.  Spec: RFC 7641 s3.4 and s4.4.

use std::time::{Duration, Instant};

/// The number of a notification: 24 bits, counted up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sequence(u32);

const BITS: u32 = 24;
/// After so long the later one is newer whatever the numbers say.
const REORDERING: Duration = Duration::from_secs(128);

impl Sequence {
    /// The number that an Observe option carries; higher bits are dropped.
    pub const fn new(value: u32) -> Self {
        Self(value & ((1 << BITS) - 1))
    }

    /// The value of the option.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.0.wrapping_add(1))
    }

    /// Whether a notification with this number that came at `now` is newer than `other`, which came at `before`.
    pub fn is_newer(self, now: Instant, other: Self, before: Instant) -> bool {
        const HALF: u32 = 1 << (BITS - 1);
        let ahead = self.0.wrapping_sub(other.0) & ((1 << BITS) - 1);
        (ahead != 0 && ahead < HALF) || now.saturating_duration_since(before) > REORDERING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_is_within_half_of_the_circle_or_after_a_while() {
        let now = crate::coap::tests::epoch();
        let is_newer = |a, b| Sequence::new(a).is_newer(now, Sequence::new(b), now);
        for (a, b, newer) in [
            (2, 1, true),
            (1, 2, false),
            (1, 1, false),
            (0, 0xff_ffff, true),
            (0xff_ffff, 0, false),
            (0x80_0000, 0, false),
            (0x7f_ffff, 0, true),
        ] {
            assert_eq!(is_newer(a, b), newer, "{a:#x} after {b:#x}");
        }
        let late = now + Duration::from_secs(129);
        assert!(Sequence::new(1).is_newer(late, Sequence::new(2), now));
        assert_eq!(Sequence::new(0xff_ffff).next(), Sequence::new(0));
    }
}
