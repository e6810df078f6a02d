//! Tasks: made whole or not at all, paused, cancelled and tried again.

use std::sync::Arc;

use headgate_protocol::transfer::ranges::Ranges;

use super::{
    DeliveryService, NotRecorded, RowError, Targets, TaskView,
    content::Content,
    live::{LiveDelivery, LiveTask, Step},
    pending, rules_of,
};
use crate::{
    model::{
        Actor, CreationState, Delivery, DeliveryChange, DeliveryState, FailReason, Id, Millis,
        Page, Product, Resource, RunState, Task, TaskPolicy,
    },
    store::StoreError,
};

/// A task to be made.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// A label; the resource's name and version where none is given.
    pub name: Option<String>,
    /// What to deliver, in its current version.
    pub resource_id: Id,
    /// To whom.
    pub targets: Targets,
    /// How.
    pub policy: TaskPolicy,
}

/// Why something about tasks and deliveries was not done; nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// There is no such thing.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// A field breaks a rule.
    #[error("{field} {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// The rule.
        reason: String,
    },
    /// Rows break rules: all of them, so that a file is mended in one go.
    #[error("{} rows are wrong", .0.len())]
    Rows(Vec<RowError>),
    /// The node's limit on open deliveries would be passed.
    #[error("at most {limit} deliveries may be open; wait until some have ended")]
    TooManyOpen {
        /// The limit.
        limit: usize,
    },
    /// The state does not allow it.
    #[error("{0}")]
    Conflict(&'static str),
    /// The registry refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry did not record the step.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
}

impl DeliveryService {
    /// Makes a task and tells every device of it that is here.
    ///
    /// # Errors
    /// [`DeliveryError`], with every wrong row at once; nothing has been stored then.
    pub async fn create_task(
        &self,
        actor: &Actor,
        new: NewTask,
    ) -> Result<TaskView, DeliveryError> {
        let registry = &self.inner.registry;
        let resource = registry
            .resource(new.resource_id)
            .await?
            .ok_or(DeliveryError::NotFound("resource"))?;
        let product = registry
            .product(&resource.product_id)
            .await?
            .ok_or(DeliveryError::NotFound("product"))?;
        check_policy(&new.policy)?;
        let name = task_name(new.name, &resource)?;
        let devices = self.resolve(&product, new.targets).await?;
        let content = self.load_content(resource.id, resource.version).await?;
        if !self.inner.book.reserve(devices.len()) {
            return Err(DeliveryError::TooManyOpen {
                limit: self.inner.config.max_open_deliveries,
            });
        }
        let now = Millis::now();
        let task = Task {
            id: self.inner.registry.next_id(),
            name,
            resource_id: resource.id,
            resource_version: resource.version,
            product_id: product.id.clone(),
            creation: CreationState::Created,
            run: RunState::Running,
            policy: new.policy,
            total: u32::try_from(devices.len()).unwrap_or(u32::MAX),
            created_at: now,
            finished_at: None,
            created_by: actor.name.clone(),
        };
        let deliveries: Vec<Delivery> = devices
            .into_iter()
            .map(|(device, node)| {
                pending(self.inner.registry.next_id(), task.id, device, node, now)
            })
            .collect();
        let audit = actor.did(
            "task.create",
            task.id,
            format!("resource {} v{}", resource.id, resource.version),
        );
        if let Err(error) = registry.insert_task(&task, &deliveries, &audit).await {
            self.inner.book.unreserve(deliveries.len());
            return Err(error.into());
        }
        self.open(
            &task,
            &product,
            &content,
            &deliveries,
            std::iter::repeat(None),
        );
        self.task(task.id).await
    }

    /// Cancels what is open of a task: its devices are told, and none of it is delivered any more.
    pub async fn cancel_task(&self, actor: &Actor, id: Id) -> Result<TaskView, DeliveryError> {
        let (known, _) = self
            .inner
            .registry
            .task(id)
            .await?
            .ok_or(DeliveryError::NotFound("task"))?;
        if known.run.is_final() {
            return Err(DeliveryError::Conflict("the task has ended"));
        }
        // First the task: if we are killed in the middle, the rest is cancelled by asking again.
        self.audit(actor, "task.cancel", id).await?;
        let open = self.inner.book.of_task(id);
        let mut ends = Vec::with_capacity(open.len());
        for delivery in open {
            let service = self.clone();
            ends.push(async move { service.cancel(&delivery).await });
        }
        for ended in futures_util::future::join_all(ends).await {
            ended?;
        }
        self.inner
            .registry
            .set_task_run(id, RunState::Canceled, Millis::now(), None)
            .await?;
        self.task(id).await
    }

