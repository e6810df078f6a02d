//! Resources: named bytes that are delivered to devices, immutable within a version.

use bytes::Bytes;
use headgate_protocol::identity::{ProductId, ResourceName};

use crate::model::{blob::BlobId, id::Id, time::Millis};

/// A resource as its current version makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its id.
    pub id: Id,
    /// The product whose devices it is for.
    pub product_id: ProductId,
    /// Its name, unique in its product.
    pub name: ResourceName,
    /// Up to 100 characters.
    pub description: String,
    /// The current version, counted from 1.
    pub version: u32,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
    /// MD5 of the bytes.
    pub md5: [u8; 16],
    /// When it was made.
    pub created_at: Millis,
    /// When it was last changed.
    pub updated_at: Millis,
}

/// One version of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceVersion {
    /// The resource.
    pub resource_id: Id,
    /// Its number, counted from 1.
    pub version: u32,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
    /// MD5 of the bytes.
    pub md5: [u8; 16],
    /// SHA-256 of each 61,440 bytes, one after the other.
    pub part_digests: Bytes,
    /// Where the bytes are.
    pub blob: BlobId,
    /// When it was made.
    pub created_at: Millis,
}
