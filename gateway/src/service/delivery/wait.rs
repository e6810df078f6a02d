//! Why a delivery does not get on just now: computed when asked, never stored.

use serde::Serialize;

use super::{
    DeliveryService,
    live::{Hold, LiveDelivery},
};
use crate::model::{DeliveryState, Millis};

/// What an open delivery waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// An operator holds the task.
    Paused,
    /// The task's time has not come.
    Scheduled,
    /// An attempt failed; the next one has to wait.
    Backoff,
    /// The device is not connected.
    Offline,
    /// Another delivery is out to the device.
    DeviceBusy,
    /// It is not the time of day for the task.
    NotInWindow,
    /// Other devices go first, to see how they fare.
    Canary,
    /// As many deliveries are in progress as may be.
    InProgressLimit,
    /// As many devices have been told as may be in this time.
    Paced,
    /// The device knows of it and has not asked for bytes.
    DeviceHasNotAsked,
    /// The task, or the node, has sent as many bytes as it may in this time.
    BytesRate,
    /// The memory for what sockets have not taken is used up.
    NodeBudget,
    /// The device has not acknowledged what it was sent.
    WindowFull,
    /// Every byte has been sent; the device has not said that it is done.
    Confirming,
}

impl WaitReason {
    /// Every reason, in the order in which they are looked for.
    pub const ALL: &[Self] = &[
        Self::Paused,
        Self::Scheduled,
        Self::Backoff,
        Self::Offline,
        Self::DeviceBusy,
        Self::NotInWindow,
        Self::Canary,
        Self::InProgressLimit,
        Self::Paced,
        Self::DeviceHasNotAsked,
        Self::BytesRate,
        Self::NodeBudget,
        Self::WindowFull,
        Self::Confirming,
    ];

    /// The word that is shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Scheduled => "scheduled",
            Self::Backoff => "backoff",
            Self::Offline => "offline",
            Self::DeviceBusy => "device_busy",
            Self::NotInWindow => "not_in_window",
            Self::Canary => "canary",
            Self::InProgressLimit => "in_progress_limit",
            Self::Paced => "paced",
            Self::DeviceHasNotAsked => "device_has_not_asked",
            Self::BytesRate => "bytes_rate",
            Self::NodeBudget => "node_budget",
            Self::WindowFull => "window_full",
            Self::Confirming => "confirming",
        }
    }
}

impl DeliveryService {
    /// What the delivery waits for; `None`: it gets on, or it has ended.
    pub(super) fn waiting_for(&self, live: &LiveDelivery, now: Millis) -> Option<WaitReason> {
        if live.state().is_final() {
            return None;
        }
        if live.task.is_held() {
            return Some(WaitReason::Paused);
        }
        if !live.is_admitted() {
            if !live.has_begun() && live.task.starts_after(now) {
                return Some(WaitReason::Scheduled);
            }
            if live.backs_off(now) {
                return Some(WaitReason::Backoff);
            }
            if !self.inner.links().is_connected(&live.device_id) {
                return Some(WaitReason::Offline);
            }
            return self.inner.admission.obstacle(live, now);
        }
        let stall = live.stall(std::time::Instant::now());
        if stall.all_sent {
            return Some(WaitReason::Confirming);
        }
        match live.hold() {
            Hold::BytesRate => Some(WaitReason::BytesRate),
            Hold::NodeBudget => Some(WaitReason::NodeBudget),
            Hold::None if live.state() <= DeliveryState::Pushed => {
                Some(WaitReason::DeviceHasNotAsked)
            }
            Hold::None => {
                (stall.in_flight_bytes > 0 && stall.idle >= QUIET).then_some(WaitReason::WindowFull)
            }
        }
    }

    /// Counts what all open deliveries wait for, a block at a time.
    pub(super) async fn count_waiting(&self) {
        let mut counts = [0_i64; WaitReason::ALL.len()];
        for (index, live) in self.inner.book.all().iter().enumerate() {
            if index % BLOCK == BLOCK - 1 {
                tokio::task::yield_now().await;
            }
            if let Some(reason) = self.waiting_for(live, Millis::now()) {
                counts[index_of(reason)] += 1;
            }
        }
        for (reason, count) in WaitReason::ALL.iter().zip(counts) {
            self.inner.waiting[index_of(*reason)].set(count);
        }
    }
}

/// The place of a reason among all.
pub(super) fn index_of(reason: WaitReason) -> usize {
    WaitReason::ALL
        .iter()
        .position(|known| *known == reason)
        .unwrap_or(0)
}

/// Deliveries that are looked at before others have their turn.
const BLOCK: usize = 500;
/// A window that is not acknowledged for so long is worth a word.
const QUIET: std::time::Duration = std::time::Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_json() {
        for reason in WaitReason::ALL {
            assert_eq!(
                serde_json::to_value(reason).expect("a word"),
                reason.as_str()
            );
            assert_eq!(WaitReason::ALL[index_of(*reason)], *reason);
        }
    }
}
