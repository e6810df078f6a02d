//! Settings of the console.

use std::time::Duration;

use super::{
    section::section,
    setting::{Count, Span},
    units::{hours, secs},
};

section! {
    /// The console: the pages at `/` of the HTTP listener.
    pub struct ConsoleConfig in "console" {
        /// An operator who does nothing for so long has to sign in again.
        session_idle_timeout: Duration = hours(1), Span(secs(60)..=hours(24 * 7));
        /// An operator has to sign in again after so long, whatever happens.
        session_max_age: Duration = hours(12), Span(secs(300)..=hours(24 * 30));
        /// Sessions that one operator may have; one more ends the oldest.
        max_sessions: u32 = 10, Count(1..=1_000);
        /// Sign-ins with one name from one network (IPv4 /24, IPv6 /56) that may fail in a row; with the last of them
        /// it is locked out. From a network, ten times as many with any names.
        sign_in_failures: u32 = 5, Count(1..=1_000);
        /// How long a lock-out lasts, and how long failures are remembered.
        lock_out: Duration = secs(900), Span(secs(1)..=hours(24));
    }
}
