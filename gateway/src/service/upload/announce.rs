//! What a device says about its uploads and is answered: announcement, state, report.
//!
//! The rule for names: an announcement of the same bytes under the same name goes on with the upload that there is;
//! one of other bytes takes the place of an unfinished one at once, and of a stored one when it is whole.

use std::{net::IpAddr, sync::Arc, time::Duration};

use headgate_protocol::{
    identity::{DeviceId, NodeId, ProductId},
    transfer::{
        message::{
            CreateUploadTask, CreateUploadTaskRsp, Receipt, TransferErrorCode, UploadReport,
            UploadReportState, UploadState,
        },
        upload::{UploadResultCode, window_chunks},
    },
};

use super::{
    Ended, Refusal, UploadService,
    hold::Standing,
    journal::NotChanged,
    live::{LiveUpload, Phase, same_content},
    now,
};
use crate::{
    model::{Id, Millis, Upload},
    service::link::Purpose,
    store::registry::UploadChange,
    telemetry::metrics::UploadEnd,
};

/// An upload that has been silent for so long gives its place to one that is announced.
const SILENT: Duration = Duration::from_mins(1);

/// The device that announces.
#[derive(Debug, Clone, Copy)]
pub struct Uploader<'a> {
    /// Which.
    pub device_id: &'a DeviceId,
    /// Its product.
    pub product_id: &'a ProductId,
    /// Its id in that.
    pub node_id: &'a NodeId,
    /// The address at which it reached us: without a configured public address it is what the URL carries.
    pub reached_at: Option<IpAddr>,
}

/// What an announcement came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// What the device is told.
    pub rsp: CreateUploadTaskRsp,
    /// Where the very same was stored before: how that ended, for the device to be told again.
    pub ended: Option<Ended>,
}

impl UploadService {
    /// Takes an announcement; on return it is recorded.
    ///
    /// # Errors
    /// [`Refusal`] where it is too large, too many, or there is no room.
    pub async fn create(
        &self,
        who: Uploader<'_>,
        task: &CreateUploadTask,
    ) -> Result<Created, Refusal> {
        let open = self.inner.standing(who.device_id).await?;
        let same_name = open.iter().find(|known| known.upload.name == task.name);
        let is_same =
            |known: &&Standing| same_content(&known.upload, task.size, task.md5, task.sha256);
        if let Some(known) = same_name.filter(is_same) {
            let held = match &known.live {
                Some(live) => Some(Arc::clone(live)),
                None => {
                    self.inner
                        .hold(known.upload.id, Some(who.device_id))
                        .await?
                }
            };
            return match held {
                Some(upload) => Ok(self.created(who, task, &upload)),
                None => Err(Refusal::busy("the upload has just ended", 1)),
            };
        }
        if task.by_chunks
            && let Some(stored) = self.stored_before(who.device_id, task).await?
        {
            return Ok(self.already_stored(task, &stored));
        }
        let refused = self.admit(task, &open, same_name.is_some()).await;
        let make_room = refused.inspect_err(|_| {
            let ended = &self.inner.metrics.uploads;
            ended.ended(UploadEnd::Refused).inc();
        })?;
        if let Some(silent) = make_room {
            self.end_silent(&silent).await;
        }
        let upload = Upload {
            id: self.inner.registry.next_id(),
            device_id: who.device_id.clone(),
            product_id: who.product_id.clone(),
            node_id: who.node_id.clone(),
            name: task.name.clone(),
            version: 0,
            size: task.size,
            md5: task.md5,
            sha256: task.sha256,
            blob: None,
            created_at: now(),
            finished_at: None,
        };
        let change = UploadChange::Announce {
            upload: upload.clone(),
            instead_of: same_name.map(|replaced| replaced.upload.id),
            limits: self.inner.limits(),
        };
        self.inner.journal.commit(change).await.map_err(|error| {
            self.inner.metrics.uploads.ended(UploadEnd::Refused).inc();
            match error {
                NotChanged::Quota { .. } => QUOTA,
                NotChanged::Failed => Refusal::busy("the registry is not available", 10),
            }
        })?;
        if let Some(replaced) = same_name.and_then(|known| known.live.as_ref()) {
            self.inner.close(replaced, UploadEnd::Replaced);
            replaced.answer(UploadResultCode::FileNotExist);
        }
        let live = Arc::new(LiveUpload::new(upload, None));
        self.inner.book.insert(&live);
        self.inner.metrics.uploads.open.inc();
        tracing::debug!(device_id = %who.device_id, upload = %live.id, size = task.size, "an upload was announced");
        Ok(self.created(who, task, &live))
    }

