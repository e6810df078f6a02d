//! Messages between devices and applications: who gets what, and what waits.
//!
//! A message from a device goes to the applications that the device is bound to, and of those to the
//! sessions whose subscriptions match its topic: its cost is that of these, however many devices
//! there are. A message to a device is stored before its sender is told that it was taken, and waits
//! until the device has acknowledged it.
//! Invariants: an application sees messages of the devices bound to it and no others; once a binding
//! is taken away, nothing of that device is offered to the application's sessions, and what they had
//! not sent is dropped.

mod bindings;
mod changes;
mod held;
mod history;
mod mailbox;
mod nodes;
mod owners;
mod persistent;
mod publish;
mod queue;
mod retained;
mod share;
mod sightings;
mod subscribers;
mod writer;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use headgate_protocol::{
    identity::{AppId, DeviceId},
    mqtt::TopicFilter,
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use self::{
    bindings::Bindings,
    held::Held,
    history::Histories,
    nodes::Elsewhere,
    owners::Owners,
    persistent::{PersistentLimits, PersistentParts},
    queue::QueueLimits,
    retained::Retained,
    sightings::Sightings,
    subscribers::Subscribers,
    writer::{Order, Writer},
};
pub use self::{
    history::{EventId, EventStream, InvalidEventId, NotOpened, StreamEvent},
    mailbox::{Mailbox, Stored},
    persistent::{NotKept, Opened, Opening, Persistent, PersistentSessions, Unacknowledged},
    publish::{NotPublished, NotSent, Origin, Published, Sending, Sent, Terms},
    queue::{Queue, QueueLink, Queued},
    retained::{NotRetained, Replay},
    sightings::{DeviceWatch, KEPT as SEEN_MESSAGES, Seen, TooManyLooks},
    subscribers::{
        Ended, NotSubscribed, Offered, Receiver, RetainedReceiver, Sink, SubscribeOptions,
        Subscriber, SubscriberId,
    },
    writer::Receipt,
};
pub use crate::store::{
    StoreError,
    sessions::{Came, ClientPlace, KeptSubscription, SessionChange, SessionKey, Standing},
};
use crate::{
    config::{ApplicationsConfig, MailboxConfig, RetainedConfig},
    model::{DeviceName, Id, IdGenerator, random},
    service::{
        auth::{AppAuthenticator, AuthenticatedApp},
        cluster::Cluster,
    },
    shutdown::Shutdown,
    store::{
        registry::Registry,
        sessions::{NodeStore, SessionBackend, SessionStore},
    },
    telemetry::metrics::Metrics,
};

/// How messages reach the sessions of devices.
pub trait MessageLinks: Send + Sync {
    /// Hands a message to the session of a device; says whether it will send it. Must not block.
    ///
    /// Messages that wait in the mailbox are offered in the order of their ids, each once. A session that refuses
    /// one refuses all that follow until it has caught up: it says that it takes them again, then reads
    /// [`Mailbox::pending`] behind the last one that it has, and drops what it was offered meanwhile with an id that
    /// it has read. So does a session that begins, if [`Mailbox::has`] anything for it.
    fn offer(&self, device: &DeviceId, message: Arc<Stored>) -> bool;

    /// Tells the session of a device that the mailbox has something that it was not offered; says whether there is one.
    fn mail_waits(&self, device: &DeviceId) -> bool;

