//! Whether the stores answer: shown in readiness, and proven to the service manager.
//!
//! A service manager that watches (`WatchdogSec=`) is told that the process is alive only after a timer of the
//! runtime has fired and every store of this machine has answered within the interval: a process that hangs, or whose
//! disk does, is started anew. A store elsewhere that is away makes the gateway not ready, and no start would bring it
//! back.

use std::time::Duration;

use prometheus::IntGauge;

use crate::{
    shutdown::{Notice, Shutdown, notify},
    store::{StoreError, blobs::BlobStore, registry::Registry, sessions::SessionStore},
    telemetry::{
        health::{Check, Readiness},
        metrics::Metrics,
    },
};

/// How often the stores are asked, and how long each may take.
const INTERVAL: Duration = Duration::from_secs(5);

/// The stores, and where it is said how they are.
#[derive(Debug)]
pub(super) struct StoreWatch {
    registry: (Registry, Watched),
    sessions: (SessionStore, Watched),
    /// Where they are with a service.
    blobs: Option<(BlobStore, Watched)>,
    metrics: Metrics,
    interval: Duration,
}

/// Where it is said how a store is.
#[derive(Debug)]
struct Watched {
    check: Check,
    up: IntGauge,
}

impl StoreWatch {
    /// Watches stores that have just been opened. `watchdog` is how long the service manager waits for a word of
    /// this process, where it does.
    pub(super) fn new(
        registry: Registry,
        sessions: SessionStore,
        blobs: BlobStore,
        readiness: &Readiness,
        metrics: &Metrics,
        watchdog: Option<Duration>,
    ) -> Self {
        let watched = |name| {
            let (check, up) = (readiness.check(name), metrics.store_up(name));
            check.pass();
            up.set(1);
            Watched { check, up }
        };
        Self {
            registry: (registry, watched("registry")),
            sessions: (sessions, watched("sessions")),
            blobs: blobs.is_remote().then(|| (blobs, watched("blobs"))),
            metrics: metrics.clone(),
            // A third of it: one answer that is late does no harm.
            interval: watchdog.map_or(INTERVAL, |limit| INTERVAL.min(limit / 3)),
        }
    }

    /// Asks until the last stage of `shutdown`.
    pub(super) fn spawn(self, shutdown: &Shutdown) {
        let stop = shutdown.token().clone();
        shutdown.spawn(async move { stop.run_until_cancelled(self.run()).await });
    }

    async fn run(self) {
        loop {
            tokio::time::sleep(self.interval).await;
            if self.ask().await {
                notify(Notice::Alive);
            }
        }
    }

    /// Asks all; says whether those of this machine answered in time.
    async fn ask(&self) -> bool {
        let (registry, of_registry) = &self.registry;
        let (sessions, of_sessions) = &self.sessions;
        let (idle, used) = registry.connections();
        self.metrics.set_registry_connections(idle, used);
        let of_bucket = async {
            if let Some((blobs, of_blobs)) = &self.blobs {
                let answer = tokio::time::timeout(self.interval, blobs.ping()).await;
                note(of_blobs, answer, self.interval);
            }
        };
        let (registry, sessions, ()) = tokio::join!(
            tokio::time::timeout(self.interval, registry.ping()),
            tokio::time::timeout(self.interval, sessions.ping()),
            of_bucket,
        );
        let registry = note(of_registry, registry, self.interval);
        let sessions = note(of_sessions, sessions, self.interval);
        (registry || self.registry.0.is_remote()) && (sessions || self.sessions.0.is_remote())
    }
}

fn note(
    Watched { check, up }: &Watched,
    answer: Result<Result<(), StoreError>, tokio::time::error::Elapsed>,
    limit: Duration,
) -> bool {
    up.set(i64::from(matches!(answer, Ok(Ok(())))));
    match answer {
        Ok(Ok(())) => {
            check.pass();
            return true;
        }
        Ok(Err(error)) => check.fail(&error.to_string()),
        Err(_elapsed) => check.fail(&format!("no answer within {} s", limit.as_secs_f32())),
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::registry::sqlite_url;

    async fn watch(directory: &std::path::Path, readiness: &Readiness) -> StoreWatch {
        let url = sqlite_url(&directory.join("r.db"));
        let registry = Registry::open(&url, 1).await.unwrap();
        let sessions = SessionStore::open(&directory.join("s.db")).await.unwrap();
        readiness.started();
        let blobs = BlobStore::open(&directory.join("blobs")).await.unwrap();
        StoreWatch::new(
            registry,
            sessions,
            blobs,
            readiness,
            &Metrics::new(),
            Some(Duration::from_secs(9)),
        )
    }

    #[tokio::test]
    async fn a_store_that_does_not_answer_is_named_and_nobody_is_told_that_all_is_well() {
        let directory = tempfile::tempdir().unwrap();
        let readiness = Readiness::new();
        let watch = watch(directory.path(), &readiness).await;
        assert!(watch.ask().await && readiness.is_ready());
        watch.sessions.0.close().await;
        assert!(!watch.ask().await && !readiness.is_ready());
        let report = readiness.report();
        let failing: Vec<_> = report
            .iter()
            .filter(|check| check.failure.is_some())
            .collect();
        let ups = [&watch.registry.1.up, &watch.sessions.1.up].map(IntGauge::get);
        assert_eq!(ups, [1, 0]);
        assert_eq!(failing.len(), 1);
        assert_eq!(failing[0].name, "sessions");
    }

    #[tokio::test]
    async fn a_watchdog_is_told_three_times_as_often_as_it_asks_for() {
        let directory = tempfile::tempdir().unwrap();
        let watch = watch(directory.path(), &Readiness::new()).await;
        assert_eq!(watch.interval, Duration::from_secs(3));
    }
}
