//! Uploads as operators see them: listed, read, deleted.

use std::{collections::HashMap, ops::Range, sync::Arc};

use bytes::Bytes;
use headgate_protocol::transfer::upload::UploadResultCode;

use super::{LiveUpload, UploadService, journal::NotChanged};
use crate::{
    model::{Actor, BlobId, Id, InvalidField, Millis, Page, Paged, Upload},
    service::UploadFilter,
    store::{
        StoreError,
        registry::{UploadChange, UploadNote},
    },
    telemetry::metrics::UploadEnd,
};

/// Why an upload cannot be read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// There is none of that id.
    #[error("no such upload")]
    NotFound,
    /// A page's cursor is wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// A store failed.
    #[error(transparent)]
    Store(StoreError),
    /// The registry did not record the change.
    #[error("the registry did not record it")]
    NotRecorded,
}

impl From<StoreError> for UploadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Page(error) => Self::Invalid(InvalidField::from(error)),
            other => Self::Store(other),
        }
    }
}

/// An upload and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadStanding {
    /// The upload.
    pub upload: Upload,
    /// Bytes that are there.
    pub received: u64,
    /// When the last byte came, while it is in progress.
    pub moved_at: Option<Millis>,
}

impl UploadService {
    /// Uploads, newest first.
    ///
    /// # Errors
    /// [`UploadError::Invalid`] for a wrong cursor.
    pub async fn uploads(
        &self,
        filter: &UploadFilter,
        page: &Page,
    ) -> Result<Paged<UploadStanding>, UploadError> {
        let page = self.inner.registry.uploads(filter, page).await?;
        let notes = self.notes(&page.items).await?;
        Ok(page.map(|upload| self.shown(upload, &notes)))
    }

    /// The upload of an id.
    ///
    /// # Errors
    /// [`UploadError::NotFound`].
    pub async fn upload(&self, id: Id) -> Result<UploadStanding, UploadError> {
        let upload = self.inner.registry.upload(id).await?;
        let upload = upload.ok_or(UploadError::NotFound)?;
        let notes = self.notes(std::slice::from_ref(&upload)).await?;
        Ok(self.shown(upload, &notes))
    }

    /// Reads a range of a stored upload's bytes: exactly that range.
    ///
    /// # Errors
    /// [`UploadError::NotFound`] when the bytes are gone.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn read(&self, blob: &BlobId, range: Range<u64>) -> Result<Bytes, UploadError> {
        match self.inner.blobs.read(blob, range).await {
            Err(StoreError::NotFound { .. }) => Err(UploadError::NotFound),
            read => Ok(read?),
        }
    }

    /// Deletes an upload and its bytes; one in progress ends, and its device is told.
    ///
    /// # Errors
    /// [`UploadError::NotFound`].
    pub async fn delete(&self, actor: &Actor, id: Id) -> Result<(), UploadError> {
        let upload = self.upload(id).await?.upload;
        let subject = format!("{} {}", upload.device_id, upload.name);
        let live = self.inner.book.get(id);
        if let Some(live) = &live {
            self.inner.close(live, UploadEnd::Deleted);
        }
        let change = UploadChange::Delete {
            id,
            claim: None,
            audit: Some(actor.did("upload.delete", id, subject)),
        };
        let deleted = match self.inner.journal.commit(change).await {
            Ok(deleted) => deleted,
            Err(NotChanged::Quota { .. } | NotChanged::Failed) => {
                return Err(UploadError::NotRecorded);
            }
        };
        self.inner.delete_blobs(deleted.freed).await;
        if let Some(live) = live {
            live.answer(UploadResultCode::FileNotExist);
            self.inner.tell(&live, UploadResultCode::FileNotExist);
        } else {
            self.inner.remembered.remove(&id);
        }
        if deleted.found {
            Ok(())
        } else {
            Err(UploadError::NotFound)
        }
    }

    /// What other nodes noted of the unfinished among these that they have.
    async fn notes(&self, uploads: &[Upload]) -> Result<HashMap<Id, UploadNote>, UploadError> {
        if !self.inner.registry.is_shared() {
            return Ok(HashMap::new());
        }
        let open = uploads.iter().filter(|upload| upload.blob.is_none());
        let ids: Vec<_> = open.map(|upload| upload.id).collect();
        Ok(self.inner.registry.upload_notes(&ids).await?)
    }

    fn shown(&self, upload: Upload, notes: &HashMap<Id, UploadNote>) -> UploadStanding {
        let note = notes.get(&upload.id);
        let is_newest = |live: &Arc<LiveUpload>| note.is_none_or(|note| live.claim() >= note.claim);
        let live = self.inner.book.get(upload.id).filter(is_newest);
        let received = match (&live, note) {
            (Some(live), _) => live.received(),
            (None, _) if upload.blob.is_some() => upload.size,
            (None, note) => note.map_or(0, |note| note.received),
        };
        let moved_at = live.map(|live| live.moved_at());
        UploadStanding {
            moved_at: moved_at.or_else(|| note.map(|note| note.at)),
            received,
            upload,
        }
    }
}
