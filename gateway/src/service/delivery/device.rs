//! What a connected device and the gateway do about a delivery: offer and bytes, and what it reports (`reports`).
//!
//! Sessions call this; nothing here knows which wire the device is on.

mod reports;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use headgate_protocol::{
    identity::DeviceId,
    transfer::{
        PART_BYTES,
        message::{Announcement, GetChunks, Manifest, TransferError, TransferErrorCode},
        window::{AskError, Chunk, Pump},
    },
};

use super::{
    DeliveryService,
    finish::change,
    live::{Hold, LiveDelivery, Step},
    rate::Reserved,
    wait::WaitReason,
};
use crate::{
    model::{DeliveryState, Id, Millis, task::was_ended_by_us},
    service::link::Purpose,
    store::StoreError,
};

/// How often whoever waits by a limit of bytes a second looks whether it was changed.
pub const LIMITS_INTERVAL: Duration = Duration::from_secs(1);
/// How long the first byte of a delivery waits for the record that it goes out.
const RECORD_PATIENCE: Duration = Duration::from_secs(2);

/// What waits for a device.
#[derive(Debug)]
pub enum Offer {
    /// Nothing.
    Nothing,
    /// Something, and it is not its turn yet: the session is woken when it is.
    Waiting,
    /// This.
    Ready(Box<Offered>),
}

/// A delivery that the device may begin.
#[derive(Debug)]
pub struct Offered {
    /// The delivery.
    pub delivery: Arc<LiveDelivery>,
    /// What the device is told.
    pub announcement: Announcement,
}

/// Why a request of a device was not served; told to it as `transfer_error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of error.
    pub code: TransferErrorCode,
    /// One sentence.
    pub message: &'static str,
    /// Seconds after which asking again makes sense.
    pub retry_after: Option<u32>,
}

impl Refusal {
    const fn new(code: TransferErrorCode, message: &'static str) -> Self {
        Self {
            code,
            message,
            retry_after: None,
        }
    }

    /// The device does not listen where the bytes would go.
    pub const fn not_subscribed() -> Self {
        Self::new(
            TransferErrorCode::NotSubscribed,
            "subscribe to the chunk topic first, at QoS 1 for window mode",
        )
    }

    /// The bytes cannot be read just now.
    pub const fn unreadable() -> Self {
        Self::busy("the resource cannot be read now")
    }

    const fn busy(message: &'static str) -> Self {
        Self {
            code: TransferErrorCode::Busy,
            message,
            retry_after: Some(10),
        }
    }

    /// The message that tells the device, about the transfer as it named it.
    pub fn into_message(self, transfer: &str) -> TransferError {
        TransferError {
            transfer: transfer.chars().take(32).collect(),
            code: self.code,
            message: self.message.to_owned(),
            retry_after: self.retry_after,
        }
    }
}

/// A device's bounds that a pump has to respect.
#[derive(Debug, Clone, Copy)]
pub struct PumpLimits {
    /// Packets that the client takes before it acknowledged one.
    pub receive_maximum: u16,
    /// The largest payload that fits a packet which the client takes, in bytes.
    pub max_payload_bytes: u32,
}

impl DeliveryService {
    /// What waits for `device`, and a place for it if one is free.
    ///
    /// `reached_at` is the address at which the device reached us: without a configured public
    /// address it is what the URL carries.
    pub fn offer(&self, device: &DeviceId, reached_at: Option<IpAddr>) -> Offer {
        let queue = self.inner.book.of_device(device);
        if queue.is_empty() {
            return Offer::Nothing;
        }
        let now = Millis::now();
        // One that is out already goes before all that wait; of those the first that may begin.
        let out = queue.iter().find(|delivery| delivery.is_admitted());
        let next = out.or_else(|| {
            let mut waiting = queue.iter();
            waiting.find(|delivery| self.inner.admission.admit(delivery, now).is_ok())
        });
        let Some(delivery) = next.filter(|delivery| !delivery.task.is_held()) else {
            self.serve_waiting();
            return Offer::Waiting;
        };
        delivery.touch();
        delivery.set_offered();
        let announcement = self.announcement(delivery, reached_at);
        Offer::Ready(Box::new(Offered {
            delivery: Arc::clone(delivery),
            announcement,
        }))
    }

