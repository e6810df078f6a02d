//! A persistent session in the hands of its connection: what changes of it, and what is under way to the client.
//!
//! What is noted is stored by [`Persistent::flush`], which the connection waits for before it writes what follows from
//! it. Invariants: once another connection has the session, nothing of this one changes it.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use headgate_protocol::mqtt::{PacketId, QoS, TopicFilter};
use parking_lot::MutexGuard;
use tokio::sync::oneshot;

use super::{Closing, InFlight, Known, MAX_DELIVERED, NotKept, PersistentSessions};
use crate::{
    model::{Id, Message, Millis},
    service::uplink::{
        queue::{QueueLink, Queued},
        subscribers::{Offered, RetainedReceiver as _, Subscriber},
        writer::{Order, Receipt},
    },
    store::{
        StoreError,
        sessions::{QueuedMessage, SessionChange, SessionRef},
    },
};
/// A persistent session in the hands of its connection.
pub struct Persistent {
    pub(super) sessions: PersistentSessions,
    pub(super) known: Arc<Known>,
    pub(super) session: SessionRef,
    pub(super) expiry_secs: u32,
    pub(super) pending: Vec<SessionChange>,
}

impl Persistent {
    /// Seconds that the session outlives its connection.
    pub const fn expiry_secs(&self) -> u32 {
        self.expiry_secs
    }

    /// The client said so when it took leave.
    pub const fn set_expiry_secs(&mut self, expiry_secs: u32) {
        self.expiry_secs = expiry_secs;
    }

    /// Takes note of a change, to be stored by [`Persistent::flush`] before the client hears of anything that follows
    /// from it.
    pub fn note(&mut self, change: SessionChange) {
        self.pending.push(change);
    }

    /// Whether there is anything to be stored.
    pub const fn is_changed(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Stores what was noted.
    ///
    /// # Errors
    /// [`NotKept`]: the client must not hear of it.
    ///
    /// # Cancel safety
    /// A cancelled call may have stored it.
    pub async fn flush(&mut self) -> Result<(), NotKept> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let (stored, done) = oneshot::channel();
        let order = Order::Change {
            session: self.session,
            changes: std::mem::take(&mut self.pending),
            stored,
        };
        let sent = self.sessions.shared.orders.send(order).await;
        sent.map_err(|_| NotKept::Unavailable)?;
        match done.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(NotKept::TakenOver),
            Err(_) => Err(NotKept::Unavailable),
        }
    }

    /// Has the identifier of a `QoS` 2 message stored together with the message.
    pub const fn receipt(&self, packet_id: PacketId) -> Receipt {
        Receipt {
            session: self.session,
            packet_id,
        }
    }

    /// A stored message is about to be sent; at `QoS` 2 that is to be stored before.
    pub fn sending(&mut self, packet_id: PacketId, id: Id, qos: QoS) {
        if let Some(mut state) = self.known.at(self.session.epoch) {
            state.in_flight.push(InFlight { packet_id, id, qos });
        }
        if qos == QoS::ExactlyOnce {
            self.note(SessionChange::Sending(packet_id, id));
        }
    }

    /// The client has a `QoS` 2 message.
    pub fn received(&mut self, id: Id) {
        self.note(SessionChange::Received(id));
    }

    /// The exchange of a message is over.
    pub fn acknowledged(&mut self, id: Id) {
        let Some(mut state) = self.known.at(self.session.epoch) else {
            return;
        };
        let Some(at) = state.in_flight.iter().position(|one| one.id == id) else {
            return;
        };
        let one = state.in_flight.remove(at);
        if state.in_flight.is_empty() {
            // A session at rest owns no memory.
            state.in_flight = Vec::new();
        }
        drop(state);
        if one.qos == QoS::ExactlyOnce {
            self.note(SessionChange::Completed(id));
        }
    }
}

/// The connection is gone: the session waits for the next one, or ends.
impl Drop for Persistent {
    fn drop(&mut self) {
        let shared = &self.sessions.shared;
        if let Some(app) = &self.known.app {
            app.queue.detach(self.session.epoch);
        }
        if self.known.at(self.session.epoch).is_none() {
            return;
        }
        let change = match self.expiry_secs {
            0 => SessionChange::Ended,
            secs => {
                let lasts = Duration::from_secs(u64::from(secs));
                SessionChange::Suspended(Millis::now().after(lasts))
            }
        };
        shared.closings.lock().push(Closing {
            session: self.session,
            key: self.known.key.clone(),
            change,
        });
        shared.has_work.notify_one();
    }
}

/// What only an application's has.
impl Persistent {
    /// Has what is stored from now on handed to this connection; says whether anything waits from before.
    pub fn attach(&self, link: Arc<dyn QueueLink>) -> bool {
        let Some(app) = &self.known.app else {
            return false;
        };
        app.queue.attach(self.session.epoch, link);
        !app.queue.is_empty()
    }

    /// What it is subscribed to; `None` once another connection has the session.
    pub fn subscriber(&self) -> Option<MutexGuard<'_, Subscriber>> {
        let app = self.known.app.as_ref()?;
        let is_current = self.known.at(self.session.epoch).is_some();
        is_current.then(|| app.subscriber.lock())
    }

    /// Offers it what is retained, as [`RetainedReceiver`] says.
    ///
    /// [`RetainedReceiver`]: crate::service::uplink::RetainedReceiver
    pub fn offer_retained(
        &self,
        message: &Arc<Message>,
        filter: Option<&TopicFilter>,
    ) -> Option<Offered> {
        self.subscriber()?.offer_retained(message, filter)
    }

    /// Up to `limit` messages that wait, oldest first, those stored after `after`.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn pending(
        &self,
        after: Option<Id>,
        limit: usize,
    ) -> Result<Vec<Queued>, StoreError> {
        let shared = &self.sessions.shared;
        let mut after = after;
        loop {
            // What is taken out while the store is asked may be found there, and has left the list when it has answered.
            let known: HashSet<Id> = {
                let delivered = shared.delivered.lock();
                let of_session = delivered.iter().filter(|one| one.0 == self.session.id);
                of_session.map(|one| one.1).collect()
            };
            let found = shared.backend.queued(self.session.id, after, limit).await?;
            let is_all = found.len() < limit;
            after = found.last().map(|one| one.id).or(after);
            let waiting = self.without_delivered(found, &known);
            // A page of nothing but acknowledged messages is not the end.
            if is_all || !waiting.is_empty() {
                return Ok(waiting);
            }
        }
    }

    /// The client has a message, or is not to have it: it is taken out, together with others. Never waits.
    pub fn delivered(&self, id: Id) {
        let shared = &self.sessions.shared;
        {
            let mut delivered = shared.delivered.lock();
            if delivered.len() < MAX_DELIVERED {
                delivered.insert((self.session.id, id));
            }
        }
        shared.has_work.notify_one();
    }

    fn without_delivered(&self, found: Vec<QueuedMessage>, known: &HashSet<Id>) -> Vec<Queued> {
        let delivered = self.sessions.shared.delivered.lock();
        let state = self.known.state.lock();
        found
            .into_iter()
            .filter(|one| !known.contains(&one.id))
            .filter(|one| !delivered.contains(&(self.session.id, one.id)))
            .filter(|one| !state.in_flight.iter().any(|sent| sent.id == one.id))
            .map(|one| Queued {
                id: one.id,
                message: Arc::new(one.message),
                handing: one.handing,
            })
            .collect()
    }
}

impl fmt::Debug for Persistent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Persistent")
            .field("session", &self.session)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}
