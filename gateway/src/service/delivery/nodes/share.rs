//! Settles, once a second, what this node may do of each task whose policy bounds something over all nodes.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Shared,
    rule::{Bounds, Own, divide},
};
use crate::{
    service::delivery::{DeliveryService, live::LiveTask},
    store::StoreError,
};

const EVERY: Duration = Duration::from_secs(1);
/// The least time between two looks, however much a node is in a hurry.
const LEAST: Duration = Duration::from_millis(100);

impl DeliveryService {
    /// Settles again and again, until it is dropped.
    pub(super) async fn run_shares(&self, shared: &Shared) {
        loop {
            let begun = Instant::now();
            for task in self.inner.book.tasks() {
                if let Err(error) = self.settle_share(shared, &task).await {
                    tracing::warn!(%error, task = %task.id, "this node's share of a task was not settled; trying again");
                }
            }
            sleep_until(begun + LEAST).await;
            // Whichever is first.
            let _elapsed = timeout_at(begun + EVERY, shared.hurry.notified()).await;
        }
    }

    async fn settle_share(&self, shared: &Shared, task: &Arc<LiveTask>) -> Result<(), StoreError> {
        let own = self.own_of(task);
        let is_idle = own == Own::default() && !task.has_share();
        if is_idle || task.is_held() || !task.is_bounded() {
            return Ok(());
        }
        let policy = task.terms().policy.clone();
        let canary = policy.canary.filter(|_| !task.is_promoted());
        let ramps = policy.pace.is_some_and(|pace| pace.ramp.is_some());
        let counted = canary.is_some() || ramps;
        let part = self
            .inner
            .registry
            .settle_share(task.id, &shared.node, counted, |standing| {
                let delivered = u32::try_from(standing.counts.delivered).unwrap_or(u32::MAX);
                let bounds = Bounds {
                    in_progress: policy.max_in_progress,
                    per_minute: policy.pace.map(|pace| pace.per_minute_after(delivered)),
                    begun: canary.map(|canary| canary.size(task.total())),
                    bytes_per_sec: policy.bytes_per_sec,
                };
                divide(&bounds, &own, standing)
            })
            .await?;
        if let Some(part) = part {
            let permits = (own.unused, part.permits);
            task.set_share(part.places, permits, part.bytes_per_sec);
            self.inner.admission.recall(task.id);
            self.serve_waiting();
        }
        Ok(())
    }

    fn own_of(&self, task: &Arc<LiveTask>) -> Own {
        let (waiting, fresh) = self.inner.admission.waiting_of(task.id);
        Own {
            in_progress: task.in_progress(),
            waiting,
            fresh,
            unused: task.permits(),
            unrecorded: if task.is_promoted() {
                0
            } else {
                self.inner.admission.unrecorded_of(task.id)
            },
        }
    }
}
