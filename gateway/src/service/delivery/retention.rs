//! What is not kept any more: once an hour, a few at a time.

use std::time::Duration;

use super::DeliveryService;
use crate::{
    model::{Actor, Millis},
    store::StoreError,
};

const INTERVAL: Duration = Duration::from_hours(1);
/// The time between the start and the first look: a start has other things to do.
const FIRST: Duration = Duration::from_mins(5);
/// Rows of one deletion; between two of them others write.
const BLOCK: u32 = 500;
/// Tasks of one look; the next one goes on.
const MAX_TASKS: u32 = 1_000;
/// The pause between two deletions.
const PAUSE: Duration = Duration::from_millis(20);

impl DeliveryService {
    /// Deletes what is too old, again and again, until it is dropped.
    pub(super) async fn run_retention(&self) {
        tokio::time::sleep(FIRST).await;
        loop {
            if !self.keeps() {
                tokio::time::sleep(INTERVAL).await;
                continue;
            }
            match self.forget_old(Millis::now()).await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "what was kept for long enough was deleted"),
                Err(error) => tracing::error!(%error, "what is too old could not be deleted"),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Deletes what is too old at `now`; gives how many rows those were.
    pub(super) async fn forget_old(&self, now: Millis) -> Result<u64, StoreError> {
        let registry = &self.inner.registry;
        let keep = &self.inner.retention;
        let mut rows = 0;
        let before = start_of(now, keep.deliveries);
        for task in registry.ended_tasks(before, true, MAX_TASKS).await? {
            loop {
                let _alone = self.inner.controls.lock().await;
                let purged = registry.purge_deliveries(task, BLOCK).await?;
                if purged == 0 {
                    break;
                }
                rows += purged;
                tokio::time::sleep(PAUSE).await;
            }
        }
        for task in registry
            .ended_tasks(start_of(now, keep.tasks), false, MAX_TASKS)
            .await?
        {
            let _alone = self.inner.controls.lock().await;
            let audit = Actor::gateway().did("task.expire", task, "");
            rows += u64::from(self.remove_task(task, &audit).await?);
            tokio::time::sleep(PAUSE).await;
        }
        loop {
            let purged = registry
                .purge_audit(start_of(now, keep.audit), BLOCK)
                .await?;
            rows += purged;
            if purged == 0 {
                return Ok(rows);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// When what is kept at `now` for so long begins.
fn start_of(now: Millis, kept: Duration) -> Millis {
    now.before(kept).unwrap_or_default()
}
