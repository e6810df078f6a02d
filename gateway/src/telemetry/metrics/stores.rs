//! Metrics of what is kept: how long calls take, and whether a store answers.

use prometheus::{HistogramVec, IntGauge, IntGaugeVec};

use super::Maker;

/// Seconds: from a memory look-up to a slow disk.
const BUCKETS: &[f64] = &[0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// What is counted of stores.
#[derive(Debug)]
pub(super) struct Stores {
    pub(super) seconds: HistogramVec,
    pub(super) up: IntGaugeVec,
    /// Idle, used.
    pub(super) registry_connections: [IntGauge; 2],
}

impl Stores {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let connections = make.gauges(
            "registry_connections",
            "Connections to the registry's database.",
            &["state"],
        );
        Self {
            seconds: make.histograms(
                "store_seconds",
                "Time of store calls.",
                &["store", "operation"],
                BUCKETS,
            ),
            up: make.gauges(
                "store_up",
                "1 while the store answers; asked every 5 s.",
                &["store"],
            ),
            registry_connections: ["idle", "used"]
                .map(|state| connections.with_label_values(&[state])),
        }
    }
}
