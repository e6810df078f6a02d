//! One delivery while it is open: how far it is, and what may happen to it next.
//!
//! The registry is the record; this is the working copy that every session, request and timer
//! consults. Each transition is decided here under one lock, so that of a cancel and a `done` that
//! come together exactly one wins.
//!
//! Invariants: the state never goes back within an attempt; a final state is never left.

mod progress;
mod task;
mod terms;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use headgate_protocol::{
    identity::{DeviceId, NodeId, ProductId},
    transfer::{ranges::Ranges, window::Chunk},
};
use parking_lot::Mutex;

use self::progress::{Progress, Renewal};
pub use self::task::LiveTask;
pub(super) use self::{
    progress::{Stall, Step},
    task::{Schedule, Standing},
    terms::Terms,
};
use super::{alarms::Alarm, content::Content};
use crate::model::{Delivery, DeliveryState, Id, Millis};

/// One attempt to deliver one resource to one device, while it is open.
#[derive(Debug)]
pub struct LiveDelivery {
    /// The delivery.
    pub id: Id,
    /// Its id as the device sees it.
    pub transfer: Box<str>,
    /// To which device.
    pub device_id: DeviceId,
    /// The device within its product.
    pub node_id: NodeId,
    /// Its product.
    pub product_id: ProductId,
    /// Which attempt, counted from 1.
    pub attempt: u32,
    /// The attempt that an operator last asked for, or the first one.
    pub(super) round: u32,
    /// Before this the attempt does not begin.
    backoff_until: Option<Millis>,
    /// What is delivered.
    pub content: Arc<Content>,
    /// The task that it is part of.
    pub task: Arc<LiveTask>,
    /// Whether every acknowledged byte is enough, without the device's word.
    pub confirm_by_acknowledgement: bool,
    /// Whether the device's word is enough, whatever was sent.
    pub trust_done: bool,
    /// The claim of the device's session; 0 where one gateway has all devices.
    epoch: AtomicI64,
    /// Whether it holds a place among those in progress; changed under the admission's lock.
    pub(super) admitted: AtomicBool,
    /// Its ticket in its task's queue; 0: it has none. Changed under the admission's lock.
    pub(super) ticket: AtomicU64,
    /// Whether this attempt has had a place.
    begun: AtomicBool,
    /// Whether the device may know of this attempt.
    offered: AtomicBool,
    /// What of ours keeps the next bytes back: a [`Hold`].
    hold: AtomicU8,
    /// Whether the session store has a cursor of it.
    cursor_stored: AtomicBool,
    pub(super) alarm: Alarm,
    /// Bytes that the device has, for readers that take no lock.
    acknowledged_bytes: AtomicU64,
    progress: Mutex<Progress>,
}

/// What of ours keeps bytes back that the device has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing.
    None,
    /// The task, or the node, has sent as much as it may in this time.
    BytesRate,
    /// The memory for what sockets have not taken is used up.
    NodeBudget,
}

impl LiveDelivery {
    /// The working copy of a stored delivery; `have` is what its cursor says.
    pub(super) fn new(
        stored: &Delivery,
        round: u32,
        product_id: ProductId,
        content: Arc<Content>,
        task: Arc<LiveTask>,
        have: Option<Ranges>,
        rules: Rules,
    ) -> Self {
        let restored = have.is_some() || stored.state == DeliveryState::Delivering;
        let have = have.unwrap_or_default();
        let progress = Progress {
            pushed_at: stored.pushed_at,
            delivering_at: stored.delivering_at,
            sent: have.clone(),
            restored,
            resumed: stored.state == DeliveryState::Delivering,
            all_sent: have.covers(content.size),
            ..Progress::new(stored.state, stored.created_at, have)
        };
        Self::with(stored, round, product_id, content, task, rules, progress)
    }

