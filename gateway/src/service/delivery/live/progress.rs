//! What of an open delivery changes, under its one lock: its state, and which bytes were sent and had.

use std::time::{Duration, Instant};

use headgate_protocol::transfer::ranges::Ranges;

use crate::model::{DeliveryState, Millis};

/// How far an attempt is.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) state: DeliveryState,
    pub(super) created_at: Millis,
    pub(super) pushed_at: Option<Millis>,
    pub(super) delivering_at: Option<Millis>,
    /// What the device has: its own word, and its acknowledgements since.
    pub(super) have: Ranges,
    /// What has been sent on any wire in this attempt.
    pub(super) sent: Ranges,
    /// What earlier attempts sent, as long as nothing was wrong with it.
    pub(super) earlier: Ranges,
    /// Bytes were sent before that `sent` does not know of: the first offset that the device names
    /// says how many.
    pub(super) restored: bool,
    /// They were sent by a process that is gone, in this very attempt: the device's word is all
    /// the proof that there is.
    pub(super) resumed: bool,
    /// The device's own figure, for one that fetches by other means.
    pub(super) reported_percent: Option<u8>,
    pub(super) last_activity: Instant,
    pub(super) wakeups: Wakeups,
    pub(super) all_sent: bool,
    pub(super) checkpointed_bytes: u64,
    pub(super) checkpointed_at: Instant,
    pub(super) renewal: Renewal,
}

/// How often a device that sleeps was awake.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wakeups {
    pub(super) last: Option<Millis>,
    /// In a row without a byte.
    idle: u32,
    /// What had been sent then.
    sent_bytes: u64,
}

/// Whether another attempt follows one that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// No.
    None,
    /// As soon as the failure is recorded.
    Due,
    /// It was to follow, and an operator cancelled it meanwhile.
    Stopped,
}

/// How a try to change the state came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service::delivery) enum Step {
    /// It is now in that state, which must be recorded.
    Taken {
        /// The state that it was in.
        from: DeliveryState,
    },
    /// It was there already, or further; nothing changed.
    Already,
    /// It has ended.
    Over,
}

/// What a delivery waits for, as far as the timers are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service::delivery) struct Stall {
    /// Since the last sign of the device.
    pub idle: Duration,
    /// Every byte has been sent: what is missing is the device's verdict.
    pub all_sent: bool,
    /// Bytes that went out and have not been acknowledged.
    pub in_flight_bytes: u64,
}

impl Progress {
    /// All that was sent in this attempt and in those before.
    pub(super) fn evidence(&self) -> Ranges {
        let mut all = self.earlier.clone();
        all.insert(0, self.sent.low());
        for (start, end) in self.sent.beyond() {
            all.insert(*start, *end);
        }
        all
    }

    /// Takes note that a device that sleeps was awake until `at`; gives how often in a row it was without a byte.
    pub(super) fn count_wakeup(&mut self, at: Millis) -> u32 {
        let sent_bytes = self.sent.total();
        let moved = sent_bytes != self.wakeups.sent_bytes;
        let idle = if moved { 0 } else { self.wakeups.idle + 1 };
        self.wakeups = Wakeups {
            last: Some(at),
            idle,
            sent_bytes,
        };
        idle
    }

    pub(super) fn new(state: DeliveryState, created_at: Millis, have: Ranges) -> Self {
        let now = Instant::now();
        Self {
            state,
            created_at,
            pushed_at: None,
            delivering_at: None,
            checkpointed_bytes: have.total(),
            checkpointed_at: now,
            all_sent: false,
            sent: Ranges::default(),
            earlier: Ranges::default(),
            have,
            restored: false,
            resumed: false,
            reported_percent: None,
            last_activity: now,
            wakeups: Wakeups::default(),
            renewal: Renewal::None,
        }
    }
}
