//! What is done to a task at any node is done here to what is in this node's hands.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use super::{AGAIN, LOOK_EVERY, Shared};
use crate::{
    model::{CreationState, FailReason, Id, Millis, RunState, Task},
    service::delivery::{
        DeliveryService,
        live::{LiveDelivery, LiveTask, Step, Terms},
    },
    store::{
        StoreError,
        registry::{Notice, Notices},
    },
};

/// Notices that come together are looked at together.
const TOGETHER: Duration = Duration::from_millis(20);

impl DeliveryService {
    /// Follows what other nodes tell and what the tables say, until it is dropped.
    pub(super) async fn run_notices(&self, shared: &Shared) {
        let mut notices: Option<Notices> = None;
        let mut look_at = Instant::now() + LOOK_EVERY;
        loop {
            let heard = match &mut notices {
                Some(notices) => timeout_at(look_at, notices.next()).await,
                None => Ok(Ok(Notice::Missed)),
            };
            let followed = match heard {
                Ok(Ok(Notice::Missed)) => {
                    if notices.is_none() {
                        notices = self.inner.registry.listen().await.unwrap_or_else(|error| {
                            tracing::warn!(%error, "other nodes cannot be heard; trying again");
                            None
                        });
                    }
                    let followed = self.look_at_all(shared, true).await;
                    if notices.is_none() {
                        tokio::time::sleep(AGAIN).await;
                    }
                    followed
                }
                Ok(Ok(notice)) => {
                    let mut all = vec![notice];
                    if let Some(notices) = &mut notices {
                        gather(notices, &mut all).await;
                    }
                    self.follow_notices(shared, all).await
                }
                Ok(Err(error)) => {
                    notices = None;
                    Err(error)
                }
                Err(_elapsed) => {
                    look_at = Instant::now() + LOOK_EVERY;
                    self.look_at_all(shared, false).await
                }
            };
            if let Err(error) = followed {
                tracing::warn!(%error, "what became of tasks could not be looked up; trying again");
                tokio::time::sleep(AGAIN).await;
                look_at = Instant::now();
            }
        }
    }

    /// Looks at every open task; with `opening` also for deliveries that are to be in this node's hands.
    pub(in crate::service::delivery) async fn look_at_all(
        &self,
        shared: &Shared,
        opening: bool,
    ) -> Result<(), StoreError> {
        let open = self.inner.registry.open_tasks().await?;
        let known: BTreeSet<Id> = open.iter().map(|task| task.id).collect();
        for task in &open {
            let is_new = self.inner.book.task(task.id).is_none();
            let live = self.know_task(task).await?;
            self.follow(&live, task);
            if is_new || opening {
                self.open_here(shared, &live).await?;
            }
        }
        for task in self.inner.book.tasks() {
            if !known.contains(&task.id) {
                self.look_at_task(shared, task.id).await?;
            }
        }
        Ok(())
    }

    async fn follow_notices(
        &self,
        shared: &Shared,
        notices: Vec<Notice>,
    ) -> Result<(), StoreError> {
        let mut tasks = BTreeSet::new();
        let mut moved = Vec::new();
        for notice in notices {
            match notice {
                Notice::Task(task) => {
                    tasks.insert(task);
                }
                Notice::Steps { node, .. } if *node == *shared.node => {}
                Notice::Steps {
                    task, deliveries, ..
                } => {
                    if let Some(live) = self.inner.book.task(task) {
                        for id in &deliveries {
                            live.feed.note(*id);
                        }
                    }
                    moved.extend(deliveries);
                }
                Notice::Missed => self.look_at_all(shared, true).await?,
            }
        }
        for task in tasks {
            self.look_at_task(shared, task).await?;
        }
        self.strike_ended(moved).await
    }

    /// Looks at one task, and takes up what of it is for devices that are here.
    pub(in crate::service::delivery) async fn look_at_task(
        &self,
        shared: &Shared,
        id: Id,
    ) -> Result<(), StoreError> {
        let Some(task) = self.inner.registry.task_alone(id).await? else {
            if let Some(live) = self.inner.book.task(id) {
                live.set_run(RunState::Canceled);
                self.end_here(&live);
                self.inner.book.forget_task(id);
            }
            return Ok(());
        };
        if task.creation != CreationState::Created {
            if task.creation == CreationState::Creating && shared.keeper.is_held() {
                self.ask_to_make(id);
            }
            return Ok(());
        }
        if task.run.is_final() && self.inner.book.task(id).is_none() {
            return Ok(());
        }
        let live = self.know_task(&task).await?;
        self.follow(&live, &task);
        if task.run.is_final() {
            self.inner.book.forget_task(id);
            return Ok(());
        }
        self.open_here(shared, &live).await
    }

