//! Metrics of registration in batches.
//!
//! Made by `Families::new`. Invariants: one child per field, looked up once.

use prometheus::{IntCounter, IntGauge};

use super::maker::Maker;

/// `headgate_registration_rows_total` by result.
#[derive(Debug)]
pub struct RegistrationRows {
    /// The device was registered.
    pub created: IntCounter,
    /// It was there, as the row says.
    pub unchanged: IntCounter,
    /// The row cannot be used.
    pub failed: IntCounter,
}

impl RegistrationRows {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let rows = make.counters(
            "registration_rows_total",
            "Rows of batches by what became of them.",
            &["result"],
        );
        Self {
            created: rows.with_label_values(&["created"]),
            unchanged: rows.with_label_values(&["unchanged"]),
            failed: rows.with_label_values(&["failed"]),
        }
    }
}

/// `headgate_registration_batches` by state.
#[derive(Debug)]
pub struct RegistrationBatches {
    /// Others are before it.
    pub waiting: IntGauge,
    /// Its rows are being registered.
    pub running: IntGauge,
}

impl RegistrationBatches {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let batches = make.gauges(
            "registration_batches",
            "Batches of devices that are not done.",
            &["state"],
        );
        Self {
            waiting: batches.with_label_values(&["waiting"]),
            running: batches.with_label_values(&["running"]),
        }
    }
}
