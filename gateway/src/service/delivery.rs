//! Deliveries: one resource to many devices, under backpressure.
//!
//! [`DeliveryService`] is what sessions, the API and the files listener call. Behind it stand the
//! book of open deliveries, the admission that bounds how many are in progress, the journal that
//! records every step in batches, the cache of bytes that all devices share, and the timers.
//!
//! Nothing is pushed on its own account: a session asks for an offer, a device asks for bytes.

mod admission;
mod book;
mod cache;
mod checkpoint;
mod content;
mod device;
mod files;
mod journal;
mod live;
mod targets;
mod task;
mod timers;
mod view;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use headgate_protocol::{
    identity::{DeviceId, NodeId, ProductId, ResourceName},
    transfer::ranges::Ranges,
};

pub use crate::store::StoreError;

use self::{
    admission::Admission,
    book::Book,
    cache::ChunkCache,
    checkpoint::Checkpoints,
    journal::{Journal, Recorder, journal},
    live::{Rules, Step},
};
pub use self::{
    content::Content,
    device::{Offer, Offered, PumpLimits, Refusal},
    files::{FileGrant, FileRefusal},
    journal::NotRecorded,
    live::{LiveDelivery, LiveTask},
    targets::{RowError, RowErrorCode, TargetRow, Targets},
    task::{DeliveryError, NewTask},
    view::{DeliveryView, TaskView, TimelineEntry, WaitReason},
};
use crate::{
    config::DeliveryConfig,
    model::{
        Confirm, Delivery, DeliveryChange, DeliveryState, FailReason, Id, Millis, Product, RunState,
    },
    service::link::FileUrls,
    shutdown::Shutdown,
    store::{blobs::BlobStore, registry::Registry, sessions::SessionStore},
    telemetry::metrics::Metrics,
};

/// How the service reaches devices that are connected to this node.
pub trait DeviceLinks: Send + Sync + fmt::Debug {
    /// Has the device's session look for what waits; `false` where the device is not here.
    fn wake(&self, device: &DeviceId) -> bool;

    /// Tells the device that a transfer is over, and stops sending it.
    fn cancel(&self, device: &DeviceId, transfer: &str, name: &ResourceName);

    /// Whether the device is connected.
    fn is_connected(&self, device: &DeviceId) -> bool;
}

/// What the service stands on.
#[derive(Debug)]
pub struct DeliveryParts {
    /// The record of tasks and deliveries.
    pub registry: Registry,
    /// The record of cursors.
    pub sessions: SessionStore,
    /// The bytes.
    pub blobs: BlobStore,
    /// Makes addresses of files.
    pub urls: FileUrls,
    /// Limits and intervals.
    pub config: DeliveryConfig,
    /// Where it is counted.
    pub metrics: Metrics,
}

/// The service; a clone is another handle on the same.
#[derive(Clone)]
pub struct DeliveryService {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    sessions: SessionStore,
    config: DeliveryConfig,
    metrics: Metrics,
    book: Book,
    admission: Admission,
    journal: Journal,
    cache: ChunkCache,
    checkpoints: Checkpoints,
    urls: FileUrls,
    links: OnceLock<Arc<dyn DeviceLinks>>,
}

impl fmt::Debug for DeliveryService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeliveryService")
            .field("open", &self.inner.book.len())
            .finish_non_exhaustive()
    }
}

impl DeliveryService {
    /// The service with every delivery that the registry says is open, each where its cursor
    /// stands. Its tasks run until `shutdown`.
    ///
    /// # Errors
    /// [`StoreError`] where they cannot be loaded.
    pub async fn start(parts: DeliveryParts, shutdown: &Shutdown) -> Result<Self, StoreError> {
        let (journal, recorder) = journal(parts.registry.clone(), &parts.metrics);
        let service = Self {
            inner: Arc::new(Inner {
                book: Book::new(parts.config.max_open_deliveries),
                admission: Admission::new(parts.config.max_in_progress),
                cache: ChunkCache::new(
                    parts.blobs,
                    parts.config.chunk_cache_bytes,
                    parts.metrics.clone(),
                ),
                checkpoints: Checkpoints::new(parts.sessions.clone(), &parts.metrics),
                urls: parts.urls,
                registry: parts.registry,
                sessions: parts.sessions,
                config: parts.config,
                metrics: parts.metrics,
                journal,
                links: OnceLock::new(),
            }),
        };
        service.load().await?;
        service.spawn_tasks(recorder, shutdown);
        Ok(service)
    }

