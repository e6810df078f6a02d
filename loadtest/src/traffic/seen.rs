//! Which messages of a device came: each once, however often and in whatever order.
//!
//! A number below which everything was settled, and a window of bits above it. What falls out of
//! the window without having come is missing for good.
//! Invariants: a message counts as new at most once.

/// The messages of one device that one listener got.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    base: u64,
    window: u128,
}

impl Seen {
    /// Notes message `seq`; true where it is new.
    pub(crate) const fn note(&mut self, seq: u64) -> bool {
        if seq < self.base {
            return false;
        }
        if seq - self.base >= u128::BITS as u64 {
            // Whatever is below the new window and has not come is taken for lost.
            let shift = seq - self.base - (u128::BITS as u64 - 1);
            self.window = if shift < u128::BITS as u64 {
                self.window >> shift
            } else {
                0
            };
            self.base += shift;
        }
        let bit = 1_u128 << (seq - self.base);
        let is_new = self.window & bit == 0;
        self.window |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_new_once() {
        let mut seen = Seen::default();
        for (seq, is_new) in [
            (0, true),
            (0, false),
            (2, true),
            (1, true),
            (1, false),
            (127, true),
            (128, true),
            (0, false),
            (3, true),
            (1_000, true),
            (1_000, false),
            (999, true),
            (500, false),
        ] {
            assert_eq!(seen.note(seq), is_new, "{seq}");
        }
    }
}
