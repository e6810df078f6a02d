//! Retained messages: for each device and topic the last one that was to be kept, for whoever subscribes later.
//!
//! What there is, and whether there is room, is known in memory; payloads are on the disk and read by the page, as fast
//! as whoever subscribed takes them. One task writes, in the order in which messages came, many in one commit; whoever
//! published is answered after it.
//! Invariants: the limits are never passed; what an application gets was its own at the moment when it was handed over.
//! Spec: MQTT 5.0 s3.3.1.3.

mod index;
mod replay;

use std::{fmt, sync::Arc, time::Duration};

use headgate_protocol::identity::DeviceId;
use parking_lot::Mutex;
use prometheus::Histogram;
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use self::index::{Found, Index};
pub use self::replay::Replay;
use crate::{
    config::RetainedConfig,
    model::{Message, Millis},
    store::{
        StoreError,
        sessions::{RetainedChange, RetainedTold, SessionStore, Standing},
    },
    telemetry::metrics::{DropReason, Metrics},
};

/// Messages that may wait to be stored; beyond them whoever publishes one waits.
const CAPACITY: usize = 1_024;
/// The most changes in one commit.
const MAX_COMMIT: usize = 256;
/// How often expired messages are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Why a message is not retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRetained {
    /// The device, its product or the node holds as much as it may.
    #[error("as many messages are retained as may be")]
    Full,
    /// It could not be stored.
    #[error("the message could not be stored")]
    Unavailable,
}

/// The retained messages of all devices; a clone is another handle on them.
#[derive(Clone)]
pub(super) struct Retained {
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
}

struct Shared {
    store: SessionStore,
    index: Mutex<Index>,
    metrics: Metrics,
}

enum Order {
    Keep {
        message: Arc<Message>,
        sender: Option<Standing>,
        kept: oneshot::Sender<Result<(), NotRetained>>,
    },
    Forget {
        device: DeviceId,
        forgotten: oneshot::Sender<Result<(), NotRetained>>,
    },
}

/// The one that writes, to be driven by one task.
pub(super) struct Writer {
    orders: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
    seconds: Histogram,
}

/// The retained messages as they were left, and the writer of what comes.
pub(super) async fn open(
    store: SessionStore,
    config: RetainedConfig,
    metrics: &Metrics,
) -> Result<(Retained, Writer), StoreError> {
    let mut index = Index::new(config);
    index.load(store.retained_entries().await?);
    let (sender, orders) = mpsc::channel(CAPACITY);
    let shared = Arc::new(Shared {
        store,
        index: Mutex::new(index),
        metrics: metrics.clone(),
    });
    shared.show_depth();
    let writer = Writer {
        orders,
        shared: Arc::clone(&shared),
        seconds: metrics.store_seconds("sessions", "retained"),
    };
    Ok((
        Retained {
            orders: sender,
            shared,
        },
        writer,
    ))
}

impl Retained {
    /// Keeps a message instead of the one before, or with an empty payload none; when this returns, that is committed.
    ///
    /// # Errors
    /// [`NotRetained`]; what was there is there still. [`NotRetained::Unavailable`] also where its sender was with another
    /// connection by then.
    ///
    /// # Cancel safety
    /// A cancelled call may have stored it.
    pub(super) async fn keep(
        &self,
        message: &Arc<Message>,
        sender: Option<Standing>,
    ) -> Result<(), NotRetained> {
        let (kept, done) = oneshot::channel();
        let order = Order::Keep {
            message: Arc::clone(message),
            sender,
            kept,
        };
        self.order(order, done).await
    }

    /// Drops all of a device.
    ///
    /// # Errors
    /// [`NotRetained::Unavailable`].
    pub(super) async fn forget(&self, device: &DeviceId) -> Result<(), NotRetained> {
        if !self.shared.index.lock().has(device) {
            return Ok(());
        }
        let (forgotten, done) = oneshot::channel();
        let device = device.clone();
        self.order(Order::Forget { device, forgotten }, done).await
    }

