//! Checks that a device got the resource's bytes: in order, complete, each of them right.
//!
//! One [`Verifier`] a device; it keeps the digest's state, never the bytes, and survives a lost
//! link. Bytes below the expected offset are told apart as duplicates and left out of the digest.
//! Invariants: `offset` is the number of bytes digested; it never decreases.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::content::Content;

/// What every device's bytes are compared with.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// Bytes in all.
    pub(crate) size: u64,
    /// SHA-256 of all bytes.
    pub(crate) sha256: [u8; 32],
    /// CRC-32 of all bytes.
    pub(crate) crc32: u32,
}

impl From<&Content> for Expected {
    fn from(content: &Content) -> Self {
        Self {
            size: content.size(),
            sha256: *content.sha256(),
            crc32: content.crc32(),
        }
    }
}

/// How bytes are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Verify {
    /// SHA-256 of the whole.
    Sha256,
    /// CRC-32 of the whole: a fifth of the CPU.
    Crc32,
    /// Offsets and size only.
    None,
}

/// Why the bytes are not the resource's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WrongBytes {
    /// A chunk came beyond the expected offset.
    #[error("bytes missing: expected offset {expected}, got {got}")]
    Gap {
        /// First byte not seen yet.
        expected: u64,
        /// Offset of the chunk.
        got: u64,
    },
    /// A chunk reaches beyond the resource's end, or is empty.
    #[error("chunk at {offset} of {len} bytes does not fit a resource of {size} bytes")]
    Overrun {
        /// Offset of the chunk.
        offset: u64,
        /// Its length.
        len: u64,
        /// The resource's size.
        size: u64,
    },
    /// The end was declared too early.
    #[error("only {got} of {size} bytes came")]
    Short {
        /// Bytes seen.
        got: u64,
        /// The resource's size.
        size: u64,
    },
    /// All bytes came and they are not the resource's.
    #[error("{algorithm} differs: expected {expected}, got {got}")]
    Digest {
        /// `sha256` or `crc32`.
        algorithm: &'static str,
        /// Lower-case hex.
        expected: String,
        /// Lower-case hex.
        got: String,
    },
}

/// Digest state of one device.
#[derive(Debug, Clone)]
pub(crate) struct Verifier {
    expected: Arc<Expected>,
    offset: u64,
    state: State,
}

/// Running digest.
#[derive(Debug, Clone)]
enum State {
    Sha256(Sha256),
    Crc32(crc32fast::Hasher),
    None,
}

impl Verifier {
    /// A verifier that has seen nothing.
    pub(crate) fn new(expected: Arc<Expected>, verify: Verify) -> Self {
        let state = match verify {
            Verify::Sha256 => State::Sha256(Sha256::new()),
            Verify::Crc32 => State::Crc32(crc32fast::Hasher::new()),
            Verify::None => State::None,
        };
        Self {
            expected,
            offset: 0,
            state,
        }
    }

    /// Takes the chunk at `offset`; returns how many of its bytes were new.
    ///
    /// # Errors
    /// [`WrongBytes::Gap`] and [`WrongBytes::Overrun`]; the state is unchanged then.
    pub(crate) fn accept(&mut self, offset: u64, chunk: &[u8]) -> Result<u64, WrongBytes> {
        let len = chunk.len() as u64;
        let size = self.expected.size;
        let end = offset
            .checked_add(len)
            .filter(|&end| len > 0 && end <= size);
        let Some(end) = end else {
            return Err(WrongBytes::Overrun { offset, len, size });
        };
        if offset > self.offset {
            return Err(WrongBytes::Gap {
                expected: self.offset,
                got: offset,
            });
        }
        let seen = (self.offset - offset).min(len);
        let fresh = &chunk[usize::try_from(seen).unwrap_or(chunk.len())..];
        match &mut self.state {
            State::Sha256(state) => state.update(fresh),
            State::Crc32(state) => state.update(fresh),
            State::None => {}
        }
        self.offset = self.offset.max(end);
        Ok(len - seen)
    }

