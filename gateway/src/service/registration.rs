//! Registration in batches: a CSV of up to 100,000 devices, registered in the background.
//!
//! A file is spooled, checked as a whole and noted in the registry before the caller hears of it: an upload that is
//! cut changes nothing. One worker then registers the rows of one batch after the other, 500 in a transaction, and
//! goes on where it was after a crash. A row that cannot be used stops no other; a device that is there as its row
//! says is left alone, so that the same file can be sent again.
//! Invariants: a spooled file is sealed; a secret that was made is shown while its batch is not confirmed and not
//! older than `registration.secrets_shown`, and only as long as the device still has it; nothing is held in memory
//! but the rows of one block.

mod block;
mod file;
mod spool;
mod worker;

use std::{
    fmt, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, Semaphore};
use zeroize::Zeroizing;

pub use file::{FileError, TEMPLATE};

use self::{
    file::Rows,
    spool::{FRAME_BYTES, SpoolReader, SpoolWriter},
};
use crate::{
    config::RegistrationConfig,
    model::{
        Actor, BatchRow, BatchState, DeviceBatch, Id, InvalidField, Millis, Page, Paged, RowCounts,
        RowState,
    },
    service::seal::{SealError, Sealer},
    shutdown::Shutdown,
    store::{
        StoreError,
        registry::{Registry, RowWithSecret},
    },
    telemetry::metrics::Metrics,
};

/// Why a batch cannot be taken, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// There is none of that id.
    #[error("no such {what}")]
    NotFound {
        /// `batch`.
        what: &'static str,
    },
    /// As many batches are open as may be.
    #[error("{open} batches wait or are running, which is as many as may be")]
    Busy {
        /// How many.
        open: usize,
    },
    /// The file is larger than it may be; what follows was not read.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// How large it may be.
        limit: u64,
    },
    /// The file is no list of devices.
    #[error(transparent)]
    File(FileError),
    /// The upload ended early.
    #[error("the upload ended early: {0}")]
    Body(String),
    /// It is running.
    #[error("the batch is running")]
    Running,
    /// A parameter breaks a rule.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// The file cannot be spooled.
    #[error("spool {path}: {source}")]
    Spool {
        /// Which file.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A secret does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The registry failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for RegistrationError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { what } => Self::NotFound { what },
            StoreError::InUse { .. } => Self::Running,
            StoreError::Page(error) => Self::Invalid(InvalidField::from(error)),
            other => Self::Store(other),
        }
    }
}

impl From<FileError> for RegistrationError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// What came of one row, with the secret that was made for it where it is still shown.
#[derive(Debug)]
pub struct RowResult {
    /// The row.
    pub row: BatchRow,
    /// The secret; wiped when dropped.
    pub secret: Option<ShownSecret>,
}

/// A secret on its way to whoever registered its device. Wiped when dropped, never printed.
pub struct ShownSecret(Zeroizing<Vec<u8>>);

impl ShownSecret {
    /// The secret as text, for the answer that shows it.
    pub fn reveal(&self) -> &str {
        // Secrets are ASCII when they are taken or made.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for ShownSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShownSecret(..)")
    }
}

/// What the service is made of.
#[derive(Debug)]
pub struct RegistrationParts {
    /// Where devices and batches are kept.
    pub registry: Registry,
    /// Seals secrets and spooled files.
    pub sealer: Sealer,
    /// Directory of spooled files; nothing else is in it.
    pub spool: PathBuf,
    /// Its settings.
    pub config: RegistrationConfig,
    /// What is counted.
    pub metrics: Metrics,
}

/// The service of batches. Cloning shares everything.
#[derive(Debug, Clone)]
pub struct RegistrationService {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    sealer: Sealer,
    spool: PathBuf,
    config: RegistrationConfig,
    metrics: Metrics,
    shutdown: Shutdown,
    /// Told when a batch is there or something is to be deleted.
    work: Notify,
    /// Files that are being uploaded.
    uploads: Semaphore,
}

