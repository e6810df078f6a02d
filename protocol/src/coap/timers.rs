//! What is to happen when: the next first.

use std::{collections::BTreeMap, time::Instant};

/// Timers of one kind; each is known by the key that setting it gave.
#[derive(Debug)]
pub(super) struct Timers<T> {
    by_time: BTreeMap<TimerKey, T>,
    set: u64,
}

/// Finds a timer: its time, and a number so that two of one time differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerKey(Instant, u64);

impl<T> Timers<T> {
    pub(super) const fn new() -> Self {
        Self {
            by_time: BTreeMap::new(),
            set: 0,
        }
    }

    pub(super) fn set(&mut self, at: Instant, timer: T) -> TimerKey {
        self.set += 1;
        let key = TimerKey(at, self.set);
        self.by_time.insert(key, timer);
        key
    }

    pub(super) fn clear(&mut self, key: TimerKey) {
        self.by_time.remove(&key);
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first_key_value().map(|(key, _)| key.0)
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<T> {
        let (key, _) = self.by_time.first_key_value()?;
        if key.0 > now {
            return None;
        }
        self.by_time.pop_first().map(|(_, timer)| timer)
    }
}
