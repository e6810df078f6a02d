//! Stored bytes and what is known of them.

use std::{fmt, str::FromStr};

use bytes::Bytes;

/// Bytes covered by one part digest: four default chunks of 15,360.
pub const PART_BYTES: usize = 61_440;

/// The key of a blob: 32 hexadecimal digits out of 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId([u8; 16]);

/// A text is no [`BlobId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a blob id")]
pub struct InvalidBlobId;

impl BlobId {
    /// An id of the given random bytes.
    pub const fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl FromStr for BlobId {
    type Err = InvalidBlobId;

    fn from_str(text: &str) -> Result<Self, InvalidBlobId> {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidBlobId);
        }
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidBlobId)?;
        Ok(Self(bytes))
    }
}

/// Size and digests of bytes, taken while they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Bytes.
    pub size: u64,
    /// SHA-256 of all bytes.
    pub sha256: [u8; 32],
    /// MD5 of all bytes, for the vendors' forms that demand it.
    pub md5: [u8; 16],
    /// SHA-256 of each [`PART_BYTES`] (the last part may be shorter), one after the other.
    pub part_digests: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_lower_case_hex_digits() {
        let id = BlobId::from_random([0xa5; 16]);
        assert_eq!(id.to_string(), "a5".repeat(16));
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "a5",
            &"A5".repeat(16),
            "../../../../../../etc/passwd.....",
        ] {
            assert_eq!(bad.parse::<BlobId>(), Err(InvalidBlobId), "{bad}");
        }
    }
}
