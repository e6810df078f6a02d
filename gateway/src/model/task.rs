//! Tasks and deliveries: one resource on its way to many devices.

use std::str::FromStr;

use headgate_protocol::identity::{AppId, DeviceId, NodeId, ProductId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::{
    actor::UnknownName, id::Id, pattern::NamePattern, policy::TaskPolicy, time::Millis,
};

/// Delivers one version of one resource to a set of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: Id,
    /// A label of 1 to 64 characters.
    pub name: String,
    /// What it delivers.
    pub resource_id: Id,
    /// The version that was current when it was made.
    pub resource_version: u32,
    /// The product of the resource and of every device.
    pub product_id: ProductId,
    /// How far its making is.
    pub creation: CreationState,
    /// How far its running is.
    pub run: RunState,
    /// How it runs.
    pub policy: TaskPolicy,
    /// Whom it was made for, where that was no list.
    pub filter: Option<TargetFilter>,
    /// Why it could not be made.
    pub creation_error: Option<String>,
    /// When it went on from its canary to all devices.
    pub promoted_at: Option<Millis>,
    /// Deliveries that it has.
    pub total: u32,
    /// When it was made.
    pub created_at: Millis,
    /// When its last delivery ended, or it was canceled.
    pub finished_at: Option<Millis>,
    /// Who made it.
    pub created_by: String,
}

impl Task {
    /// Tells this name and policy from all others: 16 hex digits that a client hands back with a change of them.
    pub fn revision(&self) -> String {
        // Plain data always serialises.
        let policy = serde_json::to_string(&self.policy).unwrap_or_default();
        let digest = Sha256::new()
            .chain_update(&self.name)
            .chain_update([0])
            .chain_update(policy)
            .finalize();
        hex::encode(digest.get(..8).unwrap_or_default())
    }
}

/// The devices of a task that is not made from a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetFilter {
    /// Only devices whose node id or name matches: `*` any characters, `?` one; `None`: all of the
    /// resource's product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<NamePattern>,
    /// Only devices that are bound to this application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<AppId>,
}

/// One resource on its way to one device: the state of its current attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id, the same for every attempt.
    pub id: Id,
    /// The task that it is part of.
    pub task_id: Id,
    /// To which device.
    pub device_id: DeviceId,
    /// The device's id within its product.
    pub node_id: NodeId,
    /// The attempt that the rest describes, counted from 1.
    pub attempt: u32,
    /// How far it is.
    pub state: DeliveryState,
    /// Why it failed: a [`FailReason`]'s word.
    pub reason: Option<String>,
    /// More about the reason, for people.
    pub detail: Option<String>,
    /// When the attempt became pending.
    pub created_at: Millis,
    /// When the device was told of it.
    pub pushed_at: Option<Millis>,
    /// When the first bytes went out.
    pub delivering_at: Option<Millis>,
    /// When it was delivered or failed.
    pub finished_at: Option<Millis>,
}

/// A step of a delivery, to be stored. Steps never lead back: see the registry's `apply_delivery_changes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryChange {
    /// Which delivery.
    pub delivery: Id,
    /// In which attempt; one greater than the stored attempt begins a new one.
    pub attempt: u32,
    /// The state that it came to.
    pub to: DeliveryState,
    /// When.
    pub at: Millis,
    /// Why it failed.
    pub reason: Option<String>,
    /// More about the reason.
    pub detail: Option<String>,
    /// Whether an operator asked for this attempt, so that the count of attempts begins anew.
    pub by_hand: bool,
    /// The claim of the device's session by which it was made; 0 where one gateway has all devices.
    pub epoch: i64,
}

/// A delivery that has not ended, with what is needed to go on with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenDelivery {
    /// The delivery.
    pub delivery: Delivery,
    /// The attempt that an operator last asked for, or the first one.
    pub round: u32,
    /// Its task's resource.
    pub resource_id: Id,
    /// Its task's version of the resource.
    pub resource_version: u32,
    /// Its task's product.
    pub product_id: ProductId,
    /// Whether its task runs.
    pub task_run: RunState,
}

/// How many deliveries are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateCounts {
    /// In [`DeliveryState::Pending`].
    pub pending: u64,
    /// In [`DeliveryState::Pushed`].
    pub pushed: u64,
    /// In [`DeliveryState::Delivering`].
    pub delivering: u64,
    /// In [`DeliveryState::Delivered`].
    pub delivered: u64,
    /// In [`DeliveryState::Failed`].
    pub failed: u64,
}

impl StateCounts {
    /// The count of one state.
    pub const fn of(&self, state: DeliveryState) -> u64 {
        match state {
            DeliveryState::Pending => self.pending,
            DeliveryState::Pushed => self.pushed,
            DeliveryState::Delivering => self.delivering,
            DeliveryState::Delivered => self.delivered,
            DeliveryState::Failed => self.failed,
        }
    }

