//! Uploads: what devices send, taken in parts, in any order within a window, and kept once it is whole.
//!
//! A device announces size, name and digests and is told where to go on. Its bytes go to a file of the spool, by
//! chunks over MQTT or by `PUT` over HTTPS; when all are there they are read once, checked, and become a blob.
//! Invariants: what a device is told to be stored survives the death of the process; an upload is stored only when
//! its bytes are what was announced, and then takes the place of the one of its name; one that is not leaves
//! nothing; disks are touched on threads for blocking work only.

mod announce;
mod blocks;
mod book;
mod check;
mod hold;
mod journal;
mod live;
mod put;
mod upkeep;
mod view;
mod writer;

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use headgate_protocol::{
    identity::DeviceId,
    transfer::{
        message::{TransferError, TransferErrorCode},
        upload::UploadResultCode,
    },
};
use parking_lot::Mutex;
use prometheus::Histogram;
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, mpsc};

pub use self::{
    announce::{Created, Uploader},
    live::LiveUpload,
    put::{Put, PutRefusal, UploadGrant},
    view::{UploadError, UploadStanding},
    writer::PendingChunk,
};
use self::{
    book::Book,
    journal::{Journal, journal},
    writer::Writer,
};
use crate::{
    config::UploadConfig,
    model::{BlobId, Id, Millis},
    service::link::FileUrls,
    shutdown::Shutdown,
    store::{
        StoreError,
        blobs::BlobStore,
        registry::{Registry, UploadChange, UploadLimits},
        spool::Spool,
    },
    telemetry::metrics::{Metrics, UploadEnd},
};

/// Ends that are remembered, for devices that did not hear of them.
const REMEMBERED: usize = 10_000;
/// How long a look at the free room of the disk holds.
const ROOM_HOLDS: Duration = Duration::from_secs(1);

/// How the service reaches devices that are connected to this node.
pub trait UploadLinks: Send + Sync + fmt::Debug {
    /// Tells the device how an upload of its ended, if it is here. Must not block.
    fn upload_ended(&self, device: &DeviceId, ended: Ended);
}

/// Hears what became of chunks that were handed over. Must not block.
pub trait ChunkSink: Send + Sync + fmt::Debug {
    /// The outcomes of one call of [`UploadService::write`], in the order of its chunks.
    fn chunks_written(&self, outcomes: Vec<Result<(), Refusal>>);
}

/// How an upload ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The transfer.
    pub transfer: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// How.
    pub code: UploadResultCode,
}

/// Why a request of a device was not served; told to it as `transfer_error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of error.
    pub code: TransferErrorCode,
    /// One sentence.
    pub message: &'static str,
    /// Seconds after which asking again makes sense.
    pub retry_after: Option<u32>,
}

impl Refusal {
    const UNKNOWN: Self = Self::new(
        TransferErrorCode::UnknownTransfer,
        "no such upload of this device is open",
    );
    const NO_SPACE: Self = Self {
        code: TransferErrorCode::NoSpace,
        message: "the gateway has no room to store it",
        retry_after: Some(60),
    };

    const fn new(code: TransferErrorCode, message: &'static str) -> Self {
        Self {
            code,
            message,
            retry_after: None,
        }
    }

    const fn busy(message: &'static str, retry_after: u32) -> Self {
        Self {
            code: TransferErrorCode::Busy,
            message,
            retry_after: Some(retry_after),
        }
    }

    /// The message that tells the device, about the transfer as it named it.
    pub fn into_message(self, transfer: &str) -> TransferError {
        TransferError {
            transfer: transfer.chars().take(32).collect(),
            code: self.code,
            message: self.message.to_owned(),
            retry_after: self.retry_after,
        }
    }
}

/// What the service stands on.
#[derive(Debug)]
pub struct UploadParts {
    /// The record of uploads.
    pub registry: Registry,
    /// Where whole ones go.
    pub blobs: BlobStore,
    /// Makes addresses of files.
    pub urls: FileUrls,
    /// Limits and sizes.
    pub config: UploadConfig,
    /// Where it is counted.
    pub metrics: Metrics,
}

