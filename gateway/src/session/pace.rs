//! How fast clients publish: when one that was too fast is read from again.
//!
//! For each limit the time is kept at which all that came would have been due, had it come evenly; whoever is ahead of
//! the present by more than the burst waits. So there is no task and no timer beside that of the session, and what a
//! device holds is one small allocation, made where its rate is limited and it publishes.

use std::time::{Duration, Instant};

use headgate_protocol::mqtt::Publish;
use parking_lot::Mutex;

use crate::{config::RatesConfig, telemetry::metrics::PauseReason};

/// How far ahead publishing is of one pair of limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    messages: Instant,
    bytes: Instant,
}

/// A client that is not read from for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) until: Instant,
    pub(super) reason: PauseReason,
}

/// The limits, and how far all clients of the node are.
#[derive(Debug)]
pub(super) struct Rates {
    config: RatesConfig,
    node: Mutex<Pace>,
}

impl Pace {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            messages: now,
            bytes: now,
        }
    }

    /// Takes note of one message; gives when the next may come.
    fn take(
        &mut self,
        now: Instant,
        bytes: usize,
        limits: (Option<u32>, Option<usize>),
        burst: Duration,
    ) -> Option<Instant> {
        let mut free = now;
        if let Some(per_sec) = limits.0 {
            self.messages = self.messages.max(now) + span(1, u64::from(per_sec));
            free = free.max(earlier(self.messages, burst, now));
        }
        if let Some(per_sec) = limits.1 {
            self.bytes = self.bytes.max(now) + span(bytes as u64, per_sec as u64);
            free = free.max(earlier(self.bytes, burst, now));
        }
        (free > now).then_some(free)
    }
}

impl Rates {
    pub(super) fn new(config: RatesConfig) -> Self {
        Self {
            config,
            node: Mutex::new(Pace::new(Instant::now())),
        }
    }

    /// Whether devices have a limit of their own.
    pub(super) const fn limits_devices(&self) -> bool {
        self.config.device_messages.is_some() || self.config.device_bytes.is_some()
    }

    const fn limits_node(&self) -> bool {
        self.config.node_messages.is_some() || self.config.node_bytes.is_some()
    }

    /// Takes note of what a client published; gives how long it waits, if at all. `device` is how far it is itself,
    /// where it is a device.
    pub(super) fn take(&self, publish: &Publish, device: Option<&mut Pace>) -> Option<Pause> {
        if device.is_none() && !self.limits_node() {
            return None;
        }
        let (now, config) = (Instant::now(), &self.config);
        let bytes = publish.payload.len() + publish.topic.len();
        let own = device.and_then(|pace| {
            let limits = (config.device_messages, config.device_bytes);
            pace.take(now, bytes, limits, config.burst)
        });
        let all = self.limits_node().then(|| {
            let limits = (config.node_messages, config.node_bytes);
            self.node.lock().take(now, bytes, limits, config.burst)
        });
        let own = own.map(|until| Pause {
            until,
            reason: PauseReason::DeviceRate,
        });
        let all = all.flatten().map(|until| Pause {
            until,
            reason: PauseReason::NodeRate,
        });
        own.into_iter().chain(all).max_by_key(|pause| pause.until)
    }
}

fn span(amount: u64, per_sec: u64) -> Duration {
    let nanos = u128::from(amount) * 1_000_000_000 / u128::from(per_sec.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn earlier(at: Instant, burst: Duration, now: Instant) -> Instant {
    at.checked_sub(burst).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_free_and_what_follows_waits_its_turn() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..10 {
            assert_eq!(pace.take(now, 0, (Some(10), None), BURST), None);
        }
        let tenth = Duration::from_millis(100);
        for n in 1..4 {
            let free = pace.take(now, 0, (Some(10), None), BURST);
            assert_eq!(free, Some(now + n * tenth));
        }
        // After a rest the whole burst is free again, and no more than that.
        let later = now + Duration::from_mins(1);
        for _ in 0..10 {
            assert_eq!(pace.take(later, 0, (Some(10), None), BURST), None);
        }
        assert!(pace.take(later, 0, (Some(10), None), BURST).is_some());
    }

    #[test]
    fn the_stricter_of_messages_and_bytes_counts() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let limits = (Some(1_000), Some(1_000));
        assert_eq!(pace.take(now, 1_000, limits, BURST), None);
        let free = pace.take(now, 500, limits, BURST);
        assert_eq!(free, Some(now + BURST / 2));
    }
}