    /// Whether a device has a session here.
    fn is_here(&self, device: &DeviceId) -> bool;
}

/// The way of messages; a clone is another handle on it.
#[derive(Clone)]
pub struct Uplink {
    inner: Arc<Inner>,
}

struct Inner {
    authenticator: AppAuthenticator,
    bindings: Bindings,
    owners: Owners,
    subscribers: Arc<Subscribers>,
    histories: Arc<Histories>,
    sightings: Sightings,
    mailbox: Mailbox,
    retained: Retained,
    registry: Registry,
    sessions: PersistentSessions,
    /// Where there are other nodes.
    elsewhere: OnceLock<Arc<Elsewhere>>,
    shared: Option<NodeStore>,
    orders: mpsc::Sender<Order>,
    config: ApplicationsConfig,
    max_message_bytes: usize,
    metrics: Metrics,
}

/// What an uplink is made of.
#[derive(Debug)]
pub struct UplinkParts {
    /// Devices and bindings.
    pub registry: Registry,
    /// Mailboxes and persistent sessions.
    pub sessions: SessionStore,
    /// Who the applications are.
    pub authenticator: AppAuthenticator,
    /// Limits of applications.
    pub applications: ApplicationsConfig,
    /// Limits of mailboxes.
    pub mailbox: MailboxConfig,
    /// Limits of retained messages.
    pub retained: RetainedConfig,
    /// Persistent sessions at most.
    pub max_persistent: usize,
    /// Where it is counted.
    pub metrics: Metrics,
}

impl Uplink {
    /// Opens the mailboxes and starts to store what comes, until `shutdown` stops.
    ///
    /// # Errors
    /// What the stores say.
    pub async fn start(parts: UplinkParts, shutdown: &Shutdown) -> Result<Self, StoreError> {
        let max_message_bytes = parts.mailbox.max_message_bytes;
        let (retained, writer) = retained::open(
            parts.sessions.clone(),
            parts.retained.clone(),
            &parts.metrics,
        )
        .await?;
        shutdown.spawn(writer.run(shutdown.token().clone()));
        let subscribers = Arc::default();
        let (orders, received) = mpsc::channel(writer::CAPACITY);
        let opened = open_stores(&parts, &subscribers, &orders, received).await?;
        let (mailbox, sessions, writer) = opened;
        shutdown.spawn(writer.run(shutdown.token().clone()));
        let histories = Arc::new(Histories::new(
            parts.applications.clone(),
            u16::from_ne_bytes(random()?),
            parts.metrics.event_streams.clone(),
        ));
        let (swept, stop) = (Arc::clone(&histories), shutdown.token().clone());
        shutdown.spawn(async move { stop.run_until_cancelled(swept.run()).await });
        let entries = parts.applications.binding_cache_entries;
        let shared = parts.sessions.nodes();
        Ok(Self {
            inner: Arc::new(Inner {
                authenticator: parts.authenticator,
                bindings: Bindings::new(parts.registry.clone(), entries),
                owners: Owners::new(parts.registry.clone(), entries),
                subscribers,
                histories,
                sightings: Sightings::new(parts.metrics.watched_devices.clone()),
                mailbox,
                retained,
                sessions,
                elsewhere: OnceLock::new(),
                shared,
                orders,
                registry: parts.registry,
                config: parts.applications,
                max_message_bytes,
                metrics: parts.metrics,
            }),
        })
    }

    /// Says how the sessions of devices are reached; the first call counts.
    pub fn connect_links(&self, links: Arc<dyn MessageLinks>) {
        self.inner.mailbox.connect_links(links);
    }

    /// Has messages go between this node and others; before anybody is let in.
    pub fn connect_cluster(&self, cluster: &Cluster, shutdown: &Shutdown) {
        nodes::connect(self, cluster, shutdown);
    }

    /// A client's connection is gone from this node.
    pub fn left(&self, key: SessionKey, epoch: i64) {
        if let SessionKey::Device(device) = &key {
            self.inner.mailbox.left(device);
        }
        self.inner.sessions.left(key, epoch);
    }

    /// What waits for devices.
    pub fn mailbox(&self) -> &Mailbox {
        &self.inner.mailbox
    }

    /// Attaches a session of an application, to be offered what it subscribes to and told when it is to end. Whoever does
    /// it looks with [`Uplink::is_current`] afterwards.
    pub fn attach(&self, app: &AuthenticatedApp, sink: Arc<dyn Sink>) -> Subscriber {
        let inner = &self.inner;
        let max = inner.config.max_subscriptions;
        inner.subscribers.attach_own(&app.id, sink, max)
    }

    /// Opens a stream of the messages of an application's devices that `filter` matches, all without one; it goes on
    /// behind the event `after`, as far as that is kept. `reader` is the application itself, where it is not an
    /// operator who reads.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open_stream(
        &self,
        app: &AppId,
        reader: Option<&AuthenticatedApp>,
        filter: Option<TopicFilter>,
        after: Option<EventId>,
    ) -> Result<EventStream, NotOpened> {
        let stream = self.inner.histories.open(app, filter, after)?;
        if let Some(elsewhere) = self.inner.elsewhere.get() {
            elsewhere.notify();
        }
        // After it was opened, as in `attach`.
        match reader {
            Some(reader) if !self.is_current(reader) => Err(NotOpened::Changed),
            _ => Ok(stream),
        }
    }

    /// What was seen of a device's messages on this node since it was first looked at, the oldest first; it is looked at
    /// from here on, for a while.
    ///
    /// # Errors
    /// [`TooManyLooks`].
    pub fn look_at(&self, device: &DeviceId) -> Result<Vec<Arc<Seen>>, TooManyLooks> {
        self.inner.sightings.look(device, Instant::now())
    }

