//! Block1 and Block2: which part of a body a message carries or asks for.
//!
//! A server that holds the whole body answers any block of any size from the number and the size alone; see
//! [`Block::slice`].  Spec: RFC 7959 s2.

use thiserror::Error;

/// The size of blocks: 16 to 1,024 bytes, by its exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Szx(u8);

impl Szx {
    /// 16 bytes.
    pub const MIN: Self = Self(0);
    /// 1,024 bytes.
    pub const MAX: Self = Self(6);

    /// The size of this exponent; `None` for 7, which is reserved. [RFC 7959 s2.2]
    pub const fn new(exponent: u8) -> Option<Self> {
        if exponent <= Self::MAX.0 {
            Some(Self(exponent))
        } else {
            None
        }
    }

    /// The largest size of at most so many bytes; the smallest there is where that is too large.
    pub fn at_most(bytes: usize) -> Self {
        let fits = |exponent: &u8| Self(*exponent).bytes_usize() <= bytes;
        (0..=Self::MAX.0).rev().find(fits).map_or(Self::MIN, Self)
    }

    /// Its exponent.
    pub const fn exponent(self) -> u8 {
        self.0
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> u32 {
        16 << self.0
    }

    /// Bytes of a block.
    pub const fn bytes_usize(self) -> usize {
        16 << self.0
    }
}

/// The value of Block1 or Block2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which block, counted from 0: 20 bits.
    pub number: u32,
    /// Whether others follow.
    pub more: bool,
    /// How large blocks are.
    pub size: Szx,
}

/// Why a block cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BlockError {
    /// The value is longer than three bytes, or its size is the reserved one.
    #[error("a block option of size 7 or of more than three bytes")]
    Malformed,
    /// The body is not that long.
    #[error("the block lies beyond the end")]
    BeyondEnd,
}

/// The part of a body that answers a request for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Where it begins.
    pub offset: u64,
    /// Bytes of it.
    pub len: usize,
    /// The Block2 of the answer.
    pub block: Block,
}

impl Block {
    /// The highest number.
    pub const MAX_NUMBER: u32 = (1 << 20) - 1;

    /// The first block.
    pub const fn first(size: Szx) -> Self {
        Self {
            number: 0,
            more: false,
            size,
        }
    }

    /// Reads an option's value.
    ///
    /// # Errors
    /// [`BlockError::Malformed`]: a request is answered with 4.00. [RFC 7959 s2.2]
    pub fn decode(value: &[u8]) -> Result<Self, BlockError> {
        if value.len() > 3 {
            return Err(BlockError::Malformed);
        }
        let value = value
            .iter()
            .fold(0, |sum: u32, byte| (sum << 8) | u32::from(*byte));
        let exponent = u8::try_from(value & 0b111).map_err(|_| BlockError::Malformed)?;
        Ok(Self {
            number: value >> 4,
            more: value & 0b1000 != 0,
            size: Szx::new(exponent).ok_or(BlockError::Malformed)?,
        })
    }

    /// The option's value, to be written in as few bytes as it needs.
    pub fn value(self) -> u32 {
        (self.number << 4) | (u32::from(self.more) << 3) | u32::from(self.size.0)
    }

    /// Where the block begins in the body.
    pub fn offset(self) -> u64 {
        u64::from(self.number) * u64::from(self.size.bytes())
    }

    /// The block of this size that begins at `offset`; `None` where none does, or its number is above
    /// [`Block::MAX_NUMBER`].
    pub fn at(offset: u64, size: Szx) -> Option<Self> {
        let bytes = u64::from(size.bytes());
        let number = u32::try_from(offset / bytes).ok()?;
        (offset.is_multiple_of(bytes) && number <= Self::MAX_NUMBER).then_some(Self {
            number,
            more: false,
            size,
        })
    }

