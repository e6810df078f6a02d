//! A blob while it is written.

use std::{
    fmt, mem,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use tokio::runtime::Handle;

use super::key;
use crate::{
    model::{BlobId, Digests},
    store::{StoreError, hash::Hasher},
};

/// A blob that is whole and can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// Its id.
    pub id: BlobId,
    /// Its size and digests.
    pub digests: Digests,
}

/// Takes a blob's bytes in order, hashes them on the way and holds at most a portion of them (1 MiB for a file, 8 MiB
/// for an object) and one write.
///
/// Until [`BlobWriter::finish`] returns, nothing can be read; dropping the writer removes what it wrote.
pub struct BlobWriter {
    id: BlobId,
    /// `None` once it has ended.
    target: Option<Target>,
    /// `None` while a portion is being hashed: for ever, if that was cut off.
    hasher: Option<Hasher>,
    portion: Vec<Bytes>,
    portion_bytes: usize,
    written: u64,
    /// Lives as long as something may still happen to the bytes.
    activity: Arc<()>,
}

/// What becomes the blob.
enum Target {
    File(Box<dyn MultipartUpload>),
    /// An object of which nothing was sent yet: one that is no larger than a part is put as a whole.
    Object(Arc<dyn ObjectStore>),
    Parts(Box<dyn MultipartUpload>),
}

impl BlobWriter {
    pub(super) fn of_file(id: BlobId, upload: Box<dyn MultipartUpload>) -> Self {
        Self::new(id, Target::File(upload))
    }

    pub(super) fn of_object(id: BlobId, store: Arc<dyn ObjectStore>) -> Self {
        Self::new(id, Target::Object(store))
    }

    fn new(id: BlobId, target: Target) -> Self {
        Self {
            id,
            target: Some(target),
            hasher: Some(Hasher::new()),
            portion: Vec::new(),
            portion_bytes: 0,
            written: 0,
            activity: Arc::default(),
        }
    }

    /// Adds bytes. Returns when they may be followed by more: a full portion is on its way to where it stays, hashed.
    ///
    /// # Errors
    /// What the object store says, and [`StoreError::Interrupted`] after a call that did not come back.
    ///
    /// # Cancel safety
    /// Not safe: a writer whose write was dropped takes no more bytes and cannot finish.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        if self.hasher.is_none() {
            return Err(StoreError::Interrupted);
        }
        self.written += bytes.len() as u64;
        self.portion_bytes += bytes.len();
        if !bytes.is_empty() {
            self.portion.push(bytes);
        }
        let limit = self.target.as_ref().map_or(0, Target::portion_bytes);
        while limit > 0 && self.portion_bytes >= limit {
            self.flush(limit).await?;
        }
        Ok(())
    }

    /// The id that the blob will have.
    pub const fn id(&self) -> BlobId {
        self.id
    }

    /// Alive as long as something may still happen to the bytes, also after the writer was dropped.
    pub fn activity(&self) -> Weak<()> {
        Arc::downgrade(&self.activity)
    }

    /// Bytes taken so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Makes the blob visible, with its bytes and its name where they stay.
    ///
    /// # Errors
    /// As [`BlobWriter::write`]; nothing is left then.
    ///
    /// # Cancel safety
    /// Dropped in its last step, it goes on and may leave a whole blob that nobody knows; whether it still may,
    /// [`BlobWriter::activity`] says.
    pub async fn finish(mut self) -> Result<StoredBlob, StoreError> {
        let mut rest = PutPayload::new();
        if let Some(Target::Object(_)) = self.target {
            rest = self.hash(self.portion_bytes).await?;
        } else if !self.portion.is_empty() {
            self.flush(self.portion_bytes).await?;
        }
        let hasher = self.hasher.take().ok_or(StoreError::Interrupted)?;
        let target = self.target.take().ok_or(StoreError::Interrupted)?;
        let (id, activity) = (self.id, Arc::clone(&self.activity));
        let runtime = Handle::current();
        // On a thread of its own, so that its end is known also when this future is dropped.
        let completing = tokio::task::spawn_blocking(move || {
            let completed = runtime.block_on(target.complete(id, rest));
            drop(activity);
            completed
        });
        completing.await.map_err(|_| StoreError::Interrupted)??;
        Ok(StoredBlob {
            id,
            digests: hasher.finish(),
        })
    }

    /// Removes what was written.
    ///
    /// # Errors
    /// What the object store says.
    pub async fn abort(mut self) -> Result<(), StoreError> {
        match self.target.take() {
            Some(Target::File(mut upload) | Target::Parts(mut upload)) => {
                Ok(upload.abort().await?)
            }
            Some(Target::Object(_)) | None => Ok(()),
        }
    }

    /// Writes a portion and hashes it meanwhile, both off the runtime's own threads.
    async fn flush(&mut self, bytes: usize) -> Result<(), StoreError> {
        let mut hasher = self.hasher.take().ok_or(StoreError::Interrupted)?;
        let portion = self.take_portion(bytes);
        let payload: PutPayload = portion.iter().cloned().collect();
        let hashing = tokio::task::spawn_blocking(move || {
            for bytes in &portion {
                hasher.update(bytes);
            }
            hasher
        });
        let target = self.target.as_mut().ok_or(StoreError::Interrupted)?;
        target.put(self.id, payload).await?;
        self.hasher = Some(hashing.await.map_err(|_| StoreError::Interrupted)?);
        Ok(())
    }

    /// Hashes a portion that is written later.
    async fn hash(&mut self, bytes: usize) -> Result<PutPayload, StoreError> {
        let mut hasher = self.hasher.take().ok_or(StoreError::Interrupted)?;
        let portion = self.take_portion(bytes);
        let payload: PutPayload = portion.iter().cloned().collect();
        let hashing = tokio::task::spawn_blocking(move || {
            for bytes in &portion {
                hasher.update(bytes);
            }
            hasher
        });
        self.hasher = Some(hashing.await.map_err(|_| StoreError::Interrupted)?);
        Ok(payload)
    }

    /// Takes exactly so many of the gathered bytes: some services want all parts but the last to be of one size.
    fn take_portion(&mut self, bytes: usize) -> Vec<Bytes> {
        let mut portion = mem::take(&mut self.portion);
        self.portion_bytes -= bytes;
        if let Some(last) = portion.last_mut().filter(|_| self.portion_bytes > 0) {
            self.portion
                .push(last.split_off(last.len() - self.portion_bytes));
        }
        portion
    }
}

