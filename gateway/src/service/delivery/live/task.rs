//! A task while it has open deliveries: its policy, its counts, and what the policy allows now.
//!
//! Counts follow the working copies of its deliveries, so that a ramp, a canary and an abort
//! threshold cost no query. What the schedule holds is changed under the admission's lock only.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};

use super::terms::Terms;
use crate::{
    config::DeliveryConfig,
    model::{DeliveryState, Id, Millis, RunState, StateCounts, Task},
    service::delivery::{events::Feed, wait::WaitReason},
};

/// A task that has open deliveries.
#[derive(Debug)]
pub struct LiveTask {
    /// Its id.
    pub id: Id,
    /// How it runs; changed by operators.
    terms: RwLock<Arc<Terms>>,
    /// Deliveries that are not final.
    pub open: AtomicU32,
    /// Deliveries in all.
    total: u32,
    run: AtomicU8,
    promoted: AtomicBool,
    counts: [AtomicU32; DeliveryState::ALL.len()],
    canceled: AtomicU32,
    /// What had failed and what had been delivered when an operator last tried again: those count no more
    /// against the threshold.
    settled: [AtomicU32; 2],
    /// Deliveries of it in progress; changed under the admission's lock.
    pub(in crate::service::delivery) in_progress: AtomicU32,
    /// Changed under the admission's lock.
    pub(in crate::service::delivery) schedule: Mutex<Schedule>,
    /// Where other nodes have deliveries of it, too: how many may be in progress here.
    places: Option<AtomicU32>,
    /// What is told to those who watch it.
    pub(in crate::service::delivery) feed: Feed,
}

/// What of a policy depends on what has begun.
#[derive(Debug, Default)]
pub(in crate::service::delivery) struct Schedule {
    /// Deliveries that have begun in any attempt.
    pub(in crate::service::delivery) begun: u32,
    /// Bytes of what has begun, as the turns of tasks count them.
    pub(in crate::service::delivery) served_bytes: u64,
    /// Devices that may begin now; below 1: none.
    tokens: f64,
    counted_at: Option<Millis>,
    /// Where other nodes have deliveries of the task, too: devices that may begin here.
    permits: u32,
}

/// What is known of a task's deliveries when it is loaded.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::service::delivery) struct Standing {
    /// By state.
    pub(in crate::service::delivery) counts: StateCounts,
    /// Of those that failed: cancelled by an operator.
    pub(in crate::service::delivery) canceled: u32,
    /// What had failed and what had been delivered when an operator last tried again.
    pub(in crate::service::delivery) settled: [u32; 2],
    /// Those that no attempt has begun for.
    pub(in crate::service::delivery) fresh: u32,
}

