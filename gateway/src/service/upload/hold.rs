//! Uploads over several nodes: one is in the hands of the node that its device came to with it.
//!
//! Taking one raises its claim in the registry, and what a node with an older claim wants to change is refused there. A
//! node goes on from what is in its own spool. Invariants: nothing is taken but for the upload's own device, or the
//! holder of its address; a gateway with a registry of its own has every upload in hand from the start.

use std::sync::Arc;

use headgate_protocol::{identity::DeviceId, transfer::upload::UploadResultCode};

use super::{
    Inner, Refusal, blocking,
    live::{LiveUpload, Phase},
};
use crate::{
    model::{Id, Upload},
    store::StoreError,
    telemetry::metrics::UploadEnd,
};

/// An unfinished upload of a device, wherever it is.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// The upload.
    pub(super) upload: Upload,
    /// It is in this node's hands.
    pub(super) live: Option<Arc<LiveUpload>>,
}

impl Inner {
    /// The unfinished upload of an id, in this node's hands from here on; `None` where there is none, or it is another
    /// device's.
    ///
    /// # Errors
    /// [`Refusal`] where it cannot be had now.
    pub(super) async fn hold(
        self: &Arc<Self>,
        id: Id,
        device: Option<&DeviceId>,
    ) -> Result<Option<Arc<LiveUpload>>, Refusal> {
        let is_meant = |owner: &DeviceId| device.is_none_or(|device| device == owner);
        let known = self.book.get(id).filter(|known| is_meant(&known.device_id));
        if !self.registry.is_shared() {
            return Ok(known);
        }
        let open = match self.registry.open_upload(id).await {
            Ok(open) => open,
            // What is in hand can be gone on with.
            Err(_) if known.is_some() => return Ok(known),
            Err(error) => return Err(unavailable(&error)),
        };
        match (open, known) {
            (Some(open), Some(known)) if known.claim() >= open.claim => Ok(Some(known)),
            (Some(open), known) if is_meant(&open.upload.device_id) => {
                self.take(open.upload, known).await
            }
            // Recorded as stored in this very moment.
            (None, Some(known)) if !known.is_receiving() => Ok(Some(known)),
            (None, Some(known)) => {
                self.close(&known, UploadEnd::Deleted);
                Ok(None)
            }
            (_, None) | (Some(_), Some(_)) => Ok(None),
        }
    }

    /// The unfinished uploads of a device, in the order in which they were announced.
    ///
    /// # Errors
    /// [`Refusal`] where they cannot be looked up.
    pub(super) async fn standing(&self, device: &DeviceId) -> Result<Vec<Standing>, Refusal> {
        if !self.registry.is_shared() {
            let open = self.book.of_device(device).into_iter();
            return Ok(open
                .map(|live| Standing {
                    upload: Upload::clone(&live),
                    live: Some(live),
                })
                .collect());
        }
        let open = self.registry.open_uploads_of(device).await;
        let open = open.map_err(|error| unavailable(&error))?;
        let standing = open.into_iter().map(|open| {
            let live = self.book.get(open.upload.id);
            Standing {
                live: live.filter(|live| live.claim() >= open.claim),
                upload: open.upload,
            }
        });
        Ok(standing.collect())
    }

    /// Takes an upload that another node has, or none.
    async fn take(
        self: &Arc<Self>,
        upload: Upload,
        known: Option<Arc<LiveUpload>>,
    ) -> Result<Option<Arc<LiveUpload>>, Refusal> {
        if known.is_none() && self.book.len() >= self.config.max_open {
            return Err(Refusal::busy("too many uploads are in progress", 60));
        }
        let claim = self.registry.claim_upload(upload.id).await;
        let Some(claim) = claim.map_err(|error| unavailable(&error))? else {
            return Ok(None);
        };
        let live = match known.filter(|known| !known.is_closed()) {
            Some(known) => known,
            None => self.load_one(upload).await?,
        };
        live.claimed(claim);
        tracing::info!(upload = %live.id, device_id = %live.device_id, offset = live.offset(), "an upload was taken over from another node");
        if live.take_whole() {
            self.enqueue(Arc::clone(&live));
        }
        Ok(Some(live))
    }

    /// Puts an upload on the books, with what the spool has of it.
    async fn load_one(self: &Arc<Self>, upload: Upload) -> Result<Arc<LiveUpload>, Refusal> {
        let (spool, id, size) = (self.spool.clone(), upload.id, upload.size);
        let spooled = blocking(&self.shutdown, move || spool.load(id, size)).await;
        let spooled = spooled.map_err(|error| {
            tracing::error!(%error, upload = %id, "a file of the spool could not be read");
            Refusal::busy("the upload cannot be written now", 10)
        })?;
        let (live, is_new) = self.book.enter(Arc::new(LiveUpload::new(upload, spooled)));
        if is_new {
            self.metrics.uploads.open.inc();
            self.count_spooled(live.received());
        }
        Ok(live)
    }

