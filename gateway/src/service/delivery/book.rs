//! Every open delivery of this node, by its id and by its device.
//!
//! It is filled from the registry at the start and by new tasks, and emptied as deliveries end.
//! Bounded by `delivery.max_open_deliveries`: a task that would not fit is refused.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use dashmap::{DashMap, Entry};
use headgate_protocol::identity::DeviceId;
use smallvec::SmallVec;
use tokio::sync::{Notify, futures::Notified};

use super::live::{LiveDelivery, LiveTask};
use crate::model::Id;

/// The open deliveries.
#[derive(Debug)]
pub(super) struct Book {
    by_id: DashMap<Id, Arc<LiveDelivery>>,
    /// In the order in which they were made: the first is the one to go next.
    by_device: DashMap<DeviceId, SmallVec<[Arc<LiveDelivery>; 1]>>,
    tasks: DashMap<Id, Arc<LiveTask>>,
    open: AtomicUsize,
    capacity: usize,
    /// Tasks stay while they are open, though nothing of them is here.
    keeps_tasks: bool,
    /// One has been struck out.
    struck: Notify,
}

impl Book {
    /// An empty book for at most `capacity` deliveries; with `keeps_tasks`, tasks are struck out by
    /// [`Book::forget_task`] alone.
    pub(super) fn new(capacity: usize, keeps_tasks: bool) -> Self {
        Self {
            by_id: DashMap::new(),
            by_device: DashMap::new(),
            tasks: DashMap::new(),
            open: AtomicUsize::new(0),
            capacity,
            keeps_tasks,
            struck: Notify::new(),
        }
    }

    /// Takes places for `count` deliveries to be inserted; `false` where they do not fit.
    pub(super) fn reserve(&self, count: usize) -> bool {
        self.open
            .try_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                open.checked_add(count)
                    .filter(|open| *open <= self.capacity)
            })
            .is_ok()
    }

    /// Takes places for deliveries that were accepted before, whatever the limit is now.
    pub(super) fn force_reserve(&self, count: usize) {
        self.open.fetch_add(count, Ordering::AcqRel);
    }

    /// Gives back places that were reserved and not used.
    pub(super) fn unreserve(&self, count: usize) {
        self.open.fetch_sub(count, Ordering::AcqRel);
    }

    /// Enters a delivery with a place of its own, unless it is in the book; says whether it did.
    pub(super) fn insert_absent(&self, delivery: &Arc<LiveDelivery>) -> bool {
        match self.by_id.entry(delivery.id) {
            Entry::Occupied(_) => return false,
            Entry::Vacant(entry) => entry.insert(Arc::clone(delivery)),
        };
        self.force_reserve(1);
        self.insert(Arc::clone(delivery));
        true
    }

    /// Enters deliveries for which places were reserved.
    pub(super) fn insert(&self, delivery: Arc<LiveDelivery>) {
        delivery.task.open.fetch_add(1, Ordering::AcqRel);
        self.tasks
            .entry(delivery.task.id)
            .or_insert_with(|| Arc::clone(&delivery.task));
        self.by_device
            .entry(delivery.device_id.clone())
            .or_default()
            .push(Arc::clone(&delivery));
        self.by_id.insert(delivery.id, delivery);
    }

    /// Strikes out a delivery that ended; says whether it was its task's last.
    pub(super) fn remove(&self, delivery: &LiveDelivery) -> bool {
        self.strike(delivery).unwrap_or(false)
    }

    /// Enters a task that is open, where none of its id is; gives the one that is in the book.
    pub(super) fn add_task(&self, task: Arc<LiveTask>) -> Arc<LiveTask> {
        let entry = self.tasks.entry(task.id).or_insert(task);
        Arc::clone(entry.value())
    }

    /// Strikes out a task of which nothing is here.
    pub(super) fn forget_task(&self, task: Id) {
        let is_empty = |task: &Arc<LiveTask>| task.open.load(Ordering::Acquire) == 0;
        self.tasks.remove_if(&task, |_, task| is_empty(task));
    }

    /// Strikes out a delivery; says whether it was its task's last one here, or `None`: it was not in the book.
    pub(super) fn strike(&self, delivery: &LiveDelivery) -> Option<bool> {
        self.by_id
            .remove_if(&delivery.id, |_, known| known.attempt == delivery.attempt)?;
        self.by_device
            .remove_if_mut(&delivery.device_id, |_, queue| {
                queue.retain(|known| known.id != delivery.id);
                queue.is_empty()
            });
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.struck.notify_waiters();
        let last = delivery.task.open.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && !self.keeps_tasks {
            self.tasks.remove_if(&delivery.task.id, |_, task| {
                task.open.load(Ordering::Acquire) == 0
            });
        }
        Some(last)
    }

    /// Waits until a delivery is struck out, whichever it is.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost, since what is waited for is looked up.
    pub(super) fn struck(&self) -> Notified<'_> {
        self.struck.notified()
    }

    /// Puts the next attempt of a delivery in the place of the one that has ended.
    pub(super) fn replace(&self, former: &LiveDelivery, next: &Arc<LiveDelivery>) {
        if let Some(mut queue) = self.by_device.get_mut(&former.device_id)
            && let Some(place) = queue.iter_mut().find(|known| known.id == former.id)
        {
            *place = Arc::clone(next);
        }
        self.by_id.insert(next.id, Arc::clone(next));
    }

    /// The open delivery of this id.
    pub(super) fn by_id(&self, id: Id) -> Option<Arc<LiveDelivery>> {
        self.by_id.get(&id).map(|entry| Arc::clone(entry.value()))
    }

    /// The open deliveries of a device, the next one first.
    pub(super) fn of_device(&self, device: &DeviceId) -> SmallVec<[Arc<LiveDelivery>; 1]> {
        self.by_device
            .get(device)
            .map(|entry| entry.value().clone())
            .unwrap_or_default()
    }

    /// Whether the device has an open delivery.
    pub(super) fn has_device(&self, device: &DeviceId) -> bool {
        self.by_device.contains_key(device)
    }

    /// The task of this id, if it has open deliveries.
    pub(super) fn task(&self, id: Id) -> Option<Arc<LiveTask>> {
        self.tasks.get(&id).map(|entry| Arc::clone(entry.value()))
    }

    /// The open deliveries of a task, in no order.
    pub(super) fn of_task(&self, task: Id) -> Vec<Arc<LiveDelivery>> {
        self.by_id
            .iter()
            .filter(|entry| entry.task.id == task)
            .map(|entry| Arc::clone(entry.value()))
            .collect()
    }

    /// Every open delivery, in no order.
    pub(super) fn all(&self) -> Vec<Arc<LiveDelivery>> {
        self.by_id
            .iter()
            .map(|entry| Arc::clone(entry.value()))
            .collect()
    }

    /// Every task that has open deliveries, in no order.
    pub(super) fn tasks(&self) -> Vec<Arc<LiveTask>> {
        self.tasks
            .iter()
            .map(|entry| Arc::clone(entry.value()))
            .collect()
    }

    /// How many are open, or reserved.
    pub(super) fn len(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}
