//! The end of an upload: its bytes are read once and checked, its file becomes a blob, and that is recorded.

use std::sync::Arc;

use headgate_protocol::transfer::upload::UploadResultCode;
use tokio::sync::{Mutex, mpsc};

use super::{Inner, LiveUpload, UploadService, journal::NotChanged};
use crate::{
    model::{BlobId, Digests, Millis},
    store::{
        StoreError,
        blobs::{BlobWriter, StoredBlob},
        registry::UploadChange,
    },
    telemetry::metrics::UploadEnd,
};

/// Bytes that are read from the spool at a time.
const READ_BYTES: u64 = 1024 * 1024;

/// How often an upload that is whole here is taken back from other nodes before it is left to them.
const MAX_TAKES: usize = 5;

/// Why a whole upload could not be checked; it is tried again.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    /// The spool cannot be read.
    #[error("spool: {0}")]
    Spool(#[from] std::io::Error),
    /// The blob store refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry did not record it.
    #[error(transparent)]
    Registry(#[from] NotChanged),
}

impl UploadService {
    /// Starts as many tasks as may check at the same time.
    pub(super) fn spawn_checkers(&self, to_check: mpsc::Receiver<Arc<LiveUpload>>) {
        let to_check = Arc::new(Mutex::new(to_check));
        for _ in 0..self.inner.config.checkers {
            let (inner, to_check) = (Arc::clone(&self.inner), Arc::clone(&to_check));
            let stop = self.inner.shutdown.token().clone();
            self.inner.shutdown.spawn(async move {
                stop.run_until_cancelled(async {
                    loop {
                        let next = to_check.lock().await.recv().await;
                        let Some(upload) = next else { return };
                        inner.metrics.uploads.unchecked.dec();
                        inner.check_whole(&upload).await;
                    }
                })
                .await
            });
        }
    }
}

impl Inner {
    async fn check_whole(self: &Arc<Self>, upload: &Arc<LiveUpload>) {
        let outcome = self.judge(upload).await;
        match outcome {
            Ok(Some(UploadResultCode::Stored)) => {
                // Whoever ended it in this very moment has told its device, and deletes it.
                if self.close(upload, UploadEnd::Stored) {
                    tracing::debug!(upload = %upload.id, device_id = %upload.device_id, "an upload is stored");
                    upload.answer(UploadResultCode::Stored);
                    self.tell(upload, UploadResultCode::Stored);
                }
            }
            Ok(Some(code)) => {
                tracing::info!(upload = %upload.id, device_id = %upload.device_id, reason = code.text(), "an upload is not what was announced and is dropped");
                self.drop_upload(upload, UploadEnd::Mismatched, code).await;
            }
            // It was deleted or replaced meanwhile, and whoever did that has told its device.
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, upload = %upload.id, "a whole upload could not be stored: trying again later");
                upload.postpone();
            }
        }
    }

    /// How it ends; `None` where it was ended meanwhile, or the gateway stops.
    async fn judge(
        self: &Arc<Self>,
        upload: &Arc<LiveUpload>,
    ) -> Result<Option<UploadResultCode>, CheckError> {
        let (inner, checked) = (Arc::clone(self), Arc::clone(upload));
        let digesting = super::blocking(&self.shutdown, move || {
            let stop = inner.shutdown.token();
            let is_stopped = || checked.is_closed() || stop.is_cancelled();
            inner.spool.digest(checked.id, checked.size, is_stopped)
        });
        let digests = match digesting.await {
            Ok(Some(digests)) => digests,
            Ok(None) => return Ok(None),
            Err(_) if upload.is_closed() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if let Some(code) = mismatch(upload, &digests) {
            return Ok(Some(code));
        }
        match self.take_in(upload).await? {
            Some(id) => self.record(upload, StoredBlob { id, digests }).await,
            None => Ok(None),
        }
    }

    /// Makes its file a blob; `None` where the upload was ended meanwhile.
    async fn take_in(
        self: &Arc<Self>,
        upload: &Arc<LiveUpload>,
    ) -> Result<Option<BlobId>, CheckError> {
        let (inner, whole) = (Arc::clone(self), Arc::clone(upload));
        let sealing = super::blocking(&self.shutdown, move || {
            let path = inner.spool.seal(whole.id, whole.size)?;
            Ok(inner.blobs.adopt(&path))
        });
        match sealing.await {
            Ok(adopted) => {
                if let Some(id) = adopted? {
                    return Ok(Some(id));
                }
            }
            Err(_) if upload.is_closed() => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut writer = self.blobs.writer().await?;
        match self.copy(upload, &mut writer).await {
            Ok(true) => Ok(Some(writer.finish().await?.id)),
            Ok(false) => {
                writer.abort().await?;
                Ok(None)
            }
            Err(error) => {
                if let Err(error) = writer.abort().await {
                    tracing::warn!(%error, "what was written of a blob could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Copies the bytes, for a spool on another file system than the blobs.
    async fn copy(
        self: &Arc<Self>,
        upload: &Arc<LiveUpload>,
        writer: &mut BlobWriter,
    ) -> Result<bool, CheckError> {
        let mut offset = 0;
        while offset < upload.size {
            if upload.is_closed() {
                return Ok(false);
            }
            let (spool, id, at) = (self.spool.clone(), upload.id, offset);
            let len = READ_BYTES.min(upload.size - offset);
            let wanted = usize::try_from(len).unwrap_or(usize::MAX);
            let bytes = super::blocking(&self.shutdown, move || spool.read(id, at, wanted)).await;
            match bytes {
                Ok(bytes) => writer.write(bytes).await?,
                Err(_) if upload.is_closed() => return Ok(false),
                Err(error) => return Err(error.into()),
            }
            offset += len;
        }
        Ok(true)
    }

    /// Records a blob that is what was announced; `None` where the upload was ended meanwhile.
    async fn record(
        self: &Arc<Self>,
        upload: &Arc<LiveUpload>,
        blob: StoredBlob,
    ) -> Result<Option<UploadResultCode>, CheckError> {
        for _ in 0..MAX_TAKES {
            let change = UploadChange::Store {
                id: upload.id,
                claim: upload.claim(),
                blob: blob.id,
                digests: blob.digests.clone(),
                at: Millis::now(),
            };
            // Where it fails, whether it was recorded is not known. If it was, the blob is named and stays, and the
            // next try finds that; if not, the next start removes it.
            let stored = self.journal.commit(change).await?;
            if stored.found {
                if stored.blob != Some(blob.id) {
                    self.delete_blobs([blob.id]).await;
                }
                self.delete_blobs(stored.freed).await;
                return Ok(Some(UploadResultCode::Stored));
            }
            match self.registry.upload(upload.id).await? {
                Some(known) if known.blob.is_some() => {
                    if known.blob != Some(blob.id) {
                        self.delete_blobs([blob.id]).await;
                    }
                    return Ok(Some(UploadResultCode::Stored));
                }
                // Another node has taken it. The bytes that are whole and right here are stored all the same: they
                // are what the device announced.
                Some(_) => {
                    if let Some(claim) = self.registry.claim_upload(upload.id).await? {
                        upload.claimed(claim);
                    }
                }
                None => {
                    // Deleted, by way of another node it may be.
                    self.delete_blobs([blob.id]).await;
                    self.close(upload, UploadEnd::Deleted);
                    upload.answer(UploadResultCode::FileNotExist);
                    return Ok(None);
                }
            }
        }
        self.delete_blobs([blob.id]).await;
        Err(NotChanged::Failed.into())
    }
}

/// How the bytes differ from what was announced.
fn mismatch(upload: &LiveUpload, digests: &Digests) -> Option<UploadResultCode> {
    if upload
        .sha256
        .is_some_and(|announced| announced != digests.sha256)
    {
        return Some(UploadResultCode::Sha256NotMatched);
    }
    upload
        .md5
        .is_some_and(|announced| announced != digests.md5)
        .then_some(UploadResultCode::Md5NotMatched)
}
