//! Whether the stores answer: shown in readiness, and proven to the service manager.
//!
//! A service manager that watches (`WatchdogSec=`) is told that the process is alive only after a timer of the
//! runtime has fired and both databases have answered within the interval: a process that hangs, or whose disk does,
//! is started anew.

use std::time::Duration;

use crate::{
    shutdown::{Notice, Shutdown, notify},
    store::{StoreError, registry::Registry, sessions::SessionStore},
    telemetry::health::{Check, Readiness},
};

/// How often the stores are asked, and how long each may take.
const INTERVAL: Duration = Duration::from_secs(5);

/// The stores, and where it is said how they are.
#[derive(Debug)]
pub(super) struct StoreWatch {
    registry: (Registry, Check),
    sessions: (SessionStore, Check),
    interval: Duration,
}

impl StoreWatch {
    /// Watches stores that have just been opened. `watchdog` is how long the service manager waits for a word of
    /// this process, where it does.
    pub(super) fn new(
        registry: Registry,
        sessions: SessionStore,
        readiness: &Readiness,
        watchdog: Option<Duration>,
    ) -> Self {
        let [of_registry, of_sessions] = ["registry", "sessions"].map(|name| readiness.check(name));
        of_registry.pass();
        of_sessions.pass();
        Self {
            registry: (registry, of_registry),
            sessions: (sessions, of_sessions),
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

    /// Asks both; says whether both answered in time.
    async fn ask(&self) -> bool {
        let (registry, registry_check) = &self.registry;
        let (sessions, sessions_check) = &self.sessions;
        let (registry, sessions) = tokio::join!(
            tokio::time::timeout(self.interval, registry.ping()),
            tokio::time::timeout(self.interval, sessions.ping()),
        );
        let registry = note(registry_check, registry, self.interval);
        let sessions = note(sessions_check, sessions, self.interval);
        registry && sessions
    }
}

fn note(
    check: &Check,
    answer: Result<Result<(), StoreError>, tokio::time::error::Elapsed>,
    limit: Duration,
) -> bool {
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
        StoreWatch::new(registry, sessions, readiness, Some(Duration::from_secs(9)))
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
