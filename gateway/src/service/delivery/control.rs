//! What an operator does to a task or a delivery that there is: hold, let go, end, try again, delete.
//!
//! Of an operator's word and a device's that come together exactly one wins; which, and what the other
//! one is told, is said in `docs/operators.md`.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use headgate_protocol::transfer::ranges::Ranges;

use super::{
    DeliveryError, DeliveryService, TaskView,
    finish::{ENDS_AT_ONCE, OPEN},
    live::{LiveTask, Step},
    pending,
    task::Opening,
};
use crate::{
    model::{
        Actor, AuditEntry, Delivery, DeliveryChange, DeliveryState, FailReason, Id, Millis, Page,
        RunState, Task, again::keeps_bytes, task::CANCELED,
    },
    store::StoreError,
};

/// Which deliveries of a task are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// All that it makes sense for.
    All,
    /// These.
    These(Vec<Id>),
}

/// Run states in which a task is over.
const OVER: &[RunState] = &[RunState::Aborted, RunState::Canceled, RunState::Finished];
/// How long an operator waits for a delivery that is just ending.
const PATIENCE: Duration = Duration::from_secs(2);
/// Deliveries that one statement deletes.
const PURGE_BLOCK: u32 = 500;
/// Deliveries that are ended at once where each of them is a statement of its own.
const STATEMENTS_AT_ONCE: usize = 8;

impl DeliveryService {
    /// Cancels a task, or what is chosen of it: the devices are told, and none of it is delivered any more.
    pub async fn cancel_task(
        &self,
        actor: &Actor,
        id: Id,
        chosen: Chosen,
    ) -> Result<TaskView, DeliveryError> {
        let audit = actor.did("task.cancel", id, describe(&chosen));
        let task = self.stored_task(id).await?;
        if let Chosen::These(ids) = chosen {
            let found = self.inner.registry.deliveries_by_ids(id, &ids).await?;
            if found.len() < distinct(&ids) {
                return Err(DeliveryError::NotFound("delivery of this task"));
            }
            self.inner.registry.record(&audit).await?;
            let at_once = if self.inner.shared.is_some() {
                STATEMENTS_AT_ONCE
            } else {
                // One after another each of them would wait for a commit of its own.
                ENDS_AT_ONCE
            };
            let cancels = found.into_iter().map(|delivery| self.cancel(delivery.id));
            let canceled: Vec<_> = stream::iter(cancels)
                .buffer_unordered(at_once)
                .collect()
                .await;
            // Looked at only now: an end that is on its way is not given up because another one failed.
            canceled.into_iter().collect::<Result<Vec<bool>, _>>()?;
            return self.task(id).await;
        }
        let Some(live) = self.inner.book.task(task.id) else {
            // It is being made: whoever makes it finds out.
            self.move_on(id, OPEN, RunState::Canceled, &audit, "the task has ended")
                .await?;
            return self.task(id).await;
        };
        let changed = self
            .move_live(&live, OPEN, RunState::Canceled, &audit)
            .await?;
        if !changed {
            return Err(DeliveryError::Conflict("the task has ended"));
        }
        // Recorded first: a process that is killed now goes on with this when it starts.
        self.end_all(&live).await;
        self.task(id).await
    }

    /// Cancels one delivery, unless it has ended.
    pub async fn cancel_delivery(&self, actor: &Actor, id: Id) -> Result<(), DeliveryError> {
        if self.inner.registry.delivery(id).await?.is_none() {
            return Err(DeliveryError::NotFound("delivery"));
        }
        self.inner
            .registry
            .record(&actor.did("delivery.cancel", id, ""))
            .await?;
        if self.cancel(id).await? {
            Ok(())
        } else {
            Err(DeliveryError::Conflict("the delivery has ended"))
        }
    }

    /// Tries a failed delivery again, as a new attempt.
    pub async fn retry_delivery(&self, actor: &Actor, id: Id) -> Result<(), DeliveryError> {
        let _alone = self.inner.controls.lock().await;
        let known = self
            .inner
            .registry
            .delivery(id)
            .await?
            .ok_or(DeliveryError::NotFound("delivery"))?;
        if known.state != DeliveryState::Failed {
            return Err(DeliveryError::Conflict(
                "only a failed delivery can be tried again",
            ));
        }
        let task = self.stored_task(known.task_id).await?;
        let audit = actor.did("delivery.retry", id, "");
        self.reopen(&task, vec![known], &audit).await
    }

