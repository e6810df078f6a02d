//! Sessions, subscriptions and retained messages behind the space's one lock.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU32,
    sync::Arc,
    time::Instant,
};

use headgate_protocol::mqtt::{QoS, SubscriptionIndex, TopicFilter, TopicName};

use super::{Link, SpaceKey, SpaceMessage};
use crate::{
    config::ConformanceConfig,
    model::Handing,
    telemetry::metrics::{DropReason, Metrics},
};

/// What a subscription asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wants {
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) identifier: Option<NonZeroU32>,
}

/// A will that waits.
#[derive(Debug)]
pub(super) struct PendingWill {
    pub(super) message: SpaceMessage,
    pub(super) due: Instant,
}

#[derive(Debug)]
pub(super) struct Session<K> {
    pub(super) client_id: Box<str>,
    pub(super) filters: HashMap<TopicFilter, Wants>,
    pub(super) queue: VecDeque<(Arc<SpaceMessage>, Handing)>,
    queue_bytes: usize,
    pub(super) link: Option<Arc<dyn Link>>,
    /// What the last connection left.
    pub(super) kept: Option<K>,
    /// When it ends, while nobody is connected.
    pub(super) expires_at: Option<Instant>,
    pub(super) will: Option<PendingWill>,
}

#[derive(Debug)]
pub(super) struct State<K> {
    sessions: HashMap<SpaceKey, Session<K>>,
    ids: HashMap<Box<str>, SpaceKey>,
    pub(super) subscriptions: SubscriptionIndex<SpaceKey, Wants>,
    pub(super) retained: HashMap<TopicName, Arc<SpaceMessage>>,
    next_key: u64,
    /// Whose turn it is in shared subscriptions.
    pub(super) turn: usize,
}

impl<K> Session<K> {
    pub(super) fn new(client_id: &str) -> Self {
        Self {
            client_id: client_id.into(),
            filters: HashMap::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            link: None,
            kept: None,
            expires_at: None,
            will: None,
        }
    }

    /// Puts a message at the end of the queue. One of QoS 0 waits for nobody who is away.
    pub(super) fn push(
        &mut self,
        message: &Arc<SpaceMessage>,
        handing: Handing,
        limits: &ConformanceConfig,
        metrics: &Metrics,
    ) -> bool {
        if self.link.is_none() && handing.qos == QoS::AtMostOnce {
            return false;
        }
        let bytes = self.queue_bytes.saturating_add(message.payload.len());
        if self.queue.len() >= limits.queue_messages || bytes > limits.queue_bytes {
            metrics.messages_dropped(DropReason::OutboxFull).inc();
            return false;
        }
        self.queue_bytes = bytes;
        self.queue.push_back((Arc::clone(message), handing));
        if let Some(link) = &self.link {
            link.wake();
        }
        true
    }

    pub(super) fn pop(&mut self) {
        if let Some((message, _)) = self.queue.pop_front() {
            self.queue_bytes = self.queue_bytes.saturating_sub(message.payload.len());
        }
    }

    /// Drops what a session that nobody is connected to does not keep.
    pub(super) fn drop_fleeting(&mut self) {
        self.queue
            .retain(|(_, handing)| handing.qos != QoS::AtMostOnce);
        let bytes = self.queue.iter().map(|(message, _)| message.payload.len());
        self.queue_bytes = bytes.sum();
    }
}

impl<K> State<K> {
    pub(super) fn new() -> Self {
        Self {
            sessions: HashMap::new(),
            ids: HashMap::new(),
            subscriptions: SubscriptionIndex::new(),
            retained: HashMap::new(),
            next_key: 0,
            turn: 0,
        }
    }

    pub(super) fn session(&mut self, key: SpaceKey) -> Option<&mut Session<K>> {
        self.sessions.get_mut(&key)
    }

    pub(super) fn known(&self, key: SpaceKey) -> Option<&Session<K>> {
        self.sessions.get(&key)
    }

    pub(super) fn key_of(&self, client_id: &str) -> Option<SpaceKey> {
        self.ids.get(client_id).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Everyone who is connected.
    pub(super) fn links(&self) -> Vec<Arc<dyn Link>> {
        let links = self.sessions.values().filter_map(|one| one.link.as_ref());
        links.map(Arc::clone).collect()
    }

    /// Makes a session; there is none of this name.
    pub(super) fn create(&mut self, client_id: &str) -> SpaceKey {
        let key = SpaceKey(self.next_key);
        self.next_key += 1;
        self.sessions.insert(key, Session::new(client_id));
        self.ids.insert(client_id.into(), key);
        key
    }

    /// Ends a session; gives the will that must be published now.
    pub(super) fn remove(&mut self, key: SpaceKey) -> Option<SpaceMessage> {
        let session = self.sessions.remove(&key)?;
        self.ids.remove(&session.client_id);
        for filter in session.filters.keys() {
            self.subscriptions.remove(filter, &key);
        }
        session.will.map(|will| will.message)
    }

    /// When the next will or session is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let of = |session: &Session<K>| {
            let will = session.will.as_ref().map(|will| will.due);
            [will, session.expires_at].into_iter().flatten().min()
        };
        self.sessions.values().filter_map(of).min()
    }

    pub(super) fn act_on_due(
        &mut self,
        now: Instant,
        limits: &ConformanceConfig,
        metrics: &Metrics,
    ) {
        let mut wills = Vec::new();
        let mut ended = Vec::new();
        for (key, session) in &mut self.sessions {
            if let Some(will) = session.will.take_if(|will| will.due <= now) {
                wills.push(will.message);
            }
            if session.expires_at.is_some_and(|due| due <= now) {
                ended.push(*key);
            }
        }
        // A session that ends takes its will along. [MQTT-3.1.2-8]
        wills.extend(ended.into_iter().filter_map(|key| self.remove(key)));
        for will in wills {
            self.publish(None, &Arc::new(will), limits, metrics);
        }
    }
}