    /// Compares size and digest once all bytes came.
    ///
    /// # Errors
    /// [`WrongBytes::Short`] and [`WrongBytes::Digest`].
    pub(crate) fn finish(&self) -> Result<(), WrongBytes> {
        if !self.is_complete() {
            return Err(WrongBytes::Short {
                got: self.offset,
                size: self.expected.size,
            });
        }
        let (algorithm, expected, got) = match &self.state {
            State::Sha256(state) => {
                let got = state.clone().finalize();
                (
                    "sha256",
                    hex::encode(self.expected.sha256),
                    hex::encode(got),
                )
            }
            State::Crc32(state) => {
                let got = state.clone().finalize();
                (
                    "crc32",
                    format!("{:08x}", self.expected.crc32),
                    format!("{got:08x}"),
                )
            }
            State::None => return Ok(()),
        };
        if expected == got {
            Ok(())
        } else {
            Err(WrongBytes::Digest {
                algorithm,
                expected,
                got,
            })
        }
    }

    /// First byte not seen yet: where to resume.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Every byte was seen.
    pub(crate) fn is_complete(&self) -> bool {
        self.offset == self.expected.size
    }

    /// The resource's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.expected.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: &[u8] = b"0123456789abcdef";

    fn verifier(verify: Verify) -> Verifier {
        let expected = Expected {
            size: BYTES.len() as u64,
            sha256: Sha256::digest(BYTES).into(),
            crc32: crc32fast::hash(BYTES),
        };
        Verifier::new(Arc::new(expected), verify)
    }

    #[test]
    fn the_right_bytes_pass_under_each_algorithm() {
        for verify in [Verify::Sha256, Verify::Crc32, Verify::None] {
            let mut v = verifier(verify);
            assert_eq!(v.accept(0, &BYTES[..10]), Ok(10));
            assert_eq!(v.accept(10, &BYTES[10..]), Ok(6));
            assert_eq!(v.finish(), Ok(()));
        }
    }

    #[test]
    fn one_wrong_byte_is_caught() {
        for verify in [Verify::Sha256, Verify::Crc32] {
            let mut bytes = BYTES.to_vec();
            bytes[7] ^= 1;
            let mut v = verifier(verify);
            v.accept(0, &bytes).unwrap();
            assert!(matches!(v.finish(), Err(WrongBytes::Digest { .. })));
        }
    }

    #[test]
    fn swapped_chunks_are_caught() {
        let mut v = verifier(Verify::Crc32);
        v.accept(0, &BYTES[8..]).unwrap();
        v.accept(8, &BYTES[..8]).unwrap();
        assert!(matches!(v.finish(), Err(WrongBytes::Digest { .. })));
    }

    #[test]
    fn a_missing_byte_is_caught() {
        let mut v = verifier(Verify::None);
        v.accept(0, &BYTES[..8]).unwrap();
        assert_eq!(
            v.accept(9, &BYTES[9..]),
            Err(WrongBytes::Gap {
                expected: 8,
                got: 9
            })
        );
        assert_eq!(v.finish(), Err(WrongBytes::Short { got: 8, size: 16 }));
    }

    #[test]
    fn duplicates_are_left_out() {
        let mut v = verifier(Verify::Sha256);
        v.accept(0, &BYTES[..8]).unwrap();
        assert_eq!(v.accept(0, &BYTES[..8]), Ok(0));
        assert_eq!(v.accept(4, &BYTES[4..12]), Ok(4));
        v.accept(12, &BYTES[12..]).unwrap();
        assert_eq!(v.finish(), Ok(()));
    }

    #[test]
    fn a_chunk_beyond_the_end_is_refused() {
        let mut v = verifier(Verify::Crc32);
        let refused = [
            (0, &[0_u8; 17][..]),
            (16, &[0; 1][..]),
            (u64::MAX, &[0; 1]),
            (0, &[]),
        ];
        for (offset, chunk) in refused {
            assert!(matches!(
                v.accept(offset, chunk),
                Err(WrongBytes::Overrun { .. })
            ));
        }
        assert_eq!(v.offset(), 0);
    }
}