    /// Tries failed deliveries of a task again, all or those chosen.
    pub async fn retry_task(
        &self,
        actor: &Actor,
        id: Id,
        chosen: Chosen,
    ) -> Result<TaskView, DeliveryError> {
        let _alone = self.inner.controls.lock().await;
        let task = self.stored_task(id).await?;
        let audit = actor.did("task.retry", id, describe(&chosen));
        let failed = match chosen {
            Chosen::All => self.failed_of(id).await?,
            Chosen::These(ids) => {
                let mut found = self.inner.registry.deliveries_by_ids(id, &ids).await?;
                if found.len() < distinct(&ids) {
                    return Err(DeliveryError::NotFound("delivery of this task"));
                }
                found.retain(|delivery| delivery.state == DeliveryState::Failed);
                found
            }
        };
        if failed.is_empty() {
            return Err(DeliveryError::Conflict("none of these has failed"));
        }
        self.reopen(&task, failed, &audit).await?;
        self.task(id).await
    }

    /// Holds a task: nothing more of it is sent until it is resumed.
    pub async fn pause_task(&self, actor: &Actor, id: Id) -> Result<TaskView, DeliveryError> {
        const FROM: &[RunState] = &[RunState::Scheduled, RunState::Running];
        const WRONG: &str = "only a running or scheduled task can be paused";
        let audit = actor.did("task.pause", id, "");
        self.stored_task(id).await?;
        let Some(live) = self.inner.book.task(id) else {
            self.move_on(id, FROM, RunState::Paused, &audit, WRONG)
                .await?;
            return self.task(id).await;
        };
        if !self
            .move_live(&live, FROM, RunState::Paused, &audit)
            .await?
        {
            return Err(DeliveryError::Conflict(WRONG));
        }
        self.hold_here(&live);
        self.serve_waiting();
        self.task(id).await
    }

    /// Takes back the places of a task's deliveries.
    pub(super) fn hold_here(&self, task: &LiveTask) {
        for delivery in self.inner.book.of_task(task.id) {
            let had_place = delivery.is_admitted();
            self.inner.admission.release(&delivery);
            if had_place {
                // Another task may have something for the device.
                self.inner.links().wake(&delivery.device_id);
            }
        }
    }

    /// Has a task's deliveries go on that were held.
    pub(super) fn release_here(&self, task: &LiveTask) {
        for delivery in self.inner.book.of_task(task.id) {
            // Held time is nobody's silence.
            delivery.touch();
            self.inner.links().wake(&delivery.device_id);
        }
    }

    /// Lets a held task go on.
    pub async fn resume_task(&self, actor: &Actor, id: Id) -> Result<TaskView, DeliveryError> {
        const FROM: &[RunState] = &[RunState::Paused];
        const WRONG: &str = "only a paused task can be resumed";
        let audit = actor.did("task.resume", id, "");
        let task = self.stored_task(id).await?;
        let early = task.policy.start_at.is_some_and(|at| at > Millis::now());
        let to = if early {
            RunState::Scheduled
        } else {
            RunState::Running
        };
        let Some(live) = self.inner.book.task(id) else {
            self.move_on(id, FROM, to, &audit, WRONG).await?;
            return self.task(id).await;
        };
        if !self.move_live(&live, FROM, to, &audit).await? {
            return Err(DeliveryError::Conflict(WRONG));
        }
        for block in self.inner.book.of_task(id).chunks(BLOCK) {
            for delivery in block {
                // Held time is nobody's silence.
                delivery.touch();
                self.inner.links().wake(&delivery.device_id);
            }
            tokio::task::yield_now().await;
        }
        self.task(id).await
    }

    /// Lets a task go on from its canary to all devices.
    pub async fn promote_task(&self, actor: &Actor, id: Id) -> Result<TaskView, DeliveryError> {
        let task = self.stored_task(id).await?;
        if task.policy.canary.is_none() || task.run.is_final() {
            return Err(DeliveryError::Conflict(
                "only an open task with a canary can be promoted",
            ));
        }
        let audit = actor.did("task.promote", id, "");
        let promoted = if let Some(live) = self.inner.book.task(id) {
            self.promote(&live, &audit).await?
        } else {
            let registry = &self.inner.registry;
            registry.promote_task(id, Millis::now(), &audit).await?
        };
        if !promoted {
            return Err(DeliveryError::Conflict("the task was promoted before"));
        }
        self.task(id).await
    }

    /// Deletes a task that has ended, with its deliveries; a few at a time.
    pub async fn delete_task(&self, actor: &Actor, id: Id) -> Result<(), DeliveryError> {
        let _alone = self.inner.controls.lock().await;
        let task = self.stored_task(id).await?;
        let is_open = self.inner.book.task(id).is_some();
        if !task.run.is_final() || is_open {
            return Err(DeliveryError::Conflict(
                "only a task that has ended can be deleted; cancel it first",
            ));
        }
        let audit = actor.did("task.delete", id, task.name);
        self.remove_task(id, &audit).await?;
        Ok(())
    }

