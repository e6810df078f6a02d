//! Traffic: devices that publish by plan, listeners that hear everything, and what goes wrong between.
//!
//! Built on the same links as deliveries, without knowing anything of a gateway: whatever speaks MQTT
//! can be measured. A run has one plan; devices and listeners are tasks of their own.
//! Invariants: a message that was acknowledged is not sent again; what waits for an acknowledgement
//! is bounded by the plan's window.

pub(crate) mod conn;
pub(crate) mod listener;
pub(crate) mod malformed;
pub(crate) mod payload;
pub(crate) mod publisher;
pub(crate) mod schedule;
pub(crate) mod seen;
pub(crate) mod sender;
pub(crate) mod trouble;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headgate_protocol::mqtt::QoS;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::device::login::Login;
use crate::swarm::Swarm;
use schedule::Schedule;
use trouble::Trouble;

/// What everybody does.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Keeps this run's messages apart from others'.
    pub(crate) run: u32,
    /// How messages are published and heard.
    pub(crate) qos: QoS,
    /// Bytes a message.
    pub(crate) size: usize,
    /// When messages are due.
    pub(crate) schedule: Schedule,
    /// Messages of a device that may be unacknowledged.
    pub(crate) window: usize,
    /// Behind `{product}/{device}/` in topics.
    pub(crate) topic: String,
    /// What goes wrong.
    pub(crate) trouble: Trouble,
}

/// What all tasks of a run share.
pub(crate) struct Traffic {
    /// Connections, counters, the end.
    pub(crate) swarm: Arc<Swarm>,
    /// What everybody does.
    pub(crate) plan: Plan,
    /// Cancelled when messages begin to be due.
    pub(crate) go: CancellationToken,
    /// Cancelled when no further message is due.
    pub(crate) quiet: CancellationToken,
    /// How listeners log in: the ClientId gets a number at its end.
    pub(crate) listener: Option<Login>,
    began: OnceLock<Instant>,
    epoch: (Instant, u64),
}

impl Traffic {
    /// Traffic by `plan` that has not begun.
    pub(crate) fn new(swarm: Arc<Swarm>, plan: Plan, listener: Option<Login>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let micros = since.map_or(0, micros);
        Self {
            swarm,
            plan,
            go: CancellationToken::new(),
            quiet: CancellationToken::new(),
            listener,
            began: OnceLock::new(),
            epoch: (Instant::now(), micros),
        }
    }

    /// Messages are due from now on.
    pub(crate) fn begin(&self) {
        self.began.get_or_init(Instant::now);
        self.go.cancel();
    }

    /// When messages began to be due.
    pub(crate) fn began(&self) -> Option<Instant> {
        self.began.get().copied()
    }

    /// `at` in microseconds since 1970, by the clock that was read once at the start.
    pub(crate) fn unix_micros(&self, at: Instant) -> u64 {
        let (start, unix) = self.epoch;
        unix + micros(at.saturating_duration_since(start))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
