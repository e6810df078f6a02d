//! Metrics of deliveries and uploads.
//!
//! Made by `Families::new`. Invariants: one child per field, looked up once.

use prometheus::{IntCounter, IntGauge};

use super::{
    super::labels::{UploadChunk, UploadEnd},
    maker::Maker,
};
use crate::model::DeliveryState;

/// `headgate_deliveries` by state.
#[derive(Debug)]
pub struct Deliveries {
    /// Waiting for their turn or their device.
    pub pending: IntGauge,
    /// The device was told.
    pub pushed: IntGauge,
    /// Bytes move.
    pub delivering: IntGauge,
    /// Done.
    pub delivered: IntGauge,
    /// Given up.
    pub failed: IntGauge,
}

impl Deliveries {
    /// The gauge of one state.
    pub const fn of(&self, state: DeliveryState) -> &IntGauge {
        match state {
            DeliveryState::Pending => &self.pending,
            DeliveryState::Pushed => &self.pushed,
            DeliveryState::Delivering => &self.delivering,
            DeliveryState::Delivered => &self.delivered,
            DeliveryState::Failed => &self.failed,
        }
    }
}

impl Deliveries {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let deliveries = make.gauges(
            "deliveries",
            "Deliveries: open ones, and those that ended since the start.",
            &["state"],
        );
        Self {
            pending: deliveries.with_label_values(&["pending"]),
            pushed: deliveries.with_label_values(&["pushed"]),
            delivering: deliveries.with_label_values(&["delivering"]),
            delivered: deliveries.with_label_values(&["delivered"]),
            failed: deliveries.with_label_values(&["failed"]),
        }
    }
}

/// `headgate_delivery_chunks_total{protocol="mqtt"}` by result.
#[derive(Debug)]
pub struct DeliveryChunks {
    /// Handed to the socket.
    pub sent: IntCounter,
    /// Acknowledged by the device.
    pub acked: IntCounter,
    /// Sent again.
    pub resent: IntCounter,
    /// Blocks sent by CoAP.
    pub sent_coap: IntCounter,
    /// Blocks after which the device asked for the next.
    pub acked_coap: IntCounter,
    /// Blocks sent by CoAP again.
    pub resent_coap: IntCounter,
}

impl DeliveryChunks {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let chunks = make.counters(
            "delivery_chunks_total",
            "Chunks by what became of them.",
            &["protocol", "result"],
        );
        Self {
            sent: chunks.with_label_values(&["mqtt", "sent"]),
            acked: chunks.with_label_values(&["mqtt", "acked"]),
            resent: chunks.with_label_values(&["mqtt", "resent"]),
            sent_coap: chunks.with_label_values(&["coap", "sent"]),
            acked_coap: chunks.with_label_values(&["coap", "acked"]),
            resent_coap: chunks.with_label_values(&["coap", "resent"]),
        }
    }
}

/// The chunk cache that all devices share.
#[derive(Debug)]
pub struct ChunkCache {
    /// Bytes it holds.
    pub bytes: IntGauge,
    /// Chunks found in it.
    pub hits: IntCounter,
    /// Chunks read from the blob store.
    pub misses: IntCounter,
}

impl ChunkCache {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Self {
            bytes: make.gauge("chunk_cache_bytes", "Bytes in the chunk cache."),
            hits: make.counter("chunk_cache_hits_total", "Chunks found in the cache."),
            misses: make.counter("chunk_cache_misses_total", "Chunks read from the store."),
        }
    }
}

/// What devices upload.
#[derive(Debug)]
pub struct Uploads {
    ends: Vec<IntCounter>,
    chunks: Vec<IntCounter>,
    chunks_coap: Vec<IntCounter>,
    /// Bytes that came by MQTT and are stored.
    pub bytes_mqtt: IntCounter,
    /// Bytes that came by CoAP and are stored.
    pub bytes_coap: IntCounter,
    /// Bytes that came by HTTPS and are stored.
    pub bytes_files: IntCounter,
    /// Uploads in progress.
    pub open: IntGauge,
    /// Bytes of them that are in the spool.
    pub spool_bytes: IntGauge,
    /// Bytes in memory that wait for the spool.
    pub waiting_bytes: IntGauge,
    /// Writes that wait for a thread.
    pub waiting_writes: IntGauge,
    /// Uploads that are whole and wait to be checked.
    pub unchecked: IntGauge,
}

impl Uploads {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let ends = make.counters("uploads_total", "What became of uploads.", &["result"]);
        let chunks = make.counters(
            "upload_chunks_total",
            "Chunks of uploads.",
            &["protocol", "result"],
        );
        let bytes = make.counters(
            "upload_bytes_total",
            "Bytes of uploads in the spool.",
            &["protocol"],
        );
        let chunks = |protocol| {
            let of = |chunk: &UploadChunk| chunks.with_label_values(&[protocol, chunk.label()]);
            UploadChunk::ALL.iter().map(of).collect()
        };
        Self {
            ends: UploadEnd::ALL
                .iter()
                .map(|end| ends.with_label_values(&[end.label()]))
                .collect(),
            chunks: chunks("mqtt"),
            chunks_coap: chunks("coap"),
            bytes_coap: bytes.with_label_values(&["coap"]),
            bytes_mqtt: bytes.with_label_values(&["mqtt"]),
            bytes_files: bytes.with_label_values(&["files"]),
            open: make.gauge("uploads_open", "Uploads in progress."),
            spool_bytes: make.gauge("upload_spool_bytes", "Bytes of uploads in progress."),
            waiting_bytes: make.gauge(
                "upload_waiting_bytes",
                "Bytes of uploads in memory that wait for the disk.",
            ),
            waiting_writes: make.gauge("upload_waiting_writes", "Writes that wait for a thread."),
            unchecked: make.gauge(
                "uploads_unchecked",
                "Uploads that are whole and wait to be checked.",
            ),
        }
    }

    /// Uploads that came to this end.
    pub fn ended(&self, end: UploadEnd) -> &IntCounter {
        &self.ends[end.index()]
    }

    /// Chunks that this became of.
    pub fn chunks(&self, chunk: UploadChunk) -> &IntCounter {
        &self.chunks[chunk.index()]
    }

    /// Blocks by CoAP that this became of.
    pub fn chunks_coap(&self, chunk: UploadChunk) -> &IntCounter {
        &self.chunks_coap[chunk.index()]
    }
}
