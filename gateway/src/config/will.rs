//! Settings of wills.

use std::time::Duration;

use super::{
    section::section,
    setting::{Count, Size, Span},
    units::{MIB, secs},
};

section! {
    /// Messages that clients leave for the case that their connection breaks.
    pub struct WillConfig in "will" {
        /// Wills of clients that are connected or whose will delay runs. A client with one more is turned away: 0x97
        /// to MQTT 5, 3 (server unavailable) before.
        max_wills: usize = 200_000, Count(1..=10_000_000);
        /// Bytes of memory that they may hold.
        max_bytes: usize = 64 * MIB, Size(MIB..=16 * 1024 * MIB);
        /// How long after a start the wills of those who were connected before are held back, if their delay is not
        /// longer: the time for applications to come back.
        after_restart: Duration = secs(10), Span(secs(0)..=secs(3600));
    }
}
