//! Packet identifiers in use on the way out, and what each stands for.
//!
//! Acknowledgements nearly always come in the order of sending, so the table is a queue whose
//! front is looked at first; an acknowledgement out of order is found all the same.
//!
//! Spec: MQTT 5.0 s2.2.1, s4.6.

use std::{collections::VecDeque, num::NonZeroU16};

use super::PacketId;

/// What is sent at QoS 1 and not yet acknowledged, with the item that the caller keeps for each.
#[derive(Debug)]
pub struct Inflight<T> {
    entries: VecDeque<(PacketId, T)>,
    /// The identifier to try next.
    next: NonZeroU16,
    capacity: usize,
}

impl<T> Inflight<T> {
    /// An empty table for at most `capacity` packets at a time.
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            next: NonZeroU16::MIN,
            capacity,
        }
    }

    /// Takes an identifier that no packet under way has; `None` where the table is full.
    pub fn reserve(&mut self, item: T) -> Option<PacketId> {
        if self.entries.len() >= self.capacity.min(usize::from(u16::MAX)) {
            return None;
        }
        loop {
            let id = PacketId::from(self.next);
            self.next = self.next.checked_add(1).unwrap_or(NonZeroU16::MIN);
            // [MQTT-2.2.1-3]: an identifier in use is not given again.
            if self.entries.iter().all(|(used, _)| *used != id) {
                self.entries.push_back((id, item));
                return Some(id);
            }
        }
    }

    /// Frees the identifier and gives back what it stood for; `None` where it is not in use.
    pub fn acknowledge(&mut self, id: PacketId) -> Option<T> {
        if self.entries.front().is_some_and(|(front, _)| *front == id) {
            return self.entries.pop_front().map(|(_, item)| item);
        }
        let at = self.entries.iter().position(|(used, _)| *used == id)?;
        self.entries.remove(at).map(|(_, item)| item)
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether another packet may go.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.capacity
    }

    /// Gives the memory of the emptied table back; a device at rest owns none.
    pub fn release_memory(&mut self) {
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u16) -> PacketId {
        PacketId::from(NonZeroU16::new(value).expect("not zero"))
    }

    #[test]
    fn identifiers_in_use_are_skipped_after_the_wrap() {
        let mut inflight = Inflight::new(10);
        assert_eq!(inflight.reserve("stays"), Some(id(1)));
        for _ in 0..u16::MAX - 1 {
            let next = inflight.reserve("goes").expect("room");
            assert_eq!(inflight.acknowledge(next), Some("goes"));
        }
        assert_eq!(inflight.reserve("new"), Some(id(2)), "1 is still under way");
    }

    #[test]
    fn acknowledgements_may_come_in_any_order_and_only_once() {
        let mut inflight = Inflight::new(10);
        let ids: Vec<_> = (0..3).filter_map(|n| inflight.reserve(n)).collect();
        assert_eq!(inflight.acknowledge(ids[2]), Some(2));
        assert_eq!(inflight.acknowledge(ids[0]), Some(0));
        assert_eq!(inflight.acknowledge(ids[0]), None);
        assert_eq!(inflight.len(), 1);
    }

    #[test]
    fn the_capacity_is_a_limit() {
        let mut inflight = Inflight::new(2);
        assert!(inflight.reserve(()).is_some() && inflight.reserve(()).is_some());
        assert!(inflight.reserve(()).is_none() && !inflight.has_room());
    }
}
