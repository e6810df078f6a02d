//! What happens because time has passed, looked at once a second: timers of deliveries, the end of
//! back-offs, the hours of tasks, and what tasks owe to what became of their deliveries.
//!
//! The step and confirm timers run for deliveries in progress, whose devices are connected; how long
//! a delivery may be in progress counts the device's absence, too. Of all others only those are
//! looked at whose alarm is due.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use super::{
    DeliveryService,
    blocks::is_counted_in_wakeups,
    finish::ENDS_AT_ONCE,
    live::{Hold, LiveDelivery},
};
use crate::model::{DeliveryState, FailReason, Millis, RunState};

const INTERVAL: Duration = Duration::from_secs(1);
/// Looks at everything that waits, for the metrics, are this many times rarer.
const WAITING_EVERY: u32 = 10;
/// Alarms of one look.
const MAX_ALARMS: usize = 2_000;
/// The slowest link that is still worth waiting for, in bytes a second.
const SLOWEST_BYTES_PER_SEC: u64 = 256;
/// A task that is held is asked again after so long.
const HELD_AGAIN: Duration = Duration::from_mins(1);

impl DeliveryService {
    /// Looks again and again, and at once when it is nudged, until it is dropped.
    pub(super) async fn run_timers(&self) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        loop {
            let ticked = tokio::select! {
                _ = tick.tick() => true,
                () = self.inner.nudge.notified() => false,
            };
            if self.inner.shared.is_none() {
                self.settle_tasks().await;
            }
            if ticked {
                self.pass_time(Instant::now(), Millis::now()).await;
                if ticks.is_multiple_of(WAITING_EVERY) {
                    self.count_waiting().await;
                }
                ticks = ticks.wrapping_add(1);
            }
        }
    }

    /// Acts on everything whose time has come.
    pub(super) async fn pass_time(&self, now: Instant, at: Millis) {
        let overdue: Vec<_> = self
            .inner
            .admission
            .in_progress()
            .into_iter()
            .filter_map(|delivery| Some((self.overdue(&delivery, now)?, delivery)))
            .collect();
        self.time_out(overdue).await;
        self.ring(at).await;
        if self.inner.shared.is_none() {
            self.open_hours(at).await;
        }
        self.inner.admission.recall_all();
        self.serve_waiting_at(at);
    }

    /// Which timer of a delivery in progress has run out.
    pub(super) fn overdue(&self, delivery: &LiveDelivery, now: Instant) -> Option<&'static str> {
        let stall = delivery.stall(now);
        let timers = delivery.task.terms().timers;
        // A held task owes nothing and is owed nothing; nor does a device whose bytes we keep back.
        if delivery.task.is_held() || delivery.hold() != Hold::None {
            return None;
        }
        if stall.all_sent {
            return (stall.idle >= timers.confirm).then_some("confirm_timeout");
        }
        // Sent at QoS 0 or by HTTPS nothing is ever acknowledged: a window bounds what is under way.
        let window = u64::try_from(self.inner.config.window_bytes).unwrap_or(u64::MAX);
        let in_flight = stall.in_flight_bytes.min(window);
        let allowed = timers
            .step
            .max(Duration::from_secs(in_flight / SLOWEST_BYTES_PER_SEC));
        (stall.idle >= allowed).then_some("step_timeout")
    }

    /// Ends back-offs, and deliveries that have been in progress for too long.
    async fn ring(&self, at: Millis) {
        let mut overdue = Vec::new();
        for id in self.inner.alarms.due(at, MAX_ALARMS) {
            let Some(delivery) = self.inner.book.by_id(id) else {
                continue;
            };
            let Some(out_since) = delivery.out_since() else {
                self.inner.links().wake(&delivery.device_id);
                continue;
            };
            let end = out_since.after(delivery.task.terms().timers.in_progress);
            if at < end {
                self.inner.alarms.set(id, &delivery.alarm, end);
            } else if delivery.task.is_held() || is_counted_in_wakeups(&delivery, at) {
                let again = at.after(HELD_AGAIN);
                self.inner.alarms.set(id, &delivery.alarm, again);
            } else {
                overdue.push(("in_progress_timeout", delivery));
            }
        }
        self.time_out(overdue).await;
    }

    async fn time_out(&self, overdue: Vec<(&'static str, Arc<LiveDelivery>)>) {
        let ending = |(which, delivery): (&'static str, Arc<LiveDelivery>)| async move {
            tracing::info!(delivery = %delivery.id, device_id = %delivery.device_id, which, "a delivery timed out");
            let reason = FailReason::Timeout { which };
            self.finish_or_log(&delivery, DeliveryState::Failed, Some(reason))
                .await;
        };
        stream::iter(overdue)
            .for_each_concurrent(ENDS_AT_ONCE, ending)
            .await;
    }

    /// Lets tasks run whose time has come.
    async fn open_hours(&self, at: Millis) {
        for task in self.inner.book.tasks() {
            if task.run() == RunState::Scheduled && !task.starts_after(at) {
                self.change_run(&task, &[RunState::Scheduled], RunState::Running, None)
                    .await;
            }
        }
    }
}