    /// The count of one state, to be changed.
    pub const fn of_mut(&mut self, state: DeliveryState) -> &mut u64 {
        match state {
            DeliveryState::Pending => &mut self.pending,
            DeliveryState::Pushed => &mut self.pushed,
            DeliveryState::Delivering => &mut self.delivering,
            DeliveryState::Delivered => &mut self.delivered,
            DeliveryState::Failed => &mut self.failed,
        }
    }

    /// All of them.
    pub const fn total(&self) -> u64 {
        self.pending + self.pushed + self.delivering + self.delivered + self.failed
    }
}

/// Gives an enum of plain words its stored and shown names, both ways.
macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $type {
            /// Every value, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word that is stored and shown.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownName),
                }
            }
        }
    };
}

/// How far a delivery is; the order is the order of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It waits.
    Pending,
    /// The device knows of it.
    Pushed,
    /// Bytes are on their way.
    Delivering,
    /// The device has it: final for ever.
    Delivered,
    /// It failed: final within its attempt.
    Failed,
}
words!(DeliveryState { Pending = "pending", Pushed = "pushed", Delivering = "delivering", Delivered = "delivered", Failed = "failed" });

impl DeliveryState {
    /// Whether an attempt ends here.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Failed)
    }
}

/// How far the making of a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreationState {
    /// Nothing is stored but the task.
    NotStarted,
    /// Deliveries are being stored.
    Creating,
    /// Every delivery is stored.
    Created,
    /// They could not be stored.
    CreationFailed,
}
words!(CreationState { NotStarted = "not_started", Creating = "creating", Created = "created", CreationFailed = "creation_failed" });

/// How far the running of a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It waits for its time.
    Scheduled,
    /// Its deliveries go out.
    Running,
    /// An operator holds it.
    Paused,
    /// Too many of its deliveries failed.
    Aborted,
    /// An operator ended it.
    Canceled,
    /// Every delivery ended.
    Finished,
}
words!(RunState { Scheduled = "scheduled", Running = "running", Paused = "paused", Aborted = "aborted", Canceled = "canceled", Finished = "finished" });

impl RunState {
    /// Whether the task is over.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Aborted | Self::Canceled | Self::Finished)
    }
}

/// Why a delivery failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FailReason {
    /// An operator cancelled it: it stays failed whatever arrives later.
    Canceled,
    /// Too many others of its task failed: it stays failed whatever arrives later.
    Aborted,
    /// The device said `done` before every byte was sent.
    Incomplete,
    /// The device said that it failed.
    Device {
        /// Its own code.
        code: i32,
        /// Its own words.
        message: String,
    },
    /// Something took too long: the name of the timeout.
    Timeout {
        /// Which timeout.
        which: &'static str,
    },
    /// The device cannot take it: why.
    Rejected {
        /// Why.
        why: String,
    },
    /// The resource or its bytes are gone.
    ResourceGone,
    /// The device was deleted.
    DeviceGone,
}

impl FailReason {
    /// The word that is stored as `reason`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Canceled => CANCELED,
            Self::Aborted => ABORTED,
            Self::Incomplete => "incomplete",
            Self::Device { .. } => "device",
            Self::Timeout { .. } => "timeout",
            Self::Rejected { .. } => "rejected",
            Self::ResourceGone => "resource_gone",
            Self::DeviceGone => "device_gone",
        }
    }

    /// What is stored as `detail`.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Canceled
            | Self::Aborted
            | Self::Incomplete
            | Self::ResourceGone
            | Self::DeviceGone => None,
            Self::Device { code, message } if message.is_empty() => Some(code.to_string()),
            Self::Device { code, message } => Some(format!("{code}: {message}")),
            Self::Timeout { which } => Some((*which).to_owned()),
            Self::Rejected { why } => Some(why.clone()),
        }
    }
}

/// The stored reason of a cancelled delivery.
pub const CANCELED: &str = "canceled";
/// The stored reason of a delivery whose task was given up.
pub const ABORTED: &str = "aborted";

/// Whether a stored reason is one that nothing of the device's can change.
pub fn was_ended_by_us(reason: Option<&str>) -> bool {
    matches!(reason, Some(CANCELED | ABORTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_and_equal_json() {
        for state in DeliveryState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        for state in RunState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        for state in CreationState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!("done".parse::<DeliveryState>(), Err(UnknownName));
    }

    #[test]
    fn states_are_ordered_by_progress() {
        assert!(DeliveryState::ALL.is_sorted());
        assert!(DeliveryState::Delivered.is_final() && DeliveryState::Failed.is_final());
        assert!(!DeliveryState::Delivering.is_final());
    }

    #[test]
    fn counts_add_up() {
        let mut counts = StateCounts::default();
        for (count, state) in (1..).zip(DeliveryState::ALL) {
            *counts.of_mut(*state) = count;
        }
        assert_eq!(counts.total(), 15);
        assert_eq!((counts.pending, counts.failed), (1, 5));
    }

    #[test]
    fn a_device_failure_keeps_its_code_and_words() {
        let reason = FailReason::Device {
            code: -4,
            message: "md5".to_owned(),
        };
        assert_eq!(reason.as_str(), "device");
        assert_eq!(reason.detail().as_deref(), Some("-4: md5"));
    }
}
