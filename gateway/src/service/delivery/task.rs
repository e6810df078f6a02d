//! Tasks, and how they are made: whole or not at all.

use std::sync::Arc;

use headgate_protocol::transfer::ranges::Ranges;

use super::{
    DeliveryService, NotRecorded, RowError, Targets, TaskView,
    content::Content,
    live::{LiveDelivery, LiveTask},
    pending, rules_of,
};
use crate::{
    model::{
        Actor, CreationState, Delivery, Id, InvalidField, Millis, Product, Resource, RunState,
        StateCounts, Task, TaskPolicy,
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
    /// As many tasks wait to be made as may.
    #[error("too many tasks are being made; wait until some are done")]
    TooManyCreations,
    /// As many watch tasks as may.
    #[error("at most {limit} may watch tasks at a time")]
    TooManyWatchers {
        /// The limit.
        limit: usize,
    },
    /// The task was changed since the change was made up.
    #[error("the task was changed meanwhile")]
    Stale,
    /// The state does not allow it.
    #[error("{0}")]
    Conflict(&'static str),
    /// The registry refused.
    #[error(transparent)]
    Store(StoreError),
    /// The registry did not record the step.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
}

impl From<StoreError> for DeliveryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Page(error) => InvalidField::from(error).into(),
            other => Self::Store(other),
        }
    }
}

impl From<InvalidField> for DeliveryError {
    fn from(error: InvalidField) -> Self {
        Self::Invalid {
            field: error.field,
            reason: error.reason,
        }
    }
}

impl DeliveryService {
    /// Makes a task and tells every device of it that is here; one for a filter is made in the
    /// background, and is shown as it is when that begins.
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
        new.policy.validate()?;
        let now = Millis::now();
        let mut task = Task {
            id: registry.next_id(),
            name: task_name(new.name, &resource)?,
            resource_id: resource.id,
            resource_version: resource.version,
            product_id: product.id.clone(),
            creation: CreationState::Created,
            run: match new.policy.start_at {
                Some(start) if start > now => RunState::Scheduled,
                _ => RunState::Running,
            },
            policy: new.policy,
            filter: None,
            creation_error: None,
            promoted_at: None,
            total: 0,
            created_at: now,
            finished_at: None,
            created_by: actor.name.clone(),
        };
        let detail = format!("resource {} v{}", resource.id, resource.version);
        let audit = actor.did("task.create", task.id, detail);
        let rows = match new.targets {
            Targets::Filter(filter) => {
                task.creation = CreationState::Creating;
                task.filter = Some(filter);
                if self.inner.shared.is_some() {
                    // Whoever makes tasks is told of it.
                    registry.insert_task(&task, &[], &audit).await?;
                    return self.task(task.id).await;
                }
                let place = self.inner.creations.try_reserve();
                let place = place.map_err(|_| DeliveryError::TooManyCreations)?;
                registry.insert_task(&task, &[], &audit).await?;
                place.send(task.id);
                return self.task(task.id).await;
            }
            rows => rows,
        };
        let devices = self.resolve(&product, rows).await?;
        let content = self.load_content(resource.id, resource.version).await?;
        let reserved = self.reserve_unless_shared(devices.len())?;
        task.total = u32::try_from(devices.len()).unwrap_or(u32::MAX);
        let deliveries: Vec<Delivery> = devices
            .into_iter()
            .map(|(device, node)| pending(registry.next_id(), task.id, device, node, now))
            .collect();
        registry.insert_task(&task, &deliveries, &audit).await?;
        if let Some(shared) = &self.inner.shared {
            self.look_at_task(shared, task.id).await?;
            return self.task(task.id).await;
        }
        if let Some(reserved) = reserved {
            reserved.keep();
        }
        let counts = StateCounts {
            pending: u64::from(task.total),
            ..StateCounts::default()
        };
        let live = self.live_task(&task, counts, task.total).await?;
        let opening = Opening {
            task: live,
            product: &product,
            content,
        };
        self.open(&opening, &deliveries, std::iter::repeat(None))
            .await;
        self.task(task.id).await
    }

    /// Takes places in the book, given back unless they are kept.
    ///
    /// # Errors
    /// [`DeliveryError::TooManyOpen`] where they do not fit.
    pub(super) fn reserve_places(&self, count: usize) -> Result<Places<'_>, DeliveryError> {
        if !self.inner.book.reserve(count) {
            return Err(DeliveryError::TooManyOpen {
                limit: self.inner.config.max_open_deliveries,
            });
        }
        Ok(Places {
            service: self,
            count,
        })
    }

    /// The same; `None` where each node has places for the devices that are there.
    ///
    /// # Errors
    /// As of [`DeliveryService::reserve_places`].
    pub(super) fn reserve_unless_shared(
        &self,
        count: usize,
    ) -> Result<Option<Places<'_>>, DeliveryError> {
        match self.inner.shared {
            Some(_) => Ok(None),
            None => self.reserve_places(count).map(Some),
        }
    }

    /// Enters stored deliveries in the book and tells the devices that are here, block by block so
    /// that others have their turn. `earlier` says of each whether bytes of a former attempt count,
    /// as a cursor would.
    pub(super) async fn open(
        &self,
        opening: &Opening<'_>,
        deliveries: &[Delivery],
        earlier: impl IntoIterator<Item = Option<Ranges>>,
    ) {
        let mut earlier = earlier.into_iter();
        for block in deliveries.chunks(BLOCK) {
            for delivery in block {
                // A delivery that is opened now was asked for now: its attempts are counted from here.
                self.enter(LiveDelivery::new(
                    delivery,
                    delivery.attempt,
                    opening.product.id.clone(),
                    Arc::clone(&opening.content),
                    Arc::clone(&opening.task),
                    earlier.next().flatten(),
                    rules_of(opening.product),
                ));
            }
            tokio::task::yield_now().await;
        }
        // Only when all stand in the book: a device that is woken finds its delivery, and a task
        // whose first deliveries end is not over.
        for block in deliveries.chunks(BLOCK) {
            for delivery in block {
                self.inner.links().wake(&delivery.device_id);
            }
            tokio::task::yield_now().await;
        }
    }
}

/// What deliveries that are opened together share.
pub(super) struct Opening<'a> {
    pub(super) task: Arc<LiveTask>,
    pub(super) product: &'a Product,
    pub(super) content: Arc<Content>,
}

/// Places in the book that have been taken and not used.
pub(super) struct Places<'a> {
    service: &'a DeliveryService,
    count: usize,
}

impl Places<'_> {
    /// Uses them.
    pub(super) fn keep(mut self) {
        self.count = 0;
    }
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        self.service.inner.book.unreserve(self.count);
    }
}

/// Deliveries that are opened before others have their turn.
const BLOCK: usize = 500;

fn task_name(given: Option<String>, resource: &Resource) -> Result<String, DeliveryError> {
    let name = given.unwrap_or_else(|| format!("{} v{}", resource.name, resource.version));
    check_name(&name)?;
    Ok(name)
}

/// Checks a task's label.
pub(super) fn check_name(name: &str) -> Result<(), DeliveryError> {
    if name.trim().is_empty() || name.chars().count() > 64 || name.chars().any(char::is_control) {
        return Err(DeliveryError::Invalid {
            field: "name",
            reason: "must have 1 to 64 characters, none of them a control character".to_owned(),
        });
    }
    Ok(())
}
