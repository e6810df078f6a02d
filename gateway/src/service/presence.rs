//! When devices were last seen, written to the registry in batches.

use std::{collections::HashMap, sync::Arc, time::Duration};

use headgate_protocol::identity::DeviceId;
use parking_lot::Mutex;
use prometheus::Histogram;

use crate::{model::Millis, store::registry::Registry, telemetry::metrics::Metrics};

/// How often what was seen is written.
const INTERVAL: Duration = Duration::from_secs(2);
/// Devices that may wait to be written; beyond them the latest sight is lost, which costs a less
/// exact "last seen" and nothing else.
const CAPACITY: usize = 100_000;

/// Takes note of devices; a clone is another handle on the same.
#[derive(Debug, Clone)]
pub struct Presence {
    registry: Registry,
    seconds: Histogram,
    seen: Arc<Mutex<HashMap<DeviceId, Millis>>>,
}

impl Presence {
    /// Nobody has been seen.
    pub fn new(registry: Registry, metrics: &Metrics) -> Self {
        Self {
            registry,
            seconds: metrics.store_seconds("registry", "last_seen"),
            seen: Arc::default(),
        }
    }

    /// The device is here now.
    pub fn seen(&self, device: &DeviceId) {
        let mut seen = self.seen.lock();
        if seen.len() < CAPACITY || seen.contains_key(device) {
            seen.insert(device.clone(), Millis::now());
        }
    }

    /// Writes who was seen since the last time.
    pub async fn flush(&self) {
        let seen: Vec<(DeviceId, Millis)> =
            std::mem::take(&mut *self.seen.lock()).into_iter().collect();
        if seen.is_empty() {
            return;
        }
        let _timed = self.seconds.start_timer();
        if let Err(error) = self.registry.touch_last_seen(&seen).await {
            tracing::warn!(%error, devices = seen.len(), "when devices were last seen could not be written");
        }
    }

    /// Writes again and again, until it is dropped.
    pub async fn run(&self) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.flush().await;
        }
    }
}