    /// The attempt after this one, which failed at `at`. What was sent before counts in it where the failure
    /// says that those bytes are good.
    pub(super) fn renewed(&self, at: Millis, keeps_bytes: bool) -> Self {
        let progress = {
            let former = self.progress.lock();
            let have = if keeps_bytes {
                former.have.clone()
            } else {
                Ranges::default()
            };
            Progress {
                earlier: if keeps_bytes {
                    former.evidence()
                } else {
                    Ranges::default()
                },
                restored: former.restored && keeps_bytes,
                resumed: former.resumed && keeps_bytes,
                ..Progress::new(DeliveryState::Pending, at, have)
            }
        };
        let stored = Delivery {
            id: self.id,
            task_id: self.task.id,
            device_id: self.device_id.clone(),
            node_id: self.node_id.clone(),
            attempt: self.attempt.saturating_add(1),
            state: DeliveryState::Pending,
            reason: None,
            detail: None,
            created_at: at,
            pushed_at: None,
            delivering_at: None,
            finished_at: None,
        };
        let rules = Rules {
            confirm_by_acknowledgement: self.confirm_by_acknowledgement,
            trust_done: self.trust_done,
        };
        let next = Self::with(
            &stored,
            self.round,
            self.product_id.clone(),
            Arc::clone(&self.content),
            Arc::clone(&self.task),
            rules,
            progress,
        );
        next.set_epoch(self.epoch());
        next
    }

    fn with(
        stored: &Delivery,
        round: u32,
        product_id: ProductId,
        content: Arc<Content>,
        task: Arc<LiveTask>,
        rules: Rules,
        progress: Progress,
    ) -> Self {
        let out = stored.state > DeliveryState::Pending;
        let failed = stored.attempt.saturating_sub(round);
        let backs_off = failed > 0 && !out;
        Self {
            id: stored.id,
            transfer: stored.id.to_string().into_boxed_str(),
            device_id: stored.device_id.clone(),
            node_id: stored.node_id.clone(),
            product_id,
            attempt: stored.attempt,
            round,
            backoff_until: backs_off
                .then(|| stored.created_at.after(task.backoff(failed, stored.id))),
            confirm_by_acknowledgement: rules.confirm_by_acknowledgement,
            trust_done: rules.trust_done,
            epoch: AtomicI64::new(0),
            admitted: AtomicBool::new(false),
            ticket: AtomicU64::new(0),
            begun: AtomicBool::new(out),
            offered: AtomicBool::new(out),
            hold: AtomicU8::new(0),
            cursor_stored: AtomicBool::new(progress.have.total() > 0),
            alarm: Alarm::default(),
            acknowledged_bytes: AtomicU64::new(progress.have.total().min(content.size)),
            progress: Mutex::new(progress),
            content,
            task,
        }
    }

    /// The same without a back-off: what went wrong is over.
    pub(super) fn at_once(self) -> Self {
        Self {
            backoff_until: None,
            ..self
        }
    }

    /// The claim by which its steps are made.
    pub(super) fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Has its steps made by a newer claim.
    pub(super) fn set_epoch(&self, epoch: i64) {
        self.epoch.fetch_max(epoch, Ordering::AcqRel);
    }

    /// Counts bytes that went out at another node, as a cursor that came from there says.
    pub(super) fn add_sent(&self, elsewhere: &Ranges) {
        let mut progress = self.progress.lock();
        progress.sent.insert(0, elsewhere.low());
        for (start, end) in elsewhere.beyond() {
            progress.sent.insert(*start, *end);
        }
        progress.all_sent = progress.sent.covers(self.content.size);
    }

    /// The state of the attempt.
    pub fn state(&self) -> DeliveryState {
        self.progress.lock().state
    }

