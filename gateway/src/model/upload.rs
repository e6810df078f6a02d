//! Uploads: what a device sent, or is sending.

use headgate_protocol::identity::{DeviceId, NodeId, ProductId};

use crate::model::{actor::UnknownName, blob::BlobId, id::Id, time::Millis};

/// What one device sent, or announced and is sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its id; on the wire it is the `transfer`.
    pub id: Id,
    /// The device that sends it.
    pub device_id: DeviceId,
    /// The device's product when it was announced.
    pub product_id: ProductId,
    /// The device's id in that product.
    pub node_id: NodeId,
    /// What the device calls it; at most one of a name is stored for a device.
    pub name: String,
    /// Counted from 1 for each name of a device; 0 while it is not stored.
    pub version: u32,
    /// Bytes, as announced.
    pub size: u64,
    /// MD5, as announced or as stored.
    pub md5: Option<[u8; 16]>,
    /// SHA-256, as announced or as stored.
    pub sha256: Option<[u8; 32]>,
    /// Where its bytes are, once they are stored.
    pub blob: Option<BlobId>,
    /// When it was announced.
    pub created_at: Millis,
    /// When it was stored.
    pub finished_at: Option<Millis>,
}

/// Whether an upload's bytes are all there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadPhase {
    /// They come, or are being checked.
    Receiving,
    /// They are stored and are what was announced.
    Stored,
}

impl UploadPhase {
    /// Every phase.
    pub const ALL: &'static [Self] = &[Self::Receiving, Self::Stored];

    /// The phase's name as it is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Stored => "stored",
        }
    }
}

impl std::str::FromStr for UploadPhase {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let phase = Self::ALL.iter().find(|phase| phase.as_str() == text);
        phase.copied().ok_or(UnknownName)
    }
}

impl Upload {
    /// Whether its bytes are all there.
    pub const fn phase(&self) -> UploadPhase {
        if self.blob.is_some() {
            UploadPhase::Stored
        } else {
            UploadPhase::Receiving
        }
    }
}
