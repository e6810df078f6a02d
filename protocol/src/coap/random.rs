//! Numbers that differ from each other: jitter of timeouts, first identifiers, tokens.
//!
//! The seed is the caller's. Not for secrets.

/// `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn next_u32(&mut self) -> u32 {
        let [_, _, _, _, rest @ ..] = self.next().to_be_bytes();
        u32::from_be_bytes(rest)
    }

    pub(super) fn next_u16(&mut self) -> u16 {
        let [.., high, low] = self.next().to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}
