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
mod held;
mod history;
mod mailbox;
mod nodes;
mod owners;
mod persistent;
mod queue;
mod retained;
mod share;
mod sightings;
mod subscribers;
mod unheard;
mod writer;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, OnceLock},
};

use headgate_protocol::{
    identity::{AppId, DeviceId},
    mqtt::{QoS, TopicFilter},
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use self::{
    bindings::Bindings,
    held::Held,
    history::Histories,
    mailbox::Place,
    nodes::Elsewhere,
    owners::Owners,
    persistent::{PersistentLimits, PersistentParts},
    queue::{QueueLimits, QueuePlace},
    retained::Retained,
    sightings::Sightings,
    subscribers::{Fanned, Subscribers},
    writer::{Order, Placed, Put, Writer},
};
pub use self::{
    history::{EventId, EventStream, InvalidEventId, NotOpened, StreamEvent},
    mailbox::{Mailbox, Stored},
    persistent::{NotKept, Opened, Opening, Persistent, PersistentSessions, Unacknowledged},
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
    sessions::{Came, ClientPlace, KeptSubscription, SessionChange, SessionKey},
};
use crate::{
    config::{ApplicationsConfig, MailboxConfig, RetainedConfig},
    model::{DeviceName, Handing, Id, IdGenerator, Message, Millis, random},
    service::{
        auth::{AppAuthenticator, AuthenticatedApp},
        cluster::Cluster,
    },
    shutdown::Shutdown,
    store::{
        registry::Registry,
        sessions::{NodeStore, SessionBackend, SessionStore},
    },
    telemetry::metrics::{DropReason, Metrics},
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

/// Who sends a message to a device.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// An application, which must be bound to the device; its session, where it has one.
    App(&'a AppId, Option<SubscriberId>),
    /// An operator.
    Operator,
}

/// What became of a message from a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Sessions of applications that took it.
    pub receivers: u32,
}

/// Why a message from a device was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotPublished {
    /// As many messages wait for a session of an application as may.
    #[error("as many messages wait for an application as may")]
    QueueFull,
    /// The message could not be stored for a session that waits for it.
    #[error("the message could not be stored")]
    Unavailable,
    /// It is to be retained and cannot be.
    #[error(transparent)]
    NotRetained(#[from] NotRetained),
    /// The registry could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is said of a message by the one who hands it in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// Whether its sender can be told that there is no room. One that cannot has its message dropped for the sessions
    /// without room, and counted.
    pub may_refuse: bool,
    /// What is to be stored with the message, at `QoS` 2 from a persistent session.
    pub receipt: Option<Receipt>,
}

/// What became of a message to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The device's session has it.
    Online(Option<Id>),
    /// It waits for the device.
    Queued(Id),
}

