//! The native form, and an application's: the password is the secret itself.

use subtle::ConstantTimeEq as _;

/// Whether two texts are the same, in a time that depends on neither's contents.
pub(super) fn is_same(secret: &[u8], password: &[u8]) -> bool {
    bool::from(secret.ct_eq(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_accepted() {
        assert!(is_same(b"s3cret", b"s3cret"));
        for wrong in [
            &b"s3cre"[..],
            b"s3cret0",
            b"",
            b"S3cret",
            b"\xff\xfe\0\0\0\0",
        ] {
            assert!(!is_same(b"s3cret", wrong));
        }
    }
}
