//! The names of things: products, devices, applications and resources, each a type that holds only a legal name.
//!
//! A value of these types has been checked once, where it came in, and is never checked again.
//! Cloning shares the text.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// Why a text is not a legal name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind} {reason}")]
pub struct InvalidName {
    /// What the text was meant to name, in the words of the API ("node id", "resource name").
    pub kind: &'static str,
    /// The rule that it breaks.
    pub reason: &'static str,
}

/// Makes a newtype over shared text whose constructor runs `$check`.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text and takes it.
            ///
            /// # Errors
            /// [`InvalidName`] with the rule that the text breaks.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                match $check(text) {
                    Ok(()) => Ok(Self(Arc::from(text))),
                    Err(reason) => Err(InvalidName { kind: $kind, reason }),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(&text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(&text).map_err(de::Error::custom)
            }
        }
    };
}

name! {
    /// A product: 1 to 36 letters, digits, `_` and `-`.
    ProductId, "product id", check_product_id
}
name! {
    /// A device within its product: 1 to 64 letters, digits, `_`, `:` and `-`.
    ///
    /// It is the `{device}` of topics, Tencent's `DeviceName` and the `DeviceName` column of a
    /// delivery CSV.
    NodeId, "node id", check_node_id
}
name! {
    /// A device in the whole gateway: 1 to 128 letters, digits, `_`, `:` and `-`; by default
    /// `{product_id}_{node_id}`.
    DeviceId, "device id", check_device_id
}
name! {
    /// A resource within its product: 1 to 32 characters, of which the first is a letter, a digit
    /// or a CJK ideograph and the others may also be `_`, `-`, `(` and `)`.
    ResourceName, "resource name", check_resource_name
}

name! {
    /// An application in the whole gateway: 1 to 64 letters, digits, `_` and `-`.
    AppId, "application id", check_app_id
}

impl DeviceId {
    /// The device id that a device gets when none is given.
    pub fn default_for(product: &ProductId, node: &NodeId) -> Self {
        // At most 36 + 1 + 64 characters of the legal set: the rule of `check_device_id` holds.
        Self(Arc::from(format!("{product}_{node}")))
    }
}

fn check_product_id(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 36 {
        return Err("must have 1 to 36 characters");
    }
    check_bytes(text, |b| {
        b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')
    })
    .ok_or("may hold only letters, digits, '_' and '-'")
}

fn check_node_id(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 64 {
        return Err("must have 1 to 64 characters");
    }
    check_bytes(text, is_device_byte).ok_or("may hold only letters, digits, '_', ':' and '-'")
}

fn check_device_id(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 128 {
        return Err("must have 1 to 128 characters");
    }
    check_bytes(text, is_device_byte).ok_or("may hold only letters, digits, '_', ':' and '-'")
}

fn check_app_id(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 64 {
        return Err("must have 1 to 64 characters");
    }
    check_bytes(text, |b| {
        b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')
    })
    .ok_or("may hold only letters, digits, '_' and '-'")
}

fn check_resource_name(text: &str) -> Result<(), &'static str> {
    let Some(first) = text.chars().next() else {
        return Err("must have 1 to 32 characters");
    };
    if text.chars().count() > 32 {
        return Err("must have 1 to 32 characters");
    }
    if !is_word(first) {
        return Err("must begin with a letter, a digit or a CJK ideograph");
    }
    if text
        .chars()
        .all(|c| is_word(c) || matches!(c, '_' | '-' | '(' | ')'))
    {
        Ok(())
    } else {
        Err("may hold only letters, digits, CJK ideographs, '_', '-', '(' and ')'")
    }
}

fn is_device_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-')
}

fn check_bytes(text: &str, legal: impl Fn(u8) -> bool) -> Option<()> {
    text.bytes().all(legal).then_some(())
}

/// ASCII letters and digits, and the CJK unified ideographs with their extensions.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_hold_no_topic_syntax() {
        for bad in ["", "a/b", "a+", "#", "a\0", "a b", "é", &"x".repeat(65)] {
            assert!(NodeId::new(bad).is_err(), "{bad:?} must be refused");
        }
        for good in ["0", "AA:bb:01", "a_b-c", &"x".repeat(64)] {
            assert!(NodeId::new(good).is_ok(), "{good:?} must be taken");
        }
    }

    #[test]
    fn application_ids_hold_what_no_client_id_is_cut_at() {
        for bad in ["", "a:b", "a.b", "a/b", "a b", "é", &"x".repeat(65)] {
            assert!(AppId::new(bad).is_err(), "{bad:?} must be refused");
        }
        for good in ["0", "billing", "a_b-c", &"x".repeat(64)] {
            assert!(AppId::new(good).is_ok(), "{good:?} must be taken");
        }
    }

    #[test]
    fn resource_names_are_counted_in_characters() {
        assert!(ResourceName::new(&"固".repeat(32)).is_ok());
        assert!(ResourceName::new(&"固".repeat(33)).is_err());
        assert!(ResourceName::new("-a").is_err());
        assert!(ResourceName::new("a b").is_err());
        assert!(ResourceName::new("fw-1_0(beta)").is_ok());
    }

    #[test]
    fn a_default_device_id_is_itself_legal() {
        let product = ProductId::new(&"p".repeat(36)).expect("legal");
        let node = NodeId::new(&"n".repeat(64)).expect("legal");
        let id = DeviceId::default_for(&product, &node);
        assert_eq!(DeviceId::new(id.as_str()), Ok(id));
    }

    #[test]
    fn names_from_json_are_checked() {
        assert!(serde_json::from_str::<NodeId>("\"a/b\"").is_err());
        let error = serde_json::from_str::<NodeId>("\"\"").expect_err("empty");
        assert!(
            error
                .to_string()
                .contains("node id must have 1 to 64 characters")
        );
    }
}