    /// Whether it holds a place among those in progress.
    pub fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
    }

    /// Whether this attempt has had a place.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Takes note that this attempt has a place; says whether it is its first one.
    pub(super) fn begin(&self) -> bool {
        !self.begun.swap(true, Ordering::AcqRel)
    }

    /// Whether the device may know of this attempt: what it reports can be about it.
    pub(super) fn was_offered(&self) -> bool {
        self.offered.load(Ordering::Acquire)
    }

    pub(super) fn set_offered(&self) {
        self.offered.store(true, Ordering::Release);
    }

    /// When its back-off ends, if it has one.
    pub(super) fn backoff_until(&self) -> Option<Millis> {
        self.backoff_until
    }

    /// Whether it still has to wait because the attempt before failed.
    pub(super) fn backs_off(&self, now: Millis) -> bool {
        self.backoff_until.is_some_and(|until| now < until)
    }

    /// What of ours keeps its next bytes back.
    pub fn hold(&self) -> Hold {
        match self.hold.load(Ordering::Relaxed) {
            1 => Hold::BytesRate,
            2 => Hold::NodeBudget,
            _ => Hold::None,
        }
    }

    /// Says what of ours keeps its next bytes back; the device owes nothing meanwhile.
    pub fn set_hold(&self, hold: Hold) {
        let number = match hold {
            Hold::None => 0,
            Hold::BytesRate => 1,
            Hold::NodeBudget => 2,
        };
        if self.hold.swap(number, Ordering::Relaxed) != 0 && hold == Hold::None {
            self.touch();
        }
    }

    /// Takes note that the session store has a cursor of it.
    pub(super) fn set_cursor_stored(&self) {
        self.cursor_stored.store(true, Ordering::Relaxed);
    }

    /// Whether the session store has a cursor of it.
    pub(super) fn has_stored_cursor(&self) -> bool {
        self.cursor_stored.load(Ordering::Relaxed)
    }

    /// Since when the device knows of it.
    pub(super) fn out_since(&self) -> Option<Millis> {
        let progress = self.progress.lock();
        progress.pushed_at.or(progress.delivering_at)
    }

    /// Bytes that the device has acknowledged.
    pub fn acknowledged_bytes(&self) -> u64 {
        self.acknowledged_bytes.load(Ordering::Relaxed)
    }

    /// How much of the resource the device has, 0 to 100; the larger of its own figure and ours.
    pub fn percent(&self) -> u8 {
        let progress = self.progress.lock();
        let acknowledged = match self.content.size {
            0 => 0,
            size => progress.have.total().min(size).saturating_mul(100) / size,
        };
        u8::try_from(acknowledged)
            .unwrap_or(100)
            .max(progress.reported_percent.unwrap_or(0))
    }

    /// The stamps that a record of this attempt has.
    pub fn stamps(&self) -> (Millis, Option<Millis>, Option<Millis>) {
        let progress = self.progress.lock();
        (
            progress.created_at,
            progress.pushed_at,
            progress.delivering_at,
        )
    }

    /// Moves to `to` if that leads forward; says whether it must be recorded.
    pub(super) fn advance(&self, to: DeliveryState, at: Millis) -> Step {
        let mut progress = self.progress.lock();
        if progress.state.is_final() {
            return Step::Over;
        }
        progress.last_activity = Instant::now();
        if progress.state >= to {
            return Step::Already;
        }
        match to {
            DeliveryState::Pushed => progress.pushed_at = Some(at),
            DeliveryState::Delivering => progress.delivering_at = Some(at),
            DeliveryState::Pending | DeliveryState::Delivered | DeliveryState::Failed => {}
        }
        let from = std::mem::replace(&mut progress.state, to);
        Step::Taken { from }
    }

    /// Ends the attempt as failed, and notes whether another one follows, in one step.
    pub(super) fn fail(&self, renew: bool) -> Step {
        let mut progress = self.progress.lock();
        if progress.state.is_final() {
            return Step::Over;
        }
        let from = std::mem::replace(&mut progress.state, DeliveryState::Failed);
        if renew {
            progress.renewal = Renewal::Due;
        }
        Step::Taken { from }
    }

    /// Cancels the attempt that is to follow this one; says whether there was one.
    pub(super) fn stop_renewal(&self) -> bool {
        let mut progress = self.progress.lock();
        let due = progress.renewal == Renewal::Due;
        if due {
            progress.renewal = Renewal::Stopped;
        }
        due
    }

    /// Takes the renewal: says whether the attempt that follows was cancelled meanwhile.
    pub(super) fn take_renewal(&self) -> bool {
        let mut progress = self.progress.lock();
        let stopped = progress.renewal == Renewal::Stopped;
        progress.renewal = Renewal::None;
        stopped
    }

    /// Whether `done` can be believed: every byte was sent on some wire, as far as is known.
    pub fn was_sent_whole(&self) -> bool {
        let progress = self.progress.lock();
        let unknown = progress.resumed && progress.restored;
        self.trust_done || unknown || progress.evidence().covers(self.content.size)
    }

    /// Bytes that went out on any wire in this attempt.
    pub fn sent_bytes(&self) -> u64 {
        self.progress.lock().sent.total()
    }

    /// Takes the device's word on where it stands and gives the offset to go on from.
    ///
    /// Without an offset the cursor is used. A device that asks for an earlier offset has lost
    /// what it had; one that asks for a later one has more than we knew.
    pub fn resume_at(&self, offset: Option<u64>) -> u64 {
        let mut progress = self.progress.lock();
        progress.last_activity = Instant::now();
        let counted = offset.unwrap_or_else(|| progress.have.low());
        if counted <= progress.earlier.low() {
            // The device goes on with what an earlier attempt gave it.
            progress.sent.insert(0, counted);
        }
        let Some(offset) = offset else {
            return counted;
        };
        if progress.restored {
            // Our checkpoint is older than what the device received before we were stopped.
            progress.sent.insert(0, offset);
            progress.restored = false;
        }
        if offset != progress.have.low() {
            progress.have = Ranges::below(offset);
            self.publish(&progress);
        }
        offset
    }

    /// Takes note that these bytes went out; says whether some of them had gone out before.
    pub fn on_sent(&self, chunk: Chunk) -> bool {
        let mut progress = self.progress.lock();
        let before = progress.sent.total();
        progress.sent.insert(chunk.offset, chunk.end());
        progress.last_activity = Instant::now();
        progress.all_sent = progress.sent.covers(self.content.size);
        progress.sent.total().saturating_sub(before) < u64::from(chunk.len)
    }

    /// Takes note that the device has these bytes; says whether a checkpoint is due.
    pub fn on_acknowledged(&self, chunk: Chunk, every: Duration, bytes: u64) -> bool {
        let mut progress = self.progress.lock();
        let now = Instant::now();
        progress.have.insert(chunk.offset, chunk.end());
        progress.last_activity = now;
        let total = self.publish(&progress);
        let due = total.saturating_sub(progress.checkpointed_bytes) >= bytes
            && now.duration_since(progress.checkpointed_at) >= every;
        if due {
            progress.checkpointed_bytes = total;
            progress.checkpointed_at = now;
        }
        due
    }

    /// Whether the device has every byte.
    pub fn is_acknowledged_whole(&self) -> bool {
        self.progress.lock().have.covers(self.content.size)
    }

    /// What the device has, to be stored as a cursor.
    pub fn cursor(&self) -> Ranges {
        self.progress.lock().have.clone()
    }

    /// Whether it has something that no checkpoint has; counts as one being made.
    pub fn take_unsaved(&self) -> bool {
        let mut progress = self.progress.lock();
        let total = progress.have.total();
        let unsaved = total != progress.checkpointed_bytes && !progress.state.is_final();
        progress.checkpointed_bytes = total;
        progress.checkpointed_at = Instant::now();
        unsaved
    }

    /// Takes the device's own figure, and the report as a sign of life.
    pub fn on_reported(&self, percent: Option<u8>) {
        let mut progress = self.progress.lock();
        progress.last_activity = Instant::now();
        if percent.is_some() {
            progress.reported_percent = percent;
        }
    }

    /// What the timers look at.
    pub(super) fn stall(&self, now: Instant) -> Stall {
        let progress = self.progress.lock();
        Stall {
            idle: now.saturating_duration_since(progress.last_activity),
            all_sent: progress.all_sent,
            in_flight_bytes: progress.sent.total().saturating_sub(progress.have.total()),
        }
    }

    /// Takes note that a device that sleeps was awake; gives how often in a row it was without a byte being sent.
    pub(super) fn count_wakeup(&self) -> u32 {
        self.progress.lock().count_wakeup(Millis::now())
    }

    /// When a device that sleeps was last awake.
    pub(super) fn woke_at(&self) -> Option<Millis> {
        self.progress.lock().wakeups.last
    }

    /// Starts the clock of the step timer anew: the device has just come back.
    pub fn touch(&self) {
        self.progress.lock().last_activity = Instant::now();
    }

    fn publish(&self, progress: &Progress) -> u64 {
        let total = progress.have.total();
        self.acknowledged_bytes.store(total, Ordering::Relaxed);
        total
    }
}

/// What a delivery's product says about its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// Delivered when every byte was acknowledged.
    pub confirm_by_acknowledgement: bool,
    /// `done` is believed whatever was sent.
    pub trust_done: bool,
}

#[cfg(test)]
pub(super) mod tests;
