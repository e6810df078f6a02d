//! Settings of retained messages.

use super::{
    section::section,
    setting::{Count, Size},
    units::MIB,
};

section! {
    /// Messages that are kept for whoever subscribes later, one for each device and topic.
    pub struct RetainedConfig in "retained" {
        /// Topics of one device that hold one.
        max_per_device: usize = 100, Count(1..=10_000);
        /// Retained messages of the devices of one product. At a limit a message that wants to be kept is
        /// refused: an MQTT 5 client is told 0x97, an older one's is dropped and counted.
        max_per_product: usize = 20_000, Count(1..=10_000_000);
        /// Bytes on the disk that they may hold.
        max_bytes_per_product: u64 = 64 << 20, Size(1 << 20..=1 << 40);
        /// Retained messages over all products; each costs about 200 bytes of memory.
        max_total_messages: usize = 100_000, Count(1..=10_000_000);
        /// Bytes on the disk that they may hold.
        max_total_bytes: u64 = 512 * MIB as u64, Size(1 << 20..=1 << 40);
    }
}
