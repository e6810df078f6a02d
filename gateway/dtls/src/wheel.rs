//! A wheel of timers: setting one and firing it cost the same however many there are.
//!
//! A timer is never cleared: whoever is told that its time has come looks whether that is still so.

use std::time::{Duration, Instant};

/// Timers are this exact.
const GRAIN: Duration = Duration::from_millis(100);
/// Slots of the wheel: what is further away than a turn stays for another one.
const SLOTS: u64 = 512;

/// Timers that carry a `T`.
#[derive(Debug)]
pub(crate) struct Wheel<T> {
    start: Instant,
    /// All before it have fired.
    tick: u64,
    slots: Vec<Vec<(u64, T)>>,
    /// The tick of the next timer, or one before it.
    next: Option<u64>,
}

impl<T> Wheel<T> {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            tick: 0,
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            next: None,
        }
    }

    /// Sets a timer, which fires at this time or up to a grain later.
    pub(crate) fn set(&mut self, at: Instant, timer: T) {
        let tick = (self.ticks(at) + 1).max(self.tick);
        self.slots[slot(tick)].push((tick, timer));
        self.next = Some(self.next.map_or(tick, |next| next.min(tick)));
    }

    /// When [`Wheel::expire`] has something to do.
    pub(crate) fn next(&self) -> Option<Instant> {
        let tick = u32::try_from(self.next?).unwrap_or(u32::MAX);
        Some(self.start + GRAIN * tick)
    }

    /// The timers whose time has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<T> {
        let mut fired = Vec::new();
        let now = self.ticks(now);
        if self.next.is_none_or(|next| next > now) {
            return fired;
        }
        for tick in self.tick..=now.min(self.tick + SLOTS - 1) {
            let due = self.slots[slot(tick)].extract_if(.., |(at, _)| *at <= now);
            fired.extend(due.map(|(_, timer)| timer));
        }
        self.tick = now + 1;
        let of_this_turn = (self.tick..self.tick + SLOTS)
            .find(|tick| self.slots[slot(*tick)].iter().any(|(at, _)| at == tick));
        let is_empty = self.slots.iter().all(Vec::is_empty);
        self.next = of_this_turn.or_else(|| (!is_empty).then_some(self.tick + SLOTS));
        fired
    }

    fn ticks(&self, at: Instant) -> u64 {
        let millis = at.saturating_duration_since(self.start).as_millis() / GRAIN.as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX)
    }
}

fn slot(tick: u64) -> usize {
    usize::try_from(tick % SLOTS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_time_however_far_away() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let at = |secs: u64| start + Duration::from_secs(secs);
        for secs in [1, 60, 3, 600, 2, 51, 52] {
            wheel.set(at(secs), secs);
        }
        let mut fired = Vec::new();
        let mut turns = 0;
        while let Some(next) = wheel.next() {
            turns += 1;
            for secs in wheel.expire(next) {
                let late = next.duration_since(at(secs));
                assert!(late <= GRAIN, "{secs} s was {late:?} late");
                fired.push(secs);
            }
        }
        assert_eq!(fired, [1, 2, 3, 51, 52, 60, 600]);
        assert!(turns < 24, "woken {turns} times");
    }

    #[test]
    fn what_was_missed_fires_at_once() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        wheel.set(start, 'a');
        wheel.set(start + Duration::from_secs(100), 'b');
        let mut fired = wheel.expire(start + Duration::from_secs(1_000));
        fired.sort_unstable();
        assert_eq!(fired, ['a', 'b']);
        assert_eq!(wheel.next(), None);
    }
}
