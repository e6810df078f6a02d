//! A transfer that a device has asked for on this connection, while it is being sent.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use headgate_protocol::{
    mqtt::QoS,
    transfer::window::{Chunk, Pump},
};
use smallvec::SmallVec;

use super::slots::Ticket;
use crate::{
    service::delivery::{DeliveryService, LIMITS_INTERVAL, LiveDelivery, Reserved, StoreError},
    telemetry::metrics::Metrics,
};

/// What is being sent, and how.
#[derive(Debug)]
pub(super) struct ActiveTransfer {
    pub(super) delivery: Arc<LiveDelivery>,
    pub(super) pump: Pump,
    /// At which chunks go: that of the subscription on the chunk topic.
    pub(super) qos: QoS,
    /// The chunk topic up to the offset.
    pub(super) topic_prefix: Box<str>,
    pub(super) slot: Slot,
    /// Tells chunks of this request from those of an earlier one that are still acknowledged.
    pub(super) generation: u32,
    /// When memory for another batch, or its turn by the limits of bytes a second, is looked for again.
    pub(super) memory_due: Option<Instant>,
    /// The next batch's place by those limits.
    reserved: Option<Reserved>,
    batch_sent_at: Option<Instant>,
    /// Chunks that were acknowledged and are not yet counted in the metrics.
    acknowledged: u32,
    /// Bytes sent with the slot that is held.
    slot_bytes: u64,
    /// How long the device takes to acknowledge the first chunk of a batch; the latest measure.
    answer_time: Duration,
}

/// A transfer's place among those that send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// None, and none asked for.
    None,
    /// In the queue.
    Waiting,
    /// May send.
    Held(Ticket),
}

impl ActiveTransfer {
    pub(super) fn new(
        delivery: Arc<LiveDelivery>,
        pump: Pump,
        qos: QoS,
        topic_prefix: String,
        generation: u32,
    ) -> Self {
        Self {
            delivery,
            pump,
            qos,
            topic_prefix: topic_prefix.into_boxed_str(),
            slot: Slot::None,
            generation,
            memory_due: None,
            reserved: None,
            batch_sent_at: None,
            acknowledged: 0,
            slot_bytes: 0,
            answer_time: Duration::ZERO,
        }
    }

    /// Whether there is a reason to ask for a slot.
    pub(super) fn wants_to_send(&self) -> bool {
        self.pump.is_ready() && !self.delivery.task.is_held()
    }

    /// From when on the next batch may go by the limits of bytes a second, or when to look again; its bytes are
    /// reserved.
    pub(super) fn turn(&mut self, service: &DeliveryService, now: Instant) -> Instant {
        if self.reserved.is_none() && !service.limits_rate(&self.delivery) {
            return now;
        }
        let reserved = self.reserved.get_or_insert_with(|| {
            let room = self.pump.window_bytes();
            let bytes = room.saturating_sub(self.pump.in_flight_bytes());
            service.reserve(&self.delivery, u64::from(bytes), now)
        });
        let wait = service.wait_of(&self.delivery, reserved, now);
        now + wait.min(LIMITS_INTERVAL)
    }

    /// Settles what was reserved with what was sent.
    pub(super) fn settle(&mut self, now: Instant, sent: usize) {
        if let Some(reserved) = self.reserved.take() {
            reserved.settle(u64::try_from(sent).unwrap_or(u64::MAX), now);
        }
    }

    /// The bytes of a chunk: one slice of the shared cache, or two where it straddles segments.
    pub(super) async fn payload(
        &self,
        service: &DeliveryService,
        chunk: Chunk,
    ) -> Result<SmallVec<[Bytes; 2]>, StoreError> {
        let mut slices = SmallVec::new();
        let mut offset = chunk.offset;
        while offset < chunk.end() {
            let left = usize::try_from(chunk.end() - offset).unwrap_or(usize::MAX);
            let slice = match service.cached(&self.delivery, offset, left) {
                Some(slice) => slice,
                None => Box::pin(service.read(&self.delivery, offset, left)).await?,
            };
            if slice.is_empty() {
                return Err(StoreError::Corrupt {
                    column: "blob",
                    reason: "ended before the size of its resource".to_owned(),
                });
            }
            offset = offset.saturating_add(u64::try_from(slice.len()).unwrap_or(u64::MAX));
            slices.push(slice);
        }
        Ok(slices)
    }

    /// Takes a slot: the turn begins.
    pub(super) fn hold(&mut self, ticket: Ticket) {
        self.slot = Slot::Held(ticket);
        self.slot_bytes = 0;
    }

    /// Whether as much was sent as one turn allows.
    pub(super) fn slot_is_used_up(&self, slot_bytes: u64) -> bool {
        self.slot_bytes >= slot_bytes
    }

    pub(super) fn on_batch_sent(&mut self, now: Instant, bytes: usize) {
        self.batch_sent_at = Some(now);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.slot_bytes = self.slot_bytes.saturating_add(bytes);
    }

    /// Takes note that the device has a chunk.
    pub(super) fn on_acknowledged(&mut self, now: Instant, chunk: Chunk) {
        self.acknowledged += 1;
        self.pump.on_acknowledged(chunk);
        if let Some(sent_at) = self.batch_sent_at.take() {
            self.answer_time = now.duration_since(sent_at);
        }
    }

    /// Counts what was acknowledged since the last call: many chunks at once, since every core counts in the same places.
    pub(super) fn count_acknowledged(&mut self, metrics: &Metrics) {
        let count = std::mem::take(&mut self.acknowledged);
        if count > 0 {
            metrics.delivery_chunks.acked.inc_by(u64::from(count));
            metrics.chunks_in_flight.sub(i64::from(count));
        }
    }

    /// Whether holding a slot until the device answers is in vain: it answers too late.
    pub(super) fn answers_later_than(&self, hold: Duration) -> bool {
        self.answer_time > hold
    }
}