    /// Says how connected devices are reached; called once, before devices are let in.
    pub fn connect_links(&self, links: Arc<dyn DeviceLinks>) {
        // A second call changes nothing: there is one table of sessions in a process.
        let _already = self.inner.links.set(links);
    }

    /// Stores every cursor that moved: the last thing before the process ends.
    pub async fn flush(&self) {
        for delivery in self.inner.admission.in_progress() {
            if delivery.take_unsaved() {
                self.inner.checkpoints.mark(&delivery);
            }
        }
        self.inner.checkpoints.flush().await;
    }

    fn spawn_tasks(&self, recorder: Recorder, shutdown: &Shutdown) {
        shutdown.spawn(recorder.run(shutdown.token().clone()));
        let service = self.clone();
        let stop = shutdown.token().clone();
        shutdown.spawn(async move {
            stop.run_until_cancelled(service.inner.checkpoints.run())
                .await
        });
        let service = self.clone();
        let stop = shutdown.token().clone();
        shutdown.spawn(async move { stop.run_until_cancelled(service.run_timers()).await });
    }

    async fn load(&self) -> Result<(), StoreError> {
        let stored = self.inner.registry.open_deliveries().await?;
        if stored.is_empty() {
            return Ok(());
        }
        let mut cursors: HashMap<Id, (u32, Ranges)> = HashMap::new();
        for cursor in self.inner.sessions.load_cursors().await? {
            cursors.insert(
                cursor.delivery,
                (
                    cursor.attempt,
                    Ranges::from_parts(cursor.acked, cursor.ranges),
                ),
            );
        }
        let count = stored.len();
        // What was accepted once is kept, even where the limit has been lowered since.
        self.inner.book.force_reserve(count);
        let mut known = Known::default();
        for open in stored {
            let content = known
                .content(self, open.resource_id, open.resource_version)
                .await?;
            let rules = known.rules(self, &open.product_id).await?;
            let task = known
                .task(self, open.delivery.task_id, open.task_run)
                .await?;
            let have = cursors
                .remove(&open.delivery.id)
                .and_then(|(attempt, have)| (attempt == open.delivery.attempt).then_some(have));
            self.count_new(open.delivery.state);
            let live =
                LiveDelivery::new(&open.delivery, open.product_id, content, task, have, rules);
            self.inner.book.insert(Arc::new(live));
        }
        tracing::info!(deliveries = count, "open deliveries loaded");
        Ok(())
    }

    /// Ends an attempt; on return it is recorded.
    async fn finish(
        &self,
        delivery: &Arc<LiveDelivery>,
        to: DeliveryState,
        reason: Option<FailReason>,
    ) -> Result<Step, NotRecorded> {
        let at = Millis::now();
        let before = delivery.state();
        let step = delivery.advance(to, at);
        if step != Step::Taken {
            return Ok(step);
        }
        self.count_step(before, to);
        let (created_at, pushed_at, _) = delivery.stamps();
        if to == DeliveryState::Delivered {
            let since = pushed_at.unwrap_or(created_at);
            self.inner
                .metrics
                .delivery_seconds
                .observe(at.since(since).as_secs_f64());
        }
        let recorded = self
            .inner
            .journal
            .commit(Self::change(delivery, to, at, reason))
            .await;
        // Only now may another delivery take its place: the device's next offer must not come
        // before the end of this one is certain.
        let last = self.inner.book.remove(delivery);
        self.inner.admission.release(delivery);
        self.inner.checkpoints.forget(delivery.id);
        recorded?;
        if last {
            self.end_task(delivery.task.id, RunState::Finished).await;
        }
        if self.inner.book.has_device(&delivery.device_id) {
            self.inner.links().wake(&delivery.device_id);
        }
        self.serve_waiting();
        Ok(Step::Taken)
    }

