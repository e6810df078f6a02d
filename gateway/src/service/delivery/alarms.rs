//! When a delivery wants to be looked at though nothing happens to it: at the end of its back-off, or
//! of the time that it may be in progress.
//!
//! Each open delivery has at most one alarm; to find those that are due costs nothing for the others.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicI64, Ordering},
};

use parking_lot::Mutex;

use crate::model::{Id, Millis};

/// The alarms of all open deliveries, the next one first.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    by_time: Mutex<BTreeSet<(i64, Id)>>,
}

/// For when a delivery has its alarm set; 0: it has none. Changed under the lock of [`Alarms`].
#[derive(Debug, Default)]
pub(super) struct Alarm(AtomicI64);

impl Alarms {
    /// Sets a delivery's alarm in place of the one that it has.
    pub(super) fn set(&self, id: Id, alarm: &Alarm, at: Millis) {
        let at = at.as_i64().max(1);
        let mut by_time = self.by_time.lock();
        let former = alarm.0.swap(at, Ordering::Relaxed);
        by_time.remove(&(former, id));
        by_time.insert((at, id));
    }

    /// Takes a delivery's alarm away.
    pub(super) fn clear(&self, id: Id, alarm: &Alarm) {
        let mut by_time = self.by_time.lock();
        let former = alarm.0.swap(0, Ordering::Relaxed);
        by_time.remove(&(former, id));
    }

    /// Takes those whose time has come, at most `most`.
    pub(super) fn due(&self, now: Millis, most: usize) -> Vec<Id> {
        let mut by_time = self.by_time.lock();
        let mut due = Vec::new();
        while due.len() < most
            && let Some((at, _)) = by_time.first()
            && *at <= now.as_i64()
            && let Some((_, id)) = by_time.pop_first()
        {
            due.push(id);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: i64) -> Id {
        Id::from_i64(number).expect("positive")
    }

    fn at(millis: i64) -> Millis {
        Millis::from_i64(millis)
    }

    #[test]
    fn alarms_come_in_the_order_of_their_times_and_once() {
        let alarms = Alarms::default();
        let own: [Alarm; 3] = std::array::from_fn(|_| Alarm::default());
        for (number, time) in [(1, 30), (2, 10), (3, 20)] {
            let index = usize::try_from(number).expect("small") - 1;
            alarms.set(id(number), &own[index], at(time));
        }
        assert_eq!(alarms.due(at(9), 10), []);
        assert_eq!(alarms.due(at(30), 2), [id(2), id(3)]);
        assert_eq!(alarms.due(at(30), 2), [id(1)]);
        assert_eq!(alarms.due(at(99), 2), []);
    }

    #[test]
    fn a_later_alarm_replaces_an_earlier_one_and_a_cleared_one_never_comes() {
        let alarms = Alarms::default();
        let (moved, cleared) = (Alarm::default(), Alarm::default());
        alarms.set(id(1), &moved, at(10));
        alarms.set(id(1), &moved, at(50));
        alarms.set(id(2), &cleared, at(10));
        alarms.clear(id(2), &cleared);
        assert_eq!(alarms.due(at(49), 10), []);
        assert_eq!(alarms.due(at(50), 10), [id(1)]);
    }
}
