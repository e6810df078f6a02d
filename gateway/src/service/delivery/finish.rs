//! How an attempt ends, and what follows: another one, the end of its task, or of the whole of it.
//!
//! Every end is decided once, under the delivery's own lock (see [`LiveDelivery`]); it is recorded
//! before its place goes to another and before anybody is told.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::{
    DeliveryService, NotRecorded,
    journal::MAX_COMMIT,
    live::{LiveDelivery, LiveTask, Step},
};
use crate::model::{
    Actor, Again, AuditEntry, DeliveryChange, DeliveryState, FailReason, Millis, RunState,
};

/// Run states in which a task has something to do.
pub(super) const OPEN: &[RunState] = &[RunState::Scheduled, RunState::Running, RunState::Paused];
/// Ends that are on their way into the registry at once, of those that come together: while one commit is written the
/// next one fills. Each of them costs memory, and ten thousand devices' at once would be tens of MiB.
pub(super) const ENDS_AT_ONCE: usize = 2 * MAX_COMMIT;

impl DeliveryService {
    /// Ends an attempt; on return it is recorded. Where it failed and is to be tried again, the next
    /// attempt is, too.
    pub(super) async fn finish(
        &self,
        delivery: &Arc<LiveDelivery>,
        to: DeliveryState,
        reason: Option<FailReason>,
    ) -> Result<Step, NotRecorded> {
        let at = Millis::now();
        let next = reason
            .as_ref()
            .and_then(|reason| next_attempt(delivery, reason, at));
        let step = match to {
            DeliveryState::Failed => delivery.fail(next.is_some()),
            _ => delivery.advance(to, at),
        };
        let Step::Taken { from: before } = step else {
            return Ok(step);
        };
        if to == DeliveryState::Delivered {
            let (created_at, pushed_at, _) = delivery.stamps();
            let taken = at.since(pushed_at.unwrap_or(created_at));
            self.inner
                .metrics
                .delivery_seconds
                .observe(taken.as_secs_f64());
        }
        let Some(next) = next else {
            self.count_end(delivery, before, to, reason.as_ref());
            let ended = change(delivery, to, at, reason);
            self.record_end(delivery, ended).await?;
            return Ok(step);
        };
        let ended = change(delivery, to, at, reason);
        self.count_step(delivery, before, DeliveryState::Pending);
        let begun = change(&next, DeliveryState::Pending, at, None);
        self.inner.journal.note(&delivery.task, ended).await;
        let recorded = self.inner.journal.commit(&delivery.task, begun).await;
        self.stays_with_us(delivery, &recorded)?;
        self.renew(delivery, next).await;
        recorded?;
        Ok(step)
    }

    /// Records an end that no other attempt follows, and gives its place to others.
    async fn record_end(
        &self,
        delivery: &Arc<LiveDelivery>,
        ended: DeliveryChange,
    ) -> Result<(), NotRecorded> {
        let recorded = self.inner.journal.commit(&delivery.task, ended).await;
        self.stays_with_us(delivery, &recorded)?;
        self.after_end(delivery).await;
        recorded
    }

    /// Whether what follows an end is this node's to do. Where nodes share the registry and it did not take the end, the
    /// delivery is looked up anew: it may be another node's by now.
    fn stays_with_us(
        &self,
        delivery: &LiveDelivery,
        recorded: &Result<(), NotRecorded>,
    ) -> Result<(), NotRecorded> {
        match &self.inner.shared {
            Some(shared) if recorded.is_err() => {
                shared.refuse(vec![delivery.id]);
                Err(NotRecorded)
            }
            _ => Ok(()),
        }
    }

    /// Gives the place of a delivery that has ended to others.
    async fn after_end(&self, delivery: &Arc<LiveDelivery>) {
        // Only now may another delivery take its place: the device's next offer must not come
        // before the end of this one is certain.
        let last = self.inner.book.remove(delivery);
        self.put_away(delivery);
        if self.inner.shared.is_some() {
            if last {
                Box::pin(self.finish_everywhere(&delivery.task)).await;
            }
        } else if last {
            // Boxed, as above: every end has room for what it awaits, and of a task's only the last one comes here.
            Box::pin(self.end_task(&delivery.task)).await;
        } else if delivery.task.deserves_promotion() || delivery.task.is_beyond_saving() {
            self.inner.nudge.notify_one();
        }
        if self.inner.book.has_device(&delivery.device_id) {
            self.inner.links().wake(&delivery.device_id);
        }
        self.serve_waiting();
    }

