//! Settings of how fast clients may publish.

use std::time::Duration;

use super::{
    section::section,
    setting::{Count, Optional, Size, Span},
    units::{KIB, millis, secs},
};

section! {
    /// How fast clients may publish by MQTT. Whoever is faster is not read from for a while: nothing is dropped, and
    /// the keep-alive does not run meanwhile.
    pub struct RatesConfig in "rates" {
        /// Messages that one device may publish per second, chunks of uploads included.
        device_messages: Option<u32> = None, Optional(Count(1..=1_000_000), "off");
        /// Bytes of payload and topic that one device may publish per second.
        device_bytes: Option<usize> = None, Optional(Size(KIB..=1 << 40), "off");
        /// Messages that all devices and applications may publish per second on this node.
        node_messages: Option<u32> = None, Optional(Count(1..=100_000_000), "off");
        /// Bytes of payload and topic that all devices and applications may publish per second on this node.
        node_bytes: Option<usize> = None, Optional(Size(KIB..=1 << 40), "off");
        /// What may come at once, as the time in which it would be due.
        burst: Duration = secs(2), Span(millis(10)..=secs(60));
    }
}
