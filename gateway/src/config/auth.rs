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
        /// Logins with one name from one network (IPv4 /24, IPv6 /56) that may fail within `failure_memory`; with each
        /// further one the name waits, 1 s at first and twice as long each time.
        device_failures: u32 = 5, Count(1..=1_000);
        /// Logins from one network that may fail within `failure_memory`; with further ones its unknown names wait.
        source_failures: u32 = 20_000, Count(10..=10_000_000);
        /// Time in which that many failures are forgotten.
        failure_memory: Duration = secs(600), Span(secs(10)..=hours(24));
        /// Longest wait of a name or a network.
        max_login_delay: Duration = secs(60), Span(secs(1)..=hours(1));
        /// For how long a name that was let in does not wait because of others in its network.
        known_for: Duration = hours(24), Span(secs(60)..=hours(24 * 30));
        /// Names and networks that are remembered, in four tables of this size; each entry costs about 80 bytes.
        throttle_entries: usize = 100_000, Count(100..=10_000_000);
    }
}
