//! Steps of deliveries on their way into the registry, many in one commit.
//!
//! Whoever records a step hands it over and, where the device or operator is told of it, waits
//! until it is committed. The first step after a pause is committed at once; commits that follow it
//! closely are [`PACE`] apart, and what comes meanwhile gathers. So ten thousand devices that finish
//! together cost a few dozen commits and not ten thousand, and a single one waits for nothing.

use std::{sync::Arc, time::Duration};

use prometheus::Histogram;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{live::LiveTask, nodes::Shared};
use crate::{
    model::{DeliveryChange, Id},
    store::{StoreError, registry::Registry},
    telemetry::metrics::Metrics,
};

/// Steps that may wait for the registry; beyond them whoever records one waits.
const CAPACITY: usize = 4_096;
/// How long a step that nobody waits for may wait for others.
const LINGER: Duration = Duration::from_millis(100);
/// From the beginning of one commit to that of the next: what a device may wait longer for its answer
/// while others finish, too. Each commit costs a sync of the disk and some wake-ups, whatever is in it.
pub(super) const PACE: Duration = Duration::from_millis(50);
/// The most steps in one commit.
pub(super) const MAX_COMMIT: usize = 500;

/// The registry did not take a step: what it stands for has not happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the registry did not record it")]
pub struct NotRecorded;

/// The way in.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    steps: mpsc::Sender<Entry>,
}

#[derive(Debug)]
struct Entry {
    change: DeliveryChange,
    /// Those who watch it are told once it is committed.
    task: Arc<LiveTask>,
    committed: Option<oneshot::Sender<()>>,
}

impl Entry {
    /// Whether the step may wait for others: nobody waits for it.
    fn can_wait(&self) -> bool {
        self.committed.is_none()
    }
}

/// The other end, to be driven by one task.
#[derive(Debug)]
pub(super) struct Recorder {
    steps: mpsc::Receiver<Entry>,
    registry: Registry,
    /// Where other nodes have deliveries, too.
    shared: Option<Arc<Shared>>,
    seconds: Histogram,
}

/// A journal and the recorder that empties it.
pub(super) fn journal(
    registry: Registry,
    shared: Option<Arc<Shared>>,
    metrics: &Metrics,
) -> (Journal, Recorder) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    (
        Journal { steps: sender },
        Recorder {
            steps: receiver,
            registry,
            shared,
            seconds: metrics.store_seconds("registry", "deliveries"),
        },
    )
}

impl Journal {
    /// Hands a step over without waiting for its commit.
    ///
    /// # Cancel safety
    /// A cancelled call has recorded nothing.
    pub(super) async fn note(&self, task: &Arc<LiveTask>, change: DeliveryChange) {
        // The recorder lives as long as the process; after it nothing is left to record.
        let _gone = self
            .steps
            .send(Entry {
                change,
                task: Arc::clone(task),
                committed: None,
            })
            .await;
    }

    /// Hands a step over and waits until it is committed.
    ///
    /// # Errors
    /// [`NotRecorded`] where the registry refused it or is gone.
    pub(super) async fn commit(
        &self,
        task: &Arc<LiveTask>,
        change: DeliveryChange,
    ) -> Result<(), NotRecorded> {
        let recorded = self.enter(task, change).await?;
        recorded.await.map_err(|_| NotRecorded)
    }

    /// Hands a step over and gives what says that it is committed, or is dropped where it is not.
    ///
    /// # Errors
    /// [`NotRecorded`] where nothing is recorded any more.
    ///
    /// # Cancel safety
    /// A cancelled call has recorded nothing.
    pub(super) async fn enter(
        &self,
        task: &Arc<LiveTask>,
        change: DeliveryChange,
    ) -> Result<oneshot::Receiver<()>, NotRecorded> {
        let (committed, done) = oneshot::channel();
        let entry = Entry {
            change,
            task: Arc::clone(task),
            committed: Some(committed),
        };
        self.steps.send(entry).await.map_err(|_| NotRecorded)?;
        Ok(done)
    }
}

impl Recorder {
    /// Commits what comes; after `stop` what was handed over before, and then no more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut entries = Vec::with_capacity(MAX_COMMIT);
        let mut changes = Vec::with_capacity(MAX_COMMIT);
        let mut refused = Vec::new();
        let mut not_before = Instant::now();
        loop {
            let received = tokio::select! {
                biased;
                received = self.steps.recv_many(&mut entries, MAX_COMMIT) => received,
                () = stop.cancelled(), if !self.steps.is_closed() => {
                    self.steps.close();
                    continue;
                }
            };
            if received == 0 {
                return;
            }
            self.gather(&mut entries, not_before).await;
            not_before = Instant::now() + PACE;
            changes.clear();
            let steps = entries
                .iter()
                .map(|entry| (entry.task.id, entry.change.clone()));
            changes.extend(steps);
            refused.clear();
            match self.write(&changes, &mut refused, &stop).await {
                Ok(()) => entries.drain(..).for_each(|entry| {
                    entry.task.feed.note(entry.change.delivery);
                    if refused.binary_search(&entry.change.delivery).is_ok() {
                        return;
                    }
                    if let Some(committed) = entry.committed {
                        // Whoever waited may be gone; the step stands all the same.
                        let _gone = committed.send(());
                    }
                }),
                Err(error) => {
                    tracing::error!(%error, steps = changes.len(), "steps of deliveries could not be recorded");
                    entries.clear();
                }
            }
            if let Some(shared) = self.shared.as_ref().filter(|_| !refused.is_empty()) {
                shared.refuse(std::mem::take(&mut refused));
            }
        }
    }

    /// Lets more steps join until it is time for the next commit: for those that nobody waits for somewhat
    /// longer, so that the steps of one delivery which follow each other closely are one row's change.
    async fn gather(&mut self, entries: &mut Vec<Entry>, not_before: Instant) {
        let linger = Instant::now() + LINGER;
        while entries.len() < MAX_COMMIT {
            let until = if entries.iter().all(Entry::can_wait) {
                linger
            } else {
                not_before
            };
            let room = MAX_COMMIT - entries.len();
            let joining = self.steps.recv_many(entries, room);
            // Nothing is lost when the time is up first: what was received stands in `entries`.
            match timeout_at(until, joining).await {
                Ok(received) if received > 0 => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Writes with a few tries: a busy database is no reason to lose what devices said. One that is another process is
    /// waited for as long as it is away.
    async fn write(
        &self,
        changes: &[(Id, DeliveryChange)],
        refused: &mut Vec<Id>,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let mut pause = Duration::from_millis(50);
        let _timed = self.seconds.start_timer();
        let mut tries = 0_u32;
        loop {
            let error = match self.apply(changes).await {
                Ok(found) => {
                    *refused = found;
                    return Ok(());
                }
                Err(error) => error,
            };
            tries += 1;
            let waits = self.registry.is_remote() && error.may_pass();
            if stop.is_cancelled() || tries > 4 && !waits {
                return Err(error);
            }
            tracing::warn!(%error, "recording steps of deliveries: trying again");
            let _stopped = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 4).min(LONGEST_PAUSE);
        }
    }

    /// Gives those whose steps were refused, in order.
    async fn apply(&self, changes: &[(Id, DeliveryChange)]) -> Result<Vec<Id>, StoreError> {
        if let Some(shared) = &self.shared {
            return self
                .registry
                .apply_fenced_changes(shared.node(), changes)
                .await;
        }
        let changes: Vec<_> = changes.iter().map(|(_, change)| change.clone()).collect();
        self.registry.apply_delivery_changes(&changes).await?;
        Ok(Vec::new())
    }
}

/// Between two tries to write.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