    /// Watches the messages of a device, from behind the one of a number.
    ///
    /// # Errors
    /// [`TooManyLooks`].
    pub fn watch_device(&self, device: &DeviceId, after: u64) -> Result<DeviceWatch, TooManyLooks> {
        self.inner.sightings.watch(device, after)
    }

    /// The device whose topic this is: `{product}/{node}/..`, `$oc/devices/{device}/..` and Tencent's. Names are
    /// looked up as they stand in the topic's levels; `$resource/..` is nobody's.
    ///
    /// # Errors
    /// What the registry says.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn resolve(&self, topic: &str) -> Result<Option<Arc<DeviceName>>, StoreError> {
        self.inner.owners.of_topic(topic).await
    }

    /// All ids of a device.
    ///
    /// # Errors
    /// What the registry says.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn device(&self, id: &DeviceId) -> Result<Option<Arc<DeviceName>>, StoreError> {
        self.inner.owners.of_id(id).await
    }

    /// Whether an application sees a device.
    ///
    /// # Errors
    /// What the registry says.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn is_bound(&self, app: &AppId, device: &DeviceId) -> Result<bool, StoreError> {
        let bindings = &self.inner.bindings;
        bindings.with(device, |apps| apps.contains(app)).await
    }

    /// Sessions that outlive their connections.
    pub fn sessions(&self) -> &PersistentSessions {
        &self.inner.sessions
    }

    /// Whether what a session was looked up with still holds.
    pub fn is_current(&self, app: &AuthenticatedApp) -> bool {
        self.inner.authenticator.is_current(app)
    }

    /// Takes out what waits for a device; gives how many messages that were.
    ///
    /// # Errors
    /// [`NotSent::Unavailable`].
    pub async fn empty_mailbox(&self, device: &DeviceId) -> Result<usize, NotSent> {
        let (cleared, done) = oneshot::channel();
        let device = device.clone();
        let sent = self
            .inner
            .orders
            .send(Order::Clear { device, cleared })
            .await;
        sent.map_err(|_| NotSent::Unavailable)?;
        done.await.map_err(|_| NotSent::Unavailable)
    }
}

/// The mailboxes and the sessions as they were left, and the writer of what comes.
async fn open_stores(
    parts: &UplinkParts,
    subscribers: &Arc<Subscribers>,
    orders: &mpsc::Sender<Order>,
    received: mpsc::Receiver<Order>,
) -> Result<(Mailbox, PersistentSessions, Writer), StoreError> {
    let (store, metrics) = (parts.sessions.clone(), &parts.metrics);
    let backend: Arc<dyn SessionBackend> = Arc::new(store.clone());
    let has_work = Arc::new(Notify::new());
    let config = &parts.applications;
    let mailbox = mailbox::open(
        store.clone(),
        parts.mailbox.clone(),
        orders.clone(),
        Arc::clone(&has_work),
        metrics,
    )
    .await?;
    let sessions = PersistentSessions::open_all(PersistentParts {
        backend: Arc::clone(&backend),
        store: store.clone(),
        orders: orders.clone(),
        has_work: Arc::clone(&has_work),
        subscribers: Arc::clone(subscribers),
        limits: PersistentLimits {
            sessions: parts.max_persistent,
            subscriptions: config.max_subscriptions,
            queue: QueueLimits {
                messages: config.queue_messages,
                bytes: config.queue_bytes,
                total_bytes: config.queue_total_bytes,
            },
            stuck: config.queue_full_timeout,
        },
        ids: IdGenerator::new(u16::from_ne_bytes(random()?)),
        metrics: metrics.clone(),
    })
    .await?;
    let last = store.last_mail().await?.max(backend.last_message().await?);
    let writer = Writer {
        orders: received,
        has_work,
        mailbox: mailbox.clone(),
        sessions: sessions.clone(),
        store,
        backend,
        ids: IdGenerator::new(u16::from_ne_bytes(random()?)),
        last: last.map_or(0, Id::as_i64),
        seconds: metrics.store_seconds("sessions", "messages"),
        metrics: metrics.clone(),
        held: Held::default(),
    };
    Ok((mailbox, sessions, writer))
}

impl fmt::Debug for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uplink")
            .field("subscribers", &self.inner.subscribers)
            .finish_non_exhaustive()
    }
}
