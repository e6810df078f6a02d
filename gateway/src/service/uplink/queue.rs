//! What waits for one persistent session of an application: counted here, stored by the [`super::writer`], handed to the
//! session's connection while there is one.
//!
//! Invariants: a message is counted from before it is stored until after it is gone, so the limits are never passed;
//! stored messages are offered to the connection in the order of their ids, each once.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use headgate_protocol::{identity::DeviceId, mqtt::QoS};
use parking_lot::Mutex;
use prometheus::IntGauge;

use super::subscribers::{Ended, Offered, Receiver, Sink};
use crate::{
    model::{Handing, Id, Message},
    store::sessions::{NodeNumber, mail_bytes},
    telemetry::metrics::Metrics,
};

/// A message that waits for a persistent session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Under which id it waits.
    pub id: Id,
    /// The message.
    pub message: Arc<Message>,
    /// How it is to be handed over.
    pub handing: Handing,
}

/// A connection of a persistent session. Called with locks held: an implementation must not block.
pub trait QueueLink: Sink {
    /// Takes a message that is stored; says whether the connection will send it.
    ///
    /// One that refuses a message refuses all that follow, until it has read what waits itself.
    fn offer_stored(&self, message: Queued) -> bool;

    /// Something waits that the connection reads itself: another node may have stored it.
    fn behind(&self);
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// Messages of one session.
    pub(super) messages: usize,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Bytes of all sessions.
    pub(super) total_bytes: u64,
}

/// What waits for all sessions.
pub(super) struct Totals {
    limits: QueueLimits,
    /// Whether other nodes store too: what waits is counted by the store, and read there.
    is_shared: bool,
    bytes: AtomicU64,
    /// How many queues there are.
    queues: AtomicUsize,
    depth: IntGauge,
    depth_bytes: IntGauge,
}

/// What waits for one session.
pub struct Queue {
    session: Id,
    totals: Arc<Totals>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    messages: usize,
    bytes: u64,
    /// Since when a message has been refused and none been taken out.
    full_since: Option<Instant>,
    link: Option<(i64, Arc<dyn QueueLink>)>,
    /// The node with its client, where that is another one.
    elsewhere: Option<NodeNumber>,
    /// The session has ended: what comes is for nobody.
    is_over: bool,
}

/// A place in a queue, given back when it is dropped before it was taken.
pub(super) struct QueuePlace {
    queue: Arc<Queue>,
    bytes: u64,
    is_taken: bool,
}

impl Totals {
    pub(super) fn new(limits: QueueLimits, is_shared: bool, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            limits,
            is_shared,
            bytes: AtomicU64::new(0),
            queues: AtomicUsize::new(0),
            depth: metrics.sessions.queue_messages.clone(),
            depth_bytes: metrics.sessions.queue_bytes.clone(),
        })
    }

    /// Whether any message may have to be stored.
    pub(super) fn has_queues(&self) -> bool {
        self.queues.load(Ordering::Acquire) > 0
    }

    /// Whether so many bytes more are too many for a queue.
    fn is_full(&self, queue: &State, bytes: u64) -> bool {
        let limits = &self.limits;
        let total = self.bytes.load(Ordering::Relaxed);
        queue.messages >= limits.messages
            || queue.bytes.saturating_add(bytes) > limits.bytes
            || total.saturating_add(bytes) > limits.total_bytes
    }

    fn add(&self, messages: usize, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.depth.add(signed(messages as u64));
        self.depth_bytes.add(signed(bytes));
    }

    fn sub(&self, messages: usize, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.depth.sub(signed(messages as u64));
        self.depth_bytes.sub(signed(bytes));
    }
}

impl Queue {
    /// The queue of a session for which so much waits.
    pub(super) fn new(totals: &Arc<Totals>, session: Id, messages: usize, bytes: u64) -> Arc<Self> {
        totals.queues.fetch_add(1, Ordering::AcqRel);
        totals.add(messages, bytes);
        Arc::new(Self {
            session,
            totals: Arc::clone(totals),
            state: Mutex::new(State {
                messages,
                bytes,
                ..State::default()
            }),
        })
    }

    /// Whose it is.
    pub fn session(&self) -> Id {
        self.session
    }

    /// Whether nothing waits, for sure.
    pub(super) fn is_empty(&self) -> bool {
        !self.totals.is_shared && self.state.lock().messages == 0
    }

    /// Where the session's client is, if with another node.
    pub(super) fn set_elsewhere(&self, node: Option<NodeNumber>) {
        self.state.lock().elsewhere = node;
    }

    /// The store had no room for a message.
    pub(super) fn note_full(&self) {
        self.state
            .lock()
            .full_since
            .get_or_insert_with(Instant::now);
    }

    /// Hands a message that is not stored to the connection, if there is one here.
    pub(super) fn offer_now(&self, message: &Arc<Message>, handing: Handing) -> Option<Offered> {
        self.link().map(|link| link.offer(message, handing))
    }

