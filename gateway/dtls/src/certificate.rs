//! Certificates: our own with its key, and what is known of a peer's.

use std::fmt;

use zeroize::Zeroizing;

/// A certificate chain and its key, as PEM.
#[derive(Clone)]
pub struct Certificate {
    /// The chain, our own certificate first.
    pub(crate) chain: Vec<u8>,
    pub(crate) key: Zeroizing<Vec<u8>>,
}

impl Certificate {
    /// A chain and a key in PEM; they are looked at when an endpoint is made of them.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Self {
        // The library wants the end of a PEM text to be a NUL.
        let ended = |pem: &[u8]| [pem, b"\0"].concat();
        Self {
            chain: ended(chain),
            key: Zeroizing::new(ended(key)),
        }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

/// SHA-256 of a certificate's DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);