impl RegistrationService {
    /// Starts the service: removes spooled files that belong to no batch, and goes on with those that do.
    ///
    /// # Errors
    /// [`RegistrationError::Spool`], [`RegistrationError::Store`].
    pub async fn start(
        parts: RegistrationParts,
        shutdown: &Shutdown,
    ) -> Result<Self, RegistrationError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&parts.spool)
            .map_err(|source| unspooled(&parts.spool, source))?;
        let service = Self {
            inner: Arc::new(Inner {
                registry: parts.registry,
                sealer: parts.sealer,
                spool: parts.spool,
                config: parts.config,
                metrics: parts.metrics,
                shutdown: shutdown.clone(),
                work: Notify::new(),
                uploads: Semaphore::new(UPLOADS),
            }),
        };
        service.inner.remove_strays().await?;
        service.inner.count_open().await;
        let (inner, stop) = (Arc::clone(&service.inner), shutdown.token().clone());
        shutdown.spawn(async move { stop.run_until_cancelled(inner.run()).await });
        Ok(service)
    }

    /// Takes a file, and says whether it makes a new batch: one that is sent again while its batch is open, or after
    /// all of its rows went well and while all of its devices are there, is that batch.
    ///
    /// # Errors
    /// [`RegistrationError::Busy`], [`RegistrationError::TooLarge`], [`RegistrationError::File`],
    /// [`RegistrationError::Body`]; nothing is kept then.
    ///
    /// # Cancel safety
    /// An upload that is dropped leaves nothing.
    pub async fn upload<S, E>(
        &self,
        actor: &Actor,
        stream: S,
    ) -> Result<(DeviceBatch, bool), RegistrationError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: fmt::Display,
    {
        let inner = &self.inner;
        let Ok(_permit) = inner.uploads.try_acquire() else {
            return Err(RegistrationError::Busy { open: UPLOADS });
        };
        inner.check_room().await?;
        let id = inner.registry.next_id();
        let (writer, sha256, size) = inner.receive(id, stream).await?;
        let total = inner.count_rows(id, writer.path()).await?;
        if let Some(known) = inner.registry.batch_of_file(&sha256).await? {
            return Ok((known, false));
        }
        let (path, name) = (writer.path().to_owned(), inner.file_of(id));
        inner
            .blocking(move || writer.keep_as(&name))
            .await
            .map_err(|source| unspooled(&path, source))?;
        let batch = DeviceBatch {
            id,
            state: BatchState::Waiting,
            sha256,
            size,
            total,
            next_row: 0,
            counts: RowCounts::default(),
            error: None,
            created_by: actor.name.clone(),
            created_at: Millis::now(),
            started_at: None,
            finished_at: None,
            secrets_until: None,
        };
        let audit = actor.did("device_batch.create", id, format!("{total} rows"));
        let max_open = inner.config.max_open_batches;
        if !inner
            .registry
            .insert_batch(&batch, max_open, &audit)
            .await?
        {
            inner.remove_file(id);
            return Err(RegistrationError::Busy { open: max_open });
        }
        inner.count_open().await;
        inner.work.notify_one();
        Ok((batch, true))
    }

    /// Bytes that a file may have.
    pub fn max_batch_bytes(&self) -> u64 {
        self.inner.config.max_batch_bytes
    }

    /// The batch of an id.
    ///
    /// # Errors
    /// [`RegistrationError::NotFound`].
    pub async fn batch(&self, id: Id) -> Result<DeviceBatch, RegistrationError> {
        let batch = self.inner.registry.batch(id).await?;
        batch.ok_or(RegistrationError::NotFound { what: "batch" })
    }

    /// Batches, newest first.
    ///
    /// # Errors
    /// [`RegistrationError::Invalid`] for a wrong cursor.
    pub async fn batches(
        &self,
        state: Option<BatchState>,
        page: &Page,
    ) -> Result<Paged<DeviceBatch>, RegistrationError> {
        Ok(self.inner.registry.batches(state, page).await?)
    }

    /// The rows of a batch that are done, in the file's order; with the secrets that were made where `with_secrets`
    /// says so and the batch still shows them.
    ///
    /// # Errors
    /// [`RegistrationError::NotFound`], [`RegistrationError::Invalid`] for a wrong cursor.
    pub async fn rows(
        &self,
        id: Id,
        state: Option<RowState>,
        page: &Page,
        with_secrets: bool,
    ) -> Result<Paged<RowResult>, RegistrationError> {
        let batch = self.batch(id).await?;
        let is_shown = with_secrets && batch.shows_secrets(Millis::now());
        let found = self.inner.registry.batch_rows(id, state, page).await?;
        let next = found.next;
        let items = found
            .items
            .into_iter()
            .map(|found| self.inner.shown(found, is_shown))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Paged { items, next })
    }

    /// Notes that someone takes the result with its secrets.
    ///
    /// # Errors
    /// [`RegistrationError::NotFound`].
    pub async fn note_download(&self, actor: &Actor, id: Id) -> Result<(), RegistrationError> {
        let batch = self.batch(id).await?;
        let audit = actor.did("device_batch.result", id, batch.counts.to_string());
        Ok(self.inner.registry.record(&audit).await?)
    }

    /// Lets a batch that ended show no secret any more: whoever asked for it has them.
    ///
    /// # Errors
    /// [`RegistrationError::NotFound`], [`RegistrationError::Running`].
    pub async fn confirm(&self, actor: &Actor, id: Id) -> Result<DeviceBatch, RegistrationError> {
        if !self.batch(id).await?.has_ended() {
            return Err(RegistrationError::Running);
        }
        let audit = actor.did("device_batch.confirm", id, "");
        self.inner.registry.confirm_batch(id, &audit).await?;
        self.batch(id).await
    }

    /// Deletes a batch that waits or ended, and its rows in the background. Its devices stay.
    ///
    /// # Errors
    /// [`RegistrationError::NotFound`], [`RegistrationError::Running`].
    pub async fn delete(&self, actor: &Actor, id: Id) -> Result<(), RegistrationError> {
        let audit = actor.did("device_batch.delete", id, "");
        self.inner.registry.delete_batch(id, &audit).await?;
        self.inner.remove_file(id);
        self.inner.count_open().await;
        self.inner.work.notify_one();
        Ok(())
    }
}