    /// Those of the devices that have any.
    pub(super) fn having<'a>(&self, devices: impl Iterator<Item = &'a DeviceId>) -> Vec<DeviceId> {
        let index = self.shared.index.lock();
        devices.filter(|id| index.has(id)).cloned().collect()
    }

    /// Another node has kept or dropped messages.
    pub(super) fn heard(&self, told: RetainedTold) {
        {
            let mut index = self.shared.index.lock();
            match told {
                RetainedTold::Kept(entry) => index.put(entry),
                RetainedTold::Removed(device, topic) => index.remove(&device, &topic),
                RetainedTold::Forgotten(device) => index.forget(&device),
            }
        }
        self.shared.show_depth();
    }

    /// Reads what there is: what other nodes said of it may have been missed.
    pub(super) async fn reload(&self) {
        match self.shared.store.retained_entries().await {
            Ok(entries) => self.shared.index.lock().load(entries),
            Err(error) => tracing::warn!(%error, "retained messages could not be listed"),
        }
        self.shared.show_depth();
    }

    /// Whether a message is still the one that was found.
    pub(super) fn is_current(&self, found: &Found) -> bool {
        self.shared.index.lock().is_current(found)
    }

    async fn order(
        &self,
        order: Order,
        done: oneshot::Receiver<Result<(), NotRetained>>,
    ) -> Result<(), NotRetained> {
        let sent = self.orders.send(order).await;
        sent.map_err(|_| NotRetained::Unavailable)?;
        done.await.unwrap_or(Err(NotRetained::Unavailable))
    }
}

impl Shared {
    fn show_depth(&self) {
        let (messages, bytes) = self.index.lock().totals();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.retained.messages.set(gauge(messages as u64));
        self.metrics.retained.bytes.set(gauge(bytes));
    }
}

impl Writer {
    /// Stores what comes; after `stop` what was handed over before, and then no more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut orders = Vec::with_capacity(MAX_COMMIT);
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                received = self.orders.recv_many(&mut orders, MAX_COMMIT) => {
                    if received == 0 {
                        return;
                    }
                    self.carry_out(&mut orders).await;
                }
                () = stop.cancelled(), if !self.orders.is_closed() => self.orders.close(),
                _ = sweep.tick() => self.expire().await,
            }
            self.shared.show_depth();
        }
    }

    async fn carry_out(&self, orders: &mut Vec<Order>) {
        let mut accepted = Vec::with_capacity(orders.len());
        for order in orders.drain(..) {
            let taken = {
                let mut index = self.shared.index.lock();
                match &order {
                    Order::Keep { message, .. } => index.keep(message),
                    Order::Forget { device, .. } => {
                        index.forget(device);
                        true
                    }
                }
            };
            if taken {
                accepted.push(order);
            } else {
                self.shared
                    .metrics
                    .messages_dropped(DropReason::RetainedFull)
                    .inc();
                order.answer(Err(NotRetained::Full));
            }
        }
        if accepted.is_empty() {
            return;
        }
        let changes: Vec<RetainedChange<'_>> = accepted.iter().map(Order::change).collect();
        let timer = self.seconds.start_timer();
        let stored = self.shared.store.change_retained(&changes).await;
        timer.observe_duration();
        drop(changes);
        let result = match &stored {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!(%error, messages = accepted.len(), "retained messages could not be stored");
                Err(NotRetained::Unavailable)
            }
        };
        let late = stored.unwrap_or_default();
        if result.is_err() || !late.is_empty() {
            self.reload().await;
        }
        for (place, order) in accepted.into_iter().enumerate() {
            let is_late = late.contains(&place);
            order.answer(if is_late {
                Err(NotRetained::Unavailable)
            } else {
                result
            });
        }
    }

    /// Has memory agree with the store again, after not all was stored.
    async fn reload(&self) {
        match self.shared.store.retained_entries().await {
            Ok(entries) => self.shared.index.lock().load(entries),
            Err(error) => tracing::error!(%error, "retained messages could not be listed"),
        }
    }

    async fn expire(&self) {
        loop {
            match self.shared.store.expire_retained(Millis::now()).await {
                Ok(gone) if gone.is_empty() => return,
                Ok(gone) => {
                    let mut index = self.shared.index.lock();
                    for entry in gone {
                        index.remove(&entry.device, &entry.topic);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "expired retained messages could not be taken out");
                    return;
                }
            }
            if !self.orders.is_empty() {
                // Who stores goes first; the rest is for the next sweep.
                return;
            }
        }
    }
}

impl Order {
    fn change(&self) -> RetainedChange<'_> {
        match self {
            Self::Keep {
                message, sender, ..
            } if message.payload.is_empty() => RetainedChange::Remove(message, sender.as_ref()),
            Self::Keep {
                message, sender, ..
            } => RetainedChange::Set(message, sender.as_ref()),
            Self::Forget { device, .. } => RetainedChange::Forget(device),
        }
    }

    /// Whoever waited may be gone; what was stored stands all the same.
    fn answer(self, result: Result<(), NotRetained>) {
        let (Self::Keep { kept: to, .. } | Self::Forget { forgotten: to, .. }) = self;
        let _gone = to.send(result);
    }
}

impl fmt::Debug for Retained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retained").finish_non_exhaustive()
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}