    /// Lets go of an upload that another node has by now. Its file stays, for the case that the device comes back,
    /// until the upload has ended.
    async fn release(self: &Arc<Self>, upload: &Arc<LiveUpload>) {
        if !upload.close() {
            return;
        }
        let written = Arc::clone(upload);
        // Who writes to it just now is waited for: whoever takes it again reads the file.
        let received = blocking(&self.shutdown, move || {
            Ok(written.with_file(|_| written.received()))
        });
        let received = received.await.unwrap_or(0);
        self.book.remove(upload);
        self.metrics.uploads.open.dec();
        self.metrics.uploads.ended(UploadEnd::Moved).inc();
        let bytes = i64::try_from(received).unwrap_or(i64::MAX);
        self.metrics.uploads.spool_bytes.sub(bytes);
        upload.answer(UploadResultCode::TimeOut);
    }

    /// At the start, of what a process before this one has left: whole uploads are checked, which their devices do not
    /// wait for any more; the rest waits on the disk for its device. Files of uploads that are over go.
    pub(super) async fn load_own(self: &Arc<Self>) -> Result<(), StoreError> {
        let ids = self.sweep().await?;
        for id in ids {
            let Some(open) = self.registry.open_upload(id).await? else {
                continue;
            };
            let (spool, size) = (self.spool.clone(), open.upload.size);
            let spooled = blocking(&self.shutdown, move || spool.load(id, size)).await;
            let is_whole =
                |spooled: crate::store::spool::Spooled| spooled.state.have().covers(size);
            if spooled.map_err(spool_error)?.is_some_and(is_whole)
                && let Err(refusal) = self.take(open.upload, None).await
            {
                tracing::warn!(upload = %id, why = refusal.message, "a whole upload waits for the next start");
            }
        }
        Ok(())
    }

    /// Removes files of uploads that are over; gives those of which there are files and that are not in hand.
    pub(super) async fn sweep(&self) -> Result<Vec<Id>, StoreError> {
        let spool = self.spool.clone();
        let listed = blocking(&self.shutdown, move || spool.list()).await;
        let mut ids = listed.map_err(spool_error)?;
        ids.retain(|id| self.book.get(*id).is_none());
        let open = self.registry.upload_notes(&ids).await?;
        let (kept, over): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| open.contains_key(id));
        // One that was announced in between is in hand by now.
        let over: Vec<_> = over
            .into_iter()
            .filter(|id| self.book.get(*id).is_none())
            .collect();
        let spool = self.spool.clone();
        let removed = blocking(&self.shutdown, move || {
            over.into_iter().try_for_each(|id| spool.remove(id))
        });
        removed.await.map_err(spool_error)?;
        Ok(kept)
    }

    /// Tells the registry how far the uploads in hand are, and lets go of those that other nodes have, or nobody.
    pub(super) async fn look_after(self: &Arc<Self>) -> Result<(), StoreError> {
        let held = self.book.all();
        let ids: Vec<_> = held.iter().map(|upload| upload.id).collect();
        let notes = self.registry.upload_notes(&ids).await?;
        let mut news = Vec::new();
        for upload in &held {
            match notes.get(&upload.id) {
                None if upload.is_receiving() => {
                    self.close(upload, UploadEnd::Deleted);
                    upload.answer(UploadResultCode::FileNotExist);
                    self.tell(upload, UploadResultCode::FileNotExist);
                }
                Some(note) if note.claim > upload.claim() && upload.is_receiving() => {
                    self.release(upload).await;
                }
                // What waits to be checked moves no more, and is not abandoned for that.
                Some(note) if note.received != upload.received() || !upload.is_receiving() => {
                    news.push((upload.id, upload.claim(), upload.received()));
                }
                None | Some(_) => {}
            }
        }
        self.registry.note_uploads(&news).await
    }
}

impl LiveUpload {
    /// Whether its bytes are still coming.
    pub(super) fn is_receiving(&self) -> bool {
        matches!(self.phase(), Phase::Receiving | Phase::Putting)
    }
}

fn unavailable(error: &StoreError) -> Refusal {
    tracing::error!(%error, "an upload could not be looked up");
    Refusal::busy("the registry is not available", 10)
}

fn spool_error(source: std::io::Error) -> StoreError {
    StoreError::Io {
        path: "spool".to_owned(),
        source,
    }
}
