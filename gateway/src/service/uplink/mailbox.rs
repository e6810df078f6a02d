//! Messages that wait for devices, stored before whoever sent them is told so, many in one commit.
//!
//! What is counted, and so whether a mailbox is full, is known in memory; what waits is read only
//! when its device asks. One task writes, and gives ids in the order of storing: a session that has
//! read up to an id has seen everything before it.
//! Invariants: a message is counted from before it is stored until after it is gone, so the limits
//! are never passed; an id is never given twice.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use headgate_protocol::identity::DeviceId;
use parking_lot::Mutex;
use prometheus::{Histogram, IntGauge};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::MessageLinks;
use crate::{
    config::MailboxConfig,
    model::{Id, IdGenerator, Message, Millis, random},
    store::{
        StoreError,
        sessions::{MailGone, SessionStore, mail_bytes},
    },
    telemetry::metrics::{DropReason, Metrics},
};

/// Messages that may wait to be stored; beyond them whoever sends one waits.
const CAPACITY: usize = 1_024;
/// The most messages in one commit.
const MAX_COMMIT: usize = 256;
/// Acknowledged messages that may wait to be taken out; beyond them one stays, and is sent again.
const MAX_DELIVERED: usize = 65_536;
/// How often expired messages are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A message on its way to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Under which id it waits, to be given to [`Mailbox::delivered`]; `None`: it is not kept.
    pub id: Option<Id>,
    /// The message.
    pub message: Arc<Message>,
}

/// Where a stored message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) id: Id,
    /// The device's session has it too.
    pub(super) is_online: bool,
}

/// Why a message cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotStored {
    #[error("the mailbox is full")]
    Full,
    #[error("the message could not be stored")]
    Unavailable,
}

/// The mailboxes of all devices; a clone is another handle on them.
#[derive(Clone)]
pub struct Mailbox {
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
}

struct Shared {
    store: SessionStore,
    config: MailboxConfig,
    counts: Mutex<Counts>,
    delivered: Mutex<HashSet<Id>>,
    has_delivered: Notify,
    depth: IntGauge,
    links: OnceLock<Arc<dyn MessageLinks>>,
}

#[derive(Default)]
struct Counts {
    devices: HashMap<DeviceId, usize>,
    messages: usize,
    bytes: u64,
}

enum Order {
    Put {
        message: Arc<Message>,
        expires_at: Millis,
        place: Place,
        stored: oneshot::Sender<Placed>,
    },
    Clear {
        device: DeviceId,
        cleared: oneshot::Sender<usize>,
    },
}

/// A place in a mailbox, given back when it is dropped before it was taken.
struct Place {
    shared: Arc<Shared>,
    device: DeviceId,
    bytes: u64,
    is_taken: bool,
}

/// The one that writes, to be driven by one task.
pub(super) struct Writer {
    orders: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
    ids: IdGenerator,
    last: i64,
    seconds: Histogram,
    metrics: Metrics,
}

/// The mailboxes as they were left, and the writer of what comes.
pub(super) async fn open(
    store: SessionStore,
    config: MailboxConfig,
    metrics: &Metrics,
) -> Result<(Mailbox, Writer), StoreError> {
    let mut counts = Counts::default();
    for waiting in store.mail_counts().await? {
        counts.messages += waiting.messages;
        counts.bytes += waiting.bytes;
        counts.devices.insert(waiting.device, waiting.messages);
    }
    let depth = metrics.mailbox_messages.clone();
    depth.set(i64::try_from(counts.messages).unwrap_or(i64::MAX));
    let last = store.last_mail().await?.map_or(0, Id::as_i64);
    let (sender, orders) = mpsc::channel(CAPACITY);
    let shared = Arc::new(Shared {
        store,
        config,
        counts: Mutex::new(counts),
        delivered: Mutex::default(),
        has_delivered: Notify::new(),
        depth,
        links: OnceLock::new(),
    });
    let writer = Writer {
        orders,
        shared: Arc::clone(&shared),
        ids: IdGenerator::new(u16::from_ne_bytes(random()?)),
        last,
        seconds: metrics.store_seconds("sessions", "mailbox"),
        metrics: metrics.clone(),
    };
    Ok((
        Mailbox {
            orders: sender,
            shared,
        },
        writer,
    ))
}

impl Mailbox {
    /// Whether anything waits for a device; asks no store.
    pub fn has(&self, device: &DeviceId) -> bool {
        self.shared.counts.lock().devices.contains_key(device)
    }

