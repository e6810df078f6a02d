//! What one node does for all: it promotes and gives up tasks, begins those whose time has come and ends those of which
//! nothing is open, makes tasks for filters, and ends deliveries of devices that are nowhere. Another node takes over when
//! its lease ends.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::Shared;
use crate::{
    model::{DeliveryState, FailReason, Id, Millis, RunState},
    service::delivery::{DeliveryService, finish::end_of, live::LiveTask},
    store::StoreError,
};

/// The lease's name.
const NAME: &str = "tasks";
/// How long it lasts.
const LASTS: Duration = Duration::from_secs(10);
/// How long this node uses it after it asked for it, by its own clock.
const USED: Duration = Duration::from_secs(8);
/// It is held for longer so often.
const RENEW_EVERY: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_secs(1);
/// Looks at what is rarely found, in ticks.
const RARELY: u64 = 15;
/// A node whose device has a delivery ends it in time by itself; after so much more it is nobody's.
const GRACE: Duration = Duration::from_mins(2);
/// A device that sleeps may take so many times what a delivery may take.
const SLEEPERS_PATIENCE: u32 = 30;

/// Whether this node is the one, and until when.
#[derive(Debug, Default)]
pub(super) struct Lease {
    until: Mutex<Option<Instant>>,
    ticks: AtomicU64,
}

impl Lease {
    /// Whether this node may act for all.
    pub(super) fn is_held(&self) -> bool {
        self.until
            .lock()
            .is_some_and(|until| Instant::now() < until)
    }
}

impl DeliveryService {
    /// Whether this node does what one does for all: it is alone, or holds the lease.
    pub(in crate::service::delivery) fn keeps(&self) -> bool {
        let shared = self.inner.shared.as_ref();
        shared.is_none_or(|shared| shared.keeper.is_held())
    }

    /// Holds the lease where it can, and acts while it does, until it is dropped.
    pub(super) async fn run_keeper(&self, shared: &Shared) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut renewed: Option<Instant> = None;
        loop {
            tick.tick().await;
            if renewed.is_none_or(|at| at.elapsed() >= RENEW_EVERY) {
                renewed = Some(Instant::now());
                self.renew_lease(shared).await;
            }
            if !shared.keeper.is_held() {
                continue;
            }
            if let Err(error) = self.keep(shared).await {
                tracing::warn!(%error, "what one node does for all was not done; trying again");
            }
        }
    }

    pub(super) async fn give_up_keeping(&self, shared: &Shared) {
        if shared.keeper.until.lock().take().is_some() {
            let ended = self.inner.registry.end_lease(NAME, &shared.node);
            // Where it cannot be given back it ends by itself.
            let _ended = tokio::time::timeout(AT_THE_END, ended).await;
        }
    }

    async fn renew_lease(&self, shared: &Shared) {
        let asked = Instant::now();
        match self
            .inner
            .registry
            .hold_lease(NAME, &shared.node, LASTS)
            .await
        {
            Ok(true) => {
                let was_held = shared.keeper.is_held();
                *shared.keeper.until.lock() = Some(asked + USED);
                if !was_held {
                    tracing::info!("this node acts for all nodes: tasks, timers, retention");
                    shared.keeper.ticks.store(0, Ordering::Relaxed);
                }
            }
            Ok(false) => *shared.keeper.until.lock() = None,
            Err(error) => {
                tracing::warn!(%error, "the lease of what one node does for all was not renewed");
            }
        }
    }

    async fn keep(&self, shared: &Shared) -> Result<(), StoreError> {
        let ticks = shared.keeper.ticks.fetch_add(1, Ordering::Relaxed);
        let at = Millis::now();
        for task in self.inner.book.tasks() {
            if task.counts_matter() {
                self.count_anew(&task).await?;
            }
            if task.run() == RunState::Scheduled && !task.starts_after(at) {
                self.change_run(&task, &[RunState::Scheduled], RunState::Running, None)
                    .await;
            }
            if ticks % 5 == task.id.as_i64().cast_unsigned() % 5 {
                self.inner.registry.finish_task(task.id, at).await?;
            }
        }
        self.settle_tasks().await;
        if ticks.is_multiple_of(RARELY) {
            for task in self.inner.registry.tasks_being_made().await? {
                self.ask_to_make(task.id);
            }
            self.end_orphans().await?;
            self.reap(at).await?;
        }
        Ok(())
    }

    /// Takes the counts of a task from the tables.
    async fn count_anew(&self, task: &LiveTask) -> Result<(), StoreError> {
        let registry = &self.inner.registry;
        let (counts, _) = registry.standing_of(task.id).await?;
        let canceled = registry.canceled_deliveries(task.id).await?;
        let settled = registry.settled_deliveries(task.id).await?;
        task.set_counts(&counts, canceled, settled);
        Ok(())
    }

    /// Ends deliveries that are open though their task is over: a node was killed while it ended them.
    async fn end_orphans(&self) -> Result<(), StoreError> {
        let registry = &self.inner.registry;
        for (task, run) in registry.ended_with_open().await? {
            let reason = end_of(run);
            while registry
                .end_deliveries(task, reason.as_str(), Millis::now())
                .await?
                > 0
            {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Ends deliveries whose time is over and whose devices are nowhere.
    async fn reap(&self, at: Millis) -> Result<(), StoreError> {
        let tasks = self.inner.book.tasks();
        let shortest = tasks
            .iter()
            .map(|task| task.terms().timers.in_progress)
            .min();
        let Some(shortest) = shortest else {
            return Ok(());
        };
        let Some(before) = at.before(shortest + GRACE) else {
            return Ok(());
        };
        let mut after: Option<Id> = None;
        loop {
            let block = self.inner.registry.out_since(before, after).await?;
            let Some((last, _)) = block.last() else {
                return Ok(());
            };
            after = Some(last.delivery.id);
            for (open, epoch) in block {
                let delivery = &open.delivery;
                let Some(task) = self.inner.book.task(delivery.task_id) else {
                    continue;
                };
                let out = delivery.pushed_at.or(delivery.delivering_at);
                let mut patience = task.terms().timers.in_progress;
                let product = self.inner.registry.product(&open.product_id).await?;
                if product.is_some_and(|product| product.reachable_after_uplink_secs.is_some()) {
                    patience *= SLEEPERS_PATIENCE;
                }
                let is_over = out.is_some_and(|out| out.after(patience + GRACE) < at);
                let is_here = self.inner.book.by_id(delivery.id).is_some();
                if is_over && !is_here && !task.is_held() {
                    tracing::info!(delivery = %delivery.id, device_id = %delivery.device_id, "a delivery of a device that is nowhere timed out");
                    self.time_out_elsewhere(open, epoch).await?;
                }
            }
        }
    }

    async fn time_out_elsewhere(
        &self,
        open: crate::model::OpenDelivery,
        epoch: i64,
    ) -> Result<(), StoreError> {
        let Some(live) = self.visitor(open, epoch).await? else {
            return Ok(());
        };
        let reason = FailReason::Timeout {
            which: "in_progress_timeout",
        };
        let done = self
            .finish(&live, DeliveryState::Failed, Some(reason))
            .await;
        if let Err(error) = done {
            tracing::info!(%error, delivery = %live.id, "a delivery was taken up again in this moment");
        }
        Ok(())
    }
}

/// How long the end of a process waits for the lease to be given back.
const AT_THE_END: Duration = Duration::from_secs(1);
