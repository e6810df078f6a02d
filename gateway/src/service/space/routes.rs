//! Which sessions a message belongs to, and how each is handed it.

use std::{collections::HashMap, sync::Arc};

use headgate_protocol::mqtt::{QoS, ReasonCode, RetainHandling, Subscription, TopicFilter};

use super::{
    DENIED_FILTER, Space, SpaceKey, SpaceMessage,
    state::{State, Wants},
};
use crate::{
    config::ConformanceConfig,
    model::{Handing, Millis},
    telemetry::metrics::{DropReason, Metrics},
};

impl<K: Send> Space<K> {
    /// Subscribes a session, and hands it the retained messages that it asks for.
    pub fn subscribe(
        &self,
        key: SpaceKey,
        asked: &Subscription,
        identifier: Option<std::num::NonZeroU32>,
    ) -> ReasonCode {
        if asked.filter.pattern() == DENIED_FILTER {
            return ReasonCode::NotAuthorized;
        }
        let mut state = self.state.lock();
        let Some(session) = state.session(key) else {
            return ReasonCode::UnspecifiedError;
        };
        let is_new = !session.filters.contains_key(&asked.filter);
        if is_new && session.filters.len() >= self.limits.max_subscriptions {
            return ReasonCode::QuotaExceeded;
        }
        let wants = Wants {
            qos: asked.qos,
            no_local: asked.no_local,
            retain_as_published: asked.retain_as_published,
            identifier,
        };
        session.filters.insert(asked.filter.clone(), wants);
        state.subscriptions.insert(&asked.filter, key, wants);
        let wants_retained = match asked.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        // [MQTT-3.3.1-9], and s4.8.2: a shared subscription gets none when it is made.
        if wants_retained && !asked.filter.is_shared() {
            state.hand_retained(key, &asked.filter, wants, &self.limits, &self.metrics);
        }
        ReasonCode::granted(asked.qos)
    }

    /// Ends a subscription; says whether there was one.
    pub fn unsubscribe(&self, key: SpaceKey, filter: &TopicFilter) -> bool {
        let mut state = self.state.lock();
        let known = state
            .session(key)
            .is_some_and(|session| session.filters.remove(filter).is_some());
        known && state.subscriptions.remove(filter, &key).is_some()
    }
}

impl<K> State<K> {
    pub(super) fn publish(
        &mut self,
        from: Option<SpaceKey>,
        message: &Arc<SpaceMessage>,
        limits: &ConformanceConfig,
        metrics: &Metrics,
    ) -> usize {
        if message.retain {
            self.retain(message, limits, metrics);
        }
        // One copy for each session, whatever number of its subscriptions match. [MQTT-3.3.4-2]
        let mut receivers: HashMap<SpaceKey, Handing> = HashMap::new();
        self.subscriptions
            .for_each_match(&message.topic, |key, wants| {
                // [MQTT-3.8.3-3]
                if !(wants.no_local && from == Some(*key)) {
                    join(receivers.entry(*key).or_default(), message, *wants);
                }
            });
        let mut reached = 0;
        for (key, handing) in receivers {
            if let Some(session) = self.session(key) {
                reached += usize::from(session.push(message, handing, limits, metrics));
            }
        }
        for (key, wants) in self.choose(message) {
            let mut handing = Handing::default();
            join(&mut handing, message, wants);
            if let Some(session) = self.session(key) {
                reached += usize::from(session.push(message, handing, limits, metrics));
            }
        }
        reached
    }

    /// One member of each shared subscription in turn: of those who are connected, where there are
    /// any. [MQTT-4.8.2-4]
    fn choose(&mut self, message: &SpaceMessage) -> Vec<(SpaceKey, Wants)> {
        let mut chosen = Vec::new();
        let mut turn = self.turn;
        self.subscriptions.for_each_group(&message.topic, |group| {
            let is_connected = |(key, _): &&(SpaceKey, Wants)| {
                self.known(*key).is_some_and(|one| one.link.is_some())
            };
            let connected: Vec<_> = group.members().iter().filter(is_connected).collect();
            let members = if connected.is_empty() {
                group.members().iter().collect()
            } else {
                connected
            };
            if let Some((key, wants)) = members.get(turn % members.len().max(1)) {
                chosen.push((*key, *wants));
            }
            turn = turn.wrapping_add(1);
        });
        self.turn = turn;
        chosen
    }

    /// Keeps a message for whoever subscribes later; an empty one ends that. [MQTT-3.3.1-6]
    fn retain(
        &mut self,
        message: &Arc<SpaceMessage>,
        limits: &ConformanceConfig,
        metrics: &Metrics,
    ) {
        if message.payload.is_empty() {
            self.retained.remove(&message.topic);
            return;
        }
        let now = Millis::now();
        self.retained.retain(|_, known| !is_expired(known, now));
        let is_known = self.retained.contains_key(&message.topic);
        if !is_known && self.retained.len() >= limits.max_retained {
            metrics.messages_dropped(DropReason::OutboxFull).inc();
            return;
        }
        let topic = message.topic.clone();
        self.retained.insert(topic, Arc::clone(message));
    }

    fn hand_retained(
        &mut self,
        key: SpaceKey,
        filter: &TopicFilter,
        wants: Wants,
        limits: &ConformanceConfig,
        metrics: &Metrics,
    ) {
        let now = Millis::now();
        let matching: Vec<_> = self
            .retained
            .values()
            .filter(|message| filter.matches(&message.topic) && !is_expired(message, now))
            .map(Arc::clone)
            .collect();
        let Some(session) = self.session(key) else {
            return;
        };
        for message in matching {
            let handing = Handing {
                qos: message.qos.min(wants.qos),
                // [MQTT-3.3.1-8]
                retain: true,
                subscription_ids: wants.identifier.into_iter().collect(),
            };
            session.push(&message, handing, limits, metrics);
        }
    }
}

/// Adds what one subscription wants to how a session is handed a message.
fn join(handing: &mut Handing, message: &SpaceMessage, wants: Wants) {
    let qos: QoS = message.qos.min(wants.qos);
    handing.qos = handing.qos.max(qos);
    // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
    handing.retain |= message.retain && wants.retain_as_published;
    handing.subscription_ids.extend(wants.identifier);
}

fn is_expired(message: &SpaceMessage, now: Millis) -> bool {
    message.properties.expires_at.is_some_and(|end| end <= now)
}
