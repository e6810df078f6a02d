//! Cookies of `HelloVerifyRequest`: they prove that a peer receives at its address, and nothing is kept for them.
//!
//! A cookie is the number of a key and a MAC over the peer's address. Keys are made anew every half minute and the
//! one before is still taken, so that a cookie holds for 30 to 60 seconds.

use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::random;

/// How long a key makes cookies.
const KEY_LIFETIME: Duration = Duration::from_secs(30);
/// Half of HMAC-SHA-256.
const MAC_BYTES: usize = 16;
/// The number of the key, and the MAC.
pub(crate) const COOKIE_BYTES: usize = 1 + MAC_BYTES;

/// Makes cookies and knows its own.
pub(crate) struct Cookies {
    current: Key,
    previous: Option<Key>,
    made_at: Instant,
}

struct Key {
    number: u8,
    bytes: Zeroizing<[u8; 32]>,
}

impl Key {
    fn new(number: u8) -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        random::fill(&mut *bytes)?;
        Ok(Self { number, bytes })
    }

    fn mac(&self, peer: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&*self.bytes).expect("a MAC takes a key of any length");
        mac.update(peer);
        mac
    }
}

impl Cookies {
    pub(crate) fn new(now: Instant) -> Result<Self, getrandom::Error> {
        Ok(Self {
            current: Key::new(0)?,
            previous: None,
            made_at: now,
        })
    }

    /// Takes note of the time: keys that are too old go. Without randomness the old ones stay.
    pub(crate) fn rotate(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.made_at);
        if age < KEY_LIFETIME {
            return;
        }
        let Ok(next) = Key::new(self.current.number.wrapping_add(1)) else {
            return;
        };
        let former = std::mem::replace(&mut self.current, next);
        self.previous = (age < 2 * KEY_LIFETIME).then_some(former);
        self.made_at = now;
    }

    /// The cookie for this peer.
    pub(crate) fn make(&self, peer: &[u8]) -> [u8; COOKIE_BYTES] {
        let mac = self.current.mac(peer).finalize().into_bytes();
        let mut cookie = [0; COOKIE_BYTES];
        cookie[0] = self.current.number;
        cookie[1..].copy_from_slice(&mac[..MAC_BYTES]);
        cookie
    }

    /// Whether this cookie was made for this peer of late.
    pub(crate) fn is_ours(&self, cookie: &[u8], peer: &[u8]) -> bool {
        let Some((number, mac)) = cookie.split_first() else {
            return false;
        };
        if mac.len() != MAC_BYTES {
            return false;
        }
        let keys = [Some(&self.current), self.previous.as_ref()];
        let key = keys.into_iter().flatten().find(|key| key.number == *number);
        key.is_some_and(|key| key.mac(peer).verify_truncated_left(mac).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_for_one_peer_and_for_a_while() {
        let start = Instant::now();
        let mut cookies = Cookies::new(start).unwrap();
        let cookie = cookies.make(b"one");
        assert!(cookies.is_ours(&cookie, b"one"));
        assert!(!cookies.is_ours(&cookie, b"another"));
        for cut in 0..COOKIE_BYTES {
            assert!(!cookies.is_ours(&cookie[..cut], b"one"), "{cut}");
        }
        let mut changed = cookie;
        changed[5] ^= 1;
        assert!(!cookies.is_ours(&changed, b"one"));

        cookies.rotate(start + KEY_LIFETIME);
        assert!(cookies.is_ours(&cookie, b"one"), "made by the key before");
        cookies.rotate(start + 2 * KEY_LIFETIME);
        assert!(!cookies.is_ours(&cookie, b"one"), "too old");
    }

    #[test]
    fn after_a_long_rest_no_old_key_counts() {
        let start = Instant::now();
        let mut cookies = Cookies::new(start).unwrap();
        let cookie = cookies.make(b"one");
        cookies.rotate(start + 10 * KEY_LIFETIME);
        assert!(!cookies.is_ours(&cookie, b"one"));
    }
}
