//! Sessions that outlive their connections: which there are, who has them, and what of them is in memory.
//!
//! A connection claims its session and is the only one to change it until the next claim. What must survive the process
//! is stored by the [`super::writer`] before the client hears of it. Packet identifiers of `QoS` 1 messages are kept in
//! memory alone: after a crash such a message goes out again under another one, which costs what a repetition under the
//! same one costs, and the client cannot have counted on it, because it lost its connection as well.
//! Invariants: as many sessions as may be; a connection that lost its session to another one changes nothing.
//! Spec: MQTT 5.0 s3.1.2.4, s4.1, s4.4.

mod held;
mod shared;
mod upkeep;

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use headgate_protocol::{
    identity::{AppId, DeviceId},
    mqtt::{PacketId, QoS},
};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc, oneshot};

pub use self::held::Persistent;
use super::{
    queue::{Queue, QueueLimits, Totals},
    subscribers::{Subscriber, Subscribers},
    writer::Order,
};
use crate::{
    model::{Handing, Id, IdGenerator, Message, Millis},
    store::{
        StoreError,
        sessions::{
            Claim, Claimed, ClientPlace, KeptSubscription, SessionBackend, SessionChange,
            SessionKey, SessionRef, SessionStore,
        },
    },
    telemetry::metrics::{Metrics, SessionKind},
};

/// Acknowledged messages that may wait to be taken out; beyond them one stays, and is sent again.
const MAX_DELIVERED: usize = 65_536;

/// The persistent sessions; a clone is another handle on them.
#[derive(Clone)]
pub struct PersistentSessions {
    shared: Arc<Shared>,
}

/// What limits them.
#[derive(Clone, Copy, Debug)]
pub(super) struct PersistentLimits {
    pub(super) sessions: usize,
    pub(super) subscriptions: usize,
    pub(super) queue: QueueLimits,
    /// A queue that refuses messages for so long while its client takes none ends with its session.
    pub(super) stuck: Duration,
}

struct Shared {
    backend: Arc<dyn SessionBackend>,
    store: SessionStore,
    orders: mpsc::Sender<Order>,
    has_work: Arc<Notify>,
    subscribers: Arc<Subscribers>,
    limits: PersistentLimits,
    totals: Arc<Totals>,
    ids: IdGenerator,
    known: DashMap<SessionKey, Arc<Known>>,
    /// Of applications' sessions; those that have ended stay until they are empty.
    queues: DashMap<Id, Arc<Queue>>,
    to_purge: Mutex<Vec<Id>>,
    delivered: Mutex<HashSet<(Id, Id)>>,
    /// Ends of connections that are to be stored: at most one for each session.
    closings: Mutex<Vec<Closing>>,
    /// Where nodes share the sessions: clients that are gone from here, with the epochs of their claims.
    left: Mutex<Vec<(SessionKey, i64)>>,
    /// Claims that have not become sessions yet.
    opening: AtomicUsize,
    metrics: Metrics,
}

/// A session as it is known in memory.
struct Known {
    id: Id,
    key: SessionKey,
    state: Mutex<State>,
    app: Option<KnownApp>,
}

#[derive(Default)]
struct State {
    epoch: i64,
    /// Sent and not acknowledged, in the order of sending.
    in_flight: Vec<InFlight>,
}

struct KnownApp {
    queue: Arc<Queue>,
    subscriber: Mutex<Subscriber>,
}

/// A stored message that is under way to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InFlight {
    packet_id: PacketId,
    id: Id,
    qos: QoS,
}

/// The end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    pub(super) session: SessionRef,
    key: SessionKey,
    pub(super) change: SessionChange,
}

/// What a connection wants.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Whose session.
    pub key: SessionKey,
    /// Whether it begins anew.
    pub is_clean: bool,
    /// Seconds that it outlives the connection.
    pub expiry_secs: u32,
}

/// What a connection got.
#[derive(Debug, Default)]
pub struct Opened {
    /// The session, unless it is one that ends with the connection.
    pub session: Option<Persistent>,
    /// Whether it was there before.
    pub is_present: bool,
    /// Its subscriptions.
    pub subscriptions: Vec<KeptSubscription>,
    /// Identifiers of `QoS` 2 messages that the client has not released.
    pub unreleased: Vec<PacketId>,
    /// What is under way to the client, in the order of sending.
    pub in_flight: Vec<Unacknowledged>,
    /// Where nodes share the sessions: that the client is here now.
    pub place: Option<ClientPlace>,
}

/// A message that was sent on an earlier connection and not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unacknowledged {
    /// Under which identifier.
    pub packet_id: PacketId,
    /// Under which id it waits.
    pub id: Id,
    /// At which quality of service it was sent.
    pub qos: QoS,
    /// The message; `None`: the client has it, or it is to be sent no more. Only the end of the exchange is left.
    pub message: Option<(Arc<Message>, Handing)>,
}

/// Why a session could not be had or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// Another connection has it.
    #[error("another connection has the session")]
    TakenOver,
    /// It could not be stored.
    #[error("the session could not be stored")]
    Unavailable,
}