/// Why a message to a device was not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    /// The application is not bound to the device, or there is no such device: which of them is not said.
    #[error("no such device is bound to the application")]
    NotBound,
    /// There is no such device.
    #[error("no such device")]
    UnknownDevice,
    /// The topic is none of the device's.
    #[error("the topic is none of the device's own")]
    ForeignTopic,
    /// The payload is above the limit.
    #[error("the payload is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// As many messages wait for the device, or for all devices, as may.
    #[error("as many messages wait as may")]
    MailboxFull,
    /// The device is not there, and a message of `QoS` 0 does not wait.
    #[error("the device is not connected")]
    Offline,
    /// It is to be retained, and as many are as may be.
    #[error("as many messages are retained as may be")]
    RetainedFull,
    /// The message could not be stored.
    #[error("the message could not be stored")]
    Unavailable,
    /// The registry could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
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

    /// Hands out a message from its device, and before that retains it where it asks for that. What persistent sessions
    /// want at `QoS` 1 or 2 is stored before this returns.
    ///
    /// # Errors
    /// [`NotPublished`]: it is stored for nobody then, though sessions that are not persistent may have it.
    ///
    /// # Cancel safety
    /// A cancelled call may have handed it out.
    pub async fn publish_from_device(
        &self,
        message: Message,
        terms: Terms,
    ) -> Result<Published, NotPublished> {
        let message = Arc::new(message);
        self.inner.sightings.note(&message, true);
        if message.retain {
            self.inner.retained.keep(&message).await?;
        }
        let (published, _) = self.hand_out(&message, None, None, terms).await?;
        Ok(published)
    }

    /// Sends a message to its device, and before that retains it where it asks for that. With `QoS` 1 or 2 it is stored before this returns, and waits for as long as
    /// the device is away; with `QoS` 0 it is sent now or not at all. Applications that are bound to the device and
    /// subscribed to the topic see it too. `receipt` is stored with it.
    ///
    /// # Errors
    /// [`NotSent`]; nobody has it then.
    ///
    /// # Cancel safety
    /// A cancelled call may have sent it.
    pub async fn publish_to_device(
        &self,
        from: Origin<'_>,
        message: Message,
        receipt: Option<Receipt>,
    ) -> Result<Sent, NotSent> {
        // Nobody commands a device in vain because another application does not read what it is shown.
        let terms = Terms {
            may_refuse: false,
            receipt,
        };
        let inner = &self.inner;
        let device = &message.device.device_id;
        let (sender, session) = match from {
            Origin::App(app, session) => (Some(app), session),
            Origin::Operator => (None, None),
        };
        if let Some(app) = sender
            && !self.is_bound(app, device).await?
        {
            return Err(NotSent::NotBound);
        }
        let owner = self.resolve(&message.topic).await?;
        if owner.is_none_or(|owner| owner.device_id != *device) {
            return Err(NotSent::ForeignTopic);
        }
        let max_bytes = inner.max_message_bytes;
        if message.payload.len() > max_bytes {
            inner.metrics.messages_dropped(DropReason::TooLarge).inc();
            return Err(NotSent::TooLarge { max_bytes });
        }
        let message = Arc::new(message);
        if message.retain {
            let kept = inner.retained.keep(&message).await;
            kept.map_err(|error| match error {
                NotRetained::Full => NotSent::RetainedFull,
                NotRetained::Unavailable => NotSent::Unavailable,
            })?;
        }
        if message.qos == QoS::AtMostOnce {
            if !inner.mailbox.offer_once(Arc::clone(&message))
                && !self.offer_elsewhere(&message).await
            {
                inner.metrics.messages_dropped(DropReason::Offline).inc();
                return Err(NotSent::Offline);
            }
            inner.sightings.note(&message, false);
            // The device has it: that other applications cannot be found out now changes nothing of that.
            if let Err(error) = self.hand_out(&message, session, None, terms).await {
                tracing::warn!(%error, device_id = %message.device.device_id, "a message could not be shown to applications");
            }
            return Ok(Sent::Online(None));
        }
        let Some(place) = inner.mailbox.reserve(&message) else {
            let dropped = inner.metrics.messages_dropped(DropReason::MailboxFull);
            dropped.inc();
            return Err(NotSent::MailboxFull);
        };
        inner.sightings.note(&message, false);
        let mail = Some((inner.mailbox.expiry_of(&message), place));
        match self.hand_out(&message, session, mail, terms).await {
            Ok((_, Some(placed))) if placed.is_full => {
                let dropped = inner.metrics.messages_dropped(DropReason::MailboxFull);
                dropped.inc();
                Err(NotSent::MailboxFull)
            }
            Ok((_, Some(placed))) if placed.is_online => Ok(Sent::Online(Some(placed.id))),
            Ok((_, Some(placed))) => Ok(Sent::Queued(placed.id)),
            Err(NotPublished::Store(error)) => Err(NotSent::Store(error)),
            Ok((_, None)) | Err(_) => Err(NotSent::Unavailable),
        }
    }

    /// Has the node that has a device hand it a message that is not kept; says whether another node has it.
    async fn offer_elsewhere(&self, message: &Message) -> bool {
        let Some(shared) = &self.inner.shared else {
            return false;
        };
        shared.once(message).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "another node could not be told of a message");
            false
        })
    }

    /// Hands a message to applications, and has it stored for those who are to have it in any case.
    async fn hand_out(
        &self,
        message: &Arc<Message>,
        from: Option<SubscriberId>,
        mail: Option<(Millis, Place)>,
        terms: Terms,
    ) -> Result<(Published, Option<Placed>), NotPublished> {
        let inner = &self.inner;
        let device = &message.device.device_id;
        let elsewhere = inner.elsewhere.get();
        let may_store = mail.is_some() || inner.sessions.has_queues() || elsewhere.is_some();
        let is_awaited = mail.is_some() || message.qos != QoS::AtMostOnce;
        // A place in the line of what is stored is had before the bindings are locked: whoever unbinds the device comes
        // behind in it.
        let permit = if may_store {
            let permit = inner.orders.clone().reserve_owned().await;
            Some(permit.map_err(|_| NotPublished::Unavailable)?)
        } else {
            None
        };
        let offer = |apps: &[AppId]| {
            let mut fanned = Fanned::default();
            for app in apps {
                inner.subscribers.offer(app, message, from, &mut fanned);
                fanned.taken += u32::from(inner.histories.push(app, message));
            }
            let receivers = self.places(message, &mut fanned, terms.may_refuse)?;
            let mut to = std::mem::take(&mut fanned.elsewhere);
            if let Some(elsewhere) = elsewhere {
                elsewhere.add_streams(apps, &mut to);
            }
            let forwards = nodes::forwards(message, to)?;
            let mut waiting = None;
            if let Some(permit) = permit
                && (mail.is_some() || !receivers.is_empty() || !forwards.is_empty())
            {
                let (stored, done) = oneshot::channel();
                permit.send(Order::Put(Put {
                    message: Arc::clone(message),
                    mail,
                    receivers,
                    receipt: terms.receipt,
                    stored,
                    is_offered: false,
                    forwards,
                }));
                waiting = is_awaited.then_some(done);
            }
            Ok::<_, NotPublished>((fanned, waiting))
        };
        let (fanned, waiting) = inner.bindings.with(device, offer).await??;
        if fanned.full > 0 {
            let dropped = inner.metrics.messages_dropped(DropReason::ApplicationFull);
            dropped.inc_by(u64::from(fanned.full));
        }
        let placed = match waiting {
            Some(waiting) => Some(waiting.await.map_err(|_| NotPublished::Unavailable)?),
            None => None,
        };
        let refused = placed.map_or(0, |placed| placed.refused);
        if terms.may_refuse && refused > 0 {
            return Err(NotPublished::QueueFull);
        }
        let receivers = fanned.taken;
        Ok((Published { receivers }, placed))
    }

    /// A place in the line of what is stored, where anything may have to be.
    async fn permit(&self) -> Option<mpsc::OwnedPermit<Order>> {
        if !self.inner.sessions.has_queues() {
            return None;
        }
        self.inner.orders.clone().reserve_owned().await.ok()
    }

    /// Places for a message in the queues of the sessions that it is to be stored for.
    fn places(
        &self,
        message: &Message,
        fanned: &mut Fanned,
        may_refuse: bool,
    ) -> Result<Vec<(QueuePlace, Handing)>, NotPublished> {
        let mut places = Vec::with_capacity(fanned.to_store.len());
        for (queue, handing) in fanned.to_store.drain(..) {
            if let Some(place) = queue.reserve(message) {
                places.push((place, handing));
                fanned.taken += 1;
                continue;
            }
            let dropped = self.inner.metrics.messages_dropped(DropReason::QueueFull);
            dropped.inc();
            if may_refuse {
                return Err(NotPublished::QueueFull);
            }
        }
        Ok(places)
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

    /// Bindings of an application were added in the registry: its sessions get what is retained of these devices.
    pub(in crate::service) fn on_bound(&self, app: &AppId, devices: &[DeviceId]) {
        self.inner.bindings.forget(devices.iter());
        let having = self.inner.retained.having(devices.iter());
        if !having.is_empty() {
            self.inner.subscribers.bound(app, &having);
        }
    }

    /// Bindings of an application were taken away in the registry. When this returns, nothing of these devices is
    /// offered to its sessions any more, and what they had not sent is dropped.
    pub(in crate::service) async fn on_unbound(&self, app: &AppId, devices: &[DeviceId]) {
        self.inner.bindings.forget(devices.iter());
        let gone: HashSet<_> = devices.iter().collect();
        let is_revoked = |device: &DeviceId| gone.contains(device);
        self.inner.subscribers.revoke(app, &is_revoked);
        self.inner.histories.revoke(app, &is_revoked);
        let queues = self.inner.sessions.queues_of(app);
        if queues.is_empty() {
            return;
        }
        let (revoked, done) = oneshot::channel();
        let devices = devices.to_vec();
        let order = Order::Revoke {
            queues,
            devices,
            revoked,
        };
        // Where it cannot be done now, a session finds out itself when it reads what waits.
        if self.inner.orders.send(order).await.is_ok() && done.await.is_ok() {
            // What was stored meanwhile has been offered to connections.
            self.inner.subscribers.revoke(app, &is_revoked);
        }
    }

    /// The same on a node that did not do it: what waits in the store is taken out by the one that did.
    pub(in crate::service) fn on_unbound_elsewhere(&self, app: &AppId, devices: &[DeviceId]) {
        self.inner.bindings.forget(devices.iter());
        let gone: HashSet<_> = devices.iter().collect();
        let is_revoked = |device: &DeviceId| gone.contains(device);
        self.inner.subscribers.revoke(app, &is_revoked);
        self.inner.histories.revoke(app, &is_revoked);
    }

    /// A device was deleted by another node, which sees to the stores.
    pub(in crate::service) fn on_deleted_elsewhere(&self, device: &DeviceName) {
        self.inner.owners.forget(device);
        let device = &device.device_id;
        self.inner.bindings.forget(std::iter::once(device));
        self.inner.mailbox.left(device);
    }

    /// The applications that have sessions or streams here.
    pub(in crate::service) fn apps(&self) -> HashSet<AppId> {
        let sessions = self.inner.subscribers.apps().into_iter();
        sessions.chain(self.inner.histories.apps()).collect()
    }

    /// An application was ended by another node, which sees to the stores.
    pub(in crate::service) fn on_ended_elsewhere(&self, app: &AppId, reason: Ended) {
        if reason == Ended::Deleted {
            self.inner.bindings.forget_all();
        }
        self.inner.subscribers.close(app, reason);
        self.inner.histories.close(app, reason);
    }

    /// An application may not come in any more, or not with what it came in with; the authenticator knows.
    pub(in crate::service) async fn on_ended(&self, app: &AppId, reason: Ended) {
        if reason == Ended::Deleted {
            self.inner.bindings.forget_all();
        }
        self.inner.subscribers.close(app, reason);
        self.inner.histories.close(app, reason);
        if reason == Ended::Deleted
            && let Err(error) = self.inner.sessions.end_of_app(app).await
        {
            tracing::warn!(%error, app_id = %app, "sessions of a deleted application stay until they expire");
        }
    }

    /// A device was deleted in the registry: what waits for it goes, and its ids are free.
    ///
    /// # Errors
    /// [`NotSent::Unavailable`] where its mailbox could not be emptied.
    pub async fn on_device_deleted(&self, device: &DeviceName) -> Result<(), NotSent> {
        self.inner.owners.forget(device);
        self.inner
            .bindings
            .forget(std::iter::once(&device.device_id));
        let forgotten = self.inner.retained.forget(&device.device_id).await;
        let ended = self.inner.sessions.end_of_device(&device.device_id).await;
        self.empty_mailbox(&device.device_id).await?;
        ended.map_err(|_| NotSent::Unavailable)?;
        forgotten.map_err(|_| NotSent::Unavailable)
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
