//! Messages that wait for devices: what is counted of them, and where they are found.
//!
//! What is counted, and so whether a mailbox is full, is known in memory; what waits is read only when its device asks.
//! They are stored by the [`super::writer`], which gives ids in the order of storing: a session that has read up to an
//! id has seen everything before it.
//! Invariants: a message is counted from before it is stored until after it is gone, so the limits are never passed; an
//! id is never given twice.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use headgate_protocol::identity::DeviceId;
use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{MessageLinks, writer::Order};
use crate::{
    config::MailboxConfig,
    model::{Id, Message, Millis},
    store::{
        StoreError,
        sessions::{MailGone, SessionStore, mail_bytes},
    },
    telemetry::metrics::Metrics,
};

/// Acknowledged messages that may wait to be taken out; beyond them one stays, and is sent again.
const MAX_DELIVERED: usize = 65_536;

/// A message on its way to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Under which id it waits, to be given to [`Mailbox::delivered`]; `None`: it is not kept.
    pub id: Option<Id>,
    /// The message.
    pub message: Arc<Message>,
}

/// The mailboxes of all devices; a clone is another handle on them.
#[derive(Clone)]
pub struct Mailbox {
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
}

struct Shared {
    store: SessionStore,
    /// Whether other nodes store too: what waits is counted by the store, and `counts` has the devices of this node for
    /// which something waits.
    is_shared: bool,
    config: MailboxConfig,
    counts: Mutex<Counts>,
    delivered: Mutex<HashSet<Id>>,
    /// Messages that devices were handed and that are not stored yet.
    held: AtomicUsize,
    /// Wakes the writer.
    has_work: Arc<Notify>,
    depth: IntGauge,
    links: OnceLock<Arc<dyn MessageLinks>>,
}

#[derive(Default)]
struct Counts {
    devices: HashMap<DeviceId, usize>,
    messages: usize,
    bytes: u64,
}

/// A place in a mailbox, given back when it is dropped before it was taken.
pub(super) struct Place {
    shared: Arc<Shared>,
    device: DeviceId,
    bytes: u64,
    is_taken: bool,
}

/// The mailboxes as they were left.
pub(super) async fn open(
    store: SessionStore,
    config: MailboxConfig,
    orders: mpsc::Sender<Order>,
    has_work: Arc<Notify>,
    metrics: &Metrics,
) -> Result<Mailbox, StoreError> {
    let mut counts = Counts::default();
    let is_shared = store.is_remote();
    let all = if is_shared {
        Vec::new()
    } else {
        store.mail_counts().await?
    };
    for waiting in all {
        counts.messages += waiting.messages;
        counts.bytes += waiting.bytes;
        counts.devices.insert(waiting.device, waiting.messages);
    }
    let depth = metrics.mailbox_messages.clone();
    depth.set(i64::try_from(counts.messages).unwrap_or(i64::MAX));
    let shared = Arc::new(Shared {
        store,
        is_shared,
        config,
        counts: Mutex::new(counts),
        delivered: Mutex::default(),
        held: AtomicUsize::new(0),
        has_work,
        depth,
        links: OnceLock::new(),
    });
    Ok(Mailbox { orders, shared })
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

    /// Something waits for a device that is here, or comes; says whether it is here.
    pub fn waits(&self, device: &DeviceId) -> bool {
        self.note(device);
        let links = self.shared.links.get();
        links.is_some_and(|links| links.mail_waits(device))
    }

    /// Something waits for a device that comes.
    pub fn note(&self, device: &DeviceId) {
        let mut counts = self.shared.counts.lock();
        counts.devices.entry(device.clone()).or_insert(1);
    }

    /// A device is not here any more.
    pub(super) fn left(&self, device: &DeviceId) {
        self.shared.counts.lock().devices.remove(device);
    }

    /// Whether other nodes store too.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_shared
    }

    /// How much may wait over all nodes.
    pub(super) fn limits(&self) -> &MailboxConfig {
        &self.shared.config
    }

    /// What waits over all nodes.
    pub(super) fn show_depth(&self, messages: i64) {
        self.shared.depth.set(messages);
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
        self.settle(device).await;
        let mut after = after;
        loop {
            // What is taken out while the store is asked may be found there, and has left the list when it has answered.
            let known = self.shared.delivered.lock().clone();
            let found = self
                .shared
                .store
                .mail(device, after, limit, Millis::now())
                .await?;
            let is_all = found.len() < limit;
            if self.shared.is_shared && found.is_empty() && after.is_none() {
                self.left(device);
            }
            after = found.last().map(|(id, _)| *id);
            let delivered = self.shared.delivered.lock();
            let waiting: Vec<_> = found
                .into_iter()
                .filter(|(id, _)| !known.contains(id) && !delivered.contains(id))
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

    /// Has what an earlier connection of the device was handed stored, and so found in its place.
    async fn settle(&self, device: &DeviceId) {
        if self.shared.held.load(Ordering::Acquire) == 0 {
            return;
        }
        let (settled, done) = oneshot::channel();
        let device = device.clone();
        if self
            .orders
            .send(Order::Settle { device, settled })
            .await
            .is_ok()
        {
            // A writer that ends stores what it holds.
            let _ended = done.await;
        }
    }

    /// How many messages devices were handed and are not stored yet.
    pub(super) fn set_held(&self, held: usize) {
        self.shared.held.store(held, Ordering::Release);
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
        self.shared.has_work.notify_one();
    }

    /// Says how the sessions of devices are reached; the first call counts.
    pub(super) fn connect_links(&self, links: Arc<dyn MessageLinks>) {
        let _second = self.shared.links.set(links);
    }

    /// Offers a message that is not kept; says whether the device's session has it.
    pub(super) fn offer_once(&self, message: Arc<Message>) -> bool {
        self.shared.offer(Arc::new(Stored { id: None, message }))
    }

    /// A place for a message, unless its mailbox or all of them are full.
    pub(super) fn reserve(&self, message: &Message) -> Option<Place> {
        self.shared.reserve(message)
    }

    /// Offers a stored message to its device's session; says whether that has it.
    pub(super) fn offer_stored(&self, id: Id, message: Arc<Message>) -> bool {
        if self.shared.is_shared {
            // What another node stored before it may be on its way.
            let device = &message.device.device_id;
            let links = self.shared.links.get();
            let is_here = links.is_some_and(|links| links.is_here(device));
            return is_here && self.waits(device);
        }
        let id = Some(id);
        self.shared.offer(Arc::new(Stored { id, message }))
    }

    /// Messages that devices have and that are to be taken out.
    pub(super) fn take_delivered(&self) -> Vec<Id> {
        self.shared.delivered.lock().iter().copied().collect()
    }

    /// They were taken out: these places are free.
    pub(super) fn release(&self, asked: &[Id], gone: &[MailGone]) {
        {
            let mut delivered = self.shared.delivered.lock();
            for id in asked {
                delivered.remove(id);
            }
        }
        for one in gone {
            self.shared.release(&one.device, one.bytes);
        }
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
        if self.is_shared {
            return Some(Place {
                shared: Arc::clone(self),
                device: device.clone(),
                bytes,
                is_taken: true,
            });
        }
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
        if self.is_shared {
            return;
        }
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
}

impl Place {
    /// The message is stored: its place is given back when it is taken out.
    pub(super) fn keep(mut self) {
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

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}
