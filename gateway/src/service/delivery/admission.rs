//! Which deliveries may be in progress: so many on the node, so many of each task, one of a device,
//! and as each task's policy allows.
//!
//! A delivery asks for a place when its device is there. Where it may not have one it waits in its
//! task's queue. A place that becomes free goes to the task that has had the fewest bytes, so that a
//! task of ten thousand large files does not keep one of ten small ones waiting; within a task in the
//! order of asking, those first that had begun before their link was lost.
//! Invariants: a device has at most one place; a task that nothing can be given to now costs nothing
//! until something about it changes or the next tick comes.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
};

use headgate_protocol::identity::DeviceId;
use parking_lot::Mutex;

use super::{
    live::{LiveDelivery, LiveTask, Schedule},
    wait::WaitReason,
};
use crate::model::{DeliveryState, Id, Millis};

/// The places of deliveries in progress.
#[derive(Debug)]
pub(super) struct Admission {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_progress: HashMap<DeviceId, Arc<LiveDelivery>>,
    queues: HashMap<Id, Queue>,
    /// Tasks that may have a delivery to give a place to, by the bytes that they have had.
    turn: BTreeSet<(u64, Id)>,
    /// The bytes that the task served last had had: where a task that comes anew begins.
    floor: u64,
    tickets: u64,
}

/// What of one task waits for a place.
#[derive(Debug)]
struct Queue {
    task: Arc<LiveTask>,
    /// Those that had begun: their devices went away and are back.
    begun: VecDeque<Entry>,
    fresh: VecDeque<Entry>,
    /// Entries that have not been left.
    waiting: usize,
    /// Under which number of bytes it stands in the turn.
    turn: Option<u64>,
}

/// A delivery in a queue; it has left when its ticket is another.
#[derive(Debug)]
struct Entry {
    ticket: u64,
    delivery: Arc<LiveDelivery>,
}