    /// Puts the next attempt in the place of one that failed.
    async fn renew(&self, former: &Arc<LiveDelivery>, next: LiveDelivery) {
        let next = Arc::new(next);
        if self.inner.shared.is_some() && !self.is_in_book(former) {
            // Its device is at another node by now, which takes it from the registry.
            return;
        }
        self.inner.book.replace(former, &next);
        self.put_away(former);
        // Whoever cancelled the delivery or its task while the failure was being recorded saw the
        // former attempt, which had ended.
        if former.take_renewal() || next.task.run().is_final() {
            let reason = end_of(next.task.run());
            // Boxed: the one place where an end leads to an end.
            Box::pin(self.finish_or_log(&next, DeliveryState::Failed, Some(reason))).await;
            return;
        }
        match next.backoff_until() {
            Some(until) => self.inner.alarms.set(next.id, &next.alarm, until),
            None => {
                self.inner.links().wake(&next.device_id);
            }
        }
        self.serve_waiting();
    }

    /// Takes back what an attempt held: its place, its alarm, its cursor.
    pub(super) fn put_away(&self, delivery: &LiveDelivery) {
        self.inner.admission.release(delivery);
        self.inner.alarms.clear(delivery.id, &delivery.alarm);
        if delivery.has_stored_cursor() {
            self.inner.checkpoints.forget(delivery.id);
        }
    }

    /// Whether this very attempt is in the book.
    pub(super) fn is_in_book(&self, delivery: &LiveDelivery) -> bool {
        let known = self.inner.book.by_id(delivery.id);
        known.is_some_and(|known| known.attempt == delivery.attempt)
    }

    /// Records that the last delivery of a task has ended, if it was the last on all nodes.
    async fn finish_everywhere(&self, task: &LiveTask) {
        let ended = self
            .inner
            .registry
            .finish_task(task.id, Millis::now())
            .await;
        match ended {
            Ok(true) => {
                task.set_run(RunState::Finished);
                task.feed.touch(true);
            }
            Ok(false) => {}
            Err(error) => {
                // Whoever keeps the tasks finds it.
                tracing::warn!(%error, task = %task.id, "the end of a task was not recorded");
            }
        }
    }

    /// Records that the last delivery of a task has ended.
    async fn end_task(&self, task: &LiveTask) {
        self.change_run(task, OPEN, RunState::Finished, None).await;
    }

    /// Moves a task on if it is in one of these run states; says whether it was.
    pub(super) async fn change_run(
        &self,
        task: &LiveTask,
        from: &[RunState],
        to: RunState,
        audit: Option<&AuditEntry>,
    ) -> bool {
        let changed = self
            .inner
            .registry
            .change_task_run(task.id, from, to, Millis::now(), audit)
            .await;
        match changed {
            Ok(true) => {
                task.set_run(to);
                task.feed.touch(to.is_final());
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::error!(%error, task = %task.id, run = to.as_str(), "the state of a task was not recorded");
                false
            }
        }
    }

    /// Promotes tasks whose canary did well, and gives up those of which too much failed.
    pub(super) async fn settle_tasks(&self) {
        for task in self.inner.book.tasks() {
            if task.is_beyond_saving() {
                self.abort(&task).await;
            } else if task.deserves_promotion() {
                let audit = Actor::gateway().did("task.promote", task.id, "canary succeeded");
                if let Err(error) = self.promote(&task, &audit).await {
                    tracing::error!(%error, task = %task.id, "a task was not promoted");
                }
            }
        }
    }

    /// Ends a task of which too much failed, with what of it is in progress.
    async fn abort(&self, task: &Arc<LiveTask>) {
        let counts = task.counts();
        let detail = format!("{} failed, {} delivered", counts.failed, counts.delivered);
        tracing::warn!(task = %task.id, detail, "a task was given up: too much of it failed");
        // Nothing more of it is begun from here on.
        let former = task.run();
        task.set_run(RunState::Aborted);
        let audit = Actor::gateway().did("task.abort", task.id, detail);
        let recorded = self
            .change_run(task, OPEN, RunState::Aborted, Some(&audit))
            .await;
        if recorded {
            self.end_all(task).await;
        } else {
            // Tried again at the next tick.
            task.set_run(former);
        }
    }