    /// The part of a body of `body_bytes` that this asks for, in blocks of at most `largest`.
    ///
    /// # Errors
    /// [`BlockError::BeyondEnd`].
    pub fn slice(self, body_bytes: u64, largest: Szx) -> Result<Slice, BlockError> {
        let offset = self.offset();
        if offset >= body_bytes && !(offset == 0 && body_bytes == 0) {
            return Err(BlockError::BeyondEnd);
        }
        // A smaller block begins at the same byte, so that nothing is left out. [RFC 7959 s2.4]
        let size = self.size.min(largest);
        let block = Self::at(offset, size).ok_or(BlockError::BeyondEnd)?;
        let left = body_bytes - offset;
        let more = left > u64::from(size.bytes());
        if more && block.number == Self::MAX_NUMBER {
            // What follows has no number: another size has.
            return Err(BlockError::BeyondEnd);
        }
        let whole = size.bytes_usize();
        let len = usize::try_from(left).unwrap_or(whole).min(whole);
        Ok(Slice {
            offset,
            len,
            block: Self { more, ..block },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(exponent: u8) -> Szx {
        Szx::new(exponent).expect("0 to 6")
    }

    #[test]
    fn values_are_read_and_written() {
        let cases: &[(&[u8], u32, bool, u8)] = &[
            (&[], 0, false, 0),
            (&[0x06], 0, false, 6),
            (&[0x1e], 1, true, 6),
            (&[0x01, 0x00], 16, false, 0),
            (&[0xff, 0xff, 0xfe], Block::MAX_NUMBER, true, 6),
        ];
        for (bytes, number, more, exponent) in cases {
            let block = Block::decode(bytes).expect("well formed");
            assert_eq!(
                (block.number, block.more, block.size.exponent()),
                (*number, *more, *exponent)
            );
            let value = block.value().to_be_bytes();
            let zeros = value.iter().take_while(|byte| **byte == 0).count();
            assert_eq!(&value[zeros..], *bytes);
        }
        assert_eq!(Block::decode(&[0x07]), Err(BlockError::Malformed));
        assert_eq!(Block::decode(&[0, 0, 0, 6]), Err(BlockError::Malformed));
    }

    #[test]
    fn a_body_is_cut_at_any_size() {
        for exponent in 0..=6 {
            let size = size(exponent);
            let (mut offset, mut number) = (0, 0);
            loop {
                let asked = Block {
                    number,
                    ..Block::first(size)
                };
                let slice = asked.slice(5_000, Szx::MAX).expect("within");
                assert_eq!(slice.offset, offset);
                offset += slice.len as u64;
                number += 1;
                if !slice.block.more {
                    break;
                }
            }
            assert_eq!(offset, 5_000);
        }
    }

    #[test]
    fn a_smaller_size_begins_at_the_same_byte() {
        let asked = Block {
            number: 3,
            ..Block::first(Szx::MAX)
        };
        let slice = asked.slice(1 << 20, size(2)).expect("within");
        assert_eq!((slice.offset, slice.len), (3_072, 64));
        assert_eq!(slice.block.number, 48);
    }

    #[test]
    fn ends_and_numbers_are_bounds() {
        let at = |number, exponent| Block {
            number,
            ..Block::first(size(exponent))
        };
        assert_eq!(at(1, 6).slice(1_024, Szx::MAX), Err(BlockError::BeyondEnd));
        assert_eq!(at(0, 6).slice(0, Szx::MAX).map(|slice| slice.len), Ok(0));
        // The last block of a GiB in blocks of 1,024 has the highest number; in smaller ones the number runs out.
        let last = at(Block::MAX_NUMBER, 6).slice(1 << 30, Szx::MAX);
        assert_eq!(last.map(|slice| slice.block.more), Ok(false));
        let out = at(Block::MAX_NUMBER, 0).slice(1 << 30, Szx::MAX);
        assert_eq!(out, Err(BlockError::BeyondEnd));
        let out = at(Block::MAX_NUMBER, 6).slice(1 << 30, size(5));
        assert_eq!(out, Err(BlockError::BeyondEnd));
    }

    #[test]
    fn the_largest_size_within_a_limit() {
        assert_eq!(Szx::at_most(1_024), Szx::MAX);
        assert_eq!(Szx::at_most(1_023).bytes(), 512);
        assert_eq!(Szx::at_most(3), Szx::MIN);
    }
}
