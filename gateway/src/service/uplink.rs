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
mod history;
mod mailbox;
mod owners;
mod retained;
mod subscribers;

use std::{collections::HashSet, fmt, sync::Arc};

use headgate_protocol::{
    identity::{AppId, DeviceId},
    mqtt::{QoS, TopicFilter},
};

use self::{
    bindings::Bindings,
    history::Histories,
    mailbox::NotStored,
    owners::Owners,
    retained::Retained,
    subscribers::{Fanned, Subscribers},
};
pub use self::{
    history::{EventId, EventStream, InvalidEventId, NotOpened, StreamEvent},
    mailbox::{Mailbox, Stored},
    retained::{NotRetained, Replay},
    subscribers::{
        Ended, NotSubscribed, Offered, Sink, SubscribeOptions, Subscriber, SubscriberId,
    },
};
use crate::{
    config::{ApplicationsConfig, MailboxConfig, RetainedConfig},
    model::{DeviceName, Id, Message, random},
    service::auth::{AppAuthenticator, AuthenticatedApp},
    shutdown::Shutdown,
    store::{StoreError, registry::Registry, sessions::SessionStore},
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

/// Why a message from a device was not handed on.
#[derive(Debug, thiserror::Error)]
pub enum NotPublished {
    /// It is to be retained and cannot be.
    #[error(transparent)]
    NotRetained(#[from] NotRetained),
    /// The registry could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was changed of applications since a session's was looked up: to be authenticated again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an application was changed meanwhile")]
pub struct Changed;

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
    mailbox: Mailbox,
    retained: Retained,
    registry: Registry,
    config: ApplicationsConfig,
    max_message_bytes: usize,
    metrics: Metrics,
}

/// What an uplink is made of.
#[derive(Debug)]
pub struct UplinkParts {
    /// Devices and bindings.
    pub registry: Registry,
    /// Mailboxes.
    pub sessions: SessionStore,
    /// Who the applications are.
    pub authenticator: AppAuthenticator,
    /// Limits of applications.
    pub applications: ApplicationsConfig,
    /// Limits of mailboxes.
    pub mailbox: MailboxConfig,
    /// Limits of retained messages.
    pub retained: RetainedConfig,
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
        let (retained, writer) =
            retained::open(parts.sessions.clone(), parts.retained, &parts.metrics).await?;
        shutdown.spawn(writer.run(shutdown.token().clone()));
        let (mailbox, writer) =
            mailbox::open(parts.sessions, parts.mailbox, &parts.metrics).await?;
        shutdown.spawn(writer.run(shutdown.token().clone()));
        let histories = Arc::new(Histories::new(
            parts.applications.clone(),
            u16::from_ne_bytes(random()?),
            parts.metrics.event_streams.clone(),
        ));
        let (swept, stop) = (Arc::clone(&histories), shutdown.token().clone());
        shutdown.spawn(async move { stop.run_until_cancelled(swept.run()).await });
        let entries = parts.applications.binding_cache_entries;
        Ok(Self {
            inner: Arc::new(Inner {
                authenticator: parts.authenticator,
                bindings: Bindings::new(parts.registry.clone(), entries),
                owners: Owners::new(parts.registry.clone(), entries),
                subscribers: Arc::default(),
                histories,
                mailbox,
                retained,
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

    /// What waits for devices.
    pub fn mailbox(&self) -> &Mailbox {
        &self.inner.mailbox
    }

    /// Attaches a session of an application, to be offered what it subscribes to and told when it is to end.
    ///
    /// # Errors
    /// [`Changed`] where an application was disabled, deleted or given another secret since this one was looked up:
    /// it may be this one.
    pub fn attach(
        &self,
        app: &AuthenticatedApp,
        sink: Arc<dyn Sink>,
    ) -> Result<Subscriber, Changed> {
        let inner = &self.inner;
        let max = inner.config.max_subscriptions;
        let subscriber = inner.subscribers.attach(&app.id, sink, max);
        // After it was attached: a change before this is seen here, one after it closes the session.
        if inner.authenticator.is_current(app) {
            Ok(subscriber)
        } else {
            Err(Changed)
        }
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
        // After it was opened, as in `attach`.
        match reader {
            Some(reader) if !self.inner.authenticator.is_current(reader) => Err(NotOpened::Changed),
            _ => Ok(stream),
        }
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

    /// Hands out a message from its device, and before that retains it where it asks for that.
    ///
    /// # Errors
    /// [`NotPublished`]: nobody has it then.
    ///
    /// # Cancel safety
    /// Safe: all receivers are offered it or none. It may have been retained.
    pub async fn publish_from_device(&self, message: Message) -> Result<Published, NotPublished> {
        let message = Arc::new(message);
        if message.retain {
            self.inner.retained.keep(&message).await?;
        }
        Ok(self.fan_out(&message, None).await?)
    }

    /// Sends a message to its device, and before that retains it where it asks for that. With `QoS` 1 or 2 it is stored before this returns, and waits for as long as
    /// the device is away; with `QoS` 0 it is sent now or not at all. Applications that are bound to the device and
    /// subscribed to the topic see it too.
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
    ) -> Result<Sent, NotSent> {
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
        let sent = match message.qos {
            QoS::AtMostOnce if inner.mailbox.offer_once(Arc::clone(&message)) => Sent::Online(None),
            QoS::AtMostOnce => {
                inner.metrics.messages_dropped(DropReason::Offline).inc();
                return Err(NotSent::Offline);
            }
            QoS::AtLeastOnce | QoS::ExactlyOnce => self.store(&message).await?,
        };
        // The device has it or will: that other applications cannot be found out now changes nothing of that.
        if let Err(error) = self.fan_out(&message, session).await {
            tracing::warn!(%error, device_id = %message.device.device_id, "a message could not be shown to applications");
        }
        Ok(sent)
    }

    async fn store(&self, message: &Arc<Message>) -> Result<Sent, NotSent> {
        let inner = &self.inner;
        match inner.mailbox.put(message).await {
            Ok(placed) if placed.is_online => Ok(Sent::Online(Some(placed.id))),
            Ok(placed) => Ok(Sent::Queued(placed.id)),
            Err(NotStored::Full) => {
                inner
                    .metrics
                    .messages_dropped(DropReason::MailboxFull)
                    .inc();
                Err(NotSent::MailboxFull)
            }
            Err(NotStored::Unavailable) => Err(NotSent::Unavailable),
        }
    }

    async fn fan_out(
        &self,
        message: &Arc<Message>,
        from: Option<SubscriberId>,
    ) -> Result<Published, StoreError> {
        let inner = &self.inner;
        let device = &message.device.device_id;
        let offer = |apps: &[AppId]| {
            let mut fanned = Fanned::default();
            for app in apps {
                let one = inner.subscribers.offer(app, message, from);
                fanned.taken += one.taken;
                fanned.full += one.full;
                fanned.taken += u32::from(inner.histories.push(app, message));
            }
            fanned
        };
        let fanned = inner.bindings.with(device, offer).await?;
        if fanned.full > 0 {
            let dropped = inner.metrics.messages_dropped(DropReason::ApplicationFull);
            dropped.inc_by(u64::from(fanned.full));
        }
        Ok(Published {
            receivers: fanned.taken,
        })
    }

    /// Takes out what waits for a device; gives how many messages that were.
    ///
    /// # Errors
    /// [`NotSent::Unavailable`].
    pub async fn empty_mailbox(&self, device: &DeviceId) -> Result<usize, NotSent> {
        let cleared = self.inner.mailbox.clear(device).await;
        cleared.map_err(|_| NotSent::Unavailable)
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
    pub(in crate::service) fn on_unbound(&self, app: &AppId, devices: &[DeviceId]) {
        self.inner.bindings.forget(devices.iter());
        let gone: HashSet<_> = devices.iter().collect();
        let is_revoked = |device: &DeviceId| gone.contains(device);
        self.inner.subscribers.revoke(app, &is_revoked);
        self.inner.histories.revoke(app, &is_revoked);
    }

    /// An application may not come in any more, or not with what it came in with; the authenticator knows.
    pub(in crate::service) fn on_ended(&self, app: &AppId, reason: Ended) {
        if reason == Ended::Deleted {
            self.inner.bindings.forget_all();
        }
        self.inner.subscribers.close(app, reason);
        self.inner.histories.close(app, reason);
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
        self.empty_mailbox(&device.device_id).await?;
        forgotten.map_err(|_| NotSent::Unavailable)
    }
}

impl fmt::Debug for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uplink")
            .field("subscribers", &self.inner.subscribers)
            .finish_non_exhaustive()
    }
}
