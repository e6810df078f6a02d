//! Uploads as operators see them: listed, read, deleted.

use std::ops::Range;

use bytes::Bytes;
use headgate_protocol::transfer::upload::UploadResultCode;

use super::{UploadService, journal::NotChanged};
use crate::{
    model::{Actor, BlobId, Id, InvalidField, Millis, Page, Paged, Upload},
    service::UploadFilter,
    store::{StoreError, registry::UploadChange},
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
        Ok(page.map(|upload| self.standing(upload)))
    }

    /// The upload of an id.
    ///
    /// # Errors
    /// [`UploadError::NotFound`].
    pub async fn upload(&self, id: Id) -> Result<UploadStanding, UploadError> {
        let upload = self.inner.registry.upload(id).await?;
        Ok(self.standing(upload.ok_or(UploadError::NotFound)?))
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

    fn standing(&self, upload: Upload) -> UploadStanding {
        let live = self.inner.book.get(upload.id);
        let received = match &live {
            Some(live) => live.received(),
            None if upload.blob.is_some() => upload.size,
            None => 0,
        };
        UploadStanding {
            moved_at: live.map(|live| live.moved_at()),
            received,
            upload,
        }
    }
}
