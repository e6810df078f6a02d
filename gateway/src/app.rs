//! The composition root: builds stores, services, sessions and edges, runs them, and ends them in
//! order. The only file that names all four layers.

mod advice;
mod certificates;
mod cluster;
mod coap;
mod console;
mod keys;
mod listeners;
mod registry;
mod settings;
mod start;
mod stores;
mod watch;

use std::time::Duration;

pub use self::{
    keys::rotate as rotate_key,
    registry::migrate as migrate_registry,
    settings::{Boot, Reread},
    start::{App, FirstStart, StartError},
};
/// The credentials within [`FirstStart`], so that whoever is told of them can name them.
pub use crate::service::auth::Bootstrap;
use crate::{
    config::data_dir::Ports,
    session::CloseReason,
    shutdown::{Notice, Shutdown, notify},
};

/// What the gateway has to tell whoever started it.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Credentials were made; they are shown this once.
    FirstStart(&'a FirstStart),
    /// Every listener is open.
    Ready(&'a Ports),
}

/// Runs the gateway until `shutdown` drains it.
///
/// # Errors
/// [`StartError`] where it cannot start; nothing is left open then.
pub async fn run(
    boot: impl Into<Boot>,
    shutdown: Shutdown,
    mut tell: impl FnMut(Progress<'_>),
) -> Result<(), StartError> {
    let app = App::start(boot.into(), &shutdown).await?;
    if let Some(first) = app.first_start() {
        tell(Progress::FirstStart(first));
    }
    tell(Progress::Ready(app.ports()));
    shutdown.draining().await;
    notify(Notice::Stopping);
    app.end(&shutdown).await;
    Ok(())
}

impl App {
    /// Ends in order: not ready, no new connections, sessions at a rate, then what is unsaved.
    async fn end(self, shutdown: &Shutdown) {
        let config = &self.shutdown_config;
        self.readiness.drain();
        self.metrics.draining.set(1);
        // Whoever balances load needs a moment to see that this node is not ready.
        tokio::time::sleep(config.drain_delay).await;
        self.edges.drain();
        self.close_sessions().await;
        if !self.edges.wait(config.grace).await {
            tracing::warn!(
                tasks = self.edges.tasks(),
                "connections did not end within the grace period"
            );
        }
        self.edges.stop();
        self.delivery.flush().await;
        self.presence.flush().await;
        self.tokens.flush().await;
        shutdown.stop();
        if !shutdown.wait(Duration::from_secs(5)).await {
            tracing::warn!(tasks = shutdown.tasks(), "tasks did not end");
        }
        if let Some(cluster) = &self.cluster {
            cluster.end().await;
        }
        self.registry.close().await;
        self.sessions.close().await;
        tracing::info!("stopped");
    }

    /// Tells devices and applications to go, at the rate at which other nodes can take them.
    async fn close_sessions(&self) {
        let rate = usize::try_from(self.shutdown_config.disconnect_rate).unwrap_or(usize::MAX);
        let per_tick = (rate / 10).max(1);
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        for sessions in self.node.table.all().chunks(per_tick) {
            tick.tick().await;
            for session in sessions {
                session.close(CloseReason::Shutdown);
            }
        }
        // Last: what devices said before they went still reaches them.
        for sessions in self.node.applications.all().chunks(per_tick) {
            tick.tick().await;
            for session in sessions {
                session.end(CloseReason::Shutdown);
            }
        }
    }
}
