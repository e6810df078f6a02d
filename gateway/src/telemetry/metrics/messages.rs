//! Metrics of messages that wait: wills, retained ones, and those of persistent sessions.
//!
//! Made by `Families::new`. Invariants: one child per field, looked up once.

use prometheus::{IntCounter, IntGauge};

use super::{
    super::labels::{SessionKind, WillEnd},
    maker::Maker,
};

/// Wills of clients.
#[derive(Debug)]
pub struct Wills {
    /// Those that may have to be published.
    pub held: IntGauge,
    /// Changes that wait to be stored.
    pub unstored: IntGauge,
    ends: Vec<IntCounter>,
}

impl Wills {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let ends = make.counters("wills_total", "Wills by what became of them.", &["result"]);
        Self {
            held: make.gauge("wills", "Wills that may have to be published."),
            unstored: make.gauge("wills_unstored", "Changes of wills not stored yet."),
            ends: WillEnd::ALL
                .iter()
                .map(|end| ends.with_label_values(&[end.label()]))
                .collect(),
        }
    }

    /// Wills by what became of them.
    pub fn ended(&self, end: WillEnd) -> &IntCounter {
        &self.ends[end.index()]
    }
}

/// Retained messages of all devices.
#[derive(Debug)]
pub struct Retained {
    /// How many.
    pub messages: IntGauge,
    /// What they take on the disk.
    pub bytes: IntGauge,
}

impl Retained {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Self {
            messages: make.gauge("retained_messages", "Retained messages."),
            bytes: make.gauge("retained_bytes", "Bytes of retained messages."),
        }
    }
}

/// Sessions that outlive their connections, and what waits for them.
#[derive(Debug)]
pub struct PersistentSessions {
    kinds: Vec<IntGauge>,
    /// Clients that got a session that ends with its connection, because there are as many as may be.
    pub refused: IntCounter,
    /// Messages that wait for those of applications.
    pub queue_messages: IntGauge,
    /// What they take, in bytes.
    pub queue_bytes: IntGauge,
}

impl PersistentSessions {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        let sessions = make.gauges(
            "persistent_sessions",
            "Sessions that outlive their connections.",
            &["kind"],
        );
        let of = |kind: &SessionKind| sessions.with_label_values(&[kind.label()]);
        Self {
            kinds: SessionKind::ALL.iter().map(of).collect(),
            refused: make.counter(
                "persistent_sessions_refused_total",
                "Sessions that were not kept, because as many are as may be.",
            ),
            queue_messages: make.gauge(
                "queue_messages",
                "Messages that wait for persistent sessions of applications.",
            ),
            queue_bytes: make.gauge("queue_bytes", "Bytes of these messages."),
        }
    }

    /// How many there are of this kind.
    pub fn of(&self, kind: SessionKind) -> &IntGauge {
        &self.kinds[kind.index()]
    }
}
