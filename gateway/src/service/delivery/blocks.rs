//! Deliveries to devices that ask for each block by itself: by CoAP, where the gateway pushes nothing.
//!
//! The request for a block says that the device has the one before it. What the device has not asked for is not sent,
//! so there is no pump here; places, steps and cursors are those of every delivery.

use std::sync::Arc;

use headgate_protocol::{identity::DeviceId, transfer::window::Chunk};

use super::{
    DeliveryService, Refusal,
    live::{Hold, LiveDelivery},
};
use crate::model::{DeliveryState, FailReason, Millis};

impl DeliveryService {
    /// Lets a device begin to ask for blocks, at `offset`: it has what lies before that.
    ///
    /// # Errors
    /// [`Refusal`] where it has to wait; nothing has changed then.
    pub async fn begin_blocks(
        &self,
        delivery: &Arc<LiveDelivery>,
        offset: u64,
    ) -> Result<(), Refusal> {
        self.admit_request(delivery)?;
        delivery.set_offered();
        delivery.resume_at(Some(offset));
        self.begin_sending(delivery).await;
        Ok(())
    }

    /// Whether blocks may be asked for without [`DeliveryService::begin_blocks`]: it has been called, and nothing has
    /// come between.
    pub fn goes_on(&self, delivery: &LiveDelivery) -> bool {
        delivery.is_admitted()
            && !delivery.task.is_held()
            && delivery.state() == DeliveryState::Delivering
    }

    /// Takes note that a block goes out.
    pub fn on_block_sent(&self, delivery: &LiveDelivery, block: Chunk) {
        self.inner.metrics.delivery_chunks.sent_coap.inc();
        if delivery.on_sent(block) {
            self.inner.metrics.delivery_chunks.resent_coap.inc();
        }
    }

    /// Takes note that the device has a block; says whether that ends the delivery, as
    /// [`DeliveryService::on_acknowledged`] does.
    pub fn on_block_acknowledged(&self, delivery: &Arc<LiveDelivery>, block: Chunk) -> bool {
        self.inner.metrics.delivery_chunks.acked_coap.inc();
        self.on_acknowledged(delivery, block)
    }

    /// A device that sleeps has been told of its delivery and has not answered yet: it owes nothing meanwhile.
    pub fn on_announcing(&self, delivery: &LiveDelivery) {
        delivery.touch();
    }

    /// A device that sleeps is away again. Its delivery keeps no place meanwhile; where it was awake `max_idle` times in
    /// a row and none of them brought a byte, the attempt fails: its time is counted in wake-ups.
    pub async fn on_asleep(&self, device: &DeviceId, max_idle: u32) {
        let out = self.inner.book.of_device(device);
        for delivery in out.iter().filter(|delivery| delivery.was_offered()) {
            if delivery.state().is_final() || delivery.hold() != Hold::None {
                continue;
            }
            if delivery.count_wakeup() >= max_idle {
                tracing::info!(delivery = %delivery.id, device_id = %device, "a delivery timed out over wake-ups");
                let reason = FailReason::Timeout {
                    which: "step_timeout",
                };
                self.finish_or_log(delivery, DeliveryState::Failed, Some(reason))
                    .await;
            }
        }
        self.on_away(device);
    }
}

/// Whether the time that a delivery may be in progress does not count for now: that of a device which sleeps is counted
/// in wake-ups.
pub(super) fn is_counted_in_wakeups(delivery: &LiveDelivery, at: Millis) -> bool {
    let patience = delivery.task.terms().timers.in_progress * SLEEPERS_PATIENCE;
    let woke = delivery.woke_at();
    woke.is_some_and(|woke| at < woke.after(patience))
}

/// A device that sleeps and does not wake up for so many times of what a delivery may take is gone.
const SLEEPERS_PATIENCE: u32 = 30;
