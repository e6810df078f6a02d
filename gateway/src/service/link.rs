//! Signed addresses under `/files`: who holds one may fetch one delivery's bytes, or send one
//! upload's, until it expires.
//!
//! A token is an id and the expiry, authenticated together with its purpose by HMAC-SHA256 cut to
//! 16 bytes, in URL-safe base64: 43 characters that tell a stranger nothing.

mod urls;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

pub use self::urls::FileUrls;
use crate::model::{Id, Millis};

const BODY_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

/// Signs and checks tokens with one key.
#[derive(Clone)]
pub struct LinkSigner {
    key: [u8; 32],
}

impl std::fmt::Debug for LinkSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkSigner")
    }
}

/// What a token may be used for; one for the one opens nothing of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To fetch a delivery's bytes.
    Download,
    /// To send an upload's bytes.
    Upload,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Download => b"headgate files 1\0",
            Self::Upload => b"headgate uploads 1\0",
        }
    }
}

/// What a token of ours says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    /// What it may be used for.
    pub(super) purpose: Purpose,
    /// The delivery or the upload that it opens.
    pub(super) id: Id,
    /// When it ceases to.
    pub(super) expires_at: Millis,
}

impl LinkSigner {
    /// A signer with this key.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The token for a link.
    pub(super) fn sign(&self, link: Link) -> String {
        let mut token = Vec::with_capacity(BODY_BYTES + TAG_BYTES);
        token.extend_from_slice(&link.id.as_i64().to_be_bytes());
        token.extend_from_slice(&link.expires_at.as_i64().to_be_bytes());
        let tag = self.tag(link.purpose, &token);
        token.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// What the token says, if it is one of ours for this purpose; whether it has expired is the
    /// caller's to see.
    pub(super) fn verify(&self, purpose: Purpose, token: &str) -> Option<Link> {
        if token.len() > 64 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (body, tag) = bytes.split_first_chunk::<BODY_BYTES>()?;
        if !bool::from(self.tag(purpose, body).ct_eq(tag)) {
            return None;
        }
        let (id, expires_at) = body.split_first_chunk::<8>()?;
        Some(Link {
            purpose,
            id: Id::from_i64(i64::from_be_bytes(*id)).ok()?,
            expires_at: Millis::from_i64(i64::from_be_bytes(expires_at.try_into().ok()?)),
        })
    }

    fn tag(&self, purpose: Purpose, body: &[u8]) -> [u8; TAG_BYTES] {
        // HMAC takes keys of any length.
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("a key of any length is taken");
        mac.update(purpose.label());
        mac.update(body);
        let full = mac.finalize().into_bytes();
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&full[..TAG_BYTES]);
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> Link {
        Link {
            purpose: Purpose::Download,
            id: Id::from_i64(77).expect("positive"),
            expires_at: Millis::from_i64(1_000),
        }
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let signer = LinkSigner::new([7; 32]);
        let token = signer.sign(link());
        assert_eq!(signer.verify(Purpose::Download, &token), Some(link()));
        assert!(token.len() <= 43, "short enough for a device's buffer");
    }

    #[test]
    fn a_token_that_was_touched_opens_nothing() {
        let signer = LinkSigner::new([7; 32]);
        let token = signer.sign(link());
        assert_eq!(
            signer.verify(Purpose::Upload, &token),
            None,
            "another purpose"
        );
        assert_eq!(
            LinkSigner::new([8; 32]).verify(Purpose::Download, &token),
            None,
            "another key"
        );
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let touched = String::from_utf8(bytes).expect("ASCII");
            assert_eq!(
                signer.verify(Purpose::Download, &touched),
                None,
                "character {at}"
            );
        }
        for bad in [
            "",
            "AAAA",
            "not base64!",
            &format!("A{token}"),
            &format!("{token}AA"),
            &"A".repeat(1_000),
        ] {
            assert_eq!(signer.verify(Purpose::Download, bad), None);
        }
    }
}
