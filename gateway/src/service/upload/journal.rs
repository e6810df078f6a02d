//! Changes of the record of uploads on their way into the registry, many in one commit.
//!
//! Thousands of devices that announce at once, after an outage say, cost a few dozen commits. Whoever makes a change
//! waits until it is committed.

use prometheus::Histogram;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    store::{
        StoreError,
        registry::{Registry, StoredUpload, UploadChange},
    },
    telemetry::metrics::Metrics,
};

/// Changes that may wait for the registry; beyond them whoever makes one waits.
const CAPACITY: usize = 1_024;
/// The most changes in one commit.
const MAX_COMMIT: usize = 200;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotChanged {
    /// It would be more than the quota.
    #[error("more than the quota of {limit} {unit}")]
    Quota {
        /// What is counted.
        unit: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// The registry refused it or is gone.
    #[error("the registry did not record it")]
    Failed,
}

/// The way in.
#[derive(Debug, Clone)]
pub(super) struct Journal(mpsc::Sender<Entry>);

#[derive(Debug)]
struct Entry {
    change: UploadChange,
    committed: oneshot::Sender<Result<StoredUpload, NotChanged>>,
}

/// The other end, to be driven by one task.
#[derive(Debug)]
pub(super) struct Recorder {
    changes: mpsc::Receiver<Entry>,
    registry: Registry,
    seconds: Histogram,
}

/// A journal and the recorder that empties it.
pub(super) fn journal(registry: Registry, metrics: &Metrics) -> (Journal, Recorder) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let recorder = Recorder {
        changes: receiver,
        registry,
        seconds: metrics.store_seconds("registry", "uploads"),
    };
    (Journal(sender), recorder)
}

impl Journal {
    /// Hands a change over and waits until it is committed.
    ///
    /// # Errors
    /// [`NotChanged`].
    ///
    /// # Cancel safety
    /// A call that was dropped may have changed what it was to change.
    pub(super) async fn commit(&self, change: UploadChange) -> Result<StoredUpload, NotChanged> {
        let (committed, done) = oneshot::channel();
        let entry = Entry { change, committed };
        self.0.send(entry).await.map_err(|_| NotChanged::Failed)?;
        done.await.unwrap_or(Err(NotChanged::Failed))
    }
}

impl Recorder {
    /// Commits what comes; after `stop` what was handed over before, and then no more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut entries = Vec::with_capacity(MAX_COMMIT);
        loop {
            let received = tokio::select! {
                biased;
                received = self.changes.recv_many(&mut entries, MAX_COMMIT) => received,
                () = stop.cancelled(), if !self.changes.is_closed() => {
                    self.changes.close();
                    continue;
                }
            };
            if received == 0 {
                return;
            }
            let (changes, waiting): (Vec<_>, Vec<_>) = entries
                .drain(..)
                .map(|entry| (entry.change, entry.committed))
                .unzip();
            let timed = self.seconds.start_timer();
            let outcomes = self.registry.change_uploads(&changes).await;
            drop(timed);
            match outcomes {
                Ok(outcomes) => {
                    for (outcome, committed) in outcomes.into_iter().zip(waiting) {
                        // Whoever waited may be gone; the change stands all the same.
                        let _gone = committed.send(outcome.map_err(NotChanged::from));
                    }
                }
                Err(error) => {
                    tracing::error!(%error, changes = changes.len(), "changes of uploads could not be recorded");
                }
            }
        }
    }
}

impl From<StoreError> for NotChanged {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Quota { unit, limit } => Self::Quota { unit, limit },
            other => {
                tracing::error!(error = %other, "a change of an upload was not made");
                Self::Failed
            }
        }
    }
}
