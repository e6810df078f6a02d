//! Settings of the MQTT listeners and of each device's connection.

use std::{net::SocketAddr, time::Duration};

use super::{
    section::section,
    setting::{Address, Count, Optional, Size, Span},
    units::{KIB, MIB, hours, millis, secs},
};

section! {
    /// MQTT for devices, over TLS.
    pub struct MqttConfig in "mqtt" {
        /// Address of MQTT over TLS.
        listen: Option<SocketAddr> = Some(SocketAddr::from(([0, 0, 0, 0], 8883))), Optional(Address, "off");
        /// Address of MQTT without TLS: secrets and data travel readable, so off unless asked for.
        plain_listen: Option<SocketAddr> = None, Optional(Address, "off");
        /// Connections open at one time; one more is closed at once. Each idle one costs about 8 KB.
        max_connections: usize = 19_000, Count(1..=1_000_000);
        /// Connections that have not finished TLS and CONNECT; at the limit accepting waits. Each costs
        /// about 20 KB.
        max_handshakes: usize = 256, Count(1..=65_536);
        /// The same for one network, an IPv4 /24 or an IPv6 /64; one more is closed at once. As many as
        /// `max_handshakes` by default: a whole fleet may sit behind one address. A network that holds
        /// more than half of them has a fifth of `handshake_timeout`.
        max_handshakes_per_network: usize = 256, Count(1..=65_536);
        /// Connections accepted in a second; those above it wait in the kernel's backlog.
        max_accept_rate: u32 = 5000, Count(1..=1_000_000);
        /// Time for TLS and CONNECT together, from accept on.
        handshake_timeout: Duration = secs(10), Span(millis(100)..=secs(300));
        /// Largest CONNECT packet.
        max_connect_bytes: usize = 8 * KIB, Size(256..=64 * KIB);
        /// Largest packet after CONNECT; a larger one closes the connection before it is buffered.
        max_packet_bytes: usize = 256 * KIB, Size(16 * KIB..=16 * MIB);
        /// Longest topic, in bytes of UTF-8.
        max_topic_bytes: usize = 255, Count(16..=65_535);
        /// Most levels in a topic.
        max_topic_levels: usize = 10, Count(2..=128);
        /// Subscriptions a device may hold; each costs its filter's length and about 100 bytes.
        max_subscriptions: usize = 32, Count(1..=10_000);
        /// Longest keep-alive; 0 or a longer one from a client becomes this, and an MQTT 5 client is told.
        max_keep_alive: Duration = secs(1200), Span(secs(5)..=secs(65_535));
        /// How long a session may outlive its connection: a longer wish becomes this, and an MQTT 5 client is told. A
        /// client of 3.1.1 that wants its session kept gets this. 0: no session is kept.
        max_session_expiry: Duration = hours(24 * 7), Span(secs(0)..=hours(24 * 365));
        /// Messages waiting for one device on its connection.
        outbox_messages: usize = 64, Count(1..=65_535);
        /// Bytes waiting for one device on its connection.
        outbox_bytes: usize = 256 * KIB, Size(16 * KIB..=64 * MIB);
        /// A peer that takes no byte for so long while data waits for it is closed.
        stalled_timeout: Duration = secs(300), Span(secs(1)..=hours(24));
        /// Connections the kernel holds until they are accepted; the system's own limit may be lower.
        backlog: u32 = 4096, Count(1..=65_535);
    }
}
