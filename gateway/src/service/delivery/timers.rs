//! Deliveries that do not get on: the three timers, looked at once a second.
//!
//! Only deliveries in progress are looked at, of which there are at most
//! `delivery.max_in_progress`, and only those whose device is connected are in progress: being
//! offline is a wait and no failure, up to `delivery.in_progress_timeout`.

use std::time::Duration;

use super::{DeliveryService, live::LiveDelivery};
use crate::model::{DeliveryState, FailReason, Millis};

const INTERVAL: Duration = Duration::from_secs(1);

impl DeliveryService {
    /// Looks again and again, until it is dropped.
    pub(super) async fn run_timers(&self) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for delivery in self.inner.admission.in_progress() {
                if let Some(which) = self.overdue(&delivery, Millis::now()) {
                    let reason = FailReason::Timeout { which };
                    tracing::info!(delivery = %delivery.id, device_id = %delivery.device_id, which, "a delivery timed out");
                    self.inner.links().cancel(
                        &delivery.device_id,
                        &delivery.transfer,
                        &delivery.content.name,
                    );
                    self.finish_or_log(&delivery, DeliveryState::Failed, Some(reason))
                        .await;
                }
            }
        }
    }

    /// Which timer has run out.
    fn overdue(&self, delivery: &LiveDelivery, now: Millis) -> Option<&'static str> {
        let config = &self.inner.config;
        let stall = delivery.stall();
        let out_for = stall
            .pushed_at
            .map_or(Duration::ZERO, |pushed_at| now.since(pushed_at));
        if out_for >= config.in_progress_timeout {
            return Some("in_progress_timeout");
        }
        let allowed = if stall.all_sent {
            config.confirm_timeout
        } else {
            config.step_timeout
        };
        let which = if stall.all_sent {
            "confirm_timeout"
        } else {
            "step_timeout"
        };
        // A paused task owes nothing and is owed nothing.
        (stall.idle >= allowed && !delivery.task.is_paused()).then_some(which)
    }
}