    /// Deletes a task that has ended and everything of it; says whether it was there.
    pub(super) async fn remove_task(&self, id: Id, audit: &AuditEntry) -> Result<bool, StoreError> {
        let registry = &self.inner.registry;
        while registry.purge_deliveries(id, PURGE_BLOCK).await? > 0 {
            tokio::task::yield_now().await;
        }
        registry.delete_task(id, audit).await
    }

    /// Lets a task go on from its canary; says whether it had not yet.
    pub(super) async fn promote(
        &self,
        task: &LiveTask,
        audit: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let registry = &self.inner.registry;
        let promoted = registry.promote_task(task.id, Millis::now(), audit).await?;
        task.set_promoted();
        task.feed.touch(false);
        self.inner.admission.recall(task.id);
        self.serve_waiting();
        Ok(promoted)
    }

    pub(super) async fn stored_task(&self, id: Id) -> Result<Task, DeliveryError> {
        let known = self.inner.registry.task(id).await?;
        known
            .map(|(task, _)| task)
            .ok_or(DeliveryError::NotFound("task"))
    }

    /// Moves a task without open deliveries on.
    async fn move_on(
        &self,
        id: Id,
        from: &[RunState],
        to: RunState,
        audit: &AuditEntry,
        wrong: &'static str,
    ) -> Result<(), DeliveryError> {
        let registry = &self.inner.registry;
        let at = Millis::now();
        if registry
            .change_task_run(id, from, to, at, Some(audit))
            .await?
        {
            Ok(())
        } else {
            Err(DeliveryError::Conflict(wrong))
        }
    }

    /// Moves a task with open deliveries on; says whether it was in one of these states.
    async fn move_live(
        &self,
        task: &LiveTask,
        from: &[RunState],
        to: RunState,
        audit: &AuditEntry,
    ) -> Result<bool, StoreError> {
        let registry = &self.inner.registry;
        let at = Millis::now();
        let moved = registry
            .change_task_run(task.id, from, to, at, Some(audit))
            .await?;
        if moved {
            task.set_run(to);
            task.feed.touch(to.is_final());
        }
        Ok(moved)
    }