    /// Records that the device knows of the delivery.
    pub async fn on_announced(&self, delivery: &Arc<LiveDelivery>) {
        self.note_step(delivery, DeliveryState::Pushed).await;
    }

    /// The open delivery that `device` means by `transfer`.
    ///
    /// # Errors
    /// [`Refusal`] where there is none: never, no more, or not for this device.
    pub async fn find(
        &self,
        device: &DeviceId,
        transfer: &str,
    ) -> Result<Arc<LiveDelivery>, Refusal> {
        const UNKNOWN: Refusal = Refusal::new(
            TransferErrorCode::UnknownTransfer,
            "no such transfer is open for this device",
        );
        let id: Id = transfer.parse().map_err(|_| UNKNOWN)?;
        if let Some(delivery) = self.inner.book.by_id(id) {
            return if delivery.device_id == *device {
                Ok(delivery)
            } else {
                Err(UNKNOWN)
            };
        }
        match self.closed_refusal(device, id).await {
            Ok(refusal) => Err(refusal.unwrap_or(UNKNOWN)),
            Err(error) => {
                tracing::error!(%error, "a transfer could not be looked up");
                Err(Refusal::busy("the registry is not available"))
            }
        }
    }

    /// Starts to send what the device asks for.
    ///
    /// # Errors
    /// [`Refusal`] where it cannot be served; nothing has changed then.
    pub async fn begin(
        &self,
        delivery: &Arc<LiveDelivery>,
        request: &GetChunks,
        limits: PumpLimits,
    ) -> Result<Pump, Refusal> {
        let config = &self.inner.config;
        let chunk_bytes = request
            .chunk_size
            .unwrap_or_else(|| self.default_chunk_bytes());
        if chunk_bytes > limits.max_payload_bytes {
            return Err(Refusal::new(
                TransferErrorCode::BadRequest,
                "a chunk of this size does not fit the client's maximum packet size",
            ));
        }
        let size = delivery.content.size;
        let asked = request.offset.unwrap_or_else(|| delivery.resume_at(None));
        let window = u32::try_from(config.window_bytes).unwrap_or(u32::MAX);
        let pump = Pump::start(
            size,
            asked,
            chunk_bytes,
            &request.ask,
            window,
            limits.receive_maximum,
        )
        .map_err(|error| match error {
            AskError::OutOfRange => Refusal::new(
                TransferErrorCode::OutOfRange,
                "the request reaches beyond the end of the resource",
            ),
            AskError::ChunkSize => Refusal::new(
                TransferErrorCode::BadRequest,
                "chunk_size must be 256 to 131072",
            ),
        })?;
        self.admit_request(delivery)?;
        delivery.set_offered();
        delivery.resume_at(request.offset.filter(|_| request.ask_moves_cursor()));
        self.begin_sending(delivery).await;
        Ok(pump)
    }

    /// Gives a delivery whose bytes are asked for a place, unless it has one.
    pub(super) fn admit_request(&self, delivery: &Arc<LiveDelivery>) -> Result<(), Refusal> {
        if delivery.task.is_held() {
            return Err(Refusal::busy("the task is paused"));
        }
        let admitted = self.inner.admission.admit(delivery, Millis::now());
        admitted.map_err(|reason| {
            Refusal::busy(match reason {
                WaitReason::DeviceBusy => "another delivery is out to the device",
                WaitReason::InProgressLimit => "too many deliveries are in progress",
                _ => "the delivery may not begin yet",
            })
        })
    }

    /// Bytes of a delivery, from the cache that all devices share; at most `max`, fewer at the
    /// end of a segment. `None`: they have to be read, see [`DeliveryService::read`].
    pub fn cached(&self, delivery: &LiveDelivery, offset: u64, max: usize) -> Option<Bytes> {
        self.inner.cache.cached(&delivery.content, offset, max)
    }

    /// The same bytes, read into the cache where they are not there.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be read.
    pub async fn read(
        &self,
        delivery: &LiveDelivery,
        offset: u64,
        max: usize,
    ) -> Result<Bytes, StoreError> {
        self.inner.cache.read(&delivery.content, offset, max).await
    }