    /// How long the address in an announcement's answer can be used.
    pub fn url_lifetime(&self) -> Duration {
        self.inner.urls.lifetime()
    }

    /// Whether there is a place for one more: where it needs one, the silent upload that has to go for it.
    async fn admit(
        &self,
        task: &CreateUploadTask,
        open: &[Standing],
        has_place: bool,
    ) -> Result<Option<Standing>, Refusal> {
        let config = &self.inner.config;
        if task.size > config.max_size_bytes {
            return Err(TOO_LARGE);
        }
        // In the spool, and then once more as a blob while it is checked.
        let (inner, needed) = (Arc::clone(&self.inner), task.size.saturating_mul(2));
        let room = super::blocking(&self.inner.shutdown, move || Ok(inner.has_room(needed))).await;
        if !room.unwrap_or(false) {
            return Err(Refusal::NO_SPACE);
        }
        if has_place {
            return Ok(None);
        }
        if self.inner.book.len() >= config.max_open {
            return Err(Refusal::busy("too many uploads are in progress", 60));
        }
        if open.len() < config.max_open_per_device {
            return Ok(None);
        }
        let (at, never) = (now(), Millis::from_i64(0));
        // The device is here: what it left at another node is silent.
        let moved_at =
            |known: &&Standing| known.live.as_ref().map_or(never, |live| live.moved_at());
        let is_silent = |known: &&Standing| {
            let phase = known
                .live
                .as_ref()
                .map_or(Phase::Receiving, |live| live.phase());
            phase == Phase::Receiving && at.since(moved_at(known)) >= SILENT
        };
        match open.iter().filter(is_silent).min_by_key(moved_at) {
            Some(silent) => Ok(Some(silent.clone())),
            None => Err(Refusal::busy(
                "too many uploads of this device are in progress",
                60,
            )),
        }
    }

    /// Ends an upload that has to make room.
    async fn end_silent(&self, silent: &Standing) {
        let (end, code) = (UploadEnd::Replaced, UploadResultCode::TimeOut);
        if let Some(live) = &silent.live {
            return self.inner.drop_upload(live, end, code).await;
        }
        let change = UploadChange::Delete {
            id: silent.upload.id,
            claim: None,
            audit: None,
        };
        match self.inner.journal.commit(change).await {
            Ok(deleted) => self.inner.delete_blobs(deleted.freed).await,
            Err(error) => {
                tracing::error!(%error, upload = %silent.upload.id, "the end of an upload was not recorded");
            }
        }
    }

    /// What is stored already and is just what the device announces.
    async fn stored_before(
        &self,
        device: &DeviceId,
        task: &CreateUploadTask,
    ) -> Result<Option<Upload>, Refusal> {
        let stored = self.inner.registry.stored_upload(device, &task.name).await;
        let stored = stored.map_err(|error| {
            tracing::error!(%error, "an upload could not be looked up");
            Refusal::busy("the registry is not available", 10)
        })?;
        Ok(stored.filter(|stored| same_content(stored, task.size, task.md5, task.sha256)))
    }

    fn created(
        &self,
        who: Uploader<'_>,
        task: &CreateUploadTask,
        upload: &Arc<LiveUpload>,
    ) -> Created {
        let rsp = CreateUploadTaskRsp {
            url: self
                .inner
                .urls
                .url(Purpose::Upload, upload.id, who.reached_at),
            ..self.answer(task, upload.transfer().to_owned(), upload.offset())
        };
        upload.set_chunk_size(rsp.chunk_size);
        Created { rsp, ended: None }
    }

    fn already_stored(&self, task: &CreateUploadTask, stored: &Upload) -> Created {
        let transfer = stored.id.to_string();
        let ended = Ended {
            transfer: transfer.as_str().into(),
            name: stored.name.as_str().into(),
            code: UploadResultCode::Stored,
        };
        // A chunk of it that comes all the same is acknowledged.
        self.inner
            .remembered
            .insert(stored.id, (stored.device_id.clone(), ended.clone()));
        Created {
            rsp: self.answer(task, transfer, stored.size),
            ended: Some(ended),
        }
    }

