//! Identifiers of what the gateway itself names: resources, tasks, deliveries, tokens.
//!
//! An [`Id`] is a positive 63-bit number that grows with time, so lists in its order are lists in order of
//! creation and a key range is a time range. Outside it is 13 characters of Crockford's base32, lower case.

use std::{
    fmt,
    num::NonZeroI64,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::model::time::Millis;

/// A positive, time-ordered identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(NonZeroI64);

/// Why a text or a number is no [`Id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: 13 characters of 0-9 and a-z without i, l, o and u")]
pub struct InvalidId;

impl Id {
    /// Takes a stored number.
    ///
    /// # Errors
    /// [`InvalidId`] when it is not positive.
    pub const fn from_i64(value: i64) -> Result<Self, InvalidId> {
        match NonZeroI64::new(value) {
            Some(value) if value.is_positive() => Ok(Self(value)),
            _ => Err(InvalidId),
        }
    }

    /// The smallest id of those that are made from a time on.
    pub fn first_at(time: Millis) -> Self {
        let millis = u64::try_from(time.as_i64().saturating_sub(EPOCH_MS)).unwrap_or(0);
        let value = millis.min(MAX_MILLIS) << (SEQUENCE_BITS + NODE_BITS);
        Self(NonZeroI64::new(value.cast_signed()).unwrap_or(FIRST))
    }

    /// The number as it is stored.
    pub const fn as_i64(self) -> i64 {
        self.0.get()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; TEXT_LEN];
        let mut rest = self.as_i64().cast_unsigned();
        for slot in text.iter_mut().rev() {
            *slot = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        if text.len() != TEXT_LEN {
            return Err(InvalidId);
        }
        let mut value: u64 = 0;
        for byte in text.bytes() {
            let digit = ALPHABET
                .iter()
                .position(|&letter| letter == byte)
                .ok_or(InvalidId)?;
            // 13 digits hold 65 bits: whatever would be shifted out makes the text no id.
            if value >> 58 != 0 {
                return Err(InvalidId);
            }
            value = (value << 5) | digit as u64;
        }
        Self::from_i64(i64::try_from(value).map_err(|_| InvalidId)?)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Makes [`Id`]s: 41 bits of milliseconds, 10 bits that name the generator, 12 bits of sequence.
///
/// Each id of one generator is greater than the one before, also when the clock steps back or more than
/// 4,096 are taken within a millisecond: the time part then runs ahead of the clock.
#[derive(Debug)]
pub struct IdGenerator {
    /// Milliseconds since [`EPOCH_MS`] and sequence of the next id, in one word.
    next: AtomicU64,
    node: u64,
}

impl IdGenerator {
    /// A generator whose ids carry `node` (its low 10 bits): different on every node of a cluster.
    pub const fn new(node: u16) -> Self {
        Self {
            next: AtomicU64::new(0),
            node: (node & 0x3ff) as u64,
        }
    }

    /// The next id. Never blocks.
    pub fn next(&self) -> Id {
        self.next_at(Millis::now())
    }

    fn next_at(&self, now: Millis) -> Id {
        let clock = u64::try_from(now.as_i64() - EPOCH_MS).unwrap_or(0) << SEQUENCE_BITS;
        let mut current = self.next.load(Ordering::Relaxed);
        let word = loop {
            // Sequence 0 of millisecond 0 would be no positive number.
            let word = current.max(clock).max(1);
            match self.next.compare_exchange_weak(
                current,
                word + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break word,
                Err(seen) => current = seen,
            }
        };
        let millis = word >> SEQUENCE_BITS;
        let sequence = word & ((1 << SEQUENCE_BITS) - 1);
        let value =
            (millis << (SEQUENCE_BITS + NODE_BITS)) | (self.node << SEQUENCE_BITS) | sequence;
        let value = (value & i64::MAX.cast_unsigned()).cast_signed();
        // The word is at least 1 and so is the value, until 2093.
        Id(NonZeroI64::new(value).unwrap_or(FIRST))
    }
}

/// The smallest number that an id can be.
const FIRST: NonZeroI64 = NonZeroI64::new(1).expect("1 is not 0");
/// 2024-01-01T00:00:00Z: 41 bits of milliseconds from here last until 2093.
const EPOCH_MS: i64 = 1_704_067_200_000;
const SEQUENCE_BITS: u32 = 12;
const NODE_BITS: u32 = 10;
/// The last millisecond that an id can say.
const MAX_MILLIS: u64 = (1 << (63 - SEQUENCE_BITS - NODE_BITS)) - 1;
const TEXT_LEN: usize = 13;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_keeps_the_order() {
        let ids = [1, 31, 32, 1 << 40, i64::MAX - 1, i64::MAX].map(|v| Id::from_i64(v).unwrap());
        let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], "0000000000001");
        assert_eq!(texts[5], "7zzzzzzzzzzzz");
        assert!(texts.is_sorted());
        for (id, text) in ids.iter().zip(&texts) {
            assert_eq!(text.parse(), Ok(*id));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "0000000000000",
            "000000000000",
            "00000000000001",
            "8000000000000",
            "zzzzzzzzzzzzz",
            "000000000000I",
            "000000000000u",
            "00000000000é",
        ] {
            assert_eq!(text.parse::<Id>(), Err(InvalidId), "{text}");
        }
        assert_eq!(Id::from_i64(0), Err(InvalidId));
        assert_eq!(Id::from_i64(-1), Err(InvalidId));
    }

    #[test]
    fn ids_grow_over_a_full_millisecond_and_a_clock_that_steps_back() {
        let generator = IdGenerator::new(7);
        let noon = Millis::from_i64(1_800_000_000_000);
        let mut last = generator.next_at(noon);
        for step in 0..10_000 {
            let at = if step % 3 == 0 {
                Millis::from_i64(1_700_000_000_000)
            } else {
                noon
            };
            let id = generator.next_at(at);
            assert!(id > last, "{step}");
            last = id;
        }
    }

    #[test]
    fn generators_of_different_nodes_never_make_the_same_id() {
        let at = Millis::from_i64(1_800_000_000_000);
        let (one, two) = (IdGenerator::new(1), IdGenerator::new(2));
        let mut all: Vec<Id> = (0..5_000)
            .flat_map(|_| [one.next_at(at), two.next_at(at)])
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 10_000);
    }
}
