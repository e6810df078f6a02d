//! Settings of CoAP.

use std::{net::SocketAddr, time::Duration};

use super::{
    section::section,
    setting::{Address, Count, Optional, Size, Span},
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
