//! Which deliveries may be in progress: so many on the node, so many of each task.
//!
//! A delivery asks for a place when its device is there. Where none is free it waits in its task's
//! queue; a place that becomes free goes to the tasks in turn, so that a task of ten thousand does
//! not keep one of ten waiting.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;

use super::live::LiveDelivery;
use crate::model::Id;

/// The places of deliveries in progress.
#[derive(Debug)]
pub(super) struct Admission {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_progress: HashMap<Id, Arc<LiveDelivery>>,
    /// Tasks with waiting deliveries, the next to be served first.
    turn: VecDeque<Id>,
    waiting: HashMap<Id, VecDeque<Arc<LiveDelivery>>>,
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
    pub(super) fn admit(&self, delivery: &Arc<LiveDelivery>) -> bool {
        let mut state = self.state.lock();
        if delivery.is_admitted() {
            return true;
        }
        if state.in_progress.len() < self.capacity
            && has_room(delivery)
            && !delivery.task.is_paused()
        {
            state.enter(delivery);
            return true;
        }
        if !delivery.queued.swap(true, Ordering::AcqRel) {
            let task = delivery.task.id;
            let queue = state.waiting.entry(task).or_default();
            queue.push_back(Arc::clone(delivery));
            if queue.len() == 1 {
                state.turn.push_back(task);
            }
        }
        false
    }

    /// Takes the delivery's place back, or takes it out of the queue.
    pub(super) fn release(&self, delivery: &LiveDelivery) {
        let mut state = self.state.lock();
        state.leave(delivery);
        if delivery.queued.swap(false, Ordering::AcqRel)
            && let Some(queue) = state.waiting.get_mut(&delivery.task.id)
        {
            queue.retain(|waiting| waiting.id != delivery.id);
            if queue.is_empty() {
                state.waiting.remove(&delivery.task.id);
                state.turn.retain(|task| *task != delivery.task.id);
            }
        }
    }

    /// Gives a free place to the next delivery that waits; `None` where no place is free or none
    /// waits. The caller tells the device, or releases the place if it is gone.
    pub(super) fn next(&self) -> Option<Arc<LiveDelivery>> {
        let mut state = self.state.lock();
        if state.in_progress.len() >= self.capacity {
            return None;
        }
        for _ in 0..state.turn.len() {
            let task = state.turn.pop_front()?;
            let Some(queue) = state.waiting.get_mut(&task) else {
                continue;
            };
            let ready = queue
                .front()
                .is_some_and(|first| has_room(first) && !first.task.is_paused());
            let taken = if ready { queue.pop_front() } else { None };
            if queue.is_empty() {
                state.waiting.remove(&task);
            } else {
                state.turn.push_back(task);
            }
            if let Some(delivery) = taken {
                delivery.queued.store(false, Ordering::Release);
                state.enter(&delivery);
                return Some(delivery);
            }
        }
        None
    }

    /// Those in progress, for the timers.
    pub(super) fn in_progress(&self) -> Vec<Arc<LiveDelivery>> {
        self.state.lock().in_progress.values().cloned().collect()
    }
}

impl State {
    fn enter(&mut self, delivery: &Arc<LiveDelivery>) {
        if self
            .in_progress
            .insert(delivery.id, Arc::clone(delivery))
            .is_none()
        {
            delivery.task.in_progress.fetch_add(1, Ordering::AcqRel);
        }
        delivery.admitted.store(true, Ordering::Release);
    }

    fn leave(&mut self, delivery: &LiveDelivery) {
        if delivery.admitted.swap(false, Ordering::AcqRel)
            && self.in_progress.remove(&delivery.id).is_some()
        {
            delivery.task.in_progress.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn has_room(delivery: &LiveDelivery) -> bool {
    delivery.task.in_progress.load(Ordering::Acquire) < delivery.task.max_in_progress
}

#[cfg(test)]
mod tests;
