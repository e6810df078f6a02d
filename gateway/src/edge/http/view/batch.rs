//! Batches of devices and their rows, as the API shows them.

use headgate_protocol::identity::DeviceId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    edge::http::schema,
    model::{BatchState, DeviceBatch, Id, Millis, RowState},
    service::registration::RowResult,
};

/// A file of devices and how far its registration is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceBatch)]
pub struct BatchView {
    /// The batch's id.
    #[schema(schema_with = schema::id)]
    id: Id,
    /// How far it is. A batch whose rows failed is `finished`; one whose file cannot be read any more is `failed`.
    #[schema(schema_with = schema::batch_state)]
    state: BatchState,
    /// SHA-256 of the file.
    #[schema(schema_with = schema::hex)]
    sha256: String,
    /// Bytes of the file.
    size: u64,
    /// Rows of the file.
    total: u32,
    /// Rows that are done.
    done: u32,
    /// How they ended.
    counts: RowCountsView,
    /// Why the batch failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Who sent the file.
    created_by: String,
    /// When it was there.
    #[schema(schema_with = schema::time)]
    created_at: Millis,
    /// When its first row was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    started_at: Option<Millis>,
    /// When its last row was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    finished_at: Option<Millis>,
    /// Until when its result shows the secrets that were made; absent: it is not finished, or was confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::time)]
    secrets_until: Option<Millis>,
}

/// How many rows ended how.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RowCounts)]
pub struct RowCountsView {
    /// Devices that were registered.
    created: u32,
    /// Devices that were there as their rows say.
    unchanged: u32,
    /// Rows that cannot be used.
    failed: u32,
}

impl From<DeviceBatch> for BatchView {
    fn from(batch: DeviceBatch) -> Self {
        Self {
            id: batch.id,
            state: batch.state,
            sha256: hex::encode(batch.sha256),
            size: batch.size,
            total: batch.total,
            done: batch.next_row,
            counts: RowCountsView {
                created: batch.counts.created,
                unchanged: batch.counts.unchanged,
                failed: batch.counts.failed,
            },
            error: batch.error,
            created_by: batch.created_by,
            created_at: batch.created_at,
            started_at: batch.started_at,
            finished_at: batch.finished_at,
            secrets_until: batch.secrets_until,
        }
    }
}

/// What came of one row.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceBatchRow)]
pub struct BatchRowView {
    /// Place among the rows of the file, from 0.
    index: u32,
    /// Line of the file that it begins on, from 1.
    line: u32,
    /// How it ended.
    #[schema(schema_with = schema::row_state)]
    state: RowState,
    /// The product as given.
    product_id: String,
    /// The node id as given.
    node_id: String,
    /// The device; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    device_id: Option<DeviceId>,
    /// The secret that was made for it, for operators, until the batch is confirmed or the secret is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    /// Why the row cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<BatchRowErrorView>,
}

/// Why a row cannot be used.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceBatchRowError)]
pub struct BatchRowErrorView {
    /// `malformed_row`, `invalid_field`, `unknown_product`, `duplicate`, `already_exists` or `alias_taken`.
    code: &'static str,
    /// What is wrong, for a person.
    message: String,
}

impl From<RowResult> for BatchRowView {
    fn from(result: RowResult) -> Self {
        let row = result.row;
        Self {
            index: row.index,
            line: row.line,
            state: row.state,
            product_id: row.product_id,
            node_id: row.node_id,
            device_id: row.device_id,
            secret: result.secret.map(|secret| secret.reveal().to_owned()),
            error: row.error.map(|error| BatchRowErrorView {
                code: error.code.as_str(),
                message: error.message,
            }),
        }
    }
}