    /// Another node has stored something.
    pub(super) fn look(&self) {
        if let Some(link) = self.link() {
            link.behind();
        }
    }

    /// Whether there is a place for a message.
    pub(super) fn has_room(&self, message: &Message) -> bool {
        let state = self.state.lock();
        !state.is_over
            && (self.totals.is_shared || !self.totals.is_full(&state, mail_bytes(message)))
    }

    /// A place for a message; `None` where as many wait as may.
    pub(super) fn reserve(self: &Arc<Self>, message: &Message) -> Option<QueuePlace> {
        let bytes = mail_bytes(message);
        if self.totals.is_shared {
            return Some(QueuePlace {
                queue: Arc::clone(self),
                bytes,
                is_taken: true,
            });
        }
        let mut state = self.state.lock();
        if self.totals.is_full(&state, bytes) && !state.is_over {
            state.full_since.get_or_insert_with(Instant::now);
            return None;
        }
        state.messages += 1;
        state.bytes += bytes;
        drop(state);
        self.totals.add(1, bytes);
        Some(QueuePlace {
            queue: Arc::clone(self),
            bytes,
            is_taken: false,
        })
    }

    /// Messages were taken out. One by one, they were `bytes`.
    pub(super) fn release(&self, bytes: u64) {
        let mut state = self.state.lock();
        if self.totals.is_shared {
            state.full_since = None;
            return;
        }
        state.messages = state.messages.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(bytes);
        state.full_since = None;
        drop(state);
        self.totals.sub(1, bytes);
    }

    /// Hands what is stored from now on to a connection, and gives up the one before.
    pub(super) fn attach(&self, epoch: i64, link: Arc<dyn QueueLink>) {
        let mut state = self.state.lock();
        state.link = Some((epoch, link));
        state.elsewhere = None;
    }

    /// A connection is gone; one that came after it stays.
    pub(super) fn detach(&self, epoch: i64) {
        self.state
            .lock()
            .link
            .take_if(|(attached, _)| *attached == epoch);
    }

    /// Hands a stored message to the connection, if there is one.
    pub(super) fn offer_stored(&self, message: Queued) {
        let Some(link) = self.link() else { return };
        if self.totals.is_shared {
            // What another node stored before it may be on its way.
            link.behind();
        } else {
            // One that it does not take it reads itself.
            link.offer_stored(message);
        }
    }

    /// Since when messages have been refused, while none was taken out.
    pub(super) fn full_since(&self) -> Option<Instant> {
        self.state.lock().full_since
    }

    /// The session has ended; gives the connection that it had.
    pub(super) fn end(&self) -> Option<Arc<dyn QueueLink>> {
        let mut state = self.state.lock();
        if !state.is_over {
            state.is_over = true;
            self.totals.queues.fetch_sub(1, Ordering::AcqRel);
        }
        state.link.take().map(|(_, link)| link)
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.lock().is_over
    }

    fn link(&self) -> Option<Arc<dyn QueueLink>> {
        let state = self.state.lock();
        state.link.as_ref().map(|(_, link)| Arc::clone(link))
    }
}

/// What subscriptions of a persistent session lead to, whether it is connected or not.
pub(super) struct QueueSink(pub(super) Arc<Queue>);

impl Sink for QueueSink {
    fn offer(&self, message: &Arc<Message>, handing: Handing) -> Offered {
        if handing.qos != QoS::AtMostOnce {
            return Offered::ToStore(Arc::clone(&self.0), handing);
        }
        match self.0.link() {
            Some(link) => link.offer(message, handing),
            None => match self.0.state.lock().elsewhere {
                Some(node) => Offered::Elsewhere(node, Receiver::Session(self.0.session), handing),
                None => Offered::Away,
            },
        }
    }

    fn is_connected(&self) -> bool {
        match self.0.link() {
            Some(link) => link.is_connected(),
            None => self.0.state.lock().elsewhere.is_some(),
        }
    }

    fn revoke(&self, is_revoked: &dyn Fn(&DeviceId) -> bool) {
        if let Some(link) = self.0.link() {
            link.revoke(is_revoked);
        }
    }

    fn bound(&self, devices: &[DeviceId]) {
        if let Some(link) = self.0.link() {
            link.bound(devices);
        }
    }

    fn close(&self, reason: Ended) {
        if let Some(link) = self.0.link() {
            link.close(reason);
        }
    }
}

impl QueuePlace {
    /// Whose place it is.
    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The message is stored: its place is given back when it is taken out.
    pub(super) fn keep(mut self) {
        self.is_taken = true;
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        if !self.is_taken {
            self.queue.release(self.bytes);
        }
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Queue")
            .field("session", &self.session)
            .field("messages", &state.messages)
            .finish_non_exhaustive()
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
