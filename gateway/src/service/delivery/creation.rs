//! Tasks for a filter, made in the background: devices are looked up and deliveries stored in blocks.
//!
//! Nothing of a task goes out before all of it is stored, so one that cannot be made leaves nothing
//! behind. A process that is killed meanwhile goes on where it was when it starts again.

use headgate_protocol::identity::DeviceId;
use tokio::sync::mpsc;

use super::{DeliveryError, DeliveryService, pending, task::Opening};
use crate::{
    model::{CreationState, Delivery, Id, Millis, StateCounts, TargetFilter, Task},
    store::{StoreError, registry::TargetDevice},
};

/// Tasks that may wait to be made.
pub(super) const CAPACITY: usize = 64;

/// Why a task could not be made.
#[derive(Debug, thiserror::Error)]
enum Unmade {
    #[error("no device matches")]
    NoDevice,
    #[error("more than {limit} devices match")]
    TooMany { limit: usize },
    #[error("it was cancelled while it was being made")]
    Canceled,
    #[error("another node makes it")]
    Overtaken,
    #[error("{0}")]
    Refused(#[from] DeliveryError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DeliveryService {
    /// Makes the tasks that are asked for, one after the other, until it is dropped.
    pub(super) async fn make_tasks(&self, mut to_be_made: mpsc::Receiver<Id>) {
        if self.inner.shared.is_none() {
            self.end_left_over().await;
        }
        while let Some(id) = to_be_made.recv().await {
            match self.make_task(id).await {
                Ok(()) => {}
                Err(Unmade::Overtaken) => {
                    tracing::info!(task = %id, "another node makes a task that was begun here");
                }
                Err(Unmade::Store(error)) => {
                    // It stays `creating`, and is gone on with at the next start.
                    tracing::error!(%error, task = %id, "a task could not be made");
                }
                Err(unmade) => self.give_up_making(id, &unmade).await,
            }
        }
    }

    /// Has a task made that was being made when the process ended.
    pub(super) fn ask_to_make(&self, id: Id) {
        if self.inner.creations.try_send(id).is_err() {
            tracing::warn!(task = %id, "too many tasks are being made; this one waits for the next start");
        }
    }

    async fn make_task(&self, id: Id) -> Result<(), Unmade> {
        let Some(task) = self.inner.registry.task_alone(id).await? else {
            return Ok(());
        };
        let is_made = !matches!(
            task.creation,
            CreationState::NotStarted | CreationState::Creating
        );
        if is_made || !self.keeps() {
            return Ok(());
        }
        let filter = task.filter.clone().unwrap_or_default();
        let total = self.store_targets(&task, &filter).await?;
        if total == 0 {
            return Err(Unmade::NoDevice);
        }
        let places = self.reserve_unless_shared(total)?;
        let product = self
            .inner
            .registry
            .product(&task.product_id)
            .await?
            .ok_or(DeliveryError::NotFound("product"))?;
        let content = self
            .load_content(task.resource_id, task.resource_version)
            .await?;
        if !self
            .inner
            .registry
            .end_creation(id, None, Millis::now())
            .await?
        {
            return Err(Unmade::Canceled);
        }
        if let Some(shared) = &self.inner.shared {
            self.look_at_task(shared, id).await?;
            tracing::info!(task = %id, deliveries = total, "a task was made");
            return Ok(());
        }
        if let Some(places) = places {
            places.keep();
        }
        let Some((task, _)) = self.inner.registry.task(id).await? else {
            return Ok(());
        };
        let counts = StateCounts {
            pending: u64::from(task.total),
            ..StateCounts::default()
        };
        let opening = Opening {
            task: self.live_task(&task, counts, task.total).await?,
            product: &product,
            content,
        };
        let mut all = Vec::with_capacity(total);
        loop {
            let after = all.last().map(|last: &Delivery| last.id);
            let block = self.inner.registry.open_deliveries_of(id, after).await?;
            if block.is_empty() {
                break;
            }
            all.extend(block);
        }
        self.open(&opening, &all, std::iter::repeat(None)).await;
        // It may have been cancelled or held between its making and its opening.
        self.catch_up(id).await?;
        tracing::info!(task = %id, deliveries = total, "a task was made");
        Ok(())
    }

    /// Stores a delivery for each device that the filter lets through, from where an earlier process
    /// was; gives how many there are.
    async fn store_targets(&self, task: &Task, filter: &TargetFilter) -> Result<usize, Unmade> {
        let registry = &self.inner.registry;
        let limit = self.inner.config.max_filter_devices;
        let mut total = usize::try_from(task.total).unwrap_or(usize::MAX);
        let mut after: Option<DeviceId> = registry.last_target(task.id).await?;
        loop {
            let block = registry
                .target_devices(&task.product_id, filter.app.as_ref(), after.as_ref())
                .await?;
            let Some(last) = block.last() else {
                return Ok(total);
            };
            after = Some(last.id.clone());
            let now = Millis::now();
            if !self.keeps() {
                return Err(Unmade::Overtaken);
            }
            let before = total;
            let deliveries: Vec<Delivery> = block
                .into_iter()
                .filter(|device| lets_through(filter, device))
                .map(|device| pending(registry.next_id(), task.id, device.id, device.node_id, now))
                .collect();
            total = total.saturating_add(deliveries.len());
            if total > limit {
                return Err(Unmade::TooMany { limit });
            }
            if !deliveries.is_empty()
                && !registry
                    .add_deliveries(task.id, before, &deliveries)
                    .await?
            {
                let now = registry.task_alone(task.id).await?;
                return Err(match now {
                    Some(now) if now.run == task.run => Unmade::Overtaken,
                    _ => Unmade::Canceled,
                });
            }
            tokio::task::yield_now().await;
        }
    }

    async fn give_up_making(&self, id: Id, unmade: &Unmade) {
        tracing::warn!(task = %id, %unmade, "a task could not be made");
        let ended = self
            .inner
            .registry
            .end_creation(id, Some(&unmade.to_string()), Millis::now())
            .await;
        if let Err(error) = ended {
            tracing::error!(%error, task = %id, "it was not recorded that a task could not be made");
        }
    }

    /// Does to the working copy what was done to the record before there was one.
    async fn catch_up(&self, id: Id) -> Result<(), StoreError> {
        let (Some((task, _)), Some(live)) = (
            self.inner.registry.task(id).await?,
            self.inner.book.task(id),
        ) else {
            return Ok(());
        };
        if task.run != live.run() {
            live.set_run(task.run);
            if task.run.is_final() {
                self.end_all(&live).await;
            }
        }
        Ok(())
    }
}

/// Whether a filter lets a device through.
pub(super) fn lets_through(filter: &TargetFilter, device: &TargetDevice) -> bool {
    filter.name.as_ref().is_none_or(|pattern| {
        pattern.matches(device.node_id.as_str()) || pattern.matches(&device.name)
    })
}