impl Admission {
    /// Places for `capacity` deliveries.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::new(State::default()),
        }
    }

    /// Gives the delivery a place, or a place in the queue.
    ///
    /// # Errors
    /// Why it has to wait.
    pub(super) fn admit(
        &self,
        delivery: &Arc<LiveDelivery>,
        now: Millis,
    ) -> Result<(), WaitReason> {
        let mut state = self.state.lock();
        if delivery.is_admitted() {
            return Ok(());
        }
        // Neither waits in a queue: the end of the other delivery, or of the back-off, wakes the device.
        if state.in_progress.contains_key(&delivery.device_id) {
            return Err(WaitReason::DeviceBusy);
        }
        if delivery.backs_off(now) {
            return Err(WaitReason::Backoff);
        }
        let task = &delivery.task;
        let objection = {
            let mut schedule = task.schedule.lock();
            let objection = self.objection(&state, delivery, now, &schedule);
            objection.or_else(|| state.pace(delivery, now, &mut schedule))
        };
        match objection {
            None => {
                state.enter(delivery);
                Ok(())
            }
            Some(reason) => {
                state.wait(delivery);
                Err(reason)
            }
        }
    }

    /// Why the delivery, which has no place, could not be given one now; `None`: it could.
    pub(super) fn obstacle(&self, delivery: &LiveDelivery, now: Millis) -> Option<WaitReason> {
        let state = self.state.lock();
        if state.in_progress.contains_key(&delivery.device_id) {
            return Some(WaitReason::DeviceBusy);
        }
        if delivery.backs_off(now) {
            return Some(WaitReason::Backoff);
        }
        let schedule = delivery.task.schedule.lock();
        let paced = !delivery.has_begun() && delivery.task.is_paced();
        let first = delivery.attempt == 1;
        let waits = !delivery.has_begun() && delivery.task.needs_permit(first);
        self.objection(&state, delivery, now, &schedule)
            .or_else(|| paced.then_some(WaitReason::Paced))
            .or_else(|| waits.then_some(WaitReason::Canary))
    }

    /// Takes the delivery's place back, or takes it out of the queue.
    pub(super) fn release(&self, delivery: &LiveDelivery) {
        let mut state = self.state.lock();
        state.leave(delivery);
        state.leave_queue(delivery);
    }

    /// Gives a free place to the next delivery that waits; `None` where no place is free or none
    /// may have one. The caller tells the device, or releases the place if it is gone.
    pub(super) fn next(&self, now: Millis) -> Option<Arc<LiveDelivery>> {
        let mut state = self.state.lock();
        while state.in_progress.len() < self.capacity {
            let (served, id) = state.turn.pop_first()?;
            state.floor = served;
            if let Some(queue) = state.queues.get_mut(&id) {
                queue.turn = None;
            }
            let Some(delivery) = state.take_from(id, now) else {
                // It has its turn again when something changes: see `recall`.
                continue;
            };
            state.enter(&delivery);
            state.give_turn(id);
            return Some(delivery);
        }
        None
    }

    /// Has a task looked at again: its policy or its places may allow more than before.
    pub(super) fn recall(&self, task: Id) {
        self.state.lock().give_turn(task);
    }

    /// Has every task looked at again: time has passed.
    pub(super) fn recall_all(&self) {
        let mut state = self.state.lock();
        let tasks: Vec<Id> = state.queues.keys().copied().collect();
        for task in tasks {
            state.give_turn(task);
        }
    }

    /// How many deliveries of a task wait for a place, and how many of those have not begun.
    pub(super) fn waiting_of(&self, task: Id) -> (u32, u32) {
        let state = self.state.lock();
        let Some(queue) = state.queues.get(&task) else {
            return (0, 0);
        };
        let waiting = |line: &VecDeque<Entry>| {
            let count = line.iter().filter(|entry| entry.is_waiting()).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let fresh = waiting(&queue.fresh);
        (waiting(&queue.begun).saturating_add(fresh), fresh)
    }

    /// Deliveries of a task that have begun, and of whose first attempt nothing is recorded yet.
    pub(super) fn unrecorded_of(&self, task: Id) -> u32 {
        let state = self.state.lock();
        let count = state
            .in_progress
            .values()
            .filter(|delivery| delivery.task.id == task && delivery.attempt == 1)
            .filter(|delivery| delivery.state() == DeliveryState::Pending)
            .count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Those in progress, for the timers.
    pub(super) fn in_progress(&self) -> Vec<Arc<LiveDelivery>> {
        self.state.lock().in_progress.values().cloned().collect()
    }

    /// What stands against a place, the pace apart.
    fn objection(
        &self,
        state: &State,
        delivery: &LiveDelivery,
        now: Millis,
        schedule: &Schedule,
    ) -> Option<WaitReason> {
        let task = &delivery.task;
        let (begun, first) = (delivery.has_begun(), delivery.attempt == 1);
        let full = state.in_progress.len() >= self.capacity;
        task.objection(begun, first, now, schedule)
            .or_else(|| full.then_some(WaitReason::InProgressLimit))
    }
}

impl State {
    /// Whether the pace, or the order of asking, is against it.
    fn pace(
        &self,
        delivery: &LiveDelivery,
        now: Millis,
        schedule: &mut Schedule,
    ) -> Option<WaitReason> {
        let queue = self.queues.get(&delivery.task.id);
        let others_first = queue.is_some_and(|queue| queue.is_behind(delivery));
        if delivery.has_begun() {
            return others_first.then_some(WaitReason::InProgressLimit);
        }
        let task = &delivery.task;
        let first = delivery.attempt == 1;
        let paced = others_first || !task.take_pace(first, now, schedule);
        let limited = task.is_paced();
        paced.then_some(if limited {
            WaitReason::Paced
        } else if task.needs_permit(first) {
            WaitReason::Canary
        } else {
            WaitReason::InProgressLimit
        })
    }

    fn enter(&mut self, delivery: &Arc<LiveDelivery>) {
        let task = &delivery.task;
        if self
            .in_progress
            .insert(delivery.device_id.clone(), Arc::clone(delivery))
            .is_none()
        {
            task.in_progress.fetch_add(1, Ordering::AcqRel);
        }
        self.leave_queue(delivery);
        if delivery.begin() {
            let mut schedule = task.schedule.lock();
            if delivery.attempt == 1 {
                schedule.begun = schedule.begun.saturating_add(1);
            }
            schedule.served_bytes = schedule
                .served_bytes
                .max(self.floor)
                .saturating_add(delivery.content.size.max(MIN_COST_BYTES));
        }
        delivery.admitted.store(true, Ordering::Release);
    }

    fn leave(&mut self, delivery: &LiveDelivery) {
        if !delivery.admitted.swap(false, Ordering::AcqRel) {
            return;
        }
        let held = self.in_progress.get(&delivery.device_id);
        if held.is_some_and(|held| held.id == delivery.id) {
            self.in_progress.remove(&delivery.device_id);
            delivery.task.in_progress.fetch_sub(1, Ordering::AcqRel);
            self.give_turn(delivery.task.id);
        }
    }

    /// Puts it at the end of its task's queue, unless it stands there.
    fn wait(&mut self, delivery: &Arc<LiveDelivery>) {
        if delivery.ticket.load(Ordering::Acquire) != 0 {
            return;
        }
        self.tickets += 1;
        let ticket = self.tickets;
        delivery.ticket.store(ticket, Ordering::Release);
        let task = &delivery.task;
        let queue = self.queues.entry(task.id).or_insert_with(|| Queue {
            task: Arc::clone(task),
            begun: VecDeque::new(),
            fresh: VecDeque::new(),
            waiting: 0,
            turn: None,
        });
        queue.waiting += 1;
        let line = if delivery.has_begun() {
            &mut queue.begun
        } else {
            &mut queue.fresh
        };
        line.push_back(Entry {
            ticket,
            delivery: Arc::clone(delivery),
        });
        self.give_turn(delivery.task.id);
    }

    fn leave_queue(&mut self, delivery: &LiveDelivery) {
        if delivery.ticket.swap(0, Ordering::AcqRel) == 0 {
            return;
        }
        let id = delivery.task.id;
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        queue.waiting -= 1;
        if queue.waiting == 0 {
            if let Some(turn) = queue.turn {
                self.turn.remove(&(turn, id));
            }
            self.queues.remove(&id);
        } else {
            queue.compact();
        }
    }

    /// The next delivery of a task that may have a place, out of its queue.
    fn take_from(&mut self, task: Id, now: Millis) -> Option<Arc<LiveDelivery>> {
        let queue = self.queues.get_mut(&task)?;
        let task = Arc::clone(&queue.task);
        let mut schedule = task.schedule.lock();
        for begun in [true, false] {
            loop {
                let queue = self.queues.get_mut(&task.id)?;
                let line = if begun {
                    &mut queue.begun
                } else {
                    &mut queue.fresh
                };
                let Some(entry) = line.front() else { break };
                let delivery = Arc::clone(&entry.delivery);
                if !entry.is_waiting() {
                    line.pop_front();
                    continue;
                }
                let busy = self.in_progress.contains_key(&delivery.device_id);
                if busy || delivery.backs_off(now) {
                    // Whatever it waits for wakes its device, which asks again.
                    line.pop_front();
                    self.leave_queue(&delivery);
                    continue;
                }
                let first = delivery.attempt == 1;
                if task.objection(begun, first, now, &schedule).is_some()
                    || (!begun && !task.take_pace(first, now, &mut schedule))
                {
                    break;
                }
                line.pop_front();
                return Some(delivery);
            }
        }
        None
    }

    /// Puts a task among those that may have something to give a place to.
    fn give_turn(&mut self, task: Id) {
        let Some(queue) = self.queues.get_mut(&task) else {
            return;
        };
        if let Some(former) = queue.turn {
            self.turn.remove(&(former, task));
        }
        let mut schedule = queue.task.schedule.lock();
        // What it did not ask for while it had nothing to send is not made up for.
        schedule.served_bytes = schedule.served_bytes.max(self.floor);
        queue.turn = Some(schedule.served_bytes);
        self.turn.insert((schedule.served_bytes, task));
    }
}

impl Queue {
    /// Whether others of its kind wait before it.
    fn is_behind(&self, delivery: &LiveDelivery) -> bool {
        let line = if delivery.has_begun() {
            &self.begun
        } else {
            &self.fresh
        };
        let first = line.iter().find(|entry| entry.is_waiting());
        first.is_some_and(|entry| entry.delivery.id != delivery.id)
    }

    /// Forgets those that left, once they are more than those that wait.
    fn compact(&mut self) {
        if self.begun.len() + self.fresh.len() > 2 * self.waiting + COMPACT_FROM {
            self.begun.retain(Entry::is_waiting);
            self.fresh.retain(Entry::is_waiting);
        }
    }
}

impl Entry {
    fn is_waiting(&self) -> bool {
        self.delivery.ticket.load(Ordering::Acquire) == self.ticket
    }
}

/// What a delivery counts at least, in bytes: a tiny one costs a place and messages, too.
const MIN_COST_BYTES: u64 = 16 * 1024;
/// Entries below which a queue is not worth tidying.
const COMPACT_FROM: usize = 64;

#[cfg(test)]
mod tests;
