//! A topic space in memory where anyone may publish and subscribe: what listeners of profile
//! "conformance" lead to, so that suites which test brokers can run against the gateway.
//!
//! It knows nothing of devices and applications, and they nothing of it. A session of it has its
//! subscriptions here and one queue of messages, which whoever is connected empties at its own
//! pace. `K` is what a session keeps from one connection to the next, and is its own affair.
//!
//! Invariants: nothing is stored; sessions, subscriptions, queues and retained messages are bounded
//! by [`ConformanceConfig`], and what does not fit is dropped and counted.  Spec: MQTT 5.0 s4.

mod attach;
mod routes;
mod state;

use std::{fmt, sync::Arc, time::Instant};

use bytes::Bytes;
use headgate_protocol::mqtt::{Publish, QoS, TopicName, Will};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use self::attach::{Attached, Left, Opening, Refusal, WillOrder};
use self::state::State;
use crate::{
    config::ConformanceConfig,
    model::{Handing, MessageProperties, Millis},
    shutdown::Shutdown,
    telemetry::metrics::Metrics,
};

/// Topic that nobody may subscribe to, so that suites find one.
const DENIED_FILTER: &str = "test/nosubscribe";

/// A session of the space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpaceKey(u64);

/// A message on its way through the space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceMessage {
    /// Where to.
    pub topic: TopicName,
    /// The bytes, in memory of their own.
    pub payload: Bytes,
    /// As it was published.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// What goes along unchanged, and when it expires.
    pub properties: MessageProperties,
}

/// Who is connected to a session: told that messages wait, or that it is over.
pub trait Link: Send + Sync + fmt::Debug {
    /// Messages wait.
    fn wake(&self);

    /// The connection is to end: another one takes the session over, or the node stops.
    fn end(&self, is_takeover: bool);
}

/// The space.
#[derive(Debug)]
pub struct Space<K> {
    limits: ConformanceConfig,
    metrics: Metrics,
    state: Mutex<State<K>>,
    /// Something is due earlier than before.
    sooner: Notify,
    /// A connection was left.
    left: Notify,
}

impl SpaceMessage {
    /// What a client published at `at`.
    pub fn of_publish(publish: &Publish, at: Millis) -> Self {
        Self {
            topic: publish.topic.clone(),
            // A copy: the payload is a slice of the buffer that everyone on this thread reads into.
            payload: Bytes::copy_from_slice(&publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            properties: MessageProperties::of_publish(publish.properties.as_deref(), at),
        }
    }

    /// The will of a client that connected at `at`; its expiry counts from when it is published.
    pub fn of_will(will: &Will, at: Millis) -> Self {
        Self {
            topic: will.topic.clone(),
            payload: Bytes::copy_from_slice(&will.payload),
            qos: will.qos,
            retain: will.retain,
            properties: MessageProperties::of_publish(will.properties.as_deref(), at),
        }
    }
}

impl<K: Send> Space<K> {
    /// An empty space.
    pub fn new(limits: ConformanceConfig, metrics: Metrics) -> Self {
        Self {
            limits,
            metrics,
            state: Mutex::new(State::new()),
            sooner: Notify::new(),
            left: Notify::new(),
        }
    }

    /// The bounds.
    pub fn limits(&self) -> &ConformanceConfig {
        &self.limits
    }

    /// Hands a message of `from` to every session that it belongs to; says how many.
    pub fn publish(&self, from: SpaceKey, message: SpaceMessage) -> usize {
        self.state
            .lock()
            .publish(Some(from), &Arc::new(message), &self.limits, &self.metrics)
    }

    /// Hands out the messages of a session in order until `send` says that one is to stay.
    pub fn drain(&self, key: SpaceKey, mut send: impl FnMut(&SpaceMessage, &Handing) -> bool) {
        let mut state = self.state.lock();
        let Some(session) = state.session(key) else {
            return;
        };
        while let Some((message, handing)) = session.queue.front() {
            if !send(message, handing) {
                return;
            }
            session.pop();
        }
    }

    /// Messages that wait for a session.
    pub fn waiting(&self, key: SpaceKey) -> usize {
        let mut state = self.state.lock();
        state.session(key).map_or(0, |session| session.queue.len())
    }

    /// Publishes wills and ends sessions when they are due; ends connections when the node drains.
    pub async fn run(&self, shutdown: Shutdown) {
        loop {
            let sooner = self.sooner.notified();
            let due = self.act_on_due(Instant::now());
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.draining() => break,
                () = sooner => {}
                () = sleep => {}
            }
        }
        for link in self.state.lock().links() {
            link.end(false);
        }
    }

    /// Does what is due; says when to look again.
    fn act_on_due(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        state.act_on_due(now, &self.limits, &self.metrics);
        state.due()
    }
}