    /// How many messages wait for a device; asks no store.
    pub fn count(&self, device: &DeviceId) -> usize {
        let counts = self.shared.counts.lock();
        counts.devices.get(device).copied().unwrap_or(0)
    }

    /// Up to `limit` messages that wait for a device, oldest first, those stored after `after`.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn pending(
        &self,
        device: &DeviceId,
        after: Option<Id>,
        limit: usize,
    ) -> Result<Vec<Arc<Stored>>, StoreError> {
        let mut after = after;
        loop {
            let found = self
                .shared
                .store
                .mail(device, after, limit, Millis::now())
                .await?;
            let is_all = found.len() < limit;
            after = found.last().map(|(id, _)| *id);
            let delivered = self.shared.delivered.lock();
            let waiting: Vec<_> = found
                .into_iter()
                .filter(|(id, _)| !delivered.contains(id))
                .map(|(id, message)| {
                    Arc::new(Stored {
                        id: Some(id),
                        message: Arc::new(message),
                    })
                })
                .collect();
            // A page of nothing but acknowledged messages is not the end.
            if is_all || !waiting.is_empty() {
                return Ok(waiting);
            }
        }
    }

    /// Until when a message waits.
    pub fn expiry_of(&self, message: &Message) -> Millis {
        let kept_until = message.at.after(self.shared.config.retention);
        match message.properties.expires_at {
            Some(end) => end.min(kept_until),
            None => kept_until,
        }
    }

    /// The device has these: they are taken out, together with others. Never waits.
    pub fn delivered(&self, ids: impl IntoIterator<Item = Id>) {
        {
            let mut delivered = self.shared.delivered.lock();
            for id in ids {
                if delivered.len() < MAX_DELIVERED {
                    delivered.insert(id);
                }
            }
        }
        self.shared.has_delivered.notify_one();
    }

    /// Says how the sessions of devices are reached; the first call counts.
    pub(super) fn connect_links(&self, links: Arc<dyn MessageLinks>) {
        let _second = self.shared.links.set(links);
    }

    /// Offers a message that is not kept; says whether the device's session has it.
    pub(super) fn offer_once(&self, message: Arc<Message>) -> bool {
        self.shared.offer(Arc::new(Stored { id: None, message }))
    }

    /// Takes out all that waits for a device; gives how many messages that were.
    ///
    /// # Errors
    /// [`NotStored::Unavailable`].
    pub(super) async fn clear(&self, device: &DeviceId) -> Result<usize, NotStored> {
        let (cleared, done) = oneshot::channel();
        let device = device.clone();
        let order = Order::Clear { device, cleared };
        let sent = self.orders.send(order).await;
        sent.map_err(|_| NotStored::Unavailable)?;
        done.await.map_err(|_| NotStored::Unavailable)
    }

    /// Stores a message; when this returns, it is committed and was offered to the device's session.
    ///
    /// # Cancel safety
    /// A cancelled call may have stored it.
    pub(super) async fn put(&self, message: &Arc<Message>) -> Result<Placed, NotStored> {
        let place = self.shared.reserve(message).ok_or(NotStored::Full)?;
        let expires_at = self.expiry_of(message);
        let (stored, done) = oneshot::channel();
        let order = Order::Put {
            message: Arc::clone(message),
            expires_at,
            place,
            stored,
        };
        let sent = self.orders.send(order).await;
        sent.map_err(|_| NotStored::Unavailable)?;
        done.await.map_err(|_| NotStored::Unavailable)
    }
}

impl Shared {
    fn offer(&self, message: Arc<Stored>) -> bool {
        let device = message.message.device.device_id.clone();
        let links = self.links.get();
        links.is_some_and(|links| links.offer(&device, message))
    }

    /// A place for a message, unless its mailbox or all of them are full.
    fn reserve(self: &Arc<Self>, message: &Message) -> Option<Place> {
        let device = &message.device.device_id;
        let bytes = mail_bytes(message);
        let mut counts = self.counts.lock();
        let held = counts.devices.get(device).copied().unwrap_or(0);
        if held >= self.config.max_messages
            || counts.messages >= self.config.max_total_messages
            || counts.bytes.saturating_add(bytes) > self.config.max_total_bytes
        {
            return None;
        }
        counts.devices.insert(device.clone(), held + 1);
        counts.messages += 1;
        counts.bytes += bytes;
        drop(counts);
        self.depth.inc();
        Some(Place {
            shared: Arc::clone(self),
            device: device.clone(),
            bytes,
            is_taken: false,
        })
    }

