//! The options of one message: numbers and values, in the order in which they are written.
//!
//! Values lie one behind the other in one buffer, so that a message of the usual size is read and made without an
//! allocation for each of its options.
//! Invariants: entries are in the order of their numbers, those of one number in the order in which they came; each lies
//! within the buffer.  Spec: RFC 7252 s3.1.

use std::fmt;

use bytes::BytesMut;
use smallvec::SmallVec;

use super::{EncodeError, OptionNumber, Violation};

const PAYLOAD_MARKER: u8 = 0xff;
/// What an extended length can say.
const MAX_OPTION_BYTES: usize = 65_535 + 269;

/// Options.
#[derive(Clone, Default)]
pub(super) struct Options {
    values: SmallVec<[u8; 64]>,
    entries: SmallVec<[Entry; 6]>,
}

/// Where a value lies in the buffer.
#[derive(Clone, Copy)]
struct Entry {
    number: OptionNumber,
    at: usize,
    len: usize,
}

impl Options {
    /// Walks over options; gives them and the payload behind them.
    ///
    /// # Errors
    /// The rule that they break.
    pub(super) fn read(mut rest: &[u8]) -> Result<(Self, &[u8]), Violation> {
        let mut options = Self::default();
        let mut number: u16 = 0;
        while let Some((&first, behind)) = rest.split_first() {
            if first == PAYLOAD_MARKER {
                return if behind.is_empty() {
                    Err(Violation::MarkerWithoutPayload)
                } else {
                    Ok((options, behind))
                };
            }
            let (delta, behind) = extended(first >> 4, behind, Violation::OptionDelta)?;
            let (len, behind) = extended(first & 0x0f, behind, Violation::OptionLength)?;
            let delta = u16::try_from(delta).map_err(|_above| Violation::OptionNumber)?;
            // [RFC 7252 s12.2]: the sum must not wrap.
            let sum = number.checked_add(delta);
            number = sum.ok_or(Violation::OptionNumber)?;
            let (value, behind) = behind
                .split_at_checked(len)
                .ok_or(Violation::OptionTruncated)?;
            options.push(options.entries.len(), OptionNumber(number), value);
            rest = behind;
        }
        Ok((options, rest))
    }

    /// Appends them to a datagram.
    ///
    /// # Errors
    /// [`EncodeError::OptionTooLong`].
    pub(super) fn write(&self, datagram: &mut BytesMut) -> Result<(), EncodeError> {
        let mut before = 0;
        for (number, value) in self.iter() {
            let size_bytes = value.len();
            if size_bytes > MAX_OPTION_BYTES {
                return Err(EncodeError::OptionTooLong { size_bytes });
            }
            let delta = Field::of(usize::from(number.0 - before));
            let len = Field::of(size_bytes);
            datagram.extend_from_slice(&[(delta.nibble << 4) | len.nibble]);
            datagram.extend_from_slice(delta.behind());
            datagram.extend_from_slice(len.behind());
            datagram.extend_from_slice(value);
            before = number.0;
        }
        Ok(())
    }

    /// Bytes that they have in a datagram.
    pub(super) fn encoded_bytes(&self) -> usize {
        let mut before = 0;
        let mut bytes = 0;
        for (number, value) in self.iter() {
            let delta = Field::of(usize::from(number.0 - before));
            bytes += 1 + delta.extended + Field::of(value.len()).extended + value.len();
            before = number.0;
        }
        bytes
    }

    /// Adds one behind those of its number.
    pub(super) fn add(&mut self, number: OptionNumber, value: &[u8]) {
        let before = |known: &Entry| known.number <= number;
        let place = self.entries.iter().rposition(before);
        self.push(place.map_or(0, |at| at + 1), number, value);
    }

    /// Takes those of a number out.
    pub(super) fn remove(&mut self, number: OptionNumber) {
        self.entries.retain(|entry| entry.number != number);
    }

    /// Takes all out.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.values.clear();
    }

    /// Numbers and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (OptionNumber, &[u8])> {
        self.entries.iter().map(|entry| {
            let value = self.values.get(entry.at..entry.at + entry.len);
            (entry.number, value.unwrap_or_default())
        })
    }

    fn push(&mut self, place: usize, number: OptionNumber, value: &[u8]) {
        let entry = Entry {
            number,
            at: self.values.len(),
            len: value.len(),
        };
        self.values.extend_from_slice(value);
        self.entries.insert(place, entry);
    }
}

impl PartialEq for Options {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A delta or a length as it is written: four bits and up to two bytes behind them. [RFC 7252 s3.1]
struct Field {
    nibble: u8,
    bytes: [u8; 2],
    extended: usize,
}

impl Field {
    /// Of a value of at most 65,804; a larger one is not written.
    fn of(value: usize) -> Self {
        let small = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
        match value {
            0..13 => Self {
                nibble: small(value),
                bytes: [0; 2],
                extended: 0,
            },
            13..269 => Self {
                nibble: 13,
                bytes: [0, small(value - 13)],
                extended: 1,
            },
            _ => Self {
                nibble: 14,
                bytes: u16::try_from(value - 269).unwrap_or(u16::MAX).to_be_bytes(),
                extended: 2,
            },
        }
    }

    fn behind(&self) -> &[u8] {
        self.bytes
            .get(self.bytes.len() - self.extended..)
            .unwrap_or_default()
    }
}

/// A delta or a length of four bits and what it is extended by. [RFC 7252 s3.1]
fn extended(nibble: u8, behind: &[u8], reserved: Violation) -> Result<(usize, &[u8]), Violation> {
    match (nibble, behind) {
        (15, _) => Err(reserved),
        (13, &[byte, ref behind @ ..]) => Ok((usize::from(byte) + 13, behind)),
        (14, &[high, low, ref behind @ ..]) => {
            let value = usize::from(u16::from_be_bytes([high, low]));
            Ok((value + 269, behind))
        }
        (13 | 14, _) => Err(Violation::OptionTruncated),
        (nibble, behind) => Ok((usize::from(nibble), behind)),
    }
}
