//! The fingerprint of a certificate: what of it the registry keeps.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use crate::model::text::InvalidField;

/// SHA-256 of a certificate's DER.
///
/// Written as 64 hexadecimal digits in lower case; read in any case, with or without colons between the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; LEN]);

impl Fingerprint {
    /// A fingerprint that was computed.
    pub const fn new(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidField;

    /// # Errors
    /// [`InvalidField`] for `fingerprint`, naming how many digits there are where it is not 64.
    fn from_str(text: &str) -> Result<Self, InvalidField> {
        let invalid = |reason: String| InvalidField::new("fingerprint", reason);
        let digits = without_colons(text).ok_or_else(|| {
            invalid("has a colon that does not stand between two bytes of two digits".to_owned())
        })?;
        if let Some(wrong) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(invalid(format!(
                "has {wrong:?}, which is no hexadecimal digit"
            )));
        }
        if digits.len() == SHA1_DIGITS {
            return Err(invalid(
                "has 40 hexadecimal digits, which is SHA-1; expected the 64 of SHA-256".to_owned(),
            ));
        }
        let mut bytes = [0; LEN];
        hex::decode_to_slice(&digits, &mut bytes).map_err(|_| {
            invalid(format!(
                "has {} hexadecimal digits; expected 64",
                digits.len()
            ))
        })?;
        Ok(Self(bytes))
    }
}

/// The digits; `None` where colons stand anywhere but between all pairs of digits.
fn without_colons(text: &str) -> Option<String> {
    let text = text.trim();
    if !text.contains(':') {
        return Some(text.to_owned());
    }
    let pairs = || text.split(':');
    pairs()
        .all(|pair| pair.chars().count() == 2)
        .then(|| pairs().collect())
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes of a SHA-256.
const LEN: usize = 32;
/// Digits of a SHA-1, which older platforms take and this one does not.
const SHA1_DIGITS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_with_or_without_colons_in_any_case() {
        let plain = "0aff".repeat(16);
        let colons = ["0a:ff"; 16].join(":");
        for text in [
            plain.clone(),
            plain.to_uppercase(),
            colons.clone(),
            colons.to_uppercase(),
            format!(" {plain}\n"),
        ] {
            let fingerprint: Fingerprint = text.parse().expect(&text);
            assert_eq!(fingerprint.to_string(), plain);
            assert_eq!(fingerprint.as_bytes()[..2], [0x0a, 0xff]);
        }
    }

    #[test]
    fn anything_but_64_digits_is_refused_by_its_length() {
        for (digits, said) in [
            (0, "has 0 "),
            (39, "has 39 "),
            (40, "SHA-1"),
            (63, "has 63 "),
            (65, "has 65 "),
            (128, "has 128 "),
        ] {
            let error = "a".repeat(digits).parse::<Fingerprint>().unwrap_err();
            assert_eq!(error.field, "fingerprint");
            assert!(error.reason.contains(said), "{digits}: {error}");
        }
    }

    #[test]
    fn colons_stand_between_bytes_only() {
        let pairs = ["ab"; 32].join(":");
        for text in [
            format!("{pairs}:"),
            format!(":{pairs}"),
            pairs.replacen("ab:ab", "a:bab", 1),
            pairs.replacen(':', "::", 1),
            pairs.replacen(':', "", 1),
        ] {
            let error = text.parse::<Fingerprint>().unwrap_err();
            assert!(error.reason.contains("colon"), "{text}: {error}");
        }
        let sha1 = ["ab"; 20].join(":").parse::<Fingerprint>().unwrap_err();
        assert!(sha1.reason.contains("SHA-1"), "{sha1}");
        let other = "xy".repeat(32).parse::<Fingerprint>().unwrap_err();
        assert!(other.reason.contains("'x'"), "{other}");
    }
}
