//! Deliveries: one resource to many devices, under backpressure.
//!
//! [`DeliveryService`] is what sessions, the API and the files listener call. Behind it stand the
//! book of open deliveries, the admission that bounds how many are in progress, the journal that
//! records every step in batches, the cache of bytes that all devices share, and the timers.
//!
//! Nothing is pushed on its own account: a session asks for an offer, a device asks for bytes.

mod admission;
mod alarms;
mod blocks;
mod book;
mod cache;
mod checkpoint;
mod content;
mod control;
mod creation;
mod device;
mod edit;
mod events;
mod files;
mod finish;
mod journal;
mod live;
mod load;
mod nodes;
mod rate;
mod report;
mod retention;
mod targets;
mod task;
mod timers;
mod view;
mod wait;
mod watch;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use headgate_protocol::identity::{DeviceId, NodeId, ResourceName};
use prometheus::IntGauge;
use tokio::sync::{Notify, Semaphore, mpsc};

pub use crate::store::StoreError;

use self::{
    admission::Admission,
    alarms::Alarms,
    book::Book,
    cache::ChunkCache,
    checkpoint::Checkpoints,
    journal::{Journal, Recorder, journal},
    live::Rules,
    nodes::Shared,
    rate::Rate,
};
pub use self::{
    content::Content,
    control::Chosen,
    device::{LIMITS_INTERVAL, Offer, Offered, PumpLimits, Refusal},
    edit::TaskEdit,
    files::{FileGrant, FileRefusal},
    journal::NotRecorded,
    live::{Hold, LiveDelivery, LiveTask},
    rate::Reserved,
    report::Reported,
    targets::{Preview, RowError, RowErrorCode, TargetRow, Targets},
    task::{DeliveryError, NewTask},
    view::{DeliveryView, TaskView, TimelineEntry},
    wait::WaitReason,
    watch::{TaskEvent, TaskWatch},
};
use crate::{
    config::{DeliveryConfig, RetentionConfig},
    model::{Confirm, Delivery, DeliveryState, Id, Millis, Product},
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
    /// What is kept for how long.
    pub retention: RetentionConfig,
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
    retention: RetentionConfig,
    metrics: Metrics,
    book: Book,
    admission: Admission,
    journal: Journal,
    cache: ChunkCache,
    checkpoints: Checkpoints,
    urls: FileUrls,
    links: OnceLock<Arc<dyn DeviceLinks>>,
    /// The node's own limit of bytes a second.
    rate: Option<Arc<Rate>>,
    alarms: Alarms,
    /// Something about a task is to be settled before the next tick.
    nudge: Notify,
    /// Held by whoever tries deliveries again or deletes them: they must not do so at once.
    controls: tokio::sync::Mutex<()>,
    /// Tasks that are to be made in the background.
    creations: mpsc::Sender<Id>,
    watchers: Arc<Semaphore>,
    waiting: Vec<IntGauge>,
    /// Where other nodes have deliveries, too.
    shared: Option<Arc<Shared>>,
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
        let shared = if parts.registry.is_shared() {
            Some(Arc::new(Shared::new()?))
        } else {
            None
        };
        let (journal, recorder) = journal(parts.registry.clone(), shared.clone(), &parts.metrics);
        let (creations, to_be_made) = mpsc::channel(creation::CAPACITY);
        let service = Self {
            inner: Arc::new(Inner {
                rate: (parts.config.max_bytes_per_sec > 0)
                    .then(|| Arc::new(Rate::new(parts.config.max_bytes_per_sec))),
                watchers: Arc::new(Semaphore::new(parts.config.max_event_streams)),
                waiting: WaitReason::ALL
                    .iter()
                    .map(|reason| parts.metrics.delivery_waiting(reason.as_str()))
                    .collect(),
                book: Book::new(parts.config.max_open_deliveries, shared.is_some()),
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
                retention: parts.retention,
                metrics: parts.metrics,
                journal,
                links: OnceLock::new(),
                alarms: Alarms::default(),
                nudge: Notify::new(),
                controls: tokio::sync::Mutex::default(),
                creations,
                shared,
            }),
        };
        service.load().await?;
        service.spawn_tasks(recorder, to_be_made, shutdown);
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

    fn spawn_tasks(&self, recorder: Recorder, to_be_made: mpsc::Receiver<Id>, shutdown: &Shutdown) {
        shutdown.spawn(recorder.run(shutdown.token().clone()));
        let service = self.clone();
        let stop = shutdown.token().clone();
        shutdown.spawn(async move {
            stop.run_until_cancelled(service.make_tasks(to_be_made))
                .await
        });
        let service = self.clone();
        let stop = shutdown.token().clone();
        shutdown.spawn(async move { stop.run_until_cancelled(service.run_retention()).await });
        let service = self.clone();
        let stop = shutdown.token().clone();
        shutdown.spawn(async move {
            stop.run_until_cancelled(service.inner.checkpoints.run())
                .await
        });
        let service = self.clone();
        let stop = shutdown.token().clone();
        shutdown.spawn(async move { stop.run_until_cancelled(service.run_timers()).await });
        self.spawn_among_nodes(shutdown);
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
