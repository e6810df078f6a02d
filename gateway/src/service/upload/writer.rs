//! Chunks on their way to the disk: few threads, one call for all that a session gathered.
//!
//! A session hands over what one read of its socket brought, and hands over more when it has heard of that. So at
//! most one write of each session waits, and what waits in memory is bounded by windows and by
//! `uploads.max_waiting_bytes`.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use headgate_protocol::{
    identity::DeviceId,
    transfer::{
        message::TransferErrorCode,
        upload::{ChunkError, check_chunk},
    },
};
use parking_lot::Mutex;

use super::{
    ChunkSink, Inner, Refusal, UploadService,
    live::{LiveUpload, Phase},
    now,
};
use crate::{
    model::Id,
    store::spool::{MAX_RANGES, SpoolState},
    telemetry::metrics::UploadChunk,
};

/// The writes that wait and the threads that carry them out.
#[derive(Debug)]
pub(super) struct Writer {
    threads: usize,
    queue: Mutex<Queue>,
    waiting_bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Job>,
    running: usize,
}

#[derive(Debug)]
struct Job {
    chunks: Vec<PendingChunk>,
    sink: Arc<dyn ChunkSink>,
}

/// A chunk in memory that is to be written; what it takes of the common bound is given back when it is dropped.
#[derive(Debug)]
pub struct PendingChunk {
    upload: Arc<LiveUpload>,
    offset: u64,
    bytes: Bytes,
    inner: Arc<Inner>,
}

impl PendingChunk {
    /// Bytes of it.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none; never so.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Drop for PendingChunk {
    fn drop(&mut self) {
        let bytes = self.bytes.len();
        let waiting = &self.inner.writer.waiting_bytes;
        waiting.fetch_sub(bytes, Ordering::Relaxed);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.inner.metrics.uploads.waiting_bytes.sub(bytes);
    }
}

impl Writer {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads,
            queue: Mutex::default(),
            waiting_bytes: AtomicUsize::new(0),
        }
    }
}

impl UploadService {
    /// The upload in progress that `device` means by `transfer`; `None` where it is stored already.
    ///
    /// # Errors
    /// [`Refusal`] where there is none: never, no more, or not of this device.
    pub fn find(
        &self,
        device: &DeviceId,
        transfer: &str,
    ) -> Result<Option<Arc<LiveUpload>>, Refusal> {
        let id: Id = transfer.parse().map_err(|_| Refusal::UNKNOWN)?;
        if let Some(upload) = self.inner.book.get(id) {
            return if upload.device_id == *device {
                Ok(Some(upload))
            } else {
                Err(Refusal::UNKNOWN)
            };
        }
        match self.inner.remembered.get(&id) {
            Some((owner, ended)) if owner == *device && ended.code.code() == 0 => Ok(None),
            _ => Err(Refusal::UNKNOWN),
        }
    }

    /// Whether too much waits for the disk: whoever can is to be told to send later.
    pub fn is_over_budget(&self) -> bool {
        self.inner.writer.waiting_bytes.load(Ordering::Relaxed)
            >= self.inner.config.max_waiting_bytes
    }

    /// Bytes that one device may have unanswered.
    pub fn window_bytes(&self) -> usize {
        self.inner.config.window_bytes
    }

    /// Takes a chunk into memory, to be handed over with [`UploadService::write`].
    ///
    /// # Errors
    /// [`Refusal`] where it belongs nowhere; nothing has changed then.
    pub fn gather(
        &self,
        upload: &Arc<LiveUpload>,
        offset: u64,
        bytes: Bytes,
    ) -> Result<PendingChunk, Refusal> {
        self.inner
            .check(upload, upload.offset(), offset, bytes.len())
            .inspect_err(|_| self.count(UploadChunk::Refused))?;
        let waiting = &self.inner.writer.waiting_bytes;
        waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        let len = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        self.inner.metrics.uploads.waiting_bytes.add(len);
        Ok(PendingChunk {
            upload: Arc::clone(upload),
            offset,
            bytes,
            inner: Arc::clone(&self.inner),
        })
    }

    /// Takes note of a chunk that was not gathered.
    pub fn count(&self, chunk: UploadChunk) {
        self.inner.metrics.uploads.chunks(chunk).inc();
    }

    /// Writes chunks as soon as there is a thread; `sink` hears what became of them.
    pub fn write(&self, chunks: Vec<PendingChunk>, sink: Arc<dyn ChunkSink>) {
        let writer = &self.inner.writer;
        let begin = {
            let mut queue = writer.queue.lock();
            queue.waiting.push_back(Job { chunks, sink });
            let begin = queue.running < writer.threads;
            queue.running += usize::from(begin);
            begin
        };
        self.inner.metrics.uploads.waiting_writes.inc();
        if begin {
            let inner = Arc::clone(&self.inner);
            // It ends when nothing waits; the owner waits for it at the end.
            drop(
                self.inner
                    .shutdown
                    .spawn_blocking(move || inner.write_all()),
            );
        }
    }
}

