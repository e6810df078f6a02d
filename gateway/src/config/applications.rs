//! Settings of applications and of the messages that wait for devices.

use std::time::Duration;

use super::{
    section::section,
    setting::{Count, Size, Span},
    units::{KIB, MIB, hours, secs},
};

section! {
    /// Applications and what they see of devices.
    pub struct ApplicationsConfig in "applications" {
        /// Applications at most.
        max_applications: usize = 1_000, Count(1..=100_000);
        /// Applications that one device may be bound to: what each of its messages costs at most.
        max_per_device: usize = 32, Count(1..=1_000);
        /// Devices whose bindings are kept in memory; each costs about 150 bytes.
        binding_cache_entries: usize = 100_000, Count(1..=10_000_000);
        /// Subscriptions that one MQTT session of an application may hold.
        max_subscriptions: usize = 1_000, Count(1..=100_000);
        /// Messages that one MQTT session of an application has not taken yet; one more is lost for it and counted.
        inbox_messages: usize = 10_000, Count(1..=1_000_000);
        /// Bytes that they may hold.
        inbox_bytes: usize = 8 * MIB, Size(64 * KIB..=1024 * MIB);
        /// Messages that wait for one persistent session of an application; one more is refused, or dropped and counted
        /// where its sender cannot be told.
        queue_messages: usize = 100_000, Count(1..=10_000_000);
        /// Bytes that they may hold.
        queue_bytes: u64 = 256 << 20, Size(64 << 10..=1 << 40);
        /// Bytes on the disk that wait for all of them.
        queue_total_bytes: u64 = 2 << 30, Size(1 << 20..=1 << 40);
        /// A session whose queue has refused messages for so long, while its client took none, ends: no device is to
        /// wait for an application that does not come back.
        queue_full_timeout: Duration = secs(600), Span(secs(1)..=hours(24 * 30));
        /// Requests to devices that wait for their responses at one time.
        max_waiting_responses: usize = 1_024, Count(1..=100_000);
        /// Rows in one CSV of bindings.
        max_csv_rows: usize = 100_000, Count(1..=1_000_000);
        /// Event streams open at one time, over all applications.
        max_streams: usize = 256, Count(1..=100_000);
        /// Event streams of one application.
        max_streams_per_application: usize = 8, Count(1..=1_000);
        /// Latest messages that the streams of one application share: a slower reader, or one that was away for
        /// longer, loses messages and is told how many.
        history_messages: usize = 1_000, Count(1..=1_000_000);
        /// Bytes that they may hold.
        history_bytes: usize = MIB, Size(64 * KIB..=1024 * MIB);
        /// How long they are kept after an application's last stream has ended, for it to resume.
        history_for: Duration = secs(300), Span(secs(0)..=hours(24));
        /// A stream without messages is sent a comment at this interval.
        stream_keep_alive: Duration = secs(15), Span(secs(1)..=secs(600));
    }
}

section! {
    /// Messages from applications that wait for their devices.
    pub struct MailboxConfig in "mailbox" {
        /// Messages that may wait for one device.
        max_messages: usize = 1_000, Count(1..=100_000);
        /// How long a message waits; its own expiry may be shorter.
        retention: Duration = hours(24), Span(secs(1)..=hours(24 * 30));
        /// Largest payload of a message to a device.
        max_message_bytes: usize = 64 * KIB, Size(KIB..=256 * KIB);
        /// Messages that may wait, over all devices; each costs about 100 bytes of memory for its device.
        max_total_messages: usize = 1_000_000, Count(1..=100_000_000);
        /// Bytes on the disk that they may hold.
        max_total_bytes: u64 = 1 << 30, Size(1 << 20..=1 << 40);
    }
}
