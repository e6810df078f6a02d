//! Cursors on their way into the session store, many in one commit.
//!
//! A cursor is a convenience and not the truth (the device's own offset is), so it is written
//! late and in batches; what is lost with a crash is sent twice and nothing else.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::Histogram;
use tokio::sync::Notify;

use super::live::LiveDelivery;
use crate::{
    model::{Id, Millis},
    store::sessions::{Cursor, SessionStore},
    telemetry::metrics::Metrics,
};

/// How often what was marked is written.
const INTERVAL: Duration = Duration::from_millis(500);

/// Deliveries whose cursor is to be stored, and those whose cursor is to be forgotten.
///
/// Bounded by the open deliveries: each stands here at most once between two writes.
#[derive(Debug)]
pub(super) struct Checkpoints {
    store: SessionStore,
    seconds: Histogram,
    dirty: Mutex<Dirty>,
    hurry: Notify,
}

#[derive(Debug, Default)]
struct Dirty {
    moved: Vec<Arc<LiveDelivery>>,
    ended: Vec<Id>,
}

impl Checkpoints {
    /// Nothing is marked yet.
    pub(super) fn new(store: SessionStore, metrics: &Metrics) -> Self {
        Self {
            store,
            seconds: metrics.store_seconds("sessions", "cursors"),
            dirty: Mutex::default(),
            hurry: Notify::new(),
        }
    }

    /// Has what is marked written at once: the device may be at another node in a moment.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Has the delivery's cursor stored soon.
    pub(super) fn mark(&self, delivery: &Arc<LiveDelivery>) {
        delivery.set_cursor_stored();
        self.dirty.lock().moved.push(Arc::clone(delivery));
    }

    /// Has the cursor forgotten soon: the delivery ended.
    pub(super) fn forget(&self, delivery: Id) {
        self.dirty.lock().ended.push(delivery);
    }

    /// Writes what is marked now.
    pub(super) async fn flush(&self) {
        let dirty = std::mem::take(&mut *self.dirty.lock());
        if dirty.moved.is_empty() && dirty.ended.is_empty() {
            return;
        }
        let _timed = self.seconds.start_timer();
        let at = Millis::now();
        let cursors: Vec<Cursor> = dirty
            .moved
            .iter()
            .filter(|delivery| !delivery.state().is_final())
            .map(|delivery| {
                let have = delivery.cursor();
                Cursor {
                    delivery: delivery.id,
                    attempt: delivery.attempt,
                    acked: have.low(),
                    ranges: have.beyond().to_vec(),
                    updated_at: at,
                    claim: Some((delivery.device_id.clone(), delivery.epoch())),
                }
            })
            .collect();
        if !cursors.is_empty()
            && let Err(error) = self.store.save_cursors(&cursors).await
        {
            tracing::warn!(%error, "cursors could not be stored; a restart now would send more bytes twice");
        }
        if !dirty.ended.is_empty()
            && let Err(error) = self.store.delete_cursors(&dirty.ended).await
        {
            tracing::warn!(%error, "cursors of ended deliveries could not be deleted");
        }
    }

    /// Writes what is marked, again and again, until it is dropped.
    pub(super) async fn run(&self) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.hurry.notified() => {}
            }
            self.flush().await;
        }
    }
}