    /// Takes note that the device has these bytes; says whether that ends the delivery, because
    /// its product asks for no word of the device's own: [`DeliveryService::confirm`] follows then.
    pub fn on_acknowledged(&self, delivery: &Arc<LiveDelivery>, chunk: Chunk) -> bool {
        let config = &self.inner.config;
        if delivery.on_acknowledged(chunk, config.checkpoint_interval, config.checkpoint_bytes) {
            self.inner.checkpoints.mark(delivery);
        }
        delivery.confirm_by_acknowledgement && delivery.is_acknowledged_whole()
    }

    /// Ends a delivery whose every byte has been acknowledged.
    pub async fn confirm(&self, delivery: &Arc<LiveDelivery>) {
        self.finish_or_log(delivery, DeliveryState::Delivered, None)
            .await;
    }

    /// Digests of parts of the resource.
    ///
    /// # Errors
    /// [`Refusal`] where `from` lies beyond the last part.
    pub fn manifest(
        &self,
        delivery: &LiveDelivery,
        from: u32,
        count: u32,
    ) -> Result<Manifest, Refusal> {
        const DIGEST_BYTES: usize = 32;
        let digests = &delivery.content.part_digests;
        let parts = digests.len() / DIGEST_BYTES;
        let start = usize::try_from(from).unwrap_or(usize::MAX);
        if start >= parts && !(start == 0 && parts == 0) {
            return Err(Refusal::new(
                TransferErrorCode::OutOfRange,
                "there are fewer parts than that",
            ));
        }
        let end = start
            .saturating_add(usize::try_from(count).unwrap_or(usize::MAX))
            .min(parts);
        Ok(Manifest {
            transfer: delivery.transfer.to_string(),
            from,
            count: u32::try_from(end - start).unwrap_or(u32::MAX),
            digest_size: PART_BYTES,
            digests: STANDARD.encode(&digests[start * DIGEST_BYTES..end * DIGEST_BYTES]),
        })
    }

    /// Lines bytes that are about to be sent up by the limits of task and node: [`DeliveryService::wait_of`] tells how
    /// long to wait with them.
    pub fn reserve(&self, delivery: &LiveDelivery, bytes: u64, now: Instant) -> Reserved {
        let terms = delivery.task.terms();
        Reserved::new([self.inner.rate.as_ref(), terms.rate.as_ref()], bytes, now)
    }

    /// How long to wait with bytes that were lined up, by the limits as they are now: whoever waits looks again after
    /// [`LIMITS_INTERVAL`] at the latest.
    pub fn wait_of(&self, delivery: &LiveDelivery, reserved: &Reserved, now: Instant) -> Duration {
        let terms = delivery.task.terms();
        reserved.wait([self.inner.rate.as_ref(), terms.rate.as_ref()], now)
    }

    /// Waits until bytes that were lined up may go; the delivery says meanwhile what it waits for.
    ///
    /// # Cancel safety
    /// A cancelled call gives them back.
    pub async fn turn_of(&self, delivery: &LiveDelivery, reserved: Reserved) {
        let mut wait = self.wait_of(delivery, &reserved, Instant::now());
        if !wait.is_zero() {
            delivery.set_hold(Hold::BytesRate);
            while !wait.is_zero() {
                tokio::time::sleep(wait.min(LIMITS_INTERVAL)).await;
                wait = self.wait_of(delivery, &reserved, Instant::now());
            }
            delivery.set_hold(Hold::None);
        }
        reserved.settle_whole();
    }

    /// Whether there is a limit to ask before bytes of this delivery are sent.
    pub fn limits_rate(&self, delivery: &LiveDelivery) -> bool {
        self.inner.rate.is_some() || delivery.task.limits_rate()
    }

    /// A device's session is over: its deliveries give their places to others.
    pub fn on_disconnected(&self, device: &DeviceId) {
        self.on_away(device);
        self.leave_to_others(device);
    }