    /// Lets a task be here as it is stored.
    fn follow(&self, live: &Arc<LiveTask>, task: &Task) {
        if live.terms().policy != task.policy {
            live.set_terms(Terms::new(task.policy.clone(), &self.inner.config));
            self.set_ends_anew(live);
            live.feed.touch(false);
            self.inner.admission.recall(live.id);
        }
        if task.promoted_at.is_some() && !live.is_promoted() {
            live.set_promoted();
            live.feed.touch(false);
            self.inner.admission.recall(live.id);
        }
        let before = live.run();
        if before != task.run {
            live.set_run(task.run);
            live.feed.touch(task.run.is_final());
        }
        match task.run {
            RunState::Paused if before != RunState::Paused => self.hold_here(live),
            RunState::Running | RunState::Scheduled if before == RunState::Paused => {
                self.release_here(live);
            }
            run if run.is_final() => self.end_here(live),
            _ => {}
        }
        self.serve_waiting();
    }

    /// Takes up what of a task is open and for devices that are here, and tells them.
    async fn open_here(&self, shared: &Shared, live: &LiveTask) -> Result<(), StoreError> {
        if shared.here.is_empty() {
            return Ok(());
        }
        let mut after = None;
        loop {
            let block = self.inner.registry.open_with_claims(live.id, after).await?;
            let Some((last, _)) = block.last() else { break };
            after = Some(last.delivery.id);
            let mut ours = Vec::new();
            for (open, claimed) in block {
                if self.inner.book.by_id(open.delivery.id).is_some() {
                    continue;
                }
                let epoch = shared
                    .here
                    .get(&open.delivery.device_id)
                    .map(|epoch| *epoch);
                if let Some(epoch) = epoch.filter(|epoch| claimed <= *epoch) {
                    ours.push((open, epoch));
                }
            }
            self.enter_taken(shared, ours).await?;
            tokio::task::yield_now().await;
        }
        shared.hurry.notify_one();
        Ok(())
    }

    /// Ends here what somebody has ended elsewhere.
    pub(super) async fn strike_ended(&self, mut moved: Vec<Id>) -> Result<(), StoreError> {
        moved.retain(|id| self.inner.book.by_id(*id).is_some());
        if moved.is_empty() {
            return Ok(());
        }
        let open = self.inner.registry.still_open(&moved).await?;
        for id in moved {
            if let Some(delivery) = self.inner.book.by_id(id).filter(|_| !open.contains(&id)) {
                self.end_one_here(&delivery);
            }
        }
        Ok(())
    }

    /// Ends here every delivery of a task that is over; the registry has them as ended.
    pub(in crate::service::delivery) fn end_here(&self, task: &LiveTask) {
        for delivery in self.inner.book.of_task(task.id) {
            self.end_one_here(&delivery);
        }
    }

    /// Ends a delivery that the registry has as ended, and tells the device.
    pub(in crate::service::delivery) fn end_one_here(&self, delivery: &Arc<LiveDelivery>) {
        let known = delivery.was_offered();
        let before = delivery.state();
        let ended = matches!(delivery.fail(false), Step::Taken { .. });
        if self.inner.book.strike(delivery).is_some() && ended {
            self.inner.metrics.deliveries.of(before).dec();
            self.inner.metrics.deliveries.failed.inc();
        }
        self.put_away(delivery);
        if ended && known {
            self.inner.links().cancel(
                &delivery.device_id,
                &delivery.transfer,
                &delivery.content.name,
            );
        }
        delivery.task.feed.note(delivery.id);
        if self.inner.book.has_device(&delivery.device_id) {
            self.inner.links().wake(&delivery.device_id);
        }
    }

    /// Ends every open delivery of a task that is over, whoever has them; all nodes are told.
    pub(in crate::service::delivery) async fn end_everywhere(
        &self,
        task: &Arc<LiveTask>,
        reason: &FailReason,
    ) -> Result<(), StoreError> {
        let registry = &self.inner.registry;
        while registry
            .end_deliveries(task.id, reason.as_str(), Millis::now())
            .await?
            > 0
        {
            tokio::task::yield_now().await;
        }
        self.end_here(task);
        Ok(())
    }
}

/// Takes what comes right behind.
async fn gather(notices: &mut Notices, all: &mut Vec<Notice>) {
    while all.len() < 1_000 {
        match timeout(TOGETHER, notices.next()).await {
            Ok(Ok(notice)) => all.push(notice),
            // What is wrong shows at the next wait.
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