    /// Cancels a delivery; says whether it was open.
    async fn cancel(&self, id: Id) -> Result<bool, DeliveryError> {
        if self.inner.shared.is_some() {
            return self.cancel_anywhere(id).await;
        }
        while let Some(delivery) = self.inner.book.by_id(id) {
            let step = self.end_by_us(&delivery, FailReason::Canceled).await?;
            if matches!(step, Step::Taken { .. }) || delivery.stop_renewal() {
                return Ok(true);
            }
            let again = self.inner.book.by_id(id);
            if again.is_none_or(|again| again.attempt == delivery.attempt) {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Cancels a delivery whichever node has it; says whether it was open.
    async fn cancel_anywhere(&self, id: Id) -> Result<bool, DeliveryError> {
        let registry = &self.inner.registry;
        let Some(known) = registry.delivery(id).await? else {
            return Ok(false);
        };
        let ended = registry
            .end_delivery(known.task_id, id, CANCELED, Millis::now())
            .await?;
        if let Some(delivery) = self.inner.book.by_id(id).filter(|_| ended) {
            self.end_one_here(&delivery);
        }
        if ended && registry.finish_task(known.task_id, Millis::now()).await? {
            tracing::debug!(task = %known.task_id, "a task ended with a delivery that was cancelled");
        }
        Ok(ended)
    }

    /// Every failed delivery of a task.
    async fn failed_of(&self, task: Id) -> Result<Vec<Delivery>, StoreError> {
        let mut failed = Vec::new();
        let mut page = Page {
            limit: Page::MAX_LIMIT,
            cursor: None,
        };
        loop {
            let found = self
                .inner
                .registry
                .deliveries(task, Some(DeliveryState::Failed), &page)
                .await?;
            failed.extend(found.items);
            match found.next {
                Some(next) => page.cursor = Some(next),
                None => return Ok(failed),
            }
        }
    }

    /// Opens a new attempt of failed deliveries, as far as their devices are still there.
    async fn reopen(
        &self,
        task: &Task,
        mut failed: Vec<Delivery>,
        audit: &AuditEntry,
    ) -> Result<(), DeliveryError> {
        let registry = &self.inner.registry;
        let content = match self
            .load_content(task.resource_id, task.resource_version)
            .await
        {
            Err(StoreError::NotFound { .. }) => {
                return Err(DeliveryError::Conflict(
                    "the resource, or this version of it, was deleted",
                ));
            }
            content => content?,
        };
        let product = registry
            .product(&task.product_id)
            .await?
            .ok_or(DeliveryError::Conflict("the product was deleted"))?;
        self.keep_those_with_devices(&mut failed).await?;
        self.wait_for_ends(&failed).await?;
        let reserved = self.reserve_unless_shared(failed.len())?;
        let now = Millis::now();
        // What an earlier attempt sent counts, unless the failure says that it is not good.
        let earlier: Vec<Option<Ranges>> = failed
            .iter()
            .map(|known| {
                let (reason, detail) = (known.reason.as_deref(), known.detail.as_deref());
                keeps_bytes(reason, detail).then(Ranges::default)
            })
            .collect();
        let canceled = failed
            .iter()
            .filter(|known| known.reason.as_deref() == Some(CANCELED))
            .count();
        let renewed: Vec<Delivery> = failed
            .into_iter()
            .map(|known| Delivery {
                attempt: known.attempt.saturating_add(1),
                ..pending(known.id, task.id, known.device_id, known.node_id, now)
            })
            .collect();
        let changes: Vec<DeliveryChange> = renewed.iter().map(by_hand).collect();
        if let Some(shared) = &self.inner.shared {
            // Opened before the task goes on: else whoever keeps it finds nothing open and ends it.
            registry.record(audit).await?;
            registry.apply_delivery_changes(&changes).await?;
            let (counts, _) = registry.standing_of(task.id).await?;
            let canceled = registry.canceled_deliveries(task.id).await?;
            let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
            let settled = [
                small(counts.failed).saturating_sub(canceled),
                small(counts.delivered),
            ];
            registry.settle_task(task.id, settled).await?;
            registry
                .change_task_run(task.id, OVER, RunState::Running, now, None)
                .await?;
            self.look_at_task(shared, task.id).await?;
            return Ok(());
        }
        registry
            .change_task_run(task.id, OVER, RunState::Running, now, None)
            .await?;
        registry.record(audit).await?;
        registry.apply_delivery_changes(&changes).await?;
        if let Some(reserved) = reserved {
            reserved.keep();
        }
        self.inner
            .metrics
            .deliveries
            .failed
            .sub(i64::try_from(renewed.len()).unwrap_or(0));
        let live = if let Some(live) = self.inner.book.task(task.id) {
            live.count_again(renewed.len(), canceled);
            live
        } else {
            let (task, counts) = registry
                .task(task.id)
                .await?
                .ok_or(DeliveryError::NotFound("task"))?;
            // All of it has begun before: nothing of a canary is left to wait for.
            self.live_task(&task, counts, 0).await?
        };
        let settled = live.settle();
        registry.settle_task(task.id, settled).await?;
        let opening = Opening {
            task: live,
            product: &product,
            content,
        };
        self.open(&opening, &renewed, earlier).await;
        Ok(())
    }

    /// Leaves out deliveries whose devices are gone.
    async fn keep_those_with_devices(
        &self,
        failed: &mut Vec<Delivery>,
    ) -> Result<(), DeliveryError> {
        let ids: Vec<_> = failed.iter().map(|known| known.device_id.clone()).collect();
        let found = self.inner.registry.names_by_ids(&ids).await?;
        let there: std::collections::HashSet<_> =
            found.into_iter().map(|device| device.device_id).collect();
        failed.retain(|known| there.contains(&known.device_id));
        if failed.is_empty() {
            return Err(DeliveryError::Conflict("the device was deleted"));
        }
        Ok(())
    }

    /// Waits until deliveries that have just ended have left the book.
    async fn wait_for_ends(&self, failed: &[Delivery]) -> Result<(), DeliveryError> {
        let book = &self.inner.book;
        let ends = async {
            loop {
                let mut struck = std::pin::pin!(book.struck());
                // Told of those from here on, before it is looked which are left.
                struck.as_mut().enable();
                if !failed.iter().any(|known| book.by_id(known.id).is_some()) {
                    return;
                }
                struck.await;
            }
        };
        tokio::time::timeout(PATIENCE, ends)
            .await
            .map_err(|_| DeliveryError::Conflict("it is just ending; try again"))
    }
}

fn by_hand(renewed: &Delivery) -> DeliveryChange {
    DeliveryChange {
        delivery: renewed.id,
        attempt: renewed.attempt,
        to: DeliveryState::Pending,
        at: renewed.created_at,
        reason: None,
        detail: None,
        by_hand: true,
        epoch: 0,
    }
}

fn describe(chosen: &Chosen) -> String {
    match chosen {
        Chosen::All => String::new(),
        Chosen::These(ids) => format!("{} deliveries", ids.len()),
    }
}

fn distinct(ids: &[Id]) -> usize {
    ids.iter().collect::<std::collections::HashSet<_>>().len()
}

/// Deliveries that are woken before others have their turn.
const BLOCK: usize = 500;
