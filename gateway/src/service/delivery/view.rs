//! Tasks and deliveries as they are shown: the record, and what the working copies add to it.

use std::collections::HashMap;

use headgate_protocol::identity::DeviceId;

use super::{DeliveryError, DeliveryService, wait::WaitReason};
use crate::{
    model::{Delivery, DeliveryState, Id, Millis, Page, Paged, StateCounts, Task},
    store::registry::TaskFilter,
};

/// A task and how its deliveries stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskView {
    /// The task.
    pub task: Task,
    /// How many of its deliveries are in each state.
    pub counts: StateCounts,
}

impl TaskView {
    fn new((task, counts): (Task, StateCounts)) -> Self {
        Self { task, counts }
    }
}

/// A delivery, how far it is and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryView {
    /// The delivery.
    pub delivery: Delivery,
    /// 0 to 100 while it is open.
    pub percent: Option<u8>,
    /// Why it does not get on just now; computed when asked, never stored.
    pub waiting: Option<WaitReason>,
}

/// One state that an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// Which attempt.
    pub attempt: u32,
    /// Which state.
    pub state: DeliveryState,
    /// When.
    pub at: Millis,
    /// Why, for a failure.
    pub reason: Option<String>,
    /// More about the reason.
    pub detail: Option<String>,
}

impl DeliveryService {
    /// One task.
    ///
    /// # Errors
    /// [`DeliveryError::NotFound`] where there is none.
    pub async fn task(&self, id: Id) -> Result<TaskView, DeliveryError> {
        self.inner
            .registry
            .task(id)
            .await?
            .map(TaskView::new)
            .ok_or(DeliveryError::NotFound("task"))
    }

    /// A page of tasks, the newest first.
    pub async fn tasks(
        &self,
        filter: &TaskFilter,
        page: &Page,
    ) -> Result<Paged<TaskView>, DeliveryError> {
        Ok(self
            .inner
            .registry
            .tasks(filter, page)
            .await?
            .map(TaskView::new))
    }

    /// A page of a task's deliveries, all or those in one state.
    ///
    /// # Errors
    /// [`DeliveryError::NotFound`] where there is no such task.
    pub async fn deliveries(
        &self,
        task: Id,
        state: Option<DeliveryState>,
        page: &Page,
    ) -> Result<Paged<DeliveryView>, DeliveryError> {
        if self.inner.registry.task_alone(task).await?.is_none() {
            return Err(DeliveryError::NotFound("task"));
        }
        let found = self.inner.registry.deliveries(task, state, page).await?;
        let mut views = found.map(|known| self.view(known));
        self.add_from_elsewhere(&mut views.items).await;
        Ok(views)
    }

    /// A page of the deliveries to a device, the newest first.
    ///
    /// # Errors
    /// [`DeliveryError::Store`], also for a wrong cursor.
    pub async fn deliveries_to(
        &self,
        device: &DeviceId,
        page: &Page,
    ) -> Result<Paged<DeliveryView>, DeliveryError> {
        let found = self.inner.registry.deliveries_to(device, page).await?;
        let mut views = found.map(|known| self.view(known));
        self.add_from_elsewhere(&mut views.items).await;
        Ok(views)
    }

    /// The names of the tasks of deliveries.
    ///
    /// # Errors
    /// [`DeliveryError::Store`].
    pub async fn task_names(
        &self,
        deliveries: &[DeliveryView],
    ) -> Result<HashMap<Id, String>, DeliveryError> {
        let mut ids: Vec<Id> = deliveries
            .iter()
            .map(|view| view.delivery.task_id)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(self.inner.registry.task_names(&ids).await?)
    }

    /// One delivery, as its latest attempt stands.
    ///
    /// # Errors
    /// [`DeliveryError::NotFound`] where there is none.
    pub async fn delivery(&self, id: Id) -> Result<DeliveryView, DeliveryError> {
        let known = self
            .inner
            .registry
            .delivery(id)
            .await?
            .ok_or(DeliveryError::NotFound("delivery"))?;
        let mut view = [self.view(known)];
        self.add_from_elsewhere(&mut view).await;
        let [view] = view;
        Ok(view)
    }

    /// Every state that every attempt of a delivery came to, in order.
    ///
    /// # Errors
    /// [`DeliveryError::NotFound`] where there is no such delivery.
    pub async fn timeline(&self, id: Id) -> Result<Vec<TimelineEntry>, DeliveryError> {
        let attempts: Vec<Delivery> = self.inner.registry.delivery_attempts(id).await?;
        if attempts.is_empty() {
            return Err(DeliveryError::NotFound("delivery"));
        }
        Ok(attempts.iter().flat_map(timeline_of).collect())
    }

    /// The id of the device's deliveries that are open, the next one first.
    pub fn open_of_device(&self, device: &DeviceId) -> Vec<Id> {
        self.inner
            .book
            .of_device(device)
            .iter()
            .map(|delivery| delivery.id)
            .collect()
    }

    /// A stored delivery with what its working copy adds; the state is the recorded one, which a kill
    /// does not take back.
    pub(super) fn view(&self, known: Delivery) -> DeliveryView {
        let live = self
            .inner
            .book
            .by_id(known.id)
            .filter(|live| live.attempt == known.attempt);
        DeliveryView {
            percent: live.as_ref().map(|live| live.percent()),
            waiting: live.and_then(|live| self.waiting_for(&live, Millis::now())),
            delivery: known,
        }
    }
}

fn timeline_of(attempt: &Delivery) -> Vec<TimelineEntry> {
    let entry = |state, at: Option<Millis>| {
        at.map(|at| TimelineEntry {
            attempt: attempt.attempt,
            state,
            at,
            reason: None,
            detail: None,
        })
    };
    let mut entries: Vec<TimelineEntry> = [
        entry(DeliveryState::Pending, Some(attempt.created_at)),
        entry(DeliveryState::Pushed, attempt.pushed_at),
        entry(DeliveryState::Delivering, attempt.delivering_at),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some(mut end) = entry(attempt.state, attempt.finished_at) {
        end.reason.clone_from(&attempt.reason);
        end.detail.clone_from(&attempt.detail);
        entries.push(end);
    }
    entries
}
