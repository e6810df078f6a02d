//! Settings of what devices upload.

use std::time::Duration;

use super::{
    section::section,
    setting::{Count, Optional, Size, Span},
    units::{KIB, MIB, hours, secs},
};

section! {
    /// Uploads of devices. Quotas count what is stored and what is announced.
    pub struct UploadConfig in "uploads" {
        /// Largest upload.
        max_size_bytes: u64 = 1 << 30, Size(1..=1 << 40);
        /// Uploads a device may have in progress; one more ends one that has been silent for a minute, or waits.
        max_open_per_device: usize = 4, Count(1..=64);
        /// Uploads in progress over all devices; each costs about 600 bytes.
        max_open: usize = 100_000, Count(1..=10_000_000);
        /// Most uploads of one device.
        max_count_per_device: u64 = 1000, Count(1..=1_000_000_000);
        /// Most bytes of one device.
        max_bytes_per_device: u64 = 4 << 30, Size(1..=1 << 50);
        /// Most uploads over all devices.
        max_count: u64 = 1_000_000, Count(1..=1_000_000_000);
        /// Most bytes over all devices.
        max_total_bytes: u64 = 100 << 30, Size(1..=1 << 60);
        /// Room that is left on the disk of the data directory: below it nothing more is stored.
        min_free_bytes: u64 = 256 * 1024 * 1024, Size(0..=1 << 50);
        /// An upload that gets no byte for so long is dropped.
        unfinished_lifetime: Duration = hours(24), Span(secs(1)..=hours(24 * 365));
        /// How long what is stored is kept.
        retention: Option<Duration> = None, Optional(Span(secs(1)..=hours(24 * 36_500)), "forever");
        /// Size of a chunk when the device names none.
        chunk_bytes: usize = 15 * KIB, Size(256..=128 * KIB);
        /// Bytes a device may have unanswered.
        window_bytes: usize = 128 * KIB, Size(16 * KIB..=16 * MIB);
        /// Bytes in memory that wait for the disk, over all devices: beyond them devices wait.
        max_waiting_bytes: usize = 16 * MIB, Size(64 * KIB..=64 * 1024 * MIB);
        /// Threads that write at the same time.
        writers: usize = 4, Count(1..=256);
        /// Finished uploads that are checked at the same time; each takes up to 2 MiB meanwhile.
        checkers: usize = 8, Count(1..=64);
    }
}