impl LiveTask {
    /// The working copy of a stored task.
    pub(in crate::service::delivery) fn new(
        task: &Task,
        standing: &Standing,
        config: &DeliveryConfig,
        is_shared: bool,
    ) -> Self {
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            id: task.id,
            terms: RwLock::new(Arc::new(Terms::new(task.policy.clone(), config))),
            open: AtomicU32::new(0),
            total: task.total,
            run: AtomicU8::new(number(task.run)),
            promoted: AtomicBool::new(task.promoted_at.is_some()),
            counts: std::array::from_fn(|index| {
                let state = DeliveryState::ALL[index];
                AtomicU32::new(small(standing.counts.of(state)))
            }),
            canceled: AtomicU32::new(standing.canceled),
            settled: standing.settled.map(AtomicU32::new),
            in_progress: AtomicU32::new(0),
            schedule: Mutex::new(Schedule {
                begun: task.total.saturating_sub(standing.fresh),
                ..Schedule::default()
            }),
            feed: Feed::default(),
            // Until its share is settled, none of what is bounded may begin here.
            places: is_shared.then(AtomicU32::default),
        }
    }

    /// Deliveries in all.
    pub(in crate::service::delivery) fn total(&self) -> u32 {
        self.total
    }

    /// Deliveries of it in progress on this node.
    pub(in crate::service::delivery) fn in_progress(&self) -> u32 {
        self.in_progress.load(Ordering::Acquire)
    }

    /// Whether its policy bounds something over all nodes.
    pub(in crate::service::delivery) fn is_bounded(&self) -> bool {
        let terms = self.terms.read();
        let policy = &terms.policy;
        policy.max_in_progress.is_some()
            || policy.pace.is_some()
            || policy.bytes_per_sec.is_some()
            || policy.canary.is_some() && !self.promoted.load(Ordering::Acquire)
    }

    /// Whether it matters how many of it were delivered or failed: its canary waits for that, or its end.
    pub(in crate::service::delivery) fn counts_matter(&self) -> bool {
        let terms = self.terms.read();
        terms.policy.abort.is_some()
            || terms.policy.canary.is_some() && !self.promoted.load(Ordering::Acquire)
    }

    /// Whether something of what nodes share was given to this one.
    pub(in crate::service::delivery) fn has_share(&self) -> bool {
        let places = self
            .places
            .as_ref()
            .map_or(0, |places| places.load(Ordering::Acquire));
        places > 0 && places < u32::MAX || self.permits() > 0
    }

    /// Devices that may begin here.
    pub(in crate::service::delivery) fn permits(&self) -> u32 {
        self.schedule.lock().permits
    }

    /// Takes this node's share: places, permits where there were `unused` when they were asked for, bytes a second.
    pub(in crate::service::delivery) fn set_share(
        &self,
        places: u32,
        (unused, permits): (u32, u32),
        bytes_per_sec: u64,
    ) {
        if let Some(of_node) = &self.places {
            of_node.store(places, Ordering::Release);
        }
        let mut schedule = self.schedule.lock();
        // What has begun meanwhile took one of them.
        schedule.permits = schedule
            .permits
            .saturating_add(permits)
            .saturating_sub(unused);
        drop(schedule);
        if let Some(rate) = &self.terms.read().rate {
            rate.set(bytes_per_sec, Instant::now());
        }
    }

    /// Takes the counts of all its deliveries, wherever they are.
    pub(in crate::service::delivery) fn set_counts(
        &self,
        counts: &StateCounts,
        canceled: u32,
        settled: [u32; 2],
    ) {
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        for (state, count) in DeliveryState::ALL.iter().zip(&self.counts) {
            count.store(small(counts.of(*state)), Ordering::Relaxed);
        }
        self.canceled.store(canceled, Ordering::Relaxed);
        for (known, settled) in self.settled.iter().zip(settled) {
            known.store(settled, Ordering::Relaxed);
        }
    }

    /// How it runs now.
    pub(in crate::service::delivery) fn terms(&self) -> Arc<Terms> {
        Arc::clone(&self.terms.read())
    }

    /// Lets it run otherwise from now on.
    pub(in crate::service::delivery) fn set_terms(&self, terms: Terms) {
        let mut now = self.terms.write();
        *now = Arc::new(terms.in_place_of(&now));
    }

    /// Whether it has a limit of bytes a second of its own.
    pub(in crate::service::delivery) fn limits_rate(&self) -> bool {
        self.terms.read().rate.is_some()
    }

    /// Whether its start lies ahead.
    pub(in crate::service::delivery) fn starts_after(&self, now: Millis) -> bool {
        let start = self.terms.read().policy.start_at;
        start.is_some_and(|start| now < start)
    }

    /// Whether a delivery of it has begun.
    pub(in crate::service::delivery) fn has_begun(&self) -> bool {
        self.schedule.lock().begun > 0
    }

    /// Whether it goes at a pace.
    pub(in crate::service::delivery) fn is_paced(&self) -> bool {
        self.terms.read().policy.pace.is_some()
    }

    /// How far its running is.
    pub fn run(&self) -> RunState {
        let number = usize::from(self.run.load(Ordering::Acquire));
        RunState::ALL
            .get(number)
            .copied()
            .unwrap_or(RunState::Running)
    }

    /// Whether nothing of it may be sent: an operator holds it, or it is over.
    pub fn is_held(&self) -> bool {
        !matches!(self.run(), RunState::Running | RunState::Scheduled)
    }

    pub(in crate::service::delivery) fn set_run(&self, run: RunState) {
        self.run.store(number(run), Ordering::Release);
    }

    /// Whether it goes to all devices by now.
    pub(in crate::service::delivery) fn is_promoted(&self) -> bool {
        self.terms.read().policy.canary.is_none() || self.promoted.load(Ordering::Acquire)
    }

    pub(in crate::service::delivery) fn set_promoted(&self) {
        self.promoted.store(true, Ordering::Release);
    }

    /// How many of its deliveries are in each state.
    pub(in crate::service::delivery) fn counts(&self) -> StateCounts {
        let mut counts = StateCounts::default();
        for (state, count) in DeliveryState::ALL.iter().zip(&self.counts) {
            *counts.of_mut(*state) = u64::from(count.load(Ordering::Relaxed));
        }
        counts
    }

    /// Moves one delivery from a state to another.
    pub(in crate::service::delivery) fn count_step(&self, from: DeliveryState, to: DeliveryState) {
        self.counts[index(from)].fetch_sub(1, Ordering::Relaxed);
        self.counts[index(to)].fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note that deliveries which had failed, some of them by an operator's word, are tried again.
    pub(in crate::service::delivery) fn count_again(&self, deliveries: usize, canceled: usize) {
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.counts[index(DeliveryState::Failed)].fetch_sub(small(deliveries), Ordering::Relaxed);
        self.counts[index(DeliveryState::Pending)].fetch_add(small(deliveries), Ordering::Relaxed);
        // What was cancelled before this process began may not have been counted.
        self.canceled
            .update(Ordering::Relaxed, Ordering::Relaxed, |known| {
                known.saturating_sub(small(canceled))
            });
    }

    pub(in crate::service::delivery) fn count_canceled(&self) {
        self.canceled.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether its canary has done well enough to go on by itself.
    pub(in crate::service::delivery) fn deserves_promotion(&self) -> bool {
        let canary = self.terms.read().policy.canary;
        let needed = canary.and_then(|canary| canary.needed(self.total));
        !self.is_promoted()
            && needed.is_some_and(|needed| self.count_of(DeliveryState::Delivered) >= needed)
    }

    /// Whether so much of it has failed that the rest is to be given up.
    pub(in crate::service::delivery) fn is_beyond_saving(&self) -> bool {
        let Some(abort) = self.terms.read().policy.abort else {
            return false;
        };
        let [failed, delivered] = self.ended();
        let failed = failed.saturating_sub(self.settled[0].load(Ordering::Relaxed));
        let delivered = delivered.saturating_sub(self.settled[1].load(Ordering::Relaxed));
        !self.run().is_final() && abort.is_reached(failed, failed.saturating_add(delivered))
    }

    /// Counts the threshold from here: an operator has looked at what failed, and tries it again. Gives what had
    /// failed and what had been delivered, to be stored.
    pub(in crate::service::delivery) fn settle(&self) -> [u32; 2] {
        let ended = self.ended();
        for (settled, ended) in self.settled.iter().zip(ended) {
            settled.store(ended, Ordering::Relaxed);
        }
        ended
    }

    /// How many have failed, by no operator's word, and how many were delivered.
    fn ended(&self) -> [u32; 2] {
        let canceled = self.canceled.load(Ordering::Relaxed);
        let failed = self
            .count_of(DeliveryState::Failed)
            .saturating_sub(canceled);
        [failed, self.count_of(DeliveryState::Delivered)]
    }

    /// Whether there is another attempt after so many of a round.
    pub(in crate::service::delivery) fn allows_after(&self, attempts: u32) -> bool {
        self.terms.read().allows_after(attempts)
    }

    /// How long the attempt after so many failures of a round waits.
    pub(in crate::service::delivery) fn backoff(&self, failed: u32, delivery: Id) -> Duration {
        self.terms.read().backoff(failed, delivery)
    }

    /// What the policy has against giving a place now to a delivery that has `begun` in this attempt or not, and
    /// that is in its `first` attempt or in a later one. The pace is not asked here: see [`Schedule`].
    pub(in crate::service::delivery) fn objection(
        &self,
        begun: bool,
        first: bool,
        now: Millis,
        schedule: &Schedule,
    ) -> Option<WaitReason> {
        if self.is_held() {
            return Some(WaitReason::Paused);
        }
        let terms = self.terms.read();
        let places = match &self.places {
            Some(places) if terms.policy.max_in_progress.is_some() => {
                places.load(Ordering::Acquire)
            }
            _ => terms.max_in_progress,
        };
        if self.in_progress.load(Ordering::Acquire) >= places {
            return Some(WaitReason::InProgressLimit);
        }
        if begun {
            return None;
        }
        let policy = &terms.policy;
        if policy.start_at.is_some_and(|start| now < start) {
            return Some(WaitReason::Scheduled);
        }
        if policy.window.is_some_and(|window| !window.is_open(now)) {
            return Some(WaitReason::NotInWindow);
        }
        let waits = first && !self.promoted.load(Ordering::Acquire);
        // Where nodes share it, permits say which devices go first.
        let canary = policy.canary.filter(|_| waits && self.places.is_none());
        if canary.is_some_and(|canary| schedule.begun >= canary.size(self.total)) {
            return Some(WaitReason::Canary);
        }
        None
    }

    /// Whether a device may begin, in its `first` attempt or in a later one, only where this node was given a permit.
    pub(in crate::service::delivery) fn needs_permit(&self, first: bool) -> bool {
        let waits = first && !self.is_promoted();
        self.places.is_some() && (self.is_paced() || waits)
    }

    /// Whether another device may begin by the pace; takes its place in it if so.
    pub(in crate::service::delivery) fn take_pace(
        &self,
        first: bool,
        now: Millis,
        schedule: &mut Schedule,
    ) -> bool {
        if self.places.is_some() {
            if !self.needs_permit(first) {
                return true;
            }
            let left = schedule.permits.checked_sub(1);
            schedule.permits = left.unwrap_or(0);
            return left.is_some();
        }
        let Some(pace) = self.terms.read().policy.pace else {
            return true;
        };
        let per_minute = pace.per_minute_after(self.count_of(DeliveryState::Delivered));
        schedule.refill(now, per_minute);
        if schedule.tokens < 1.0 {
            return false;
        }
        schedule.tokens -= 1.0;
        true
    }

    fn count_of(&self, state: DeliveryState) -> u32 {
        self.counts[index(state)].load(Ordering::Relaxed)
    }
}

impl Schedule {
    /// Adds what the time has brought; what is not used is kept for [`SPREAD_SECS`] at most.
    fn refill(&mut self, now: Millis, per_minute: f64) {
        let per_sec = per_minute / 60.0;
        let most = (per_sec * SPREAD_SECS).max(1.0);
        self.tokens = match self.counted_at {
            // The first device need not wait.
            None => 1.0,
            Some(before) => self.tokens + now.since(before).as_secs_f64() * per_sec,
        };
        self.tokens = self.tokens.min(most);
        self.counted_at = Some(now);
    }
}

/// The pace is held over so many seconds: what a tick of a second can let begin, and one that was late.
const SPREAD_SECS: f64 = 2.0;

const fn index(state: DeliveryState) -> usize {
    match state {
        DeliveryState::Pending => 0,
        DeliveryState::Pushed => 1,
        DeliveryState::Delivering => 2,
        DeliveryState::Delivered => 3,
        DeliveryState::Failed => 4,
    }
}

fn number(run: RunState) -> u8 {
    let index = RunState::ALL.iter().position(|known| *known == run);
    u8::try_from(index.unwrap_or(1)).unwrap_or(1)
}
