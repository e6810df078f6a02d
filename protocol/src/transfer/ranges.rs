//! Which bytes of a resource have arrived: everything below a mark, and ranges beyond it.

use smallvec::SmallVec;

/// The most ranges that are remembered beyond the mark; what does not fit is forgotten, which
/// costs a second sending and nothing else.
const MAX_RANGES: usize = 2_048;

/// A set of byte offsets: all below [`Ranges::low`], and sorted, disjoint ranges beyond it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    low: u64,
    beyond: SmallVec<[(u64, u64); 1]>,
}

impl Ranges {
    /// Everything below `low`, nothing beyond.
    pub fn below(low: u64) -> Self {
        Self {
            low,
            beyond: SmallVec::new(),
        }
    }

    /// The set with this mark and these ranges, which may come in any order and overlap.
    pub fn from_parts(low: u64, ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut set = Self::below(low);
        for (start, end) in ranges {
            set.insert(start, end);
        }
        set
    }

    /// The lowest offset that is not in the set.
    pub fn low(&self) -> u64 {
        self.low
    }

    /// The ranges beyond [`Ranges::low`], each as start and end (exclusive), ascending.
    pub fn beyond(&self) -> &[(u64, u64)] {
        &self.beyond
    }

    /// How many offsets are in the set.
    pub fn total(&self) -> u64 {
        self.beyond.iter().fold(self.low, |sum, (start, end)| {
            sum.saturating_add(end.saturating_sub(*start))
        })
    }

    /// Whether every offset below `size` is in the set.
    pub fn covers(&self, size: u64) -> bool {
        self.low >= size
    }

    /// Whether every offset from `start` to `end` (exclusive) is in the set.
    pub fn contains(&self, start: u64, end: u64) -> bool {
        end <= self.low.max(start)
            || self
                .beyond
                .iter()
                .any(|(known_start, known_end)| *known_start <= start && end <= *known_end)
    }

    /// Adds the offsets from `start` to `end` (exclusive).
    pub fn insert(&mut self, start: u64, end: u64) {
        if end <= start || end <= self.low {
            return;
        }
        if start <= self.low {
            self.low = end;
            self.swallow();
            return;
        }
        let at = self
            .beyond
            .partition_point(|(_, known_end)| *known_end < start);
        let mut merged = (start, end);
        while let Some(&(known_start, known_end)) = self.beyond.get(at) {
            if known_start > merged.1 {
                break;
            }
            merged = (merged.0.min(known_start), merged.1.max(known_end));
            self.beyond.remove(at);
        }
        self.beyond.insert(at, merged);
        if self.beyond.len() > MAX_RANGES {
            self.beyond.pop();
        }
    }

    /// Takes the ranges that the mark has reached into it.
    fn swallow(&mut self) {
        while let Some(&(start, end)) = self.beyond.first() {
            if start > self.low {
                break;
            }
            self.low = self.low.max(end);
            self.beyond.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_that_closes_raises_the_mark() {
        let mut set = Ranges::below(10);
        set.insert(20, 30);
        set.insert(30, 40);
        assert_eq!((set.low(), set.beyond()), (10, &[(20, 40)][..]));
        set.insert(10, 20);
        assert_eq!((set.low(), set.beyond()), (40, &[][..]));
        assert!(set.covers(40) && !set.covers(41));
        set.insert(50, 60);
        assert!(set.contains(0, 40) && set.contains(52, 60) && set.contains(45, 45));
        assert!(!set.contains(39, 41) && !set.contains(50, 61));
    }

    #[test]
    fn memory_is_bounded_whatever_arrives() {
        let mut set = Ranges::default();
        for n in 1..10_000_u64 {
            set.insert(n * 10, n * 10 + 1);
        }
        assert_eq!(set.beyond().len(), MAX_RANGES);
    }

    proptest! {
        #[test]
        fn the_set_agrees_with_a_bitmap(inserts in proptest::collection::vec((0_u64..64, 0_u64..16), 0..24)) {
            let mut set = Ranges::default();
            let mut naive = [false; 96];
            for (start, length) in inserts {
                set.insert(start, start + length);
                for offset in start..start + length {
                    naive[usize::try_from(offset).expect("small")] = true;
                }
            }
            prop_assert_eq!(set.total(), naive.iter().filter(|there| **there).count() as u64);
            let low = naive.iter().position(|there| !there).unwrap_or(96);
            prop_assert_eq!(set.low(), low as u64);
            for pair in set.beyond().windows(2) {
                prop_assert!(pair[0].1 < pair[1].0);
            }
        }
    }
}
