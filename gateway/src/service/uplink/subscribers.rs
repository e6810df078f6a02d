//! The sessions of applications and what they subscribed to.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use dashmap::DashMap;
use headgate_protocol::{
    identity::{AppId, DeviceId},
    mqtt::{QoS, RetainHandling, SubscriptionIndex, TopicFilter},
};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{nodes::Own, queue::Queue, share::Groups};
use crate::{
    model::{Handing, Id, Message},
    store::sessions::{KeptSubscription, NodeNumber},
};

/// Tells a session of an application from every other of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubscriberId(u64);

impl SubscriberId {
    /// The session of this number.
    #[cfg(test)]
    pub(super) const fn of(number: u64) -> Self {
        Self(number)
    }
}

/// What a session of an application wants of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The highest `QoS` at which it wants messages.
    pub qos: QoS,
    /// Whether its own messages are left out.  Spec: MQTT 5.0 s3.8.3.1.
    pub no_local: bool,
    /// Whether messages keep the RETAIN that they were published with.
    pub retain_as_published: bool,
    /// When it gets what is retained.
    pub retain_handling: RetainHandling,
    /// The number that the session gave it.
    pub identifier: Option<NonZeroU32>,
}

impl SubscribeOptions {
    /// As they are kept.
    pub(super) fn of(kept: &KeptSubscription) -> Self {
        Self {
            qos: kept.asked.qos,
            no_local: kept.asked.no_local,
            retain_as_published: kept.asked.retain_as_published,
            retain_handling: kept.asked.retain_handling,
            identifier: kept.identifier,
        }
    }
}

/// Why a subscription is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSubscribed {
    /// The session holds as many as it may.
    #[error("more subscriptions than an application's session may hold")]
    TooMany,
}

/// Whether a session has a message.
#[derive(Clone, Debug)]
pub enum Offered {
    /// It will send it.
    Taken,
    /// It has no room: the message is lost for it, and counted.
    Full,
    /// It is persistent: the message is to be stored for it, to be handed over so.
    ToStore(Arc<Queue>, Handing),
    /// It is persistent and not connected, and the message is one that does not wait.
    Away,
    /// Its client is with another node, which is to be told so.
    Elsewhere(NodeNumber, Receiver, Handing),
}

/// A session of an application as the node that has its client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// One that ends with its connection.
    Subscriber(SubscriberId),
    /// A persistent one.
    Session(Id),
    /// The event streams of the application.
    Streams,
}

/// Why the sessions of an application are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// An operator disabled the application.
    Disabled,
    /// An operator deleted the application.
    Deleted,
    /// An operator replaced its secret and wanted its sessions to end.
    SecretReset,
    /// The session itself has ended: its client took nothing for too long.
    SessionEnded,
}

/// A session of an application, as messages reach it.
///
/// Called with locks held: an implementation must not block, nor call the [`super::Uplink`].
pub trait Sink: Send + Sync {
    /// Takes a message to send so, once however many of its subscriptions match.
    fn offer(&self, message: &Arc<Message>, handing: Handing) -> Offered;

    /// Whether its client is there.
    fn is_connected(&self) -> bool {
        true
    }

    /// Drops what it has taken and not sent yet of these devices: the application may not see it any more.
    fn revoke(&self, is_revoked: &dyn Fn(&DeviceId) -> bool);

    /// These devices, of which something is retained, are the application's from now on.
    fn bound(&self, devices: &[DeviceId]);

    /// The session is to end.
    fn close(&self, reason: Ended);
}

/// A session of an application, as retained messages reach it.
pub trait RetainedReceiver: Sync {
    /// The application.
    fn app(&self) -> &AppId;

    /// Offers the session what is retained: for the subscription `filter`, if it is there still, or without one for
    /// those that match and want such messages.
    fn offer_retained(
        &self,
        message: &Arc<Message>,
        filter: Option<&TopicFilter>,
    ) -> Option<Offered>;
}

