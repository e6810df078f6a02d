//! Uploads as the API shows them.

use headgate_protocol::identity::{DeviceId, NodeId, ProductId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    edge::http::schema,
    model::{Id, Millis},
    service::upload::UploadStanding,
};

/// What a device sent, or is sending.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Upload)]
pub struct UploadView {
    /// Its id; on the wire it is the `transfer`.
    #[schema(schema_with = schema::id)]
    id: Id,
    /// The device that sends it.
    #[schema(value_type = String)]
    device_id: DeviceId,
    /// The device's product when it was announced.
    #[schema(value_type = String)]
    product_id: ProductId,
    /// The device's id in that product.
    #[schema(value_type = String)]
    node_id: NodeId,
    /// What the device calls it.
    name: String,
    /// Counted from 1 for each name of a device; 0 while it is not stored.
    version: u32,
    /// Whether it is whole.
    #[schema(schema_with = schema::upload_phase)]
    state: &'static str,
    /// Bytes, as announced.
    size: u64,
    /// Bytes that are there.
    received: u64,
    /// SHA-256, as announced or as stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::hex)]
    sha256: Option<String>,
    /// MD5, as announced or as stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::hex)]
    md5: Option<String>,
    /// When it was announced.
    #[schema(schema_with = schema::time)]
    created_at: Millis,
    /// When the last byte came, while it is not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    moved_at: Option<Millis>,
    /// When it was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    finished_at: Option<Millis>,
}

impl From<UploadStanding> for UploadView {
    fn from(standing: UploadStanding) -> Self {
        let upload = standing.upload;
        Self {
            state: upload.phase().as_str(),
            id: upload.id,
            device_id: upload.device_id,
            product_id: upload.product_id,
            node_id: upload.node_id,
            name: upload.name,
            version: upload.version,
            size: upload.size,
            received: standing.received,
            sha256: upload.sha256.map(hex::encode),
            md5: upload.md5.map(hex::encode),
            created_at: upload.created_at,
            moved_at: standing.moved_at,
            finished_at: upload.finished_at,
        }
    }
}
