//! Settings of the way to stop.

use std::time::Duration;

use super::{
    section::section,
    setting::{Count, Flag, Optional, Span, Text},
    units::secs,
};

section! {
    /// What happens between a signal and the end.
    pub struct ShutdownConfig in "shutdown" {
        /// Not ready, but still serving: the time a load balancer needs to notice.
        drain_delay: Duration = secs(0), Span(secs(0)..=secs(600));
        /// Time for devices to be told, cursors to be stored and files to be closed; then the hard stop.
        grace: Duration = secs(30), Span(secs(1)..=secs(3600));
        /// Devices disconnected per second, so that they do not all come back at once.
        disconnect_rate: u32 = 2000, Count(1..=1_000_000);
        /// Where MQTT 5 clients are told to go when this node stops: with 0x9C, use another server, instead of 0x8B, as
        /// `host`, `host:port`, or several with a blank between.
        server_reference: Option<String> = None, Optional(Text(255), "");
        /// Whether that is for good: 0x9D, server moved, instead of 0x9C.
        server_moved: bool = false, Flag;
    }
}
