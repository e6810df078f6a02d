//! Settings of authentication.

use super::{section::section, setting::Count};

section! {
    /// Authentication of devices.
    pub struct AuthConfig in "auth" {
        /// Devices whose sealed credentials are kept in memory; each costs about 400 bytes.
        cache_entries: usize = 100_000, Count(1..=10_000_000);
        /// Passwords of operators that are checked at one time; each takes 19 MiB while it runs.
        max_password_checks: usize = 2, Count(1..=64);
    }
}