/// Every session of every application on this node.
#[derive(Default)]
pub(super) struct Subscribers {
    apps: DashMap<AppId, Arc<RwLock<Sessions>>>,
    next: AtomicU64,
    /// Where there are other nodes: what they are to know of sessions that end with their connections.
    told: OnceLock<Arc<Own>>,
}

#[derive(Default)]
struct Sessions {
    index: SubscriptionIndex<SubscriberId, SubscribeOptions>,
    shared: Groups,
    sinks: HashMap<SubscriberId, Arc<dyn Sink>>,
}

/// How a message was taken by the sessions of an application.
#[derive(Debug, Default)]
pub(super) struct Fanned {
    pub(super) taken: u32,
    pub(super) full: u32,
    /// Sessions whose clients are with other nodes.
    pub(super) elsewhere: Vec<(NodeNumber, AppId, Receiver, Handing)>,
    /// Sessions for which it is to be stored.
    pub(super) to_store: Vec<(Arc<Queue>, Handing)>,
}

impl Subscribers {
    pub(super) fn attach(
        self: &Arc<Self>,
        app: &AppId,
        sink: Arc<dyn Sink>,
        max: usize,
    ) -> Subscriber {
        let id = SubscriberId(self.next.fetch_add(1, Ordering::Relaxed));
        // The entry stays locked, so that it is not taken out as empty meanwhile.
        let entry = self.apps.entry(app.clone()).or_default();
        entry.write().sinks.insert(id, sink);
        Subscriber {
            subscribers: Arc::clone(self),
            sessions: Arc::clone(&entry),
            app: app.clone(),
            id,
            filters: HashMap::new(),
            max_filters: max,
            told: None,
        }
    }

    /// Attaches a session that ends with its connection: other nodes, where there are any, are told of it.
    pub(super) fn attach_own(
        self: &Arc<Self>,
        app: &AppId,
        sink: Arc<dyn Sink>,
        max: usize,
    ) -> Subscriber {
        let mut subscriber = self.attach(app, sink, max);
        subscriber.told = self.told.get().map(Arc::clone);
        subscriber
    }

    /// Says that there are other nodes; before anything is attached.
    pub(super) fn connect(&self, own: Arc<Own>) {
        let _second = self.told.set(own);
    }

    /// The session of an application that another node means.
    pub(super) fn sink(&self, app: &AppId, id: SubscriberId) -> Option<Arc<dyn Sink>> {
        let sessions = self.apps.get(app).map(|entry| Arc::clone(&entry))?;
        sessions.read().sinks.get(&id).map(Arc::clone)
    }

    /// Offers a message to every session of an application that subscribed to it, except where `from` does not want
    /// its own.
    pub(super) fn offer(
        &self,
        app: &AppId,
        message: &Arc<Message>,
        from: Option<SubscriberId>,
        fanned: &mut Fanned,
    ) {
        let Some(sessions) = self.apps.get(app).map(|entry| Arc::clone(&entry)) else {
            return;
        };
        let sessions = sessions.read();
        let mut wanted: SmallVec<[(SubscriberId, SubscribeOptions); 8]> = SmallVec::new();
        sessions
            .index
            .for_each_match(&message.topic, |id, options| {
                if !(options.no_local && from == Some(*id)) {
                    wanted.push((*id, *options));
                }
            });
        wanted.sort_unstable_by_key(|&(id, _)| id);
        for matched in wanted.chunk_by(|(a, _), (b, _)| a == b) {
            let Some(sink) = sessions.sinks.get(&matched[0].0) else {
                continue;
            };
            let handing = handing(message, matched.iter().map(|(_, options)| options));
            match sink.offer(message, handing) {
                Offered::Taken => fanned.taken += 1,
                Offered::Full => fanned.full += 1,
                Offered::ToStore(queue, handing) => fanned.to_store.push((queue, handing)),
                Offered::Away => {}
                Offered::Elsewhere(node, receiver, handing) => {
                    fanned.taken += 1;
                    fanned
                        .elsewhere
                        .push((node, app.clone(), receiver, handing));
                }
            }
        }
        sessions.shared.for_each_match(&message.topic, |filter| {
            sessions.offer_to_group(app, filter, message, fanned);
        });
    }