    fn release(&self, device: &DeviceId, bytes: u64) {
        let mut counts = self.counts.lock();
        if let Entry::Occupied(mut held) = counts.devices.entry(device.clone()) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
        counts.messages = counts.messages.saturating_sub(1);
        counts.bytes = counts.bytes.saturating_sub(bytes);
        drop(counts);
        self.depth.dec();
    }

    fn release_all(&self, gone: &[MailGone]) {
        for one in gone {
            self.release(&one.device, one.bytes);
        }
    }
}

impl Place {
    /// The message is stored: its place is given back when it is taken out.
    fn keep(mut self) {
        self.is_taken = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_taken {
            self.shared.release(&self.device, self.bytes);
        }
    }
}

impl Writer {
    /// Stores what comes; after `stop` what was handed over before, and then no more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut orders = Vec::with_capacity(MAX_COMMIT);
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                biased;
                received = self.orders.recv_many(&mut orders, MAX_COMMIT) => {
                    self.carry_out(&mut orders).await;
                    if received == 0 {
                        return;
                    }
                }
                () = shared.has_delivered.notified() => self.carry_out(&mut orders).await,
                () = stop.cancelled(), if !self.orders.is_closed() => self.orders.close(),
                _ = sweep.tick() => self.expire().await,
            }
        }
    }

    async fn carry_out(&mut self, orders: &mut Vec<Order>) {
        let mut puts = Vec::with_capacity(orders.len());
        for order in orders.drain(..) {
            match order {
                Order::Put {
                    message,
                    expires_at,
                    place,
                    stored,
                } => {
                    let id = self.next_id();
                    puts.push((id, message, expires_at, place, stored));
                }
                Order::Clear { device, cleared } => {
                    // What was sent before it is to go with it.
                    self.store(&mut puts).await;
                    self.clear(&device, cleared).await;
                }
            }
        }
        self.store(&mut puts).await;
    }

    /// Stores messages and takes out acknowledged ones in one commit.
    async fn store(&self, puts: &mut Vec<Put>) {
        let gone: Vec<Id> = self.shared.delivered.lock().iter().copied().collect();
        if puts.is_empty() && gone.is_empty() {
            return;
        }
        let new: Vec<_> = puts
            .iter()
            .map(|(id, message, expires_at, ..)| (*id, &**message, *expires_at))
            .collect();
        let timer = self.seconds.start_timer();
        let result = self.shared.store.change_mail(&new, &gone).await;
        timer.observe_duration();
        match result {
            Ok(removed) => {
                {
                    let mut delivered = self.shared.delivered.lock();
                    for id in &gone {
                        delivered.remove(id);
                    }
                }
                self.shared.release_all(&removed);
                for (id, message, _, place, stored) in puts.drain(..) {
                    place.keep();
                    // Here, so that a session is offered messages in the order of their ids.
                    let offered = Stored {
                        id: Some(id),
                        message,
                    };
                    let is_online = self.shared.offer(Arc::new(offered));
                    // Whoever waited may be gone; the message stands all the same.
                    let _gone = stored.send(Placed { id, is_online });
                }
            }
            Err(error) => {
                tracing::error!(%error, messages = puts.len(), "messages to devices could not be stored");
                puts.clear();
            }
        }
    }

    async fn clear(&self, device: &DeviceId, cleared: oneshot::Sender<usize>) {
        match self.shared.store.clear_mail(device).await {
            Ok(gone) => {
                self.shared.release_all(&gone);
                let _gone = cleared.send(gone.len());
            }
            Err(error) => {
                tracing::error!(%error, device_id = %device, "a mailbox could not be emptied");
            }
        }
    }

    /// Takes out what has waited for too long, a bounded number in each statement.
    async fn expire(&self) {
        loop {
            match self.shared.store.expire_mail(Millis::now()).await {
                Ok(gone) if gone.is_empty() => return,
                Ok(gone) => {
                    self.shared.release_all(&gone);
                    let dropped = self.metrics.messages_dropped(DropReason::Expired);
                    dropped.inc_by(gone.len() as u64);
                }
                Err(error) => {
                    tracing::warn!(%error, "expired messages could not be taken out");
                    return;
                }
            }
            if !self.orders.is_empty() {
                // Who stores goes first; the rest is for the next sweep.
                return;
            }
        }
    }

    /// Greater than every id before, those of earlier runs that still wait included.
    fn next_id(&mut self) -> Id {
        let next = self.ids.next();
        let next = Id::from_i64(next.as_i64().max(self.last.saturating_add(1))).unwrap_or(next);
        self.last = next.as_i64();
        next
    }
}

type Put = (Id, Arc<Message>, Millis, Place, oneshot::Sender<Placed>);

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}