impl Inner {
    async fn check_room(&self) -> Result<(), RegistrationError> {
        let (waiting, running) = self.registry.open_batches().await?;
        if waiting + running < self.config.max_open_batches {
            Ok(())
        } else {
            let open = waiting + running;
            Err(RegistrationError::Busy { open })
        }
    }

    /// Spools a file as it comes in, at most one frame of it in memory.
    async fn receive<S, E>(
        &self,
        id: Id,
        mut stream: S,
    ) -> Result<(SpoolWriter, [u8; 32], u64), RegistrationError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: fmt::Display,
    {
        let path = self.spool.join(format!("{id}.{PART}"));
        let failed = |source| unspooled(&path, source);
        let (create, sealer) = (path.clone(), self.sealer.clone());
        let mut writer = self
            .blocking(move || SpoolWriter::create(create, sealer, id))
            .await
            .map_err(failed)?;
        let (mut digest, mut size) = (Sha256::new(), 0_u64);
        let mut waiting = BytesMut::with_capacity(FRAME_BYTES);
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|error| RegistrationError::Body(error.to_string()))?;
            size += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let limit = self.config.max_batch_bytes;
            if size > limit {
                return Err(RegistrationError::TooLarge { limit });
            }
            digest.update(&bytes);
            waiting.extend_from_slice(&bytes);
            if waiting.len() >= FRAME_BYTES {
                let frames = waiting.split().freeze();
                writer = self
                    .blocking(move || writer.write(&frames).map(|()| writer))
                    .await
                    .map_err(failed)?;
            }
        }
        let rest = waiting.freeze();
        let writer = self
            .blocking(move || {
                writer.write(&rest)?;
                writer.finish()?;
                Ok(writer)
            })
            .await
            .map_err(failed)?;
        Ok((writer, digest.finalize().into(), size))
    }

    /// Reads a spooled file whole: nothing is begun with one that cannot be read to its end.
    async fn count_rows(&self, id: Id, path: &Path) -> Result<u32, RegistrationError> {
        let (path, sealer) = (path.to_owned(), self.sealer.clone());
        let (max_row, max_rows) = (self.config.max_row_bytes, self.config.max_batch_rows);
        let counted = self
            .blocking(move || {
                let source = SpoolReader::open(&path, sealer, id)?;
                Ok(Rows::open(source, max_row).and_then(|rows| rows.count(max_rows)))
            })
            .await
            .map_err(|source| unspooled(&self.spool, source))?;
        Ok(counted?)
    }

    fn shown(&self, found: RowWithSecret, is_shown: bool) -> Result<RowResult, RegistrationError> {
        let RowWithSecret { row, sealed } = found;
        let secret = match (&row.device_id, sealed) {
            (Some(device), Some(sealed)) if is_shown => {
                Some(ShownSecret(self.sealer.open(device.as_str(), &sealed)?))
            }
            _ => None,
        };
        Ok(RowResult { row, secret })
    }

    /// Removes spooled files whose batch is not open: their upload or their end was cut by a crash.
    async fn remove_strays(&self) -> Result<(), RegistrationError> {
        let failed = |source| unspooled(&self.spool, source);
        for entry in std::fs::read_dir(&self.spool).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let id = stem.and_then(|stem| stem.parse::<Id>().ok());
            let is_part = path.extension().is_some_and(|extension| extension == PART);
            let is_open = match id {
                Some(id) if !is_part => {
                    let batch = self.registry.batch(id).await?;
                    batch.is_some_and(|batch| !batch.has_ended())
                }
                _ => false,
            };
            if !is_open {
                std::fs::remove_file(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn file_of(&self, id: Id) -> PathBuf {
        self.spool.join(format!("{id}.{SPOOLED}"))
    }

    /// Removes a batch's file; one that cannot be removed now is at the next start.
    fn remove_file(&self, id: Id) {
        let path = self.file_of(id);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "a spooled batch could not be removed");
        }
    }

    async fn count_open(&self) {
        if let Ok((waiting, running)) = self.registry.open_batches().await {
            let batches = &self.metrics.registration_batches;
            batches
                .waiting
                .set(i64::try_from(waiting).unwrap_or(i64::MAX));
            batches
                .running
                .set(i64::try_from(running).unwrap_or(i64::MAX));
        }
    }

    /// Runs what blocks on the disk or costs some milliseconds of processor on a thread of its own.
    async fn blocking<T, F>(&self, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        self.shutdown
            .spawn_blocking(work)
            .await
            .map_err(io::Error::other)?
    }
}

fn unspooled(path: &Path, source: io::Error) -> RegistrationError {
    RegistrationError::Spool {
        path: path.display().to_string(),
        source,
    }
}

/// Files that may be uploaded at one time.
const UPLOADS: usize = 4;
const PART: &str = "part";
const SPOOLED: &str = "spool";

#[cfg(test)]
mod tests;
