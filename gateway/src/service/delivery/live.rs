//! One delivery while it is open: how far it is, and what may happen to it next.
//!
//! The registry is the record; this is the working copy that every session, request and timer
//! consults. Each transition is decided here under one lock, so that of a cancel and a `done` that
//! come together exactly one wins.
//!
//! Invariants: the state never goes back within an attempt; a final state is never left.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use headgate_protocol::{
    identity::{DeviceId, NodeId, ProductId},
    transfer::{ranges::Ranges, window::Chunk},
};
use parking_lot::Mutex;

use super::content::Content;
use crate::model::{Delivery, DeliveryState, Id, Millis, RunState};

/// A task that has open deliveries.
#[derive(Debug)]
pub struct LiveTask {
    /// Its id.
    pub id: Id,
    /// Deliveries of it that may be in progress at once.
    pub max_in_progress: u32,
    /// Deliveries that are not final.
    pub open: AtomicU32,
    /// Whether an operator holds it.
    paused: AtomicBool,
    /// Deliveries of it in progress; changed under the admission's lock.
    pub(super) in_progress: AtomicU32,
}

impl LiveTask {
    /// A task in this run state without deliveries.
    pub fn new(id: Id, run: RunState, max_in_progress: Option<u32>) -> Self {
        Self {
            id,
            max_in_progress: max_in_progress.unwrap_or(u32::MAX),
            open: AtomicU32::new(0),
            paused: AtomicBool::new(run == RunState::Paused),
            in_progress: AtomicU32::new(0),
        }
    }

    /// Whether an operator holds it.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }
}

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
    /// What is delivered.
    pub content: Arc<Content>,
    /// The task that it is part of.
    pub task: Arc<LiveTask>,
    /// Whether every acknowledged byte is enough, without the device's word.
    pub confirm_by_acknowledgement: bool,
    /// Whether the device's word is enough, whatever was sent.
    pub trust_done: bool,
    /// Whether it holds a place among those in progress; changed under the admission's lock.
    pub(super) admitted: AtomicBool,
    /// Whether it stands in its task's ready queue; changed under the admission's lock.
    pub(super) queued: AtomicBool,
    /// Bytes that the device has, for readers that take no lock.
    acknowledged_bytes: AtomicU64,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    state: DeliveryState,
    created_at: Millis,
    pushed_at: Option<Millis>,
    delivering_at: Option<Millis>,
    /// What the device has: its own word, and its acknowledgements since.
    have: Ranges,
    /// What has been sent on any wire in this attempt.
    sent: Ranges,
    /// Bytes were sent before that `sent` does not know of: the first offset that the device names
    /// says how many.
    restored: bool,
    /// They were sent by a process that is gone, in this very attempt: the device's word is all
    /// the proof that there is.
    resumed: bool,
    /// The device's own figure, for one that fetches by other means.
    reported_percent: Option<u8>,
    last_activity: Instant,
    all_sent: bool,
    checkpointed_bytes: u64,
    checkpointed_at: Instant,
}

/// How a try to change the state came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is now in that state, which must be recorded.
    Taken,
    /// It was there already, or further; nothing changed.
    Already,
    /// It has ended.
    Over,
}

/// What a delivery waits for, as far as the timers are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stall {
    /// Since the last sign of the device.
    pub idle: Duration,
    /// Every byte has been sent: what is missing is the device's verdict.
    pub all_sent: bool,
    /// When the device was told of it.
    pub pushed_at: Option<Millis>,
}

impl LiveDelivery {
    /// The working copy of a stored delivery; `have` is what its cursor says.
    pub(super) fn new(
        stored: &Delivery,
        product_id: ProductId,
        content: Arc<Content>,
        task: Arc<LiveTask>,
        have: Option<Ranges>,
        rules: Rules,
    ) -> Self {
        let now = Instant::now();
        let restored = have.is_some() || stored.state == DeliveryState::Delivering;
        let have = have.unwrap_or_default();
        Self {
            id: stored.id,
            transfer: stored.id.to_string().into_boxed_str(),
            device_id: stored.device_id.clone(),
            node_id: stored.node_id.clone(),
            product_id,
            attempt: stored.attempt,
            task,
            confirm_by_acknowledgement: rules.confirm_by_acknowledgement,
            trust_done: rules.trust_done,
            admitted: AtomicBool::new(false),
            queued: AtomicBool::new(false),
            acknowledged_bytes: AtomicU64::new(have.total().min(content.size)),
            progress: Mutex::new(Progress {
                state: stored.state,
                created_at: stored.created_at,
                pushed_at: stored.pushed_at,
                delivering_at: stored.delivering_at,
                checkpointed_bytes: have.total(),
                checkpointed_at: now,
                all_sent: have.covers(content.size),
                sent: have.clone(),
                have,
                restored,
                resumed: stored.state == DeliveryState::Delivering,
                reported_percent: None,
                last_activity: now,
            }),
            content,
        }
    }

    /// The state of the attempt.
    pub fn state(&self) -> DeliveryState {
        self.progress.lock().state
    }

    /// Whether it holds a place among those in progress.
    pub fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
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
        progress.state = to;
        Step::Taken
    }

    /// Whether `done` can be believed: every byte was sent on some wire, as far as is known.
    pub fn was_sent_whole(&self) -> bool {
        let progress = self.progress.lock();
        let unknown = progress.resumed && progress.restored;
        self.trust_done || unknown || progress.sent.covers(self.content.size)
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
        let Some(offset) = offset else {
            return progress.have.low();
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
    pub(super) fn stall(&self) -> Stall {
        let progress = self.progress.lock();
        Stall {
            idle: progress.last_activity.elapsed(),
            all_sent: progress.all_sent,
            pushed_at: progress.pushed_at,
        }
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
mod tests;
