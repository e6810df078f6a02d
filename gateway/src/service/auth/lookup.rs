//! Look-ups of devices that wait for each other: while one query runs, and for a moment after it, those that arrive
//! share the next.
//!
//! When ten thousand devices come back at once, the registry sees a query for each few dozen or hundred of them, and
//! never more than one each [`GATHERING`]. A device that comes alone does not wait.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::{
    sync::{Mutex as AsyncMutex, oneshot},
    time::Instant,
};

use crate::{
    store::{
        StoreError,
        registry::{BLOCK, DeviceAuthRow, Registry},
    },
    telemetry::metrics::Metrics,
};

/// From the end of a query to the beginning of the next. A query costs two changes of threads, however many it is for:
/// at two thousand logins a second each is for ten devices instead of two, for which a login may wait this long.
const GATHERING: Duration = Duration::from_millis(5);

/// What a look-up finds.
type Found = Result<Option<Arc<DeviceAuthRow>>, Arc<StoreError>>;

/// Looks devices up, many at a time.
pub(super) struct Lookups {
    registry: Registry,
    waiting: Mutex<Vec<Waiting>>,
    /// Held by the one look-up that queries for all; when the last query ended.
    turn: AsyncMutex<Option<Instant>>,
    queries: IntCounter,
}

struct Waiting {
    identity: String,
    answer: oneshot::Sender<Found>,
}

impl Lookups {
    pub(super) fn new(registry: Registry, metrics: &Metrics) -> Self {
        Self {
            queries: metrics.auth_queries.clone(),
            registry,
            waiting: Mutex::default(),
            turn: AsyncMutex::default(),
        }
    }

    /// The device that a string names.
    ///
    /// # Cancel safety
    /// Safe, for the others too: who waited for a query that was dropped queries itself.
    pub(super) async fn find(&self, identity: &str) -> Found {
        loop {
            let (answer, mut found) = oneshot::channel();
            self.waiting.lock().push(Waiting {
                identity: identity.to_owned(),
                answer,
            });
            loop {
                tokio::select! {
                    biased;
                    result = &mut found => match result {
                        Ok(found) => return found,
                        // Who queried for this one was dropped: once more from the start.
                        Err(_) => break,
                    },
                    mut ended = self.turn.lock() => {
                        if let Some(ended) = *ended {
                            tokio::time::sleep_until(ended + GATHERING).await;
                        }
                        self.query().await;
                        *ended = Some(Instant::now());
                    }
                }
            }
        }
    }

    /// Answers up to [`BLOCK`] of those that wait.
    async fn query(&self) {
        let batch: Vec<Waiting> = {
            let mut waiting = self.waiting.lock();
            let count = waiting.len().min(BLOCK);
            waiting.drain(..count).collect()
        };
        if batch.is_empty() {
            return;
        }
        let identities: Vec<&str> = batch.iter().map(|one| one.identity.as_str()).collect();
        self.queries.inc();
        match self.registry.devices_by_alias(&identities).await {
            Ok(rows) => {
                let rows: HashMap<String, Arc<DeviceAuthRow>> = rows
                    .into_iter()
                    .map(|(alias, row)| (alias, Arc::new(row)))
                    .collect();
                for one in batch {
                    let found = rows.get(&one.identity).map(Arc::clone);
                    // Who was dropped meanwhile needs no answer.
                    let _gone = one.answer.send(Ok(found));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for one in batch {
                    let _gone = one.answer.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}
