//! Settings of the quota of resources.

use super::{
    section::section,
    setting::{Count, Size},
};

section! {
    /// The quota of resources; current versions count, and it is checked before a body is read.
    pub struct ResourceConfig in "resources" {
        /// Largest resource.
        max_size_bytes: u64 = 1 << 30, Size(1..=1 << 40);
        /// Most resources.
        max_count: u64 = 1000, Count(1..=1_000_000);
        /// Most bytes over all resources.
        max_total_bytes: u64 = 1 << 30, Size(1..=1 << 50);
    }
}