/// A claim that was granted.
pub(super) struct Granted {
    claimed: Claimed,
    known: Option<Arc<Known>>,
}

/// What the sessions are made of.
pub(super) struct PersistentParts {
    pub(super) backend: Arc<dyn SessionBackend>,
    pub(super) store: SessionStore,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) has_work: Arc<Notify>,
    pub(super) subscribers: Arc<Subscribers>,
    pub(super) limits: PersistentLimits,
    pub(super) ids: IdGenerator,
    pub(super) metrics: Metrics,
}

impl PersistentSessions {
    /// The sessions as they were left.
    pub(super) async fn open_all(parts: PersistentParts) -> Result<Self, StoreError> {
        let kept = parts.backend.recover(Millis::now()).await?;
        let shared = Shared {
            totals: Totals::new(parts.limits.queue, parts.store.is_remote(), &parts.metrics),
            backend: parts.backend,
            store: parts.store,
            orders: parts.orders,
            has_work: parts.has_work,
            subscribers: parts.subscribers,
            limits: parts.limits,
            ids: parts.ids,
            known: DashMap::new(),
            queues: DashMap::new(),
            to_purge: Mutex::default(),
            delivered: Mutex::default(),
            closings: Mutex::default(),
            left: Mutex::default(),
            opening: AtomicUsize::new(0),
            metrics: parts.metrics,
        };
        let sessions = Self {
            shared: Arc::new(shared),
        };
        for session in kept {
            // Those of devices are known while their devices are here.
            if !sessions.is_shared() || matches!(session.key, SessionKey::Application(..)) {
                sessions.know(&session);
            }
        }
        Ok(sessions)
    }

    /// Opens the session of a connection, and takes it from the one that has it. Costs nothing where there is none and
    /// none is wanted.
    ///
    /// # Errors
    /// [`NotKept::Unavailable`].
    pub async fn open(&self, opening: Opening) -> Result<Opened, NotKept> {
        if self.is_shared() {
            return self.open_shared(opening).await;
        }
        let shared = &self.shared;
        let is_known = shared.known.contains_key(&opening.key);
        let mut expiry_secs = opening.expiry_secs;
        if !is_known && expiry_secs > 0 {
            let opening = shared.opening.load(Ordering::Relaxed);
            if shared.known.len() + opening >= shared.limits.sessions {
                shared.metrics.sessions.refused.inc();
                expiry_secs = 0;
            }
        }
        if !is_known && expiry_secs == 0 {
            return Ok(Opened::default());
        }
        let claim = Claim {
            key: opening.key,
            id: shared.ids.next(),
            is_clean: opening.is_clean,
            expiry_secs,
            max_sessions: 0,
        };
        shared.opening.fetch_add(1, Ordering::Relaxed);
        let granted = self.claim(claim).await;
        shared.opening.fetch_sub(1, Ordering::Relaxed);
        self.opened(granted?, expiry_secs).await
    }

    /// What of a granted claim the connection gets.
    async fn opened(&self, granted: Granted, expiry_secs: u32) -> Result<Opened, NotKept> {
        let Granted { claimed, known } = granted;
        let (Some(session), Some(known)) = (claimed.session, known) else {
            return Ok(Opened::default());
        };
        // Dropped where it comes to nothing, it is there for the next connection.
        let persistent = Persistent {
            sessions: self.clone(),
            known,
            session,
            expiry_secs,
            pending: Vec::new(),
        };
        let known = &persistent.known;
        let in_flight = self.unacknowledged(known, &claimed).await?;
        {
            let mut state = known.at(session.epoch).ok_or(NotKept::TakenOver)?;
            let under_way = in_flight.iter().map(|one| InFlight {
                packet_id: one.packet_id,
                id: one.id,
                qos: one.qos,
            });
            state.in_flight = under_way.collect();
        }
        Ok(Opened {
            session: Some(persistent),
            is_present: claimed.is_present,
            subscriptions: claimed.subscriptions,
            unreleased: claimed.unreleased,
            in_flight,
            place: None,
        })
    }

    /// Ends every session of an application that was deleted.
    ///
    /// # Errors
    /// [`NotKept::Unavailable`].
    pub(super) async fn end_of_app(&self, app: &AppId) -> Result<(), NotKept> {
        self.end(|key| matches!(key, SessionKey::Application(owner, _) if owner == app))
            .await
    }

    /// Ends the session of a device that was deleted.
    ///
    /// # Errors
    /// [`NotKept::Unavailable`].
    pub(super) async fn end_of_device(&self, device: &DeviceId) -> Result<(), NotKept> {
        if self.is_shared() {
            return self.end_elsewhere(device).await;
        }
        let key = SessionKey::Device(device.clone());
        let known = self.shared.known.get(&key).map(|known| known.id);
        match known {
            Some(session) => self.order_end(vec![(session, key)]).await,
            None => Ok(()),
        }
    }

    /// Whether any message may have to be stored for a session of an application.
    pub(super) fn has_queues(&self) -> bool {
        self.shared.totals.has_queues()
    }

