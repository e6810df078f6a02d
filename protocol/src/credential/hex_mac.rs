//! A MAC that a vendor's form writes in hexadecimal digits.

use subtle::ConstantTimeEq as _;

/// A MAC of up to 32 bytes as a password had it.
#[derive(Clone, Copy)]
pub(super) struct HexMac {
    bytes: [u8; MAX],
    len: usize,
}

impl HexMac {
    /// Reads exactly `len` bytes of digits, in any case; anything else is no MAC.
    pub(super) fn read(digits: &[u8], len: usize) -> Option<Self> {
        let mut bytes = [0; MAX];
        hex::decode_to_slice(digits, bytes.get_mut(..len)?).ok()?;
        Some(Self { bytes, len })
    }

    /// Whether it is this one, in a time that depends on neither's contents.
    pub(super) fn is(&self, mac: &[u8]) -> bool {
        let own = self.bytes.get(..self.len).unwrap_or_default();
        bool::from(own.ct_eq(mac))
    }
}

const MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_all_there_or_it_is_none() {
        let mac = HexMac::read(b"00Ff", 2).expect("digits");
        assert!(mac.is(&[0, 0xff]));
        assert!(!mac.is(&[0, 0xfe]) && !mac.is(&[0]) && !mac.is(&[0, 0xff, 0]));
        for wrong in [
            &b"00F"[..],
            b"00fff",
            b"00fg",
            b"",
            b"\0\xff\xfe\x80",
            b" 00f",
        ] {
            assert!(HexMac::read(wrong, 2).is_none());
        }
        assert!(HexMac::read(&[b'0'; 66], 33).is_none());
    }
}
