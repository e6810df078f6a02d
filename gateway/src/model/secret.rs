//! A device's secret in the clear, for as long as it must be.

use std::fmt;

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use crate::model::{device::PskEncoding, text::InvalidField};

/// The pre-shared key that a stored secret is, or `None` where it is none in this encoding.
pub fn psk_of(secret: &[u8], encoding: PskEncoding) -> Option<Zeroizing<Vec<u8>>> {
    let key = match encoding {
        PskEncoding::Text => Some(secret.to_vec()),
        PskEncoding::Hex => hex::decode(secret).ok(),
        PskEncoding::Base64 => from_base64(secret),
    };
    key.map(Zeroizing::new)
}

/// Reads base64 in either alphabet, with or without padding.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let decode = |alphabet| {
        let config = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        GeneralPurpose::new(alphabet, config).decode(text).ok()
    };
    decode(&STANDARD).or_else(|| decode(&URL_SAFE))
}

/// A device's secret: 8 to 32 characters of `A-Z a-z 0-9 _ -`, or of base64 with its `+`, `/` and `=`, as one platform
/// makes them; up to 64 where it is a key in hexadecimal or base64. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret that an operator gives; [`Secret::check_encoding`] says whether it is right for its device.
    ///
    /// # Errors
    /// [`InvalidField`] for `secret` naming the rule, never the value.
    pub fn given(text: String) -> Result<Self, InvalidField> {
        // Owned first, so that a refused secret is wiped too.
        let secret = Self(Zeroizing::new(text));
        if !(MIN_CHARS..=MAX_ENCODED_CHARS).contains(&secret.0.len()) {
            return Err(InvalidField::new(
                "secret",
                "is not 8 to 32 characters long, or to 64 in hexadecimal or base64",
            ));
        }
        if !secret
            .0
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
            && !secret.is_base64()
        {
            return Err(InvalidField::new(
                "secret",
                "has characters other than A-Z, a-z, 0-9, _ and -, and is no base64",
            ));
        }
        Ok(secret)
    }

    /// Makes a secret of 32 hexadecimal digits out of 16 random bytes, which are the caller's to wipe.
    pub fn from_random(bytes: &[u8; 16]) -> Self {
        Self(Zeroizing::new(hex::encode(bytes)))
    }

    /// Checks that the secret can be read as a pre-shared key in the given encoding.
    ///
    /// # Errors
    /// [`InvalidField`] for `secret`.
    pub fn check_encoding(&self, encoding: PskEncoding) -> Result<(), InvalidField> {
        let legal = match encoding {
            PskEncoding::Text if self.0.len() > MAX_TEXT_CHARS => {
                return Err(InvalidField::new("secret", "is longer than 32 characters"));
            }
            PskEncoding::Text => true,
            PskEncoding::Hex => hex::decode(self.as_bytes()).map(Zeroizing::new).is_ok(),
            PskEncoding::Base64 => self.is_base64(),
        };
        if legal {
            Ok(())
        } else {
            let reason = format!("is not {}, as psk_encoding says", encoding.as_str());
            Err(InvalidField::new("secret", reason))
        }
    }

    /// Whether it is base64 in either alphabet, with or without padding.
    fn is_base64(&self) -> bool {
        from_base64(self.as_bytes()).map(Zeroizing::new).is_some()
    }

    /// The secret as bytes, for sealing and comparing.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The secret as text, for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

const MIN_CHARS: usize = 8;
const MAX_TEXT_CHARS: usize = 32;
const MAX_ENCODED_CHARS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_secrets_follow_the_rule() {
        for good in [
            "12345678",
            "abc_DEF-",
            &"x".repeat(64),
            "MDEyMzQ1Njc4OWFiY2RlZg==",
            "ab+/cd+/",
        ] {
            assert_eq!(Secret::given(good.to_owned()).unwrap().reveal(), good);
        }
        for bad in [
            "",
            "1234567",
            &"x".repeat(65),
            "1234567 ",
            "1234567é",
            "12345678\0",
            "MDEyMzQ1N=c4OWFiY2RlZg==",
            "ab+/cd+/-",
        ] {
            assert!(Secret::given(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn made_secrets_are_32_hex_digits() {
        let secret = Secret::from_random(&[0xab; 16]);
        assert_eq!(secret.reveal(), "ab".repeat(16));
        assert!(Secret::given(secret.reveal().to_owned()).is_ok());
    }

    #[test]
    fn a_secret_must_be_what_its_encoding_says() {
        for (text, encoding, legal) in [
            ("12345678", PskEncoding::Text, true),
            ("12345678", PskEncoding::Hex, true),
            ("123456789", PskEncoding::Hex, false),
            ("1234567x", PskEncoding::Hex, false),
            ("1234_-78", PskEncoding::Base64, true),
            ("MDEyMzQ1Njc4OWFiY2RlZg==", PskEncoding::Base64, true),
            ("123456789", PskEncoding::Base64, false),
            (&"a".repeat(64), PskEncoding::Hex, true),
            (&"a".repeat(64), PskEncoding::Base64, true),
            (&"a".repeat(33), PskEncoding::Text, false),
        ] {
            let secret = Secret::given(text.to_owned()).unwrap();
            assert_eq!(
                secret.check_encoding(encoding).is_ok(),
                legal,
                "{text} {encoding:?}"
            );
        }
        let made = Secret::from_random(&[7; 16]);
        for encoding in [PskEncoding::Text, PskEncoding::Hex, PskEncoding::Base64] {
            assert_eq!(made.check_encoding(encoding), Ok(()));
        }
    }

    #[test]
    fn neither_debug_nor_an_error_shows_the_secret() {
        let secret = Secret::given("topsecret".to_owned()).unwrap();
        assert!(!format!("{secret:?}").contains("topsecret"));
        let error = Secret::given("topsecret!".to_owned()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("topsecret"));
    }
}
