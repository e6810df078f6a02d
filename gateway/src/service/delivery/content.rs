//! The bytes of one version of one resource, as every delivery of it shares them.

use bytes::Bytes;
use headgate_protocol::{
    identity::ResourceName,
    transfer::{DEFAULT_CHUNK_BYTES, PART_BYTES},
};

use crate::model::{BlobId, Id};

/// Bytes of a cached segment: 64 default chunks and 16 digested parts, so that neither of them
/// ever straddles two segments.
pub(super) const SEGMENT_BYTES: u64 = 16 * PART_BYTES;

const _: () = assert!(
    SEGMENT_BYTES.is_multiple_of(DEFAULT_CHUNK_BYTES as u64),
    "a default chunk lies in one segment"
);

/// One version of a resource: immutable, shared by all deliveries of it.
#[derive(Debug)]
pub struct Content {
    /// The resource.
    pub resource_id: Id,
    /// Which version of it.
    pub version: u32,
    /// The resource's name when its first delivery was made.
    pub name: ResourceName,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of all bytes.
    pub sha256: [u8; 32],
    /// MD5 of all bytes.
    pub md5: [u8; 16],
    /// The concatenated SHA-256 of every [`PART_BYTES`] bytes.
    pub part_digests: Bytes,
    /// Where the bytes are.
    pub blob: BlobId,
}