    /// The queues of an application's sessions.
    pub(super) fn queues_of(&self, app: &AppId) -> Vec<Arc<Queue>> {
        if !self.has_queues() {
            return Vec::new();
        }
        let is_its =
            |known: &Known| matches!(&known.key, SessionKey::Application(owner, _) if owner == app);
        self.shared
            .known
            .iter()
            .filter(|known| is_its(known))
            .filter_map(|known| known.app.as_ref().map(|app| Arc::clone(&app.queue)))
            .collect()
    }

    async fn end(&self, is_meant: impl Fn(&SessionKey) -> bool) -> Result<(), NotKept> {
        let meant = self
            .shared
            .known
            .iter()
            .filter(|known| is_meant(&known.key));
        let sessions: Vec<_> = meant.map(|known| (known.id, known.key.clone())).collect();
        if sessions.is_empty() {
            return Ok(());
        }
        self.order_end(sessions).await
    }

    async fn order_end(&self, sessions: Vec<(Id, SessionKey)>) -> Result<(), NotKept> {
        let (ended, done) = oneshot::channel();
        let sent = self
            .shared
            .orders
            .send(Order::End { sessions, ended })
            .await;
        sent.map_err(|_| NotKept::Unavailable)?;
        done.await.map_err(|_| NotKept::Unavailable)
    }

    async fn claim(&self, claim: Claim) -> Result<Granted, NotKept> {
        let (granted, done) = oneshot::channel();
        let sent = self
            .shared
            .orders
            .send(Order::Claim { claim, granted })
            .await;
        sent.map_err(|_| NotKept::Unavailable)?;
        done.await.map_err(|_| NotKept::Unavailable)
    }

    /// What is under way on the session: at `QoS` 1 what memory knows, at `QoS` 2 what is stored.
    async fn unacknowledged(
        &self,
        known: &Known,
        claimed: &Claimed,
    ) -> Result<Vec<Unacknowledged>, NotKept> {
        let mut under_way: Vec<_> = claimed
            .outbound
            .iter()
            .map(|one| {
                (
                    one.packet_id,
                    one.message,
                    QoS::ExactlyOnce,
                    one.is_received,
                )
            })
            .collect();
        if claimed.is_present {
            let state = known.state.lock();
            let at_least_once = state
                .in_flight
                .iter()
                .filter(|one| one.qos == QoS::AtLeastOnce);
            under_way.extend(at_least_once.map(|one| (one.packet_id, one.id, one.qos, false)));
        }
        if under_way.is_empty() {
            return Ok(Vec::new());
        }
        // Messages are sent in the order of their ids.
        under_way.sort_unstable_by_key(|&(_, id, ..)| id);
        let ids: Vec<_> = under_way
            .iter()
            .filter(|(.., is_received)| !is_received)
            .map(|&(_, id, ..)| id)
            .collect();
        let messages = self.messages(known, &ids).await;
        let mut messages = messages.map_err(|error| {
            tracing::error!(%error, "what a session has under way could not be read");
            NotKept::Unavailable
        })?;
        let mut unacknowledged = Vec::with_capacity(under_way.len());
        for (packet_id, id, qos, is_received) in under_way {
            let at = messages.iter().position(|(known, ..)| *known == id);
            let message = at
                .filter(|_| !is_received)
                .map(|at| messages.swap_remove(at))
                .map(|(_, message, handing)| (message, handing));
            // One at `QoS` 1 that waits no more is simply not sent again. At `QoS` 2 the client may hold its
            // identifier, which only a PUBREL frees.
            if message.is_some() || qos == QoS::ExactlyOnce {
                unacknowledged.push(Unacknowledged {
                    packet_id,
                    id,
                    qos,
                    message,
                });
            }
        }
        Ok(unacknowledged)
    }

    async fn messages(
        &self,
        known: &Known,
        ids: &[Id],
    ) -> Result<Vec<(Id, Arc<Message>, Handing)>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        match &known.key {
            SessionKey::Device(device) => {
                let found = self.shared.store.mail_of(device, ids).await?;
                let whole = found.into_iter().map(|(id, message)| {
                    let handing = Handing::at(message.qos);
                    (id, Arc::new(message), handing)
                });
                Ok(whole.collect())
            }
            SessionKey::Application(..) => {
                let found = self.shared.backend.queued_of(known.id, ids).await?;
                let whole = found
                    .into_iter()
                    .map(|one| (one.id, Arc::new(one.message), one.handing));
                Ok(whole.collect())
            }
        }
    }
}

impl Known {
    /// What there is in memory, if the session is still in the hands of this connection.
    fn at(&self, epoch: i64) -> Option<MutexGuard<'_, State>> {
        Some(self.state.lock()).filter(|state| state.epoch == epoch)
    }
}

fn kind(key: &SessionKey) -> SessionKind {
    match key {
        SessionKey::Device(_) => SessionKind::Device,
        SessionKey::Application(..) => SessionKind::Application,
    }
}

impl fmt::Debug for PersistentSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistentSessions")
            .field("known", &self.shared.known.len())
            .finish_non_exhaustive()
    }
}
