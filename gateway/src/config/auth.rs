//! Settings of authentication.

use std::time::Duration;

use super::{
    section::section,
    setting::{Count, Flag, Span},
    units::{hours, secs},
};

section! {
    /// Authentication of devices.
    pub struct AuthConfig in "auth" {
        /// Devices whose sealed credentials are kept in memory; each costs about 400 bytes.
        cache_entries: usize = 100_000, Count(1..=10_000_000);
        /// Passwords of operators that are checked at one time; each takes 19 MiB while it runs.
        max_password_checks: usize = 2, Count(1..=64);
        /// How far a device's clock may be off where its password is signed for an hour (Huawei's sign type 1).
        huawei_clock_skew: Duration = hours(1), Span(secs(0)..=hours(24));
        /// Whether devices come in with registered certificates that have ended or have not begun.
        allow_expired_certificates: bool = false, Flag;
    }
}