impl Target {
    /// How much is gathered for one write.
    const fn portion_bytes(&self) -> usize {
        match self {
            Self::File(_) => PORTION_BYTES,
            Self::Object(_) | Self::Parts(_) => PART_BYTES,
        }
    }

    async fn put(&mut self, id: BlobId, payload: PutPayload) -> Result<(), object_store::Error> {
        if let Self::Object(store) = self {
            let upload = store.put_multipart(&key(&id)).await?;
            *self = Self::Parts(upload);
        }
        match self {
            Self::File(upload) | Self::Parts(upload) => upload.put_part(payload).await,
            Self::Object(_) => Ok(()),
        }
    }

    /// Gives it its name; `rest` is what was not put of one that is put as a whole.
    async fn complete(self, id: BlobId, rest: PutPayload) -> Result<(), object_store::Error> {
        match self {
            Self::File(mut upload) | Self::Parts(mut upload) => upload.complete().await?,
            Self::Object(store) => {
                let mode = PutMode::Create.into();
                store.put_opts(&key(&id), rest, mode).await?
            }
        };
        Ok(())
    }
}

impl Drop for BlobWriter {
    /// A file goes by itself. Parts of an object would be paid for until somebody looks.
    fn drop(&mut self) {
        let (Some(Target::Parts(mut upload)), Ok(runtime)) =
            (self.target.take(), Handle::try_current())
        else {
            return;
        };
        let activity = Arc::clone(&self.activity);
        let of = runtime.clone();
        runtime.spawn_blocking(move || {
            if let Err(error) = of.block_on(upload.abort()) {
                tracing::warn!(%error, "parts of a blob that was given up could not be removed");
            }
            drop(activity);
        });
    }
}

impl fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobWriter")
            .field("id", &self.id)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// Bytes that are gathered for one write: enough that the disk and the hashes cost more than their threads.
const PORTION_BYTES: usize = 1024 * 1024;
/// The parts of an object: those but the last must have 5 MiB, and there may be 10,000.
const PART_BYTES: usize = 8 * 1024 * 1024;
