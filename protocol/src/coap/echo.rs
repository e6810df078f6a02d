//! Echo: a value that proves that its sender receives at an address, and how lately.
//!
//! The server keeps nothing: the value is the time and a code over it and the address.  Spec: RFC 9175 s2.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Makes and checks values of Echo.
#[derive(Clone)]
pub struct EchoKey([u8; 32]);

const TIME_BYTES: usize = 4;
/// A guess costs a datagram each, and a right one opens one address for a short while.
const CODE_BYTES: usize = 8;

impl EchoKey {
    /// Bytes of a value.
    pub const VALUE_BYTES: usize = TIME_BYTES + CODE_BYTES;

    /// A key of 32 random bytes.
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The value for whoever is at `address` at `secs`, in seconds of any clock.
    pub fn value(&self, address: &[u8], secs: u32) -> [u8; Self::VALUE_BYTES] {
        let mut value = [0; Self::VALUE_BYTES];
        let (time, code) = value.split_at_mut(TIME_BYTES);
        time.copy_from_slice(&secs.to_be_bytes());
        code.copy_from_slice(&self.code(address, secs));
        value
    }

    /// Whether a value was made for this address at most `max_age_secs` before `secs`.
    pub fn is_fresh(&self, value: &[u8], address: &[u8], secs: u32, max_age_secs: u32) -> bool {
        let Some((time, code)) = value.split_first_chunk::<TIME_BYTES>() else {
            return false;
        };
        let made = u32::from_be_bytes(*time);
        let is_ours = bool::from(self.code(address, made).ct_eq(code));
        is_ours
            && secs
                .checked_sub(made)
                .is_some_and(|age| age <= max_age_secs)
    }

    fn code(&self, address: &[u8], secs: u32) -> [u8; CODE_BYTES] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("a MAC takes keys of any length");
        mac.update(&secs.to_be_bytes());
        mac.update(address);
        let digest = mac.finalize().into_bytes();
        let mut code = [0; CODE_BYTES];
        code.iter_mut()
            .zip(digest)
            .for_each(|(to, from)| *to = from);
        code
    }
}

impl fmt::Debug for EchoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EchoKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_holds_for_its_address_and_a_while() {
        let key = EchoKey::new([7; 32]);
        let value = key.value(b"a", 100);
        assert!(key.is_fresh(&value, b"a", 100, 60));
        assert!(key.is_fresh(&value, b"a", 160, 60));
        assert!(!key.is_fresh(&value, b"a", 161, 60), "too old");
        assert!(!key.is_fresh(&value, b"a", 99, 60), "from the future");
        assert!(!key.is_fresh(&value, b"b", 100, 60), "another address");
        assert!(!EchoKey::new([8; 32]).is_fresh(&value, b"a", 100, 60));
        let mut later = value;
        later[3] += 1;
        assert!(!key.is_fresh(&later, b"a", 101, 60), "the time is covered");
        assert!(!key.is_fresh(&value[..11], b"a", 100, 60));
        assert!(!key.is_fresh(b"", b"a", 100, 60));
        assert_eq!(format!("{key:?}"), "EchoKey");
    }
}
