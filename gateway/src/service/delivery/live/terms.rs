//! What a task's policy comes to on this node: its own rules, and the node's where it has none.
//!
//! Replaced as a whole when an operator changes the policy; whoever reads them sees the former or the new ones.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::DeliveryConfig,
    model::{Id, TaskPolicy, policy},
    service::delivery::rate::Rate,
};

/// How a task runs now.
#[derive(Debug)]
pub(in crate::service::delivery) struct Terms {
    /// As it is stored.
    pub(in crate::service::delivery) policy: TaskPolicy,
    /// Deliveries of it that may be in progress at once.
    pub(in crate::service::delivery) max_in_progress: u32,
    /// Its timers.
    pub(in crate::service::delivery) timers: Timers,
    attempts: Attempts,
    /// Its own bytes a second.
    pub(in crate::service::delivery) rate: Option<Arc<Rate>>,
}

/// The three timers, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service::delivery) struct Timers {
    pub(in crate::service::delivery) step: Duration,
    pub(in crate::service::delivery) in_progress: Duration,
    pub(in crate::service::delivery) confirm: Duration,
}

/// How often is tried, resolved.
#[derive(Debug, Clone, Copy)]
struct Attempts {
    max: u32,
    backoff: Duration,
    max_backoff: Duration,
}

impl Terms {
    /// Resolves a policy.
    pub(in crate::service::delivery) fn new(policy: TaskPolicy, config: &DeliveryConfig) -> Self {
        let secs = |own: Option<u32>, node: Duration| {
            own.map_or(node, |secs| Duration::from_secs(u64::from(secs)))
        };
        let (timers, attempts) = (policy.timers, policy.attempts);
        Self {
            max_in_progress: policy.max_in_progress.unwrap_or(u32::MAX),
            timers: Timers {
                step: secs(timers.step_timeout_secs, config.step_timeout),
                in_progress: secs(timers.in_progress_timeout_secs, config.in_progress_timeout),
                confirm: secs(timers.confirm_timeout_secs, config.confirm_timeout),
            },
            attempts: Attempts {
                max: attempts.max.unwrap_or(config.max_attempts),
                backoff: secs(attempts.backoff_secs, config.retry_backoff),
                max_backoff: secs(attempts.max_backoff_secs, config.max_retry_backoff),
            },
            rate: policy.bytes_per_sec.map(|limit| Arc::new(Rate::new(limit))),
            policy,
        }
    }

    /// The same, in place of former ones: whoever waits by their limit of bytes a second waits by this one.
    pub(super) fn in_place_of(mut self, former: &Self) -> Self {
        if let (Some(limit), Some(rate)) = (self.policy.bytes_per_sec, &former.rate) {
            // Else it stays this node's part of the same limit.
            if former.policy.bytes_per_sec != Some(limit) {
                rate.set(limit, Instant::now());
            }
            self.rate = Some(Arc::clone(rate));
        }
        self
    }

    /// Whether there is another attempt after so many of a round.
    pub(super) fn allows_after(&self, attempts: u32) -> bool {
        attempts < self.attempts.max
    }

    /// How long the attempt after so many failures of a round waits.
    pub(super) fn backoff(&self, failed: u32, delivery: Id) -> Duration {
        let seed = delivery.as_i64().cast_unsigned();
        policy::backoff(
            self.attempts.backoff,
            self.attempts.max_backoff,
            failed,
            seed,
        )
    }
}