    async fn end_task(&self, task: Id, run: RunState) {
        if let Err(error) = self
            .inner
            .registry
            .set_task_run(task, run, Millis::now(), None)
            .await
        {
            tracing::error!(%error, %task, "the end of a task was not recorded");
        }
    }

    /// Gives free places to deliveries that wait.
    fn serve_waiting(&self) {
        while let Some(delivery) = self.inner.admission.next() {
            if !self.inner.links().wake(&delivery.device_id) {
                self.inner.admission.release(&delivery);
            }
        }
    }

    fn change(
        delivery: &LiveDelivery,
        to: DeliveryState,
        at: Millis,
        reason: Option<FailReason>,
    ) -> DeliveryChange {
        DeliveryChange {
            delivery: delivery.id,
            attempt: delivery.attempt,
            to,
            at,
            detail: reason.as_ref().and_then(FailReason::detail),
            reason: reason.map(|reason| reason.as_str().to_owned()),
        }
    }

    fn count_new(&self, state: DeliveryState) {
        self.inner.metrics.deliveries.of(state).inc();
    }

    fn count_step(&self, from: DeliveryState, to: DeliveryState) {
        self.inner.metrics.deliveries.of(from).dec();
        self.inner.metrics.deliveries.of(to).inc();
    }
}

impl Inner {
    fn links(&self) -> &dyn DeviceLinks {
        match self.links.get() {
            Some(links) => &**links,
            None => &NoLinks,
        }
    }
}

/// Before devices are let in, none is here.
#[derive(Debug)]
struct NoLinks;

impl DeviceLinks for NoLinks {
    fn wake(&self, _device: &DeviceId) -> bool {
        false
    }

    fn cancel(&self, _device: &DeviceId, _transfer: &str, _name: &ResourceName) {}

    fn is_connected(&self, _device: &DeviceId) -> bool {
        false
    }
}

/// What deliveries that are loaded together share.
#[derive(Default)]
struct Known {
    contents: HashMap<(Id, u32), Arc<Content>>,
    rules: HashMap<ProductId, Rules>,
    tasks: HashMap<Id, Arc<LiveTask>>,
}

impl Known {
    async fn content(
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

    async fn rules(
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
        run: RunState,
    ) -> Result<Arc<LiveTask>, StoreError> {
        if let Some(task) = self.tasks.get(&task) {
            return Ok(Arc::clone(task));
        }
        let stored = service.inner.registry.task(task).await?;
        let most = stored.and_then(|(stored, _)| stored.policy.max_in_progress);
        let live = Arc::new(LiveTask::new(task, run, most));
        self.tasks.insert(task, Arc::clone(&live));
        Ok(live)
    }
}

impl DeliveryService {
    async fn load_content(&self, resource: Id, version: u32) -> Result<Arc<Content>, StoreError> {
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

fn rules_of(product: &Product) -> Rules {
    Rules {
        confirm_by_acknowledgement: product.confirm == Confirm::Acked,
        trust_done: product.trust_done,
    }
}

/// A stored delivery that has just begun.
fn pending(id: Id, task: Id, device: DeviceId, node: NodeId, at: Millis) -> Delivery {
    Delivery {
        id,
        task_id: task,
        device_id: device,
        node_id: node,
        attempt: 1,
        state: DeliveryState::Pending,
        reason: None,
        detail: None,
        created_at: at,
        pushed_at: None,
        delivering_at: None,
        finished_at: None,
    }
}

#[cfg(test)]
mod tests;