    pub(super) fn revoke(&self, app: &AppId, is_revoked: &dyn Fn(&DeviceId) -> bool) {
        self.for_each(app, |sink| sink.revoke(is_revoked));
    }

    pub(super) fn bound(&self, app: &AppId, devices: &[DeviceId]) {
        self.for_each(app, |sink| sink.bound(devices));
    }

    /// The applications that there are sessions of.
    pub(super) fn apps(&self) -> Vec<AppId> {
        self.apps.iter().map(|app| app.key().clone()).collect()
    }

    pub(super) fn close(&self, app: &AppId, reason: Ended) {
        self.for_each(app, |sink| sink.close(reason));
    }

    fn for_each(&self, app: &AppId, act: impl Fn(&dyn Sink)) {
        let sessions = self.apps.get(app).map(|entry| Arc::clone(&entry));
        if let Some(sessions) = sessions {
            for sink in sessions.read().sinks.values() {
                act(&**sink);
            }
        }
    }
}

/// Overlapping subscriptions of a session are one message, at the highest QoS and with all of their numbers.
/// [MQTT-3.3.4-2] [MQTT-3.3.4-3]
fn handing<'a>(message: &Message, matched: impl Iterator<Item = &'a SubscribeOptions>) -> Handing {
    let mut handing = Handing::default();
    for options in matched {
        handing.qos = handing.qos.max(options.qos);
        handing.retain |= options.retain_as_published && message.retain;
        handing.subscription_ids.extend(options.identifier);
    }
    handing.qos = handing.qos.min(message.qos);
    handing.subscription_ids.sort_unstable();
    handing.subscription_ids.dedup();
    handing
}

impl Sessions {
    /// Offers a message to one member of a group: first to those whose clients are there.
    fn offer_to_group(
        &self,
        app: &AppId,
        filter: &TopicFilter,
        message: &Arc<Message>,
        fanned: &mut Fanned,
    ) {
        let in_turn = self.shared.in_turn(filter);
        let mut is_full = false;
        for connected in [true, false] {
            for (id, options) in in_turn.clone() {
                let sink = self.sinks.get(id);
                let Some(sink) = sink.filter(|sink| sink.is_connected() == connected) else {
                    continue;
                };
                match sink.offer(message, handing(message, std::iter::once(options))) {
                    Offered::Taken => {
                        fanned.taken += 1;
                        return;
                    }
                    Offered::ToStore(queue, handing) if queue.has_room(message) => {
                        fanned.to_store.push((queue, handing));
                        return;
                    }
                    Offered::ToStore(..) | Offered::Full => is_full = true,
                    Offered::Away => {}
                    Offered::Elsewhere(node, receiver, handing) => {
                        fanned.taken += 1;
                        fanned
                            .elsewhere
                            .push((node, app.clone(), receiver, handing));
                        return;
                    }
                }
            }
        }
        fanned.full += u32::from(is_full);
    }

    fn subscribe(&mut self, filter: &TopicFilter, id: SubscriberId, options: SubscribeOptions) {
        if filter.is_shared() {
            self.shared.insert(filter, id, options);
        } else {
            self.index.insert(filter, id, options);
        }
    }

    fn unsubscribe(&mut self, filter: &TopicFilter, id: SubscriberId) {
        if filter.is_shared() {
            self.shared.remove(filter, id);
        } else {
            self.index.remove(filter, &id);
        }
    }
}

/// A session of an application that is attached; dropped, it is detached with all of its subscriptions.
pub struct Subscriber {
    subscribers: Arc<Subscribers>,
    sessions: Arc<RwLock<Sessions>>,
    app: AppId,
    id: SubscriberId,
    filters: HashMap<TopicFilter, SubscribeOptions>,
    max_filters: usize,
    /// Where other nodes are told of it.
    told: Option<Arc<Own>>,
}

