//! The chunk cache: the bytes that all devices share.
//!
//! Blobs are read in segments of [`SEGMENT_BYTES`]; a chunk is a slice of a segment, never a copy.
//! Devices that want a segment that is being read wait for that one reading. The cache is bounded
//! by weight in bytes; what is pushed out lives on only as long as a socket still holds a slice.

use bytes::Bytes;
use prometheus::Histogram;
use quick_cache::{Weighter, sync::Cache};

use super::content::{Content, SEGMENT_BYTES};
use crate::{
    model::{BlobId, Id},
    store::{StoreError, blobs::BlobStore},
    telemetry::metrics::Metrics,
};

/// Segments of blobs in memory, shared by every device and both ways of delivery.
#[derive(Debug)]
pub(super) struct ChunkCache {
    segments: Cache<Key, Bytes, ByWeight>,
    blobs: BlobStore,
    seconds: Histogram,
    metrics: Metrics,
}

/// Which segment: of which resource and version, counted from 0.
type Key = (Id, u32, u32);

#[derive(Debug, Clone)]
struct ByWeight;

impl Weighter<Key, Bytes> for ByWeight {
    fn weight(&self, _key: &Key, segment: &Bytes) -> u64 {
        u64::try_from(segment.len()).unwrap_or(u64::MAX).max(1)
    }
}

impl ChunkCache {
    /// A cache of at most `capacity_bytes` over `blobs`.
    pub(super) fn new(blobs: BlobStore, capacity_bytes: usize, metrics: Metrics) -> Self {
        let weight = u64::try_from(capacity_bytes).unwrap_or(u64::MAX);
        let segments = usize::try_from(weight / SEGMENT_BYTES)
            .unwrap_or(usize::MAX)
            .max(16);
        Self {
            segments: Cache::with_weighter(segments, weight, ByWeight),
            seconds: metrics.store_seconds("blobs", "read"),
            blobs,
            metrics,
        }
    }

    /// Bytes from `offset` on: at most `max`, fewer at the end of a segment or of the content;
    /// `None` where the segment is not in memory.
    pub(super) fn cached(&self, content: &Content, offset: u64, max: usize) -> Option<Bytes> {
        if offset >= content.size {
            return Some(Bytes::new());
        }
        let segment = self.segments.get(&key(content, offset / SEGMENT_BYTES))?;
        self.metrics.chunk_cache.hits.inc();
        Some(slice(&segment, offset % SEGMENT_BYTES, max))
    }

    /// The same bytes, read where they are not in memory.
    ///
    /// # Errors
    /// [`StoreError`] where the blob cannot be read; the next call tries again.
    pub(super) async fn read(
        &self,
        content: &Content,
        offset: u64,
        max: usize,
    ) -> Result<Bytes, StoreError> {
        if let Some(bytes) = self.cached(content, offset, max) {
            return Ok(bytes);
        }
        let index = offset / SEGMENT_BYTES;
        let load = async {
            self.metrics.chunk_cache.misses.inc();
            let start = index * SEGMENT_BYTES;
            let end = (start + SEGMENT_BYTES).min(content.size);
            self.read_blob(&content.blob, start, end).await
        };
        let segment = self
            .segments
            .get_or_insert_async(&key(content, index), load)
            .await?;
        self.metrics
            .chunk_cache
            .bytes
            .set(i64::try_from(self.segments.weight()).unwrap_or(i64::MAX));
        Ok(slice(&segment, offset % SEGMENT_BYTES, max))
    }

    async fn read_blob(&self, blob: &BlobId, start: u64, end: u64) -> Result<Bytes, StoreError> {
        let _timed = self.seconds.start_timer();
        let bytes = self.blobs.read(blob, start..end).await?;
        // A blob that is shorter than its record says is damage, never a short answer.
        if u64::try_from(bytes.len()).ok() == Some(end - start) {
            Ok(bytes)
        } else {
            Err(StoreError::Corrupt {
                column: "blob",
                reason: "shorter than its record".to_owned(),
            })
        }
    }
}

fn key(content: &Content, index: u64) -> Key {
    let number = u32::try_from(index).unwrap_or(u32::MAX);
    (content.resource_id, content.version, number)
}

/// At most `max` bytes of a segment from `start` on.
fn slice(segment: &Bytes, start: u64, max: usize) -> Bytes {
    let start = usize::try_from(start).map_or(segment.len(), |start| start.min(segment.len()));
    segment.slice(start..start.saturating_add(max).min(segment.len()))
}