impl Inner {
    /// Carries out what waits, until nothing does.
    fn write_all(self: &Arc<Self>) {
        loop {
            let job = {
                let mut queue = self.writer.queue.lock();
                let job = queue.waiting.pop_front();
                if job.is_none() {
                    queue.running -= 1;
                    if queue.waiting.capacity() > 1_024 {
                        queue.waiting.shrink_to(64);
                    }
                }
                job
            };
            let Some(job) = job else { return };
            self.metrics.uploads.waiting_writes.dec();
            let outcomes = self.carry_out(&job.chunks);
            // Gone before the sink hears, so that it finds the room that they took.
            drop(job.chunks);
            job.sink.chunks_written(outcomes);
        }
    }

    fn carry_out(self: &Arc<Self>, chunks: &[PendingChunk]) -> Vec<Result<(), Refusal>> {
        let timed = self.write_seconds.start_timer();
        let mut outcomes = Vec::with_capacity(chunks.len());
        for of_one in chunks.chunk_by(|a, b| Arc::ptr_eq(&a.upload, &b.upload)) {
            let Some(first) = of_one.first() else {
                continue;
            };
            let upload = &first.upload;
            let written = upload.with_file(|state| self.write_chunks(upload, state, of_one));
            for outcome in &written {
                let counted = match outcome {
                    Ok(true) => UploadChunk::Stored,
                    Ok(false) => UploadChunk::Duplicate,
                    Err(_) => UploadChunk::Refused,
                };
                self.metrics.uploads.chunks(counted).inc();
            }
            outcomes.extend(written.into_iter().map(|outcome| outcome.map(drop)));
            if upload.take_whole() {
                self.enqueue(Arc::clone(upload));
            }
        }
        drop(timed);
        outcomes
    }

    /// Writes chunks of one upload; `true` for those that are new.
    fn write_chunks(
        &self,
        upload: &LiveUpload,
        state: &mut SpoolState,
        chunks: &[PendingChunk],
    ) -> Vec<Result<bool, Refusal>> {
        let mut outcomes = Vec::with_capacity(chunks.len());
        let mut fresh = Vec::with_capacity(chunks.len());
        let mut have = state.have().clone();
        for chunk in chunks {
            let end = chunk.offset.saturating_add(chunk.bytes.len() as u64);
            let outcome = self
                .check(upload, have.low(), chunk.offset, chunk.bytes.len())
                .and_then(|()| {
                    if have.contains(chunk.offset, end) {
                        return Ok(false);
                    }
                    let mut with = have.clone();
                    with.insert(chunk.offset, end);
                    if with.beyond().len() > MAX_RANGES {
                        return Err(TOO_MANY_GAPS);
                    }
                    have = with;
                    Ok(true)
                });
            if outcome == Ok(true) {
                fresh.push((chunk.offset, chunk.bytes.clone()));
            }
            outcomes.push(outcome);
        }
        if let Err(refusal) = self.spool(upload, state, &fresh) {
            for outcome in outcomes.iter_mut().filter(|outcome| **outcome == Ok(true)) {
                *outcome = Err(refusal);
            }
        } else {
            let bytes: usize = fresh.iter().map(|(_, bytes)| bytes.len()).sum();
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            self.metrics.uploads.bytes_mqtt.inc_by(bytes);
        }
        outcomes
    }

    /// Writes to the spool and takes note of it; what failed has changed nothing.
    pub(super) fn spool(
        &self,
        upload: &LiveUpload,
        state: &mut SpoolState,
        fresh: &[(u64, Bytes)],
    ) -> Result<(), Refusal> {
        if fresh.is_empty() {
            return Ok(());
        }
        if !self.has_room(0) {
            return Err(Refusal::NO_SPACE);
        }
        if let Err(error) = self.spool.write(upload.id, upload.size, state, fresh) {
            tracing::error!(%error, upload = %upload.id, device_id = %upload.device_id, "an upload could not be written");
            return Err(match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    Refusal::NO_SPACE
                }
                _ => Refusal::busy("the upload cannot be written now", 10),
            });
        }
        self.spend_room(fresh.iter().map(|(_, bytes)| bytes.len() as u64).sum());
        let new = upload.note(state, now());
        self.metrics.uploads.spool_bytes.add(new);
        Ok(())
    }

    /// Whether a chunk may come now.
    pub(super) fn check(
        &self,
        upload: &LiveUpload,
        low: u64,
        offset: u64,
        len: usize,
    ) -> Result<(), Refusal> {
        match upload.phase() {
            // While it is being checked a chunk is there already, with everything else.
            Phase::Receiving | Phase::Checking | Phase::Postponed => {}
            Phase::Putting => return Err(Refusal::busy("the upload comes over HTTPS now", 10)),
            Phase::Closed => return Err(Refusal::UNKNOWN),
        }
        let window = u64::try_from(self.config.window_bytes).unwrap_or(u64::MAX);
        check_chunk(upload.size, low, window, offset, len).map_err(|error| match error {
            ChunkError::Size => Refusal::new(
                TransferErrorCode::BadRequest,
                "a chunk has 1 to 131072 bytes",
            ),
            ChunkError::BeyondEnd => Refusal::new(
                TransferErrorCode::OutOfRange,
                "the chunk reaches beyond the announced size",
            ),
            ChunkError::BeyondWindow => Refusal::new(
                TransferErrorCode::OutOfRange,
                "the chunk begins beyond the window",
            ),
        })
    }
}

const TOO_MANY_GAPS: Refusal = Refusal::new(
    TransferErrorCode::OutOfRange,
    "too many gaps before the chunk",
);
