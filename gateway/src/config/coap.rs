//! Settings of CoAP.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    section::section,
    setting::{Address, Count, FilePath, Flag, Optional, Size, Span},
    units::{MIB, hours, millis, secs},
};

section! {
    /// CoAP over plain UDP, for devices that are registered without authentication (NB-IoT behind an operator's
    /// private network). Nothing on this port is encrypted.
    pub struct CoapConfig in "coap" {
        /// Address of the plain listener; the port of the standard is 5683.
        listen: Option<SocketAddr> = None, Optional(Address, "off");
        /// First timeout of a confirmable message (`ACK_TIMEOUT`). Links with round trips of many seconds need more.
        ack_timeout: Duration = secs(2), Span(millis(100)..=secs(60));
        /// How often a confirmable message is sent again (`MAX_RETRANSMIT`).
        max_retransmit: u8 = 4, Count(0..=10);
        /// Lifetime of a registration when the device names none.
        default_lifetime: Duration = hours(25), Span(secs(60)..=hours(24 * 365));
        /// Longest lifetime of a registration; one that asks for more gets this.
        max_lifetime: Duration = hours(24 * 30), Span(secs(60)..=hours(24 * 365));
        /// Devices that may be registered; each costs about 600 bytes.
        max_registrations: usize = 100_000, Count(1..=10_000_000);
        /// Requests that wait for a disk, the registry or a rate; one more is told to come again.
        max_requests: usize = 2_000, Count(1..=1_000_000);
        /// Received messages that are remembered for their duplicates; each costs about 150 bytes.
        max_remembered: usize = 200_000, Count(100..=10_000_000);
        /// Bytes of answers that are kept for duplicates.
        max_reply_bytes: usize = 16 * MIB, Size(64 * 1024..=4096 * MIB);
        /// Datagrams a second from a network (IPv4 /24, IPv6 /56) that is no registered device's; more are dropped.
        stranger_rate: u32 = 2_000, Count(1..=1_000_000);
        /// Networks whose datagrams are counted; each costs about 60 bytes.
        max_networks: usize = 10_000, Count(16..=1_000_000);
        /// Wake-ups of a sleeping device in a row that may bring no byte of its delivery; then the attempt fails.
        max_idle_wakeups: u32 = 10, Count(1..=10_000);
    }
}

section! {
    /// CoAP over DTLS 1.2. Devices come with their secret as a pre-shared key, under any of their names. What `[coap]`
    /// says of messages and requests holds here too.
    pub struct CoapsConfig in "coaps" {
        /// Address of the listener; the port of the standard is 5684.
        listen: Option<SocketAddr> = None, Optional(Address, "off");
        /// PEM file with the gateway's certificate chain (ECDSA P-256 or P-384); needs `key`. With it devices may come
        /// with certificates of their own too, which are found by their fingerprint. SECURITY.md says what to think of
        /// first.
        certificate: Option<PathBuf> = None, Optional(FilePath, "");
        /// PEM file with the private key of `certificate`.
        key: Option<PathBuf> = None, Optional(FilePath, "");
        /// Whether `TLS_PSK_WITH_AES_128_CBC_SHA` is spoken, for devices that know nothing better.
        legacy_suites: bool = false, Flag;
        /// How long the gateway waits for the answer to its part of a handshake at first; doubled for each repetition.
        handshake_timeout: Duration = secs(10), Span(millis(100)..=secs(60));
        /// How long a handshake may take in all.
        max_handshake_duration: Duration = secs(60), Span(secs(1)..=secs(600));
        /// Handshakes at the same time; each costs about 14 KiB.
        max_handshakes: usize = 4_096, Count(1..=1_000_000);
        /// Handshakes that are begun in a second. More are left unanswered: their devices ask again.
        max_handshakes_per_second: u32 = 500, Count(1..=100_000);
        /// Sessions; each costs about 1 KiB at rest.
        max_sessions: usize = 100_000, Count(1..=10_000_000);
        /// Bytes that sessions take; above it the one at rest for longest is frozen, or forgotten.
        max_session_bytes: usize = 1024 * MIB, Size(MIB..=1024 * 1024 * MIB);
        /// How long a session is at rest before it is frozen.
        freeze_after: Duration = secs(30), Span(secs(1)..=hours(24));
        /// How long a session lasts without a message. Its device makes a new one then.
        session_lifetime: Duration = hours(24 * 30), Span(secs(60)..=hours(24 * 365));
        /// Largest datagram that is sent, in bytes, without the headers of IP and UDP.
        mtu: u16 = 1_232, Count(256..=1_452);
    }
}
