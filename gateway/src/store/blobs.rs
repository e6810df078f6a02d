//! Immutable bytes: the contents of resources, as files of a directory or objects of a bucket.
//!
//! A blob is written once under a random id and read by ranges. What is being written has no name that a reader
//! could find; only [`BlobWriter::finish`] gives it one, after its bytes (and the directory) reached the disk.
//! Invariants: a blob that can be read is whole; a writer that is aborted or dropped leaves nothing behind, and
//! what a killed process left is removed when the store is opened.

mod bucket;
mod writer;

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt as _, local::LocalFileSystem, path::Path as Key,
};

pub use bucket::Bucket;
pub use writer::{BlobWriter, StoredBlob};

use crate::{
    model::{self, BlobId},
    store::StoreError,
};

/// The store of blobs. Cloning shares it.
#[derive(Clone, Debug)]
pub struct BlobStore {
    store: Arc<dyn ObjectStore>,
    /// Where the files are, if they are files.
    directory: Option<Arc<Path>>,
}

impl BlobStore {
    /// Opens a directory of blobs, creates it when there is none, and removes what unfinished writes left in it.
    /// No other process may use it.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the directory cannot be made or read.
    pub async fn open(directory: &Path) -> Result<Self, StoreError> {
        let path = directory.to_owned();
        // The only file work here that object_store does not put on the blocking pool itself.
        tokio::task::spawn_blocking(move || prepare(&path))
            .await
            .map_err(|error| StoreError::Io {
                path: directory.display().to_string(),
                source: error.into(),
            })??;
        let store = LocalFileSystem::new_with_prefix(directory)?.with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            directory: Some(directory.into()),
        })
    }

    /// Opens a bucket for the registry of a name. What is below its prefix belongs to that registry from then on.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for credentials that open nothing, a bucket that is not there, and a prefix that
    /// belongs to another registry; else what the service says.
    pub async fn open_bucket(bucket: &Bucket<'_>, registry: &[u8]) -> Result<Self, StoreError> {
        Ok(Self {
            store: bucket::open(bucket, registry).await?,
            directory: None,
        })
    }

    /// Whether the blobs are with a service, which may be away while this process is well.
    pub fn is_remote(&self) -> bool {
        self.directory.is_none()
    }

    /// Whether the service answers; a directory always does.
    ///
    /// # Errors
    /// What the service says when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        if self.is_remote() {
            bucket::ping(&*self.store).await?;
        }
        Ok(())
    }

    /// Makes a whole file a blob without copying it: the blob is a second name of the same bytes, which must have
    /// reached the disk and must not change any more. `None` where the file system has no such names, or is not
    /// the store's, and where blobs are no files: the caller copies. Blocks: to be called on a thread for blocking work.
    ///
    /// # Errors
    /// [`StoreError::Io`] with what the system says.
    pub fn adopt(&self, file: &Path) -> Result<Option<BlobId>, StoreError> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let id = BlobId::from_random(model::random()?);
        let name = directory.join(id.to_string());
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |source: io::Error| StoreError::Io { path, source }
        };
        match std::fs::hard_link(file, &name) {
            Ok(()) => {}
            Err(error) if cannot_link(&error) => return Ok(None),
            Err(error) => return Err(io(file)(error)),
        }
        std::fs::File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(io(directory))?;
        Ok(Some(id))
    }

    /// Begins a blob.
    ///
    /// # Errors
    /// What the object store says.
    pub async fn writer(&self) -> Result<BlobWriter, StoreError> {
        let id = BlobId::from_random(model::random()?);
        if self.is_remote() {
            return Ok(BlobWriter::of_object(id, Arc::clone(&self.store)));
        }
        let upload = self.store.put_multipart(&key(&id)).await?;
        Ok(BlobWriter::of_file(id, upload))
    }

    /// Reads a range of a blob: exactly its bytes. Any number of reads run at the same time, those of files each on the
    /// runtime's blocking threads.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such blob; the object store's error when the range reaches
    /// beyond its end.
    ///
    /// # Cancel safety
    /// Safe: nothing changes.
    pub async fn read(&self, id: &BlobId, range: Range<u64>) -> Result<Bytes, StoreError> {
        let wanted = range.end.saturating_sub(range.start);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let bytes = self
            .store
            .get_range(&key(id), range)
            .await
            .map_err(not_found)?;
        if bytes.len() as u64 == wanted {
            Ok(bytes)
        } else {
            Err(StoreError::Corrupt {
                column: "blob",
                reason: format!("{id} ends before the range"),
            })
        }
    }

    /// Deletes a blob; one that is not there is fine.
    ///
    /// # Errors
    /// What the object store says.
    pub async fn delete(&self, id: &BlobId) -> Result<(), StoreError> {
        match self.store.delete(&key(id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The ids of all blobs, in any order. Files that are no blobs are not seen.
    ///
    /// # Errors
    /// What the object store says.
    pub async fn list(&self) -> Result<Vec<BlobId>, StoreError> {
        self.list_older_than(Duration::ZERO).await
    }

    /// The same of those only that have been there for so long, by the object store's clock and this machine's.
    ///
    /// # Errors
    /// What the object store says.
    pub async fn list_older_than(&self, age: Duration) -> Result<Vec<BlobId>, StoreError> {
        let names: Vec<_> = self.store.list(None).try_collect().await?;
        let now = SystemTime::now();
        let is_old = |meta: &ObjectMeta| {
            let since = now.duration_since(meta.last_modified.into());
            age.is_zero() || since.is_ok_and(|since| since >= age)
        };
        Ok(names
            .into_iter()
            .filter(is_old)
            .filter_map(|meta| meta.location.filename()?.parse().ok())
            .collect())
    }
}

fn key(id: &BlobId) -> Key {
    Key::from(id.to_string())
}

fn not_found(error: object_store::Error) -> StoreError {
    match error {
        object_store::Error::NotFound { .. } => StoreError::NotFound { what: "blob" },
        other => other.into(),
    }
}

/// Whether a file cannot have a second name here, whichever it is.
fn cannot_link(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices
            | io::ErrorKind::Unsupported
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::TooManyLinks
    )
}

/// Makes the directory, or removes from it what unfinished writes left: files whose name is a blob's with `#` and
/// a number behind.
fn prepare(directory: &Path) -> Result<(), StoreError> {
    let io = |path: &Path| {
        let path = path.display().to_string();
        move |source: io::Error| StoreError::Io { path, source }
    };
    std::fs::create_dir_all(directory).map_err(io(directory))?;
    for entry in std::fs::read_dir(directory).map_err(io(directory))? {
        let path: PathBuf = entry.map_err(io(directory))?.path();
        let unfinished = path
            .file_name()
            .and_then(|name| name.to_str()?.split_once('#'))
            .is_some_and(|(id, _)| id.parse::<BlobId>().is_ok());
        if unfinished {
            std::fs::remove_file(&path).map_err(io(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
