//! Settings of registration in batches.

use std::time::Duration;

use super::{
    section::section,
    setting::{Count, Size, Span},
    units::{KIB, MIB, hours, secs},
};

section! {
    /// Registration of devices in batches.
    pub struct RegistrationConfig in "registration" {
        /// Largest CSV of one batch; it is spooled under the data directory, sealed, until its rows are done.
        max_batch_bytes: u64 = 64 * 1024 * 1024, Size(16 * 1024..=1 << 32);
        /// Most rows in one batch.
        max_batch_rows: usize = 100_000, Count(1..=10_000_000);
        /// Longest row, quoted newlines included; what a batch holds in memory is about 500 of its rows.
        max_row_bytes: usize = 64 * KIB, Size(4 * KIB..=MIB);
        /// Batches that wait for their turn or are being registered; one more is refused.
        max_open_batches: usize = 8, Count(1..=1000);
        /// How long a batch that ended shows the secrets that were made, unless they are confirmed before.
        secrets_shown: Duration = hours(24), Span(secs(60)..=hours(24 * 30));
        /// A batch that ended and its rows are deleted after so long; its devices stay.
        keep_batches: Duration = hours(24 * 180), Span(hours(1)..=hours(24 * 3650));
    }
}