    fn answer(
        &self,
        task: &CreateUploadTask,
        transfer: String,
        offset: u64,
    ) -> CreateUploadTaskRsp {
        let config = &self.inner.config;
        let chunk_size = task
            .chunk_size
            .unwrap_or_else(|| u32::try_from(config.chunk_bytes).unwrap_or(u32::MAX));
        let window_bytes = u64::try_from(config.window_bytes).unwrap_or(u64::MAX);
        CreateUploadTaskRsp {
            size: task.size,
            name: task.name.clone(),
            md5sum: task.md5.map(hex::encode).unwrap_or_default(),
            url: String::new(),
            transfer,
            offset,
            chunk_size,
            window: window_chunks(window_bytes, chunk_size),
        }
    }

    /// How an upload stands; of one that has ended also how.
    ///
    /// # Errors
    /// [`Refusal`] where the device has none of that name.
    pub async fn state(
        &self,
        device: &DeviceId,
        transfer: &str,
    ) -> Result<(Option<UploadState>, Option<Ended>), Refusal> {
        let id: Id = transfer.parse().map_err(|_| Refusal::UNKNOWN)?;
        if let Some(upload) = self.inner.hold(id, Some(device)).await? {
            return Ok((Some(upload.state()), None));
        }
        let whole = |offset| UploadState {
            transfer: transfer.to_owned(),
            offset,
            missing: String::new(),
        };
        let stored = self.inner.registry.upload(id).await.map_err(|error| {
            tracing::error!(%error, "an upload could not be looked up");
            Refusal::busy("the registry is not available", 10)
        })?;
        if let Some(stored) =
            stored.filter(|known| known.device_id == *device && known.blob.is_some())
        {
            let ended = Ended {
                transfer: transfer.into(),
                name: stored.name.as_str().into(),
                code: UploadResultCode::Stored,
            };
            return Ok((Some(whole(stored.size)), Some(ended)));
        }
        match self.inner.remembered.get(&id) {
            Some((owner, ended)) if owner == *device => Ok((None, Some(ended))),
            _ => Err(Refusal::UNKNOWN),
        }
    }

    /// Takes a report of the device; the receipt is what it is answered with.
    pub async fn report(&self, device: &DeviceId, report: &UploadReport) -> Receipt {
        let open = match self.inner.standing(device).await {
            Ok(open) => open,
            Err(refusal) => {
                return Receipt {
                    result_code: -1,
                    result_msg: refusal.message.to_owned(),
                };
            }
        };
        let meant = open.iter().find(|known| match &report.transfer {
            Some(transfer) => known.upload.id.to_string() == *transfer,
            None => report
                .name
                .as_ref()
                .is_none_or(|name| *name == known.upload.name),
        });
        let Some(known) = meant else {
            // One that is stored, or a report that comes again because its receipt was lost.
            return Receipt::ok();
        };
        let Some(upload) = &known.live else {
            return if matches!(report.state, UploadReportState::Done) {
                Receipt {
                    result_code: -1,
                    result_msg: "incomplete: ask where it stands".to_owned(),
                }
            } else {
                Receipt::ok()
            };
        };
        match report.state {
            UploadReportState::Done
                if matches!(upload.phase(), Phase::Receiving | Phase::Putting) =>
            {
                Receipt {
                    result_code: -1,
                    result_msg: format!(
                        "incomplete: {} of {} bytes are stored",
                        upload.received(),
                        upload.size
                    ),
                }
            }
            UploadReportState::Fail => {
                tracing::info!(device_id = %device, upload = %upload.id, code = report.result_code, message = report.result_msg, "a device gave an upload up for now");
                Receipt::ok()
            }
            UploadReportState::Done | UploadReportState::Uploading => Receipt::ok(),
        }
    }
}

const TOO_LARGE: Refusal = Refusal::new(
    TransferErrorCode::TooLarge,
    "it is larger than an upload may be",
);
const QUOTA: Refusal = Refusal::new(
    TransferErrorCode::QuotaExceeded,
    "as much is stored as may be",
);