/// The service; a clone is another handle on the same.
#[derive(Clone)]
pub struct UploadService {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    blobs: BlobStore,
    spool: Spool,
    urls: FileUrls,
    config: UploadConfig,
    metrics: Metrics,
    book: Book,
    writer: Writer,
    journal: Journal,
    /// Whole uploads on their way to be checked; has room for all that may be open.
    unchecked: mpsc::Sender<Arc<LiveUpload>>,
    /// How uploads ended lately, by their id: a device that asks again is told again.
    remembered: Cache<Id, (DeviceId, Ended)>,
    /// Threads that `PUT`s may hold.
    put_threads: Semaphore,
    /// Free bytes of the disk, and when that was.
    room: Mutex<Option<(Instant, u64)>>,
    write_seconds: Histogram,
    links: OnceLock<Arc<dyn UploadLinks>>,
    shutdown: Shutdown,
}

impl fmt::Debug for UploadService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadService")
            .field("open", &self.inner.book.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl UploadService {
    /// The service over a spool directory, with every upload that was in progress where it stood; of several nodes each
    /// has those that devices come to it with. Its tasks run until `shutdown` stops.
    ///
    /// # Errors
    /// What the stores say.
    pub async fn start(
        parts: UploadParts,
        spool: &Path,
        shutdown: &Shutdown,
    ) -> Result<Self, StoreError> {
        let path = spool.display().to_string();
        let directory = spool.to_owned();
        let spool = blocking(shutdown, move || Spool::open(&directory))
            .await
            .map_err(|source| StoreError::Io { path, source })?;
        let (journal, recorder) = journal(parts.registry.clone(), &parts.metrics);
        let (unchecked, to_check) = mpsc::channel(parts.config.max_open.max(1));
        let service = Self {
            inner: Arc::new(Inner {
                registry: parts.registry,
                blobs: parts.blobs,
                spool,
                urls: parts.urls,
                book: Book::default(),
                writer: Writer::new(parts.config.writers),
                journal,
                unchecked,
                remembered: Cache::new(REMEMBERED),
                put_threads: Semaphore::new(parts.config.writers),
                room: Mutex::new(None),
                write_seconds: parts.metrics.store_seconds("spool", "write"),
                config: parts.config,
                metrics: parts.metrics,
                links: OnceLock::new(),
                shutdown: shutdown.clone(),
            }),
        };
        shutdown.spawn(recorder.run(shutdown.token().clone()));
        service.load().await?;
        service.spawn_checkers(to_check);
        let (upkeep, stop) = (service.clone(), shutdown.token().clone());
        shutdown.spawn(async move { stop.run_until_cancelled(upkeep.run_upkeep()).await });
        Ok(service)
    }

    /// Says how connected devices are reached; called once, before devices are let in.
    pub fn connect_links(&self, links: Arc<dyn UploadLinks>) {
        // A second call changes nothing: there is one table of sessions in a process.
        let _already = self.inner.links.set(links);
    }

    /// Takes up what was in progress, of several nodes only what is here, and removes files that no record names.
    async fn load(&self) -> Result<(), StoreError> {
        if self.inner.registry.is_shared() {
            return self.inner.load_own().await;
        }
        let rows = self.inner.registry.open_uploads().await?;
        let spool = self.inner.spool.clone();
        let loaded = blocking(&self.inner.shutdown, move || {
            let mut strays: std::collections::HashSet<Id> = spool.list()?.into_iter().collect();
            let mut found = Vec::with_capacity(rows.len());
            for row in rows {
                strays.remove(&row.id);
                let spooled = spool.load(row.id, row.size)?;
                found.push((row, spooled));
            }
            for stray in strays {
                spool.remove(stray)?;
            }
            Ok(found)
        })
        .await
        .map_err(|source| StoreError::Io {
            path: "spool".to_owned(),
            source,
        })?;
        let count = loaded.len();
        for (row, spooled) in loaded {
            let live = Arc::new(LiveUpload::new(row, spooled));
            self.inner.metrics.uploads.open.inc();
            self.inner.count_spooled(live.received());
            self.inner.book.insert(&live);
            if live.take_whole() {
                self.inner.enqueue(live);
            }
        }
        if count > 0 {
            tracing::info!(uploads = count, "uploads in progress loaded");
        }
        Ok(())
    }
}

impl Inner {
    fn limits(&self) -> UploadLimits {
        UploadLimits {
            max_count_per_device: self.config.max_count_per_device,
            max_bytes_per_device: self.config.max_bytes_per_device,
            max_count: self.config.max_count,
            max_total_bytes: self.config.max_total_bytes,
        }
    }

    /// Whether the disk has room for so many bytes more. Blocks for a moment, once a second.
    fn has_room(&self, bytes: u64) -> bool {
        let mut room = self.room.lock();
        let fresh = room.filter(|(at, _)| at.elapsed() < ROOM_HOLDS);
        let free = match fresh {
            Some((_, free)) => free,
            // A disk that cannot be asked says so when it is written to.
            None => self.spool.free_bytes().unwrap_or(u64::MAX),
        };
        *room = Some((fresh.map_or_else(Instant::now, |(at, _)| at), free));
        free >= self.config.min_free_bytes.saturating_add(bytes)
    }

    /// Takes note that so much of the room is gone.
    fn spend_room(&self, bytes: u64) {
        if let Some((_, free)) = &mut *self.room.lock() {
            *free = free.saturating_sub(bytes);
        }
    }

    fn count_spooled(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.uploads.spool_bytes.add(bytes);
    }

    /// Has a whole upload checked soon.
    fn enqueue(&self, upload: Arc<LiveUpload>) {
        self.metrics.uploads.unchecked.inc();
        if let Err(error) = self.unchecked.try_send(upload) {
            // Room for all that may be open, unless the limit was lowered: upkeep tries again.
            self.metrics.uploads.unchecked.dec();
            error.into_inner().postpone();
        }
    }

    /// Takes an upload off the books: nothing more is written to it, and its file goes.
    ///
    /// Says whether it was on them.
    fn close(self: &Arc<Self>, upload: &Arc<LiveUpload>, end: UploadEnd) -> bool {
        if !upload.close() {
            return false;
        }
        self.book.remove(upload);
        self.metrics.uploads.open.dec();
        self.metrics.uploads.ended(end).inc();
        let (inner, upload) = (Arc::clone(self), Arc::clone(upload));
        // Not waited for: a file that stays is removed at the next start.
        drop(self.shutdown.spawn_blocking(move || {
            let received = upload.with_file(|_| {
                if let Err(error) = inner.spool.remove(upload.id) {
                    tracing::warn!(%error, upload = %upload.id, "a file of the spool could not be removed");
                }
                upload.received()
            });
            let bytes = i64::try_from(received).unwrap_or(i64::MAX);
            inner.metrics.uploads.spool_bytes.sub(bytes);
        }));
        true
    }

    /// Tells the device, and remembers for the case that it does not hear it.
    fn tell(&self, upload: &LiveUpload, code: UploadResultCode) {
        let ended = Ended {
            transfer: upload.transfer().into(),
            name: upload.name.as_str().into(),
            code,
        };
        self.remembered
            .insert(upload.id, (upload.device_id.clone(), ended.clone()));
        if let Some(links) = self.links.get() {
            links.upload_ended(&upload.device_id, ended);
        }
    }

    /// Ends an unfinished upload: off the books, off the registry, and its device is told.
    async fn drop_upload(
        self: &Arc<Self>,
        upload: &Arc<LiveUpload>,
        end: UploadEnd,
        code: UploadResultCode,
    ) {
        self.close(upload, end);
        let change = UploadChange::Delete {
            id: upload.id,
            claim: Some(upload.claim()),
            audit: None,
        };
        match self.journal.commit(change).await {
            // Another node has it by now, or it was ended there.
            Ok(deleted) if !deleted.found => return upload.answer(code),
            Ok(deleted) => self.delete_blobs(deleted.freed).await,
            Err(error) => {
                tracing::error!(%error, upload = %upload.id, "the end of an upload was not recorded");
            }
        }
        upload.answer(code);
        self.tell(upload, code);
    }

    /// Deletes blobs that no row names. One that cannot be deleted now is found at the next start.
    async fn delete_blobs(&self, blobs: impl IntoIterator<Item = BlobId>) {
        for blob in blobs {
            if let Err(error) = self.blobs.delete(&blob).await {
                tracing::warn!(%blob, %error, "a blob that nothing refers to could not be deleted");
            }
        }
    }
}

/// Runs work on a thread for blocking work.
async fn blocking<T: Send + 'static>(
    shutdown: &Shutdown,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    shutdown
        .spawn_blocking(work)
        .await
        .unwrap_or_else(|panicked| Err(panicked.into()))
}

/// Now, for what is shown.
fn now() -> Millis {
    Millis::now()
}
