//! An upload's bytes block by block, in order: by CoAP, where each block waits for the answer to the one before.
//!
//! A block is answered when it is in the spool; the last one when the upload has been checked and is stored.

use std::sync::Arc;

use bytes::Bytes;
use headgate_protocol::{identity::DeviceId, transfer::upload::UploadResultCode};

use super::{Inner, Refusal, UploadService, hold::Standing, live::LiveUpload};
use crate::{store::spool::SpoolState, telemetry::metrics::UploadChunk};

impl UploadService {
    /// The upload in progress to which a device gave this name, in this node's hands from here on.
    ///
    /// # Errors
    /// [`Refusal`] where it cannot be looked up now.
    pub async fn hold_named(
        &self,
        device: &DeviceId,
        name: &str,
    ) -> Result<Option<Arc<LiveUpload>>, Refusal> {
        let open = self.inner.standing(device).await?;
        match open.into_iter().find(|known| known.upload.name == name) {
            Some(Standing {
                live: Some(live), ..
            }) => Ok(Some(live)),
            Some(known) => self.inner.hold(known.upload.id, Some(device)).await,
            None => Ok(None),
        }
    }

    /// The upload in progress to which a device gave this name, where this node has it in hand.
    pub fn open_named(&self, device: &DeviceId, name: &str) -> Option<Arc<LiveUpload>> {
        let mut open = self.inner.book.of_device(device).into_iter();
        open.find(|upload| upload.name == name)
    }

    /// Writes a block; on return it is in the spool. Where it is the last of the upload's missing bytes, returns how the
    /// upload ended.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then.
    ///
    /// # Cancel safety
    /// A cancelled call may have written it.
    pub async fn write_block(
        &self,
        upload: &Arc<LiveUpload>,
        offset: u64,
        block: Bytes,
    ) -> Result<Option<UploadResultCode>, Refusal> {
        if self.is_over_budget() {
            return Err(Refusal::busy("too much waits for the disk", 5));
        }
        // Before it is written: the end may come at once.
        let may_be_last = upload.received().saturating_add(block.len() as u64) >= upload.size;
        let ended = may_be_last.then(|| upload.wait_for_end());
        {
            let _thread = self.inner.put_threads.acquire().await;
            let (inner, upload) = (Arc::clone(&self.inner), Arc::clone(upload));
            let writing = super::blocking(&self.inner.shutdown, move || {
                let written =
                    upload.with_file(|state| inner.write_one(&upload, state, offset, &block));
                if written.is_ok() && upload.take_whole() {
                    inner.enqueue(Arc::clone(&upload));
                }
                Ok(written)
            });
            let cut_off = |_| Err(Refusal::busy("the upload cannot be written now", 10));
            writing.await.unwrap_or_else(cut_off)?;
        }
        let Some(ended) = ended.filter(|_| upload.received() >= upload.size) else {
            return Ok(None);
        };
        match ended.await {
            Ok(code) => Ok(Some(code)),
            // Its check is tried again, or another request waits for it: the device asks again.
            Err(_postponed) => Err(Refusal::busy("the upload is being checked", 5)),
        }
    }
}

impl Inner {
    fn write_one(
        &self,
        upload: &LiveUpload,
        state: &mut SpoolState,
        offset: u64,
        block: &Bytes,
    ) -> Result<(), Refusal> {
        let have = state.have();
        let end = offset.saturating_add(block.len() as u64);
        let checked = self.check(upload, have.low(), offset, block.len());
        let counted = match checked {
            Ok(()) if have.contains(offset, end) => UploadChunk::Duplicate,
            Ok(()) => UploadChunk::Stored,
            Err(_) => UploadChunk::Refused,
        };
        let written = match counted {
            UploadChunk::Stored => self.spool(upload, state, &[(offset, block.clone())]),
            _ => checked,
        };
        let is_stored = written.is_ok() && counted == UploadChunk::Stored;
        let counted = if written.is_ok() {
            counted
        } else {
            UploadChunk::Refused
        };
        self.metrics.uploads.chunks_coap(counted).inc();
        if is_stored {
            let bytes = u64::try_from(block.len()).unwrap_or(u64::MAX);
            self.metrics.uploads.bytes_coap.inc_by(bytes);
        }
        written
    }
}