    /// Ends every open delivery of a task that is over.
    pub(super) async fn end_all(&self, task: &Arc<LiveTask>) {
        let reason = end_of(task.run());
        if self.inner.shared.is_some() {
            if let Err(error) = self.end_everywhere(task, &reason).await {
                tracing::error!(%error, task = %task.id, "deliveries of a task that is over were not ended yet");
            }
            return;
        }
        let at = Millis::now();
        let mut ended = self.inner.book.of_task(task.id);
        // Decided for all of them before the first one is recorded: nothing more is sent of any.
        ended.retain(|delivery| {
            let step = delivery.fail(false);
            if let Step::Taken { from } = step {
                self.count_end(delivery, from, DeliveryState::Failed, Some(&reason));
            }
            matches!(step, Step::Taken { .. })
        });
        let reason = &reason;
        let recording = |delivery: Arc<LiveDelivery>| async move {
            let known = delivery.was_offered();
            let change = change(&delivery, DeliveryState::Failed, at, Some(reason.clone()));
            match self.record_end(&delivery, change).await {
                Ok(()) if known => self.tell_canceled(&delivery),
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(%error, delivery = %delivery.id, "the end of a delivery was not recorded");
                }
            }
        };
        stream::iter(ended)
            .for_each_concurrent(ENDS_AT_ONCE, recording)
            .await;
    }

    /// Ends a delivery whatever its device does, and tells the device.
    pub(super) async fn end_by_us(
        &self,
        delivery: &Arc<LiveDelivery>,
        reason: FailReason,
    ) -> Result<Step, NotRecorded> {
        let known = delivery.was_offered();
        let step = self
            .finish(delivery, DeliveryState::Failed, Some(reason))
            .await?;
        if matches!(step, Step::Taken { .. }) && known {
            self.tell_canceled(delivery);
        }
        Ok(step)
    }

    fn tell_canceled(&self, delivery: &LiveDelivery) {
        self.inner.links().cancel(
            &delivery.device_id,
            &delivery.transfer,
            &delivery.content.name,
        );
    }

    pub(super) async fn finish_or_log(
        &self,
        delivery: &Arc<LiveDelivery>,
        to: DeliveryState,
        reason: Option<FailReason>,
    ) {
        if let Err(error) = self.finish(delivery, to, reason).await {
            tracing::error!(%error, delivery = %delivery.id, "the end of a delivery was not recorded");
        }
    }

    /// Gives free places to deliveries that wait.
    pub(super) fn serve_waiting(&self) {
        self.serve_waiting_at(Millis::now());
    }

    /// The same by a clock of the caller's.
    pub(super) fn serve_waiting_at(&self, now: Millis) {
        while let Some(delivery) = self.inner.admission.next(now) {
            if !self.inner.links().wake(&delivery.device_id) {
                self.inner.admission.release(&delivery);
            }
        }
    }

    /// Counts an end that no other attempt follows.
    fn count_end(
        &self,
        delivery: &LiveDelivery,
        from: DeliveryState,
        to: DeliveryState,
        reason: Option<&FailReason>,
    ) {
        self.count_step(delivery, from, to);
        if reason == Some(&FailReason::Canceled) {
            delivery.task.count_canceled();
        }
    }

    pub(super) fn count_step(
        &self,
        delivery: &LiveDelivery,
        from: DeliveryState,
        to: DeliveryState,
    ) {
        if self.inner.shared.is_some() {
            // A task's counts are those of all nodes, and come from the tables.
            if self.is_in_book(delivery) {
                self.inner.metrics.deliveries.of(from).dec();
                self.inner.metrics.deliveries.of(to).inc();
            }
            return;
        }
        self.inner.metrics.deliveries.of(from).dec();
        self.inner.metrics.deliveries.of(to).inc();
        delivery.task.count_step(from, to);
    }
}

/// A step to be recorded.
pub(super) fn change(
    delivery: &LiveDelivery,
    to: DeliveryState,
    at: Millis,
    reason: Option<FailReason>,
) -> DeliveryChange {
    DeliveryChange {
        delivery: delivery.id,
        attempt: delivery.attempt,
        to,
        at,
        detail: reason.as_ref().and_then(FailReason::detail),
        reason: reason.map(|reason| reason.as_str().to_owned()),
        by_hand: false,
        epoch: delivery.epoch(),
    }
}

/// The attempt that follows one that failed for this reason, if one does.
fn next_attempt(delivery: &LiveDelivery, reason: &FailReason, at: Millis) -> Option<LiveDelivery> {
    let tried = delivery.attempt.saturating_sub(delivery.round) + 1;
    if delivery.task.run().is_final() || !delivery.task.allows_after(tried) {
        return None;
    }
    match reason.again() {
        Again::Never => None,
        Again::Now => Some(delivery.renewed(at, reason.keeps_bytes()).at_once()),
        Again::Later => Some(delivery.renewed(at, reason.keeps_bytes())),
    }
}

/// Why deliveries of a task in this run state end.
pub(super) fn end_of(run: RunState) -> FailReason {
    match run {
        RunState::Aborted => FailReason::Aborted,
        _ => FailReason::Canceled,
    }
}