impl Subscriber {
    /// Whom messages of this session come from.
    pub const fn id(&self) -> SubscriberId {
        self.id
    }

    /// The application.
    pub const fn app(&self) -> &AppId {
        &self.app
    }

    /// Has messages that `filter` matches offered from now on; an equal filter is replaced. Says whether it is new. A
    /// shared subscription makes the session a member of its group.
    ///
    /// # Errors
    /// [`NotSubscribed::TooMany`].
    pub fn subscribe(
        &mut self,
        filter: &TopicFilter,
        options: SubscribeOptions,
    ) -> Result<bool, NotSubscribed> {
        let is_new = !self.filters.contains_key(filter);
        if is_new && self.filters.len() >= self.max_filters {
            return Err(NotSubscribed::TooMany);
        }
        self.filters.insert(filter.clone(), options);
        self.sessions.write().subscribe(filter, self.id, options);
        self.tell();
        Ok(is_new)
    }

    /// Subscribes to these and nothing else.
    pub(super) fn reset(&mut self, wanted: &[(TopicFilter, SubscribeOptions)]) {
        let is_wanted = |filter: &TopicFilter| wanted.iter().any(|(other, _)| other == filter);
        let gone: Vec<_> = self
            .filters
            .keys()
            .filter(|one| !is_wanted(one))
            .cloned()
            .collect();
        for filter in gone {
            self.unsubscribe(&filter);
        }
        for (filter, options) in wanted {
            if self.filters.get(filter) != Some(options) {
                let _too_many = self.subscribe(filter, *options);
            }
        }
    }

    /// Has other nodes told what it is subscribed to.
    fn tell(&self) {
        if let Some(own) = &self.told {
            own.set(self.id, &self.app, &self.filters);
        }
    }

    /// Subscribes as was kept; nothing is said of too many, which there were not when it was kept.
    pub(super) fn restore(&mut self, kept: &KeptSubscription) {
        let _too_many = self.subscribe(&kept.asked.filter, SubscribeOptions::of(kept));
    }

    /// Has them offered no more; says whether there was such a subscription.
    pub fn unsubscribe(&mut self, filter: &TopicFilter) -> bool {
        self.sessions.write().unsubscribe(filter, self.id);
        let was_there = self.filters.remove(filter).is_some();
        self.tell();
        was_there
    }
}

impl RetainedReceiver for Subscriber {
    fn app(&self) -> &AppId {
        &self.app
    }

    fn offer_retained(
        &self,
        message: &Arc<Message>,
        filter: Option<&TopicFilter>,
    ) -> Option<Offered> {
        let mut matched: SmallVec<[SubscribeOptions; 4]> = SmallVec::new();
        let sessions = self.sessions.read();
        if let Some(filter) = filter {
            matched.extend(self.filters.get(filter).copied());
        } else {
            sessions
                .index
                .for_each_match(&message.topic, |id, options| {
                    if *id == self.id && options.retain_handling != RetainHandling::DoNotSend {
                        matched.push(*options);
                    }
                });
        }
        let sink = sessions.sinks.get(&self.id)?;
        if matched.is_empty() {
            return None;
        }
        let mut handing = handing(message, matched.iter());
        handing.retain = true;
        Some(sink.offer(message, handing))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(own) = &self.told {
            own.remove(self.id);
        }
        {
            let mut sessions = self.sessions.write();
            sessions.sinks.remove(&self.id);
            for filter in self.filters.keys() {
                sessions.unsubscribe(filter, self.id);
            }
        }
        self.subscribers.apps.remove_if(&self.app, |_, sessions| {
            Arc::ptr_eq(sessions, &self.sessions) && sessions.read().sinks.is_empty()
        });
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber")
            .field("app", &self.app)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Subscribers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscribers")
            .field("apps", &self.apps.len())
            .finish_non_exhaustive()
    }
}
