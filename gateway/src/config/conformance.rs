//! Settings of the topic space that test suites find behind listeners of profile "conformance".

use std::time::Duration;

use super::{
    section::section,
    setting::{Count, Size, Span},
    units::{KIB, MIB, hours, secs},
};

section! {
    /// What listeners with profile = "conformance" lead to: topics in memory, apart from all devices.
    pub struct ConformanceConfig in "conformance" {
        /// Sessions, connected or not; one more is turned away.
        max_sessions: usize = 256, Count(1..=65_536);
        /// Subscriptions of one session.
        max_subscriptions: usize = 256, Count(1..=10_000);
        /// Retained messages; one more is not retained and counted as dropped.
        max_retained: usize = 1_024, Count(1..=1_000_000);
        /// Largest packet, told to an MQTT 5 client.
        max_packet_bytes: usize = 256 * KIB, Size(KIB..=16 * MIB);
        /// Messages that wait for one session; one more is dropped and counted.
        queue_messages: usize = 1_000, Count(1..=1_000_000);
        /// Bytes of payload that wait for one session.
        queue_bytes: usize = 8 * MIB, Size(64 * KIB..=1024 * MIB);
        /// Longest that a session, or a will, outlives its connection.
        max_session_expiry: Duration = hours(1), Span(secs(1)..=hours(24 * 30));
        /// Longest keep-alive of an MQTT 5 client; an older one cannot be told and has what it asks for. 0 is
        /// no keep-alive.
        server_keep_alive: Duration = secs(60), Span(secs(5)..=secs(65_535));
        /// QoS 1 and 2 packets under way each way.
        receive_maximum: u16 = 32, Count(1..=1_024);
        /// Topic aliases of one connection, each way.
        topic_aliases: u16 = 16, Count(0..=1_024);
    }
}
