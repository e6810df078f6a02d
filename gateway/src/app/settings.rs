//! Settings that are read again while the gateway runs, at SIGHUP.
//!
//! Invariants: what cannot be read changes nothing; what is read is held against the settings that are in force.

use std::{fmt, sync::Arc};

use crate::{
    config::{Config, ConfigError},
    edge::accept::Gate,
    telemetry::log,
};

/// Reads the configuration again, from where it came.
pub type Reread = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// What a gateway is started with.
pub struct Boot {
    /// Its configuration.
    pub config: Config,
    /// How that is read again; where it is not, SIGHUP is about certificates alone.
    pub reread: Option<Reread>,
}

impl From<Config> for Boot {
    fn from(config: Config) -> Self {
        Self {
            config,
            reread: None,
        }
    }
}

impl fmt::Debug for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boot").finish_non_exhaustive()
    }
}

/// The settings that are in force, and who goes by those that can change.
pub(super) struct Settings {
    pub(super) held: Config,
    pub(super) reread: Option<Reread>,
    pub(super) gate: Gate,
}

impl Settings {
    /// Takes over what can change, and says what waits for a restart.
    pub(super) fn take(&mut self, read: &Config) {
        let waiting = self.held.waits_for_restart(read);
        if !waiting.is_empty() {
            let waiting = waiting.join(", ");
            tracing::warn!(%waiting, "settings have changed that hold from the next start on");
        }
        let before = self.held.clone();
        self.held.take_over(read);
        if self.held == before {
            return;
        }
        log::set_level(&self.held.log.level);
        self.gate.set_bounds(&self.held.mqtt);
        let (log, mqtt) = (&self.held.log, &self.held.mqtt);
        tracing::info!(
            level = log.level,
            max_connections = mqtt.max_connections,
            max_handshakes_per_network = mqtt.max_handshakes_per_network,
            max_accept_rate = mqtt.max_accept_rate,
            "other settings hold"
        );
    }
}
