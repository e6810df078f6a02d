//! Watching a task: what has changed, at most twice a second, whatever happens meanwhile.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    DeliveryError, DeliveryService, DeliveryView, TaskView,
    events::{Told, Watcher},
    wait::WaitReason,
};
use crate::model::{Id, Millis};

/// Time between two events of one watcher.
const INTERVAL: Duration = Duration::from_millis(500);
/// Deliveries that one event shows.
const MAX_SHOWN: usize = 500;

/// Someone who watches a task.
#[derive(Debug)]
pub struct TaskWatch {
    service: DeliveryService,
    task: Id,
    /// Where an earlier connection ended, until the feed has been found.
    position: Option<String>,
    watcher: Option<Watcher>,
    /// The deliveries that are looked at; `None`: all.
    among: Option<Among>,
    told_at: Option<Instant>,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

/// Deliveries that are looked at, and how far each was when it was last told: what moves between two states is no step
/// that the feed knows of.
#[derive(Debug)]
struct Among {
    ids: Vec<Id>,
    told: Vec<Option<(u8, Option<WaitReason>)>>,
}

/// What a watcher is told.
#[derive(Debug)]
pub struct TaskEvent {
    /// To be given back as `Last-Event-ID`; absent while the task is being made.
    pub position: Option<String>,
    /// The task and its counts.
    pub task: TaskView,
    /// Deliveries that changed since the event before; `None`: any may have.
    pub deliveries: Option<Vec<DeliveryView>>,
    /// Deliveries that changed and are not shown.
    pub omitted: usize,
    /// Nothing more will come.
    pub is_over: bool,
}

impl DeliveryService {
    /// Begins to watch a task, after `position` if that is known.
    ///
    /// # Errors
    /// [`DeliveryError::NotFound`], [`DeliveryError::TooManyWatchers`].
    pub async fn watch_task(
        &self,
        task: Id,
        position: Option<String>,
    ) -> Result<TaskWatch, DeliveryError> {
        self.task(task).await?;
        let place = Arc::clone(&self.inner.watchers).try_acquire_owned();
        let limit = self.inner.config.max_event_streams;
        Ok(TaskWatch {
            service: self.clone(),
            task,
            position,
            watcher: None,
            among: None,
            told_at: None,
            is_over: false,
            _place: place.map_err(|_| DeliveryError::TooManyWatchers { limit })?,
        })
    }
}

impl TaskWatch {
    /// Looks at these deliveries alone, and tells also how far they are: what changes of others costs no look-up. What
    /// is told first is how these stand.
    #[must_use]
    pub fn among(mut self, mut ids: Vec<Id>) -> Self {
        ids.sort_unstable();
        let told = vec![None; ids.len()];
        self.among = Some(Among { ids, told });
        self
    }

    /// Waits for the next event; `None`: there was the last one.
    ///
    /// # Errors
    /// [`DeliveryError`] where the task cannot be looked up any more.
    ///
    /// # Cancel safety
    /// Not safe: what was taken and not told is lost to this watcher.
    pub async fn next(&mut self) -> Result<Option<TaskEvent>, DeliveryError> {
        if self.is_over {
            return Ok(None);
        }
        if let Some(told_at) = self.told_at {
            sleep_until(told_at + INTERVAL).await;
        }
        let told = self.wait().await?;
        let event = self.describe(told).await?;
        self.told_at = Some(Instant::now());
        self.is_over = event.is_over;
        Ok(Some(event))
    }

    /// Waits until there is something to tell; `None`: a task without a feed, to be told of once.
    async fn wait(&mut self) -> Result<Option<Told>, DeliveryError> {
        loop {
            if let Some(watcher) = &mut self.watcher {
                let Some(among) = &mut self.among else {
                    watcher.changed().await;
                    return Ok(Some(watcher.take()));
                };
                let moved = loop {
                    let changed = timeout(INTERVAL, watcher.changed()).await;
                    let moved = among.moved(&self.service);
                    if changed.is_ok() || !moved.is_empty() {
                        break moved;
                    }
                };
                let mut told = watcher.take();
                if let Some(changed) = &mut told.deliveries {
                    changed.extend(moved);
                }
                return Ok(Some(told));
            }
            if let Some(live) = self.service.inner.book.task(self.task) {
                self.watcher = Some(live.feed.watch(self.position.as_deref()));
                continue;
            }
            let view = self.service.task(self.task).await?;
            if view.task.run.is_final() || self.told_at.is_none() {
                return Ok(None);
            }
            // It is being made: its deliveries are nowhere but in the registry.
            sleep(INTERVAL).await;
        }
    }

    async fn describe(&self, told: Option<Told>) -> Result<TaskEvent, DeliveryError> {
        let task = self.service.task(self.task).await?;
        let Some(told) = told else {
            return Ok(TaskEvent {
                position: None,
                is_over: task.task.run.is_final(),
                task,
                deliveries: None,
                omitted: 0,
            });
        };
        let mut omitted = 0;
        let changed = match &self.among {
            None => told.deliveries,
            Some(among) => Some(match told.deliveries {
                None => among.ids.clone(),
                Some(mut changed) => {
                    changed.retain(|id| among.ids.binary_search(id).is_ok());
                    changed.sort_unstable();
                    changed.dedup();
                    changed
                }
            }),
        };
        let deliveries = match changed {
            Some(mut ids) => {
                omitted = ids.len().saturating_sub(MAX_SHOWN);
                ids.truncate(MAX_SHOWN);
                let registry = &self.service.inner.registry;
                let known = registry.deliveries_by_ids(self.task, &ids).await?;
                let views = known.into_iter().map(|known| self.service.view(known));
                let mut views: Vec<DeliveryView> = views.collect();
                self.service.add_from_elsewhere(&mut views).await;
                Some(views)
            }
            None => None,
        };
        Ok(TaskEvent {
            position: Some(told.position),
            is_over: told.is_over,
            task,
            deliveries,
            omitted,
        })
    }
}

impl Among {
    /// Those that are further than they were told to be, or wait for something else.
    fn moved(&mut self, service: &DeliveryService) -> Vec<Id> {
        let now = Millis::now();
        let mut moved = Vec::new();
        for (id, told) in self.ids.iter().zip(&mut self.told) {
            let live = service.inner.book.by_id(*id);
            let stands = live.map(|live| (live.percent(), service.waiting_for(&live, now)));
            if stands != *told {
                *told = stands;
                moved.push(*id);
            }
        }
        moved
    }
}
