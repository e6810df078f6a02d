//! Tasks with an owner, and the way they end.
//!
//! `Shutdown` is made once in `main.rs` and cloned to whoever spawns: no other file starts a task.
//! It has two stages. Draining: the node is not ready and stops to accept, sessions end in order.
//! Stopping: every task is to return now. A signal starts the first stage, a second signal skips
//! to the end.
//! Invariants: a task that was spawned is counted until it has returned; a stage is never undone.

use std::{future::Future, io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The owner of tasks; clones share one set.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Shutdown {
    /// An owner without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task that is waited for at the end. Dropping the handle does not end the task.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where tasks are started"
    )]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(future))
    }

    /// Runs blocking work on a thread of its own; it is waited for at the end.
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tracker.spawn_blocking(work)
    }

    /// An owner for a part: it drains and stops with its parent, or alone, and waits for its own
    /// tasks only.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            drain: self.drain.child_token(),
            stop: self.stop.child_token(),
            tracker: TaskTracker::new(),
        }
    }

    /// Starts the first stage: not ready, no new connections.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Starts the last stage, and the first if it has not begun: every task is to return.
    pub fn stop(&self) {
        self.drain.cancel();
        self.stop.cancel();
    }

    /// Whether the first stage has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Whether the last stage has begun.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits for the first stage.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Waits for the last stage.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// The token of the last stage, for code that takes one.
    pub fn token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Tasks that have not returned.
    pub fn tasks(&self) -> usize {
        self.tracker.len()
    }

    /// Waits until every task of this owner has returned, at most `grace`; says whether all did.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait(&self, grace: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait())
            .await
            .is_ok()
    }
}

/// SIGTERM and SIGINT of this process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over the two signals; from here on they no longer end the process by themselves.
    ///
    /// # Errors
    /// What the system said.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and gives its name.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP of this process: files are to be read again.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Takes over the signal; from here on it no longer ends the process.
    ///
    /// # Errors
    /// The system refuses.
    pub fn install() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next one.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn recv(&mut self) {
        self.0.recv().await;
    }
}

/// What the service manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Every listener is open.
    Ready,
    /// Runtime and stores answer; to be said more often than [`watchdog`] asks for.
    Alive,
    /// The way to the end has begun.
    Stopping,
}

/// Tells the service manager, when one asked to be told (`NOTIFY_SOCKET`).
pub fn notify(notice: Notice) {
    let state = match notice {
        Notice::Ready => sd_notify::NotifyState::Ready,
        Notice::Alive => sd_notify::NotifyState::Watchdog,
        Notice::Stopping => sd_notify::NotifyState::Stopping,
    };
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// How long the service manager waits for [`Notice::Alive`] before it ends this process (`WatchdogSec=`); `None` where
/// it does not.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn waits_for_every_task() {
        let shutdown = Shutdown::new();
        let task = shutdown.clone();
        shutdown.spawn(async move { task.stopping().await });
        assert!(!shutdown.wait(Duration::ZERO).await);
        assert_eq!(shutdown.tasks(), 1);
        shutdown.stop();
        assert!(shutdown.wait(Duration::from_secs(30)).await);
    }

    #[tokio::test]
    async fn a_task_that_does_not_return_costs_the_grace_period_only() {
        let shutdown = Shutdown::new();
        let _task = shutdown.spawn(pending::<()>());
        shutdown.stop();
        assert!(!shutdown.wait(Duration::from_millis(10)).await);
    }

    #[tokio::test]
    async fn stopping_includes_draining_and_not_the_other_way_round() {
        let shutdown = Shutdown::new();
        shutdown.drain();
        assert!(shutdown.is_draining() && !shutdown.is_stopping());
        shutdown.stop();
        shutdown.draining().await;
        assert!(shutdown.is_stopping());
    }

    #[tokio::test]
    async fn a_part_ends_alone_or_with_the_whole() {
        let whole = Shutdown::new();
        let (one, other) = (whole.child(), whole.child());
        let task = one.clone();
        one.spawn(async move { task.stopping().await });
        one.stop();
        assert!(one.wait(Duration::from_secs(1)).await);
        assert!(!whole.is_draining() && !other.is_stopping());
        whole.drain();
        assert!(other.is_draining() && !other.is_stopping());
    }
}