    /// A device cannot be reached for a while, and is still this node's: its deliveries give their places to others.
    pub fn on_away(&self, device: &DeviceId) {
        for delivery in self.inner.book.of_device(device) {
            self.inner.admission.release(&delivery);
            delivery.set_hold(Hold::None);
            if delivery.take_unsaved() {
                self.inner.checkpoints.mark(&delivery);
            }
        }
        self.serve_waiting();
    }

    fn default_chunk_bytes(&self) -> u32 {
        u32::try_from(self.inner.config.chunk_bytes).unwrap_or(u32::MAX)
    }

    fn announcement(&self, delivery: &LiveDelivery, reached_at: Option<IpAddr>) -> Announcement {
        let content = &delivery.content;
        let chunk_size = self.default_chunk_bytes();
        Announcement {
            size: content.size,
            name: content.name.to_string(),
            md5sum: hex::encode(content.md5),
            url: self
                .inner
                .urls
                .url(Purpose::Download, delivery.id, reached_at),
            transfer: delivery.transfer.to_string(),
            sha256: hex::encode(content.sha256),
            chunk_size,
            chunks: content.size.div_ceil(u64::from(chunk_size)),
            version: content.version,
            acked: delivery.acknowledged_bytes(),
        }
    }

    /// What to say of a transfer that is not open.
    async fn closed_refusal(
        &self,
        device: &DeviceId,
        id: Id,
    ) -> Result<Option<Refusal>, StoreError> {
        let Some(closed) = self
            .inner
            .registry
            .delivery(id)
            .await?
            .filter(|known| known.device_id == *device)
        else {
            return Ok(None);
        };
        if was_ended_by_us(closed.reason.as_deref()) {
            return Ok(Some(Refusal::new(
                TransferErrorCode::Canceled,
                "the delivery was cancelled",
            )));
        }
        let Some((task, _)) = self.inner.registry.task(closed.task_id).await? else {
            return Ok(None);
        };
        let current = self.inner.registry.resource(task.resource_id).await?;
        let stale = current.is_none_or(|resource| resource.version != task.resource_version);
        Ok(stale.then(|| {
            Refusal::new(
                TransferErrorCode::StaleVersion,
                "the resource has a newer version",
            )
        }))
    }

    /// Moves a delivery to `delivering`, and waits until that is recorded: no byte goes out of which a process that is
    /// killed would know nothing, and refuse what the device has as incomplete. A registry that does not answer holds
    /// nobody up for longer than [`RECORD_PATIENCE`]: bytes need none.
    pub(super) async fn begin_sending(&self, delivery: &Arc<LiveDelivery>) {
        let (to, at) = (DeliveryState::Delivering, Millis::now());
        let Step::Taken { from } = delivery.advance(to, at) else {
            return;
        };
        self.count_moved(delivery, from, to, at);
        let step = change(delivery, to, at, None);
        if let Ok(recorded) = self.inner.journal.enter(&delivery.task, step).await {
            let _late = tokio::time::timeout(RECORD_PATIENCE, recorded).await;
        }
    }

    /// Moves a delivery forward and notes it, without waiting for the commit.
    pub(super) async fn note_step(&self, delivery: &Arc<LiveDelivery>, to: DeliveryState) {
        let at = Millis::now();
        let Step::Taken { from } = delivery.advance(to, at) else {
            return;
        };
        self.count_moved(delivery, from, to, at);
        self.inner
            .journal
            .note(&delivery.task, change(delivery, to, at, None))
            .await;
    }

    /// Counts a step that was taken, and has the delivery's time run from its first one.
    fn count_moved(
        &self,
        delivery: &Arc<LiveDelivery>,
        from: DeliveryState,
        to: DeliveryState,
        at: Millis,
    ) {
        self.count_step(delivery, from, to);
        if from == DeliveryState::Pending {
            let end = at.after(delivery.task.terms().timers.in_progress);
            self.inner.alarms.set(delivery.id, &delivery.alarm, end);
        }
        if to == DeliveryState::Delivering {
            let (created_at, pushed_at, _) = delivery.stamps();
            let waited = at.since(pushed_at.unwrap_or(created_at));
            self.inner
                .metrics
                .delivery_first_byte_seconds
                .observe(waited.as_secs_f64());
        }
    }
}