    /// Cancels one delivery, unless it has ended.
    pub async fn cancel_delivery(&self, actor: &Actor, id: Id) -> Result<(), DeliveryError> {
        let Some(delivery) = self.inner.book.by_id(id) else {
            let known = self.inner.registry.delivery(id).await?;
            return Err(known.map_or(DeliveryError::NotFound("delivery"), |_| {
                DeliveryError::Conflict("the delivery has ended")
            }));
        };
        self.audit(actor, "delivery.cancel", id).await?;
        match self.cancel(&delivery).await? {
            Step::Taken => Ok(()),
            Step::Already | Step::Over => Err(DeliveryError::Conflict("the delivery has ended")),
        }
    }

    /// Tries a failed delivery again, as a new attempt.
    pub async fn retry_delivery(&self, actor: &Actor, id: Id) -> Result<(), DeliveryError> {
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
        self.audit(actor, "delivery.retry", id).await?;
        let (task, _) = self
            .inner
            .registry
            .task(known.task_id)
            .await?
            .ok_or(DeliveryError::NotFound("task"))?;
        self.reopen(&task, vec![known]).await
    }

    /// Tries every failed delivery of a task again; says how many those are.
    pub async fn retry_task(&self, actor: &Actor, id: Id) -> Result<TaskView, DeliveryError> {
        let (task, _) = self
            .inner
            .registry
            .task(id)
            .await?
            .ok_or(DeliveryError::NotFound("task"))?;
        let failed = self.failed_of(id).await?;
        if failed.is_empty() {
            return Err(DeliveryError::Conflict(
                "no delivery of the task has failed",
            ));
        }
        self.audit(actor, "task.retry", id).await?;
        self.reopen(&task, failed).await?;
        self.task(id).await
    }

    /// Holds a task: nothing more of it is sent until it is resumed.
    pub async fn pause_task(&self, actor: &Actor, id: Id) -> Result<TaskView, DeliveryError> {
        self.hold(actor, id, RunState::Running, RunState::Paused, "task.pause")
            .await
    }

    /// Lets a held task go on.
    pub async fn resume_task(&self, actor: &Actor, id: Id) -> Result<TaskView, DeliveryError> {
        self.hold(
            actor,
            id,
            RunState::Paused,
            RunState::Running,
            "task.resume",
        )
        .await
    }

