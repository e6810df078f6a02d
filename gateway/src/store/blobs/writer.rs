//! A blob while it is written.

use std::{
    fmt, mem,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use object_store::{MultipartUpload, PutPayload};
use tokio::runtime::Handle;

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

/// Takes a blob's bytes in order, hashes them on the way and holds at most [`PORTION_BYTES`] and one write.
///
/// Until [`BlobWriter::finish`] returns, nothing can be read; dropping the writer removes what it wrote.
pub struct BlobWriter {
    id: BlobId,
    upload: Box<dyn MultipartUpload>,
    /// `None` while a portion is being hashed: for ever, if that was cut off.
    hasher: Option<Hasher>,
    portion: Vec<Bytes>,
    portion_bytes: usize,
    written: u64,
    /// Lives as long as something may still happen to the file.
    activity: Arc<()>,
}

impl BlobWriter {
    pub(super) fn new(id: BlobId, upload: Box<dyn MultipartUpload>) -> Self {
        Self {
            id,
            upload,
            hasher: Some(Hasher::new()),
            portion: Vec::new(),
            portion_bytes: 0,
            written: 0,
            activity: Arc::default(),
        }
    }

    /// Adds bytes. Returns when they may be followed by more: a full portion is on its way to the disk, hashed.
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
        if self.portion_bytes >= PORTION_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// The id that the blob will have.
    pub const fn id(&self) -> BlobId {
        self.id
    }

    /// Alive as long as something may still happen to the file, also after the writer was dropped.
    pub fn activity(&self) -> Weak<()> {
        Arc::downgrade(&self.activity)
    }

    /// Bytes taken so far.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Makes the blob visible, with its bytes and its name on the disk.
    ///
    /// # Errors
    /// As [`BlobWriter::write`]; nothing is left then.
    ///
    /// # Cancel safety
    /// Dropped in its last step, it goes on and may leave a whole blob that nobody knows; whether it still may,
    /// [`BlobWriter::activity`] says.
    pub async fn finish(mut self) -> Result<StoredBlob, StoreError> {
        if !self.portion.is_empty() {
            self.flush().await?;
        }
        let hasher = self.hasher.take().ok_or(StoreError::Interrupted)?;
        let Self {
            id,
            mut upload,
            activity,
            ..
        } = self;
        let runtime = Handle::current();
        // On a thread of its own, so that its end is known also when this future is dropped.
        let completing = tokio::task::spawn_blocking(move || {
            let completed = runtime.block_on(upload.complete());
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
        Ok(self.upload.abort().await?)
    }

    /// Writes the portion and hashes it meanwhile, both off the runtime's own threads.
    async fn flush(&mut self) -> Result<(), StoreError> {
        let mut hasher = self.hasher.take().ok_or(StoreError::Interrupted)?;
        self.portion_bytes = 0;
        let portion = mem::take(&mut self.portion);
        let payload: PutPayload = portion.iter().cloned().collect();
        let hashing = tokio::task::spawn_blocking(move || {
            for bytes in &portion {
                hasher.update(bytes);
            }
            hasher
        });
        self.upload.put_part(payload).await?;
        self.hasher = Some(hashing.await.map_err(|_| StoreError::Interrupted)?);
        Ok(())
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
