//! Transfers: a resource on its way to one device, in messages and in chunks.
//!
//! [`message`] is what the two sides say in JSON, [`window`] decides which bytes go next and how
//! far the device's acknowledgements reach, [`ranges`] remembers what has arrived. [`upload`] is the
//! same in the other direction.

pub mod message;
pub mod ranges;
pub mod upload;
pub mod window;

/// The digest of a resource is also kept for each part of this many bytes: four default chunks.
pub const PART_BYTES: u64 = 61_440;
/// The default chunk: 15 CoAP blocks of 1,024 bytes, which with its MQTT header fills one TLS
/// record of 16,384 bytes and no more.
pub const DEFAULT_CHUNK_BYTES: u32 = 15_360;
/// The smallest chunk that a device may ask for, in bytes.
pub const MIN_CHUNK_BYTES: u32 = 256;
/// The largest chunk that a device may ask for, in bytes.
pub const MAX_CHUNK_BYTES: u32 = 131_072;
