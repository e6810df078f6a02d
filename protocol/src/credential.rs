//! Who a CONNECT claims to be, and whether what it holds proves it.
//!
//! The claim is read from the packet's own fields; the secret to compare with comes from the
//! caller. Nothing here looks anything up.

use subtle::ConstantTimeEq;

/// How the identity and its proof are written in CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The username is the device id and the password is the secret itself.
    Native,
}

/// What a CONNECT says of its sender: an identity to look up whole, and a proof to check.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The form that the fields were recognised as.
    pub form: Form,
    /// The name to look up among the device aliases; never split.
    pub identity: &'a str,
    /// The password as it came; binary is legal.
    pub password: Option<&'a [u8]>,
}

impl std::fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("form", &self.form)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl<'a> Claim<'a> {
    /// Reads the claim out of CONNECT's fields.
    ///
    /// The identity is the username up to a `?` (some SDKs append a query there), else the client
    /// id.
    pub fn read(client_id: &'a str, username: Option<&'a str>, password: Option<&'a [u8]>) -> Self {
        let named =
            username.map(|name| name.split_once('?').map_or(name, |(identity, _)| identity));
        let identity = match named {
            Some(name) if !name.is_empty() => name,
            _ => client_id,
        };
        Self {
            form: Form::Native,
            identity,
            password,
        }
    }
}

/// Whether `password` is `secret`, in a time that depends on neither's contents.
///
/// An empty secret matches nothing.
pub fn verify_native(secret: &[u8], password: &[u8]) -> bool {
    !secret.is_empty() && bool::from(secret.ct_eq(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_username_names_the_device_before_the_client_id() {
        let cases: [(&str, Option<&str>, &str); 5] = [
            ("c1", Some("p_d"), "p_d"),
            ("c1", None, "c1"),
            ("c1", Some(""), "c1"),
            ("thing1", Some("?SDK=X&V=1"), "thing1"),
            ("c1", Some("thing1?SDK=X"), "thing1"),
        ];
        for (client_id, username, identity) in cases {
            assert_eq!(Claim::read(client_id, username, None).identity, identity);
        }
    }

    #[test]
    fn only_the_whole_secret_is_accepted() {
        assert!(verify_native(b"s3cret", b"s3cret"));
        for wrong in [&b"s3cre"[..], b"s3cret0", b"", b"S3cret"] {
            assert!(!verify_native(b"s3cret", wrong));
        }
        assert!(!verify_native(b"", b""));
    }

    #[test]
    fn a_claim_never_prints_its_password() {
        let claim = Claim::read("c", Some("d"), Some(b"hunter22"));
        assert!(!format!("{claim:?}").contains("hunter22"));
    }
}
