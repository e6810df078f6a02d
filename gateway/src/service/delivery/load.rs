//! What the registry says is open, brought back to life: at the start, and when a task gets new
//! deliveries.

use std::{collections::HashMap, sync::Arc};

use headgate_protocol::{identity::ProductId, transfer::ranges::Ranges};

use super::{
    DeliveryService,
    content::Content,
    live::{LiveDelivery, LiveTask, Rules, Standing},
    rules_of,
};
use crate::{
    model::{Delivery, DeliveryState, Id, StateCounts, Task},
    store::StoreError,
};

impl DeliveryService {
    /// Loads every delivery that is open, each where its cursor stands; ends those whose task is over,
    /// and goes on making the tasks that were being made.
    pub(super) async fn load(&self) -> Result<(), StoreError> {
        if let Some(shared) = &self.inner.shared {
            // What is open comes with the devices.
            return self.look_at_all(shared, false).await;
        }
        let stored = self.inner.registry.open_deliveries().await?;
        let mut cursors: HashMap<Id, (u32, Ranges)> = HashMap::new();
        for cursor in self.inner.sessions.load_cursors().await? {
            let have = Ranges::from_parts(cursor.acked, cursor.ranges);
            cursors.insert(cursor.delivery, (cursor.attempt, have));
        }
        let count = stored.len();
        // What was accepted once is kept, even where the limit has been lowered since.
        self.inner.book.force_reserve(count);
        let mut fresh: HashMap<Id, u32> = HashMap::new();
        for open in &stored {
            let task = fresh.entry(open.delivery.task_id).or_default();
            *task += u32::from(is_fresh(&open.delivery));
        }
        let mut known = Known::default();
        for open in stored {
            let content = known
                .content(self, open.resource_id, open.resource_version)
                .await?;
            let rules = known.rules(self, &open.product_id).await?;
            let task = known.task(self, open.delivery.task_id, &fresh).await?;
            let have = cursors
                .remove(&open.delivery.id)
                .and_then(|(attempt, have)| (attempt == open.delivery.attempt).then_some(have));
            let product = open.product_id;
            self.enter(LiveDelivery::new(
                &open.delivery,
                open.round,
                product,
                content,
                task,
                have,
                rules,
            ));
        }
        if count > 0 {
            tracing::info!(deliveries = count, "open deliveries loaded");
        }
        for task in self.inner.registry.tasks_being_made().await? {
            self.ask_to_make(task.id);
        }
        Ok(())
    }

    /// Ends what a process that was killed had begun to end: deliveries of tasks that are over.
    pub(super) async fn end_left_over(&self) {
        for task in self.inner.book.tasks() {
            if task.run().is_final() {
                self.end_all(&task).await;
            }
        }
    }

    /// Enters a delivery in the book, and sets its alarm.
    pub(super) fn enter(&self, live: LiveDelivery) {
        let live = Arc::new(live);
        self.enter_on_clock(&live);
        self.inner.book.insert(live);
    }

    /// Counts a delivery that is in the book, or about to be, and sets its alarm.
    pub(super) fn enter_on_clock(&self, live: &LiveDelivery) {
        self.inner.metrics.deliveries.of(live.state()).inc();
        let end = live
            .out_since()
            .map(|since| since.after(live.task.terms().timers.in_progress));
        if let Some(at) = end.or_else(|| live.backoff_until()) {
            self.inner.alarms.set(live.id, &live.alarm, at);
        }
        live.task.feed.note(live.id);
    }

    /// The working copy of a task: the one that there is, or a new one.
    pub(super) async fn live_task(
        &self,
        task: &Task,
        counts: StateCounts,
        fresh: u32,
    ) -> Result<Arc<LiveTask>, StoreError> {
        if let Some(live) = self.inner.book.task(task.id) {
            return Ok(live);
        }
        let registry = &self.inner.registry;
        let (canceled, settled) = (
            registry.canceled_deliveries(task.id).await?,
            registry.settled_deliveries(task.id).await?,
        );
        let standing = Standing {
            counts,
            canceled,
            settled,
            fresh,
        };
        let is_shared = self.inner.shared.is_some();
        Ok(Arc::new(LiveTask::new(
            task,
            &standing,
            &self.inner.config,
            is_shared,
        )))
    }

    /// The bytes of a version of a resource.
    pub(super) async fn load_content(
        &self,
        resource: Id,
        version: u32,
    ) -> Result<Arc<Content>, StoreError> {
        let named = self.inner.registry.resource(resource).await?;
        let stored = self
            .inner
            .registry
            .resource_version(resource, version)
            .await?;
        let (Some(named), Some(stored)) = (named, stored) else {
            return Err(StoreError::NotFound {
                what: "resource of a delivery",
            });
        };
        Ok(Arc::new(Content {
            resource_id: resource,
            version,
            name: named.name,
            size: stored.size,
            sha256: stored.sha256,
            md5: stored.md5,
            part_digests: stored.part_digests,
            blob: stored.blob,
        }))
    }
}

/// Whether no attempt of it has begun.
pub(super) fn is_fresh(delivery: &Delivery) -> bool {
    delivery.state == DeliveryState::Pending && delivery.attempt == 1
}

/// What deliveries that are loaded together share.
#[derive(Default)]
pub(super) struct Known {
    contents: HashMap<(Id, u32), Arc<Content>>,
    rules: HashMap<ProductId, Rules>,
    tasks: HashMap<Id, Arc<LiveTask>>,
}

impl Known {
    pub(super) async fn content(
        &mut self,
        service: &DeliveryService,
        resource: Id,
        version: u32,
    ) -> Result<Arc<Content>, StoreError> {
        if let Some(content) = self.contents.get(&(resource, version)) {
            return Ok(Arc::clone(content));
        }
        let content = service.load_content(resource, version).await?;
        self.contents
            .insert((resource, version), Arc::clone(&content));
        Ok(content)
    }

    pub(super) async fn rules(
        &mut self,
        service: &DeliveryService,
        product: &ProductId,
    ) -> Result<Rules, StoreError> {
        if let Some(rules) = self.rules.get(product) {
            return Ok(*rules);
        }
        let stored = service.inner.registry.product(product).await?;
        let rules = stored.as_ref().map(rules_of).unwrap_or_default();
        self.rules.insert(product.clone(), rules);
        Ok(rules)
    }

    async fn task(
        &mut self,
        service: &DeliveryService,
        task: Id,
        fresh: &HashMap<Id, u32>,
    ) -> Result<Arc<LiveTask>, StoreError> {
        if let Some(task) = self.tasks.get(&task) {
            return Ok(Arc::clone(task));
        }
        let (stored, counts) =
            service
                .inner
                .registry
                .task(task)
                .await?
                .ok_or(StoreError::NotFound {
                    what: "task of a delivery",
                })?;
        let fresh = fresh.get(&task).copied().unwrap_or_default();
        let live = service.live_task(&stored, counts, fresh).await?;
        self.tasks.insert(task, Arc::clone(&live));
        Ok(live)
    }
}