    async fn hold(
        &self,
        actor: &Actor,
        id: Id,
        from: RunState,
        to: RunState,
        action: &'static str,
    ) -> Result<TaskView, DeliveryError> {
        let (known, _) = self
            .inner
            .registry
            .task(id)
            .await?
            .ok_or(DeliveryError::NotFound("task"))?;
        if known.run != from {
            return Err(DeliveryError::Conflict(match to {
                RunState::Paused => "only a running task can be paused",
                _ => "only a paused task can be resumed",
            }));
        }
        self.audit(actor, action, id).await?;
        self.inner
            .registry
            .set_task_run(id, to, Millis::now(), None)
            .await?;
        if let Some(task) = self.inner.book.task(id) {
            task.set_paused(to == RunState::Paused);
            for delivery in self.inner.book.of_task(id) {
                if to == RunState::Paused {
                    self.inner.admission.release(&delivery);
                } else {
                    self.inner.links().wake(&delivery.device_id);
                }
            }
            self.serve_waiting();
        }
        self.task(id).await
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

    async fn cancel(&self, delivery: &Arc<LiveDelivery>) -> Result<Step, NotRecorded> {
        let step = self
            .finish(delivery, DeliveryState::Failed, Some(FailReason::Canceled))
            .await?;
        if step == Step::Taken {
            self.inner.links().cancel(
                &delivery.device_id,
                &delivery.transfer,
                &delivery.content.name,
            );
        }
        Ok(step)
    }

    /// Opens a new attempt of failed deliveries.
    async fn reopen(&self, task: &Task, failed: Vec<Delivery>) -> Result<(), DeliveryError> {
        let registry = &self.inner.registry;
        let product = registry
            .product(&task.product_id)
            .await?
            .ok_or(DeliveryError::NotFound("product"))?;
        let content = self
            .load_content(task.resource_id, task.resource_version)
            .await?;
        if !self.inner.book.reserve(failed.len()) {
            return Err(DeliveryError::TooManyOpen {
                limit: self.inner.config.max_open_deliveries,
            });
        }
        let now = Millis::now();
        // What an earlier attempt sent counts, unless the device claimed to be done without it.
        let earlier: Vec<Option<Ranges>> = failed
            .iter()
            .map(|known| {
                let incomplete = known.reason.as_deref() == Some(FailReason::Incomplete.as_str());
                (!incomplete).then(Ranges::default)
            })
            .collect();
        let renewed: Vec<Delivery> = failed
            .into_iter()
            .map(|known| Delivery {
                attempt: known.attempt.saturating_add(1),
                ..pending(known.id, task.id, known.device_id, known.node_id, now)
            })
            .collect();
        let changes: Vec<DeliveryChange> = renewed
            .iter()
            .map(|renewed| DeliveryChange {
                delivery: renewed.id,
                attempt: renewed.attempt,
                to: DeliveryState::Pending,
                at: now,
                reason: None,
                detail: None,
            })
            .collect();
        let mut running = task.clone();
        if task.run.is_final() {
            registry
                .set_task_run(task.id, RunState::Running, now, None)
                .await?;
            running.run = RunState::Running;
        }
        if let Err(error) = registry.apply_delivery_changes(&changes).await {
            self.inner.book.unreserve(renewed.len());
            return Err(error.into());
        }
        self.inner
            .metrics
            .deliveries
            .failed
            .sub(i64::try_from(renewed.len()).unwrap_or(0));
        self.open(&running, &product, &content, &renewed, earlier);
        Ok(())
    }

    /// Enters stored deliveries in the book and tells the devices that are here. `earlier` says of
    /// each whether bytes of a former attempt count, as a cursor would.
    fn open(
        &self,
        task: &Task,
        product: &Product,
        content: &Arc<Content>,
        deliveries: &[Delivery],
        earlier: impl IntoIterator<Item = Option<Ranges>>,
    ) {
        let live_task = self.inner.book.task(task.id).unwrap_or_else(|| {
            Arc::new(LiveTask::new(
                task.id,
                task.run,
                task.policy.max_in_progress,
            ))
        });
        for (delivery, earlier) in deliveries.iter().zip(earlier) {
            self.count_new(DeliveryState::Pending);
            let live = LiveDelivery::new(
                delivery,
                product.id.clone(),
                Arc::clone(content),
                Arc::clone(&live_task),
                earlier,
                rules_of(product),
            );
            self.inner.book.insert(Arc::new(live));
        }
        // Only when all stand in the book: a device that is woken finds its delivery.
        for delivery in deliveries {
            self.inner.links().wake(&delivery.device_id);
        }
    }

    async fn audit(&self, actor: &Actor, action: &'static str, id: Id) -> Result<(), StoreError> {
        self.inner.registry.record(&actor.did(action, id, "")).await
    }
}

fn check_policy(policy: &TaskPolicy) -> Result<(), DeliveryError> {
    if policy.max_in_progress == Some(0) {
        return Err(DeliveryError::Invalid {
            field: "policy.max_in_progress",
            reason: "must be 1 or more".to_owned(),
        });
    }
    Ok(())
}

fn task_name(given: Option<String>, resource: &Resource) -> Result<String, DeliveryError> {
    let name = given.unwrap_or_else(|| format!("{} v{}", resource.name, resource.version));
    if name.trim().is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        return Err(DeliveryError::Invalid {
            field: "name",
            reason: "must have 1 to 64 characters, none of them a control character".to_owned(),
        });
    }
    Ok(name)
}
