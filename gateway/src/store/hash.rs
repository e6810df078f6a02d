//! The digests of a blob or an upload, taken in one pass.

use bytes::{Bytes, BytesMut};
use md5::Md5;
use sha2::{Digest as _, Sha256};

use crate::model::{Digests, PART_BYTES};

/// Takes bytes in any portions.
pub(super) struct Hasher {
    size: u64,
    whole: Sha256,
    md5: Md5,
    /// `None` where nobody asks for digests of parts.
    part: Option<Sha256>,
    /// Bytes that `part` has taken, below [`PART_BYTES`].
    part_bytes: usize,
    parts: BytesMut,
}

impl Hasher {
    /// Takes the digests of the parts, too.
    pub(super) fn new() -> Self {
        Self {
            part: Some(Sha256::new()),
            ..Self::of_whole()
        }
    }

    /// Takes no digests of parts: they cost as much as that of the whole.
    pub(super) fn of_whole() -> Self {
        Self {
            size: 0,
            whole: Sha256::new(),
            md5: Md5::new(),
            part: None,
            part_bytes: 0,
            parts: BytesMut::new(),
        }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.md5.update(bytes);
        self.whole.update(bytes);
        let Some(part) = &mut self.part else { return };
        while !bytes.is_empty() {
            let room = PART_BYTES - self.part_bytes;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            part.update(now);
            self.part_bytes += now.len();
            if self.part_bytes == PART_BYTES {
                self.parts.extend_from_slice(&part.finalize_reset());
                self.part_bytes = 0;
            }
            bytes = later;
        }
    }

    pub(super) fn finish(mut self) -> Digests {
        if let Some(part) = self.part.filter(|_| self.part_bytes > 0) {
            self.parts.extend_from_slice(&part.finalize());
        }
        Digests {
            size: self.size,
            sha256: self.whole.finalize().into(),
            md5: self.md5.finalize().into(),
            part_digests: Bytes::from(self.parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    #[test]
    fn known_digests() {
        let mut hasher = Hasher::new();
        hasher.update(b"ab");
        hasher.update(b"");
        hasher.update(b"c");
        let digests = hasher.finish();
        assert_eq!(digests.size, 3);
        assert_eq!(
            digests.sha256,
            hex!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
        assert_eq!(digests.md5, hex!("900150983cd24fb0d6963f7d28e17f72"));
        assert_eq!(digests.part_digests, digests.sha256[..]);
    }

    #[test]
    fn parts_are_left_out_where_nobody_asks_for_them() {
        let bytes = vec![7; PART_BYTES + 1];
        let (mut all, mut whole) = (Hasher::new(), Hasher::of_whole());
        all.update(&bytes);
        whole.update(&bytes);
        let (all, whole) = (all.finish(), whole.finish());
        assert_eq!(
            (whole.size, whole.sha256, whole.md5),
            (all.size, all.sha256, all.md5)
        );
        assert!(whole.part_digests.is_empty());
    }

    #[test]
    fn nothing_has_no_parts() {
        let digests = Hasher::new().finish();
        assert_eq!((digests.size, digests.part_digests.len()), (0, 0));
    }

    #[test]
    fn parts_do_not_depend_on_the_portions() {
        let bytes: Vec<u8> = (0..251_u8).cycle().take(PART_BYTES * 2 + 5).collect();
        let expected: Vec<u8> = bytes
            .chunks(PART_BYTES)
            .flat_map(|part| <[u8; 32]>::from(Sha256::digest(part)))
            .collect();
        for portion in [1_000, PART_BYTES, PART_BYTES + 1, bytes.len()] {
            let mut hasher = Hasher::new();
            for bytes in bytes.chunks(portion) {
                hasher.update(bytes);
            }
            let digests = hasher.finish();
            assert_eq!(digests.part_digests, expected, "{portion}");
            assert_eq!(digests.sha256, <[u8; 32]>::from(Sha256::digest(&bytes)));
        }
    }

    #[test]
    fn a_full_last_part_is_counted_once() {
        let mut hasher = Hasher::new();
        hasher.update(&vec![7; PART_BYTES]);
        assert_eq!(hasher.finish().part_digests.len(), 32);
    }
}
