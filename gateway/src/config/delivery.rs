//! Settings of resource delivery.

use std::time::Duration;

use super::{
    section::section,
    setting::{Count, Size, Span},
    units::{KIB, MIB, hours, millis, secs},
};

section! {
    /// Delivery of resources to devices.
    pub struct DeliveryConfig in "delivery" {
        /// Devices that are told of a delivery or take one at the same time.
        max_in_progress: usize = 2000, Count(1..=1_000_000);
        /// Devices that are sent to at the same instant: few leave messages of others quick, many keep the processor from waiting.
        sending_slots: usize = 64, Count(1..=4096);
        /// What a device is sent before its sending slot goes to the next one that waits.
        slot_bytes: u64 = 1024 * 1024, Size(16 * 1024..=1 << 30);
        /// A device that has not acknowledged enough for its next batch after so long loses its slot.
        slot_hold: Duration = millis(20), Span(millis(1)..=secs(10));
        /// Bytes that may be unacknowledged per device that asks for as many: 128 KiB at first, more where its link takes them at once.
        window_bytes: usize = 256 * KIB, Size(16 * KIB..=16 * MIB);
        /// Bytes that may be unacknowledged over all devices: a cap on memory, not on speed.
        max_window_bytes_total: usize = 512 * MIB, Size(MIB..=256 * 1024 * MIB);
        /// Memory for the chunks that all devices share.
        chunk_cache_bytes: usize = 256 * MIB, Size(MIB..=256 * 1024 * MIB);
        /// Size of a chunk when the device names none; 15 KiB with its header fill one TLS record.
        chunk_bytes: usize = 15 * KIB, Size(256..=128 * KIB);
        /// Most chunks one request may ask for.
        max_count: usize = 64, Count(1..=4096);
        /// After the last byte, the time until the device must have reported.
        confirm_timeout: Duration = secs(1800), Span(secs(1)..=hours(24 * 30));
        /// Longest time a delivery may be in progress, offline time included.
        in_progress_timeout: Duration = hours(24), Span(secs(10)..=hours(24 * 365));
        /// A connected device that owes an answer and is silent for so long has failed the attempt.
        step_timeout: Duration = secs(60), Span(secs(1)..=hours(24));
        /// Time between a device's connecting and the announcement of a delivery: it has to subscribe.
        announce_delay: Duration = secs(1), Span(millis(0)..=secs(600));
        /// A cursor is stored at most this often ...
        checkpoint_interval: Duration = secs(5), Span(millis(100)..=secs(3600));
        /// ... and only after so many bytes: what may be sent twice after a crash.
        checkpoint_bytes: u64 = 1024 * 1024, Size(64 * 1024..=1 << 30);
        /// Deliveries that are not final, over all tasks; each costs about 300 bytes.
        max_open_deliveries: usize = 200_000, Count(1..=10_000_000);
        /// Most devices in one task that names them.
        max_task_rows: usize = 10_000, Count(1..=1_000_000);
        /// Most devices in one task that is made for a filter.
        max_filter_devices: usize = 100_000, Count(1..=10_000_000);
        /// Bytes a second to all devices together, by MQTT and HTTPS; 0: no limit.
        max_bytes_per_sec: u64 = 0, Size(0..=1 << 40);
        /// Attempts of a delivery that come by themselves, the first one included.
        max_attempts: u32 = 3, Count(1..=20);
        /// The wait before the second attempt, doubled before each further one, a quarter more or less.
        retry_backoff: Duration = secs(30), Span(millis(0)..=hours(24));
        /// The longest such wait.
        max_retry_backoff: Duration = secs(3600), Span(millis(0)..=hours(24 * 30));
        /// Most clients that watch tasks (`/tasks/{task}/events`) at a time; each costs about 20 KB.
        max_event_streams: usize = 100, Count(1..=10_000);
    }
}
