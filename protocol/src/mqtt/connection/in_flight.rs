//! Packets of QoS 1 and 2 that are under way to the client, and what each stands for.
//!
//! Acknowledgements nearly always come in the order of sending, so the table is a queue whose
//! front is looked at first; an acknowledgement out of order is found all the same.
//!
//! Spec: MQTT 5.0 s2.2.1, s4.6.

use std::collections::VecDeque;

use super::Message;
use crate::mqtt::{PacketId, QoS};

/// What the caller wants to know again, alone or in the message that is kept to be sent again.
#[derive(Debug)]
pub(super) enum Kept<T> {
    /// The tag of a packet that is not sent on another connection.
    Tag(T),
    /// The message.
    Message(Box<Message<T>>),
}

/// A packet that the client has not acknowledged to the end.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) id: PacketId,
    pub(super) qos: QoS,
    pub(super) kept: Kept<T>,
}

/// What is sent and waits for PUBACK or PUBREC, in the order of sending.
#[derive(Debug)]
pub(super) struct InFlight<T> {
    entries: VecDeque<Entry<T>>,
    /// The identifier to try next.
    next: PacketId,
}

impl<T> Kept<T> {
    pub(super) fn into_tag(self) -> T {
        match self {
            Self::Tag(tag) => tag,
            Self::Message(message) => message.tag,
        }
    }

    pub(super) fn tag(&self) -> &T {
        match self {
            Self::Tag(tag) => tag,
            Self::Message(message) => &message.tag,
        }
    }
}

impl<T> InFlight<T> {
    /// An empty table.
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            next: PacketId::MIN,
        }
    }

    /// Finds an identifier that neither the table nor `is_used` knows.
    ///
    /// The callers keep less than all 65,535 in use, so there is one.
    pub(super) fn free_id(&mut self, is_used: impl Fn(PacketId) -> bool) -> PacketId {
        loop {
            let id = self.next;
            self.next = id.next();
            // [MQTT-2.2.1-3]: an identifier in use is not given again.
            if self.entries.iter().all(|entry| entry.id != id) && !is_used(id) {
                return id;
            }
        }
    }

    /// Goes on after `id`, which an earlier connection of the session gave last.
    pub(super) fn resume_after(&mut self, id: PacketId) {
        self.next = id.next();
    }

    pub(super) fn push(&mut self, entry: Entry<T>) {
        self.entries.push_back(entry);
    }

    /// The QoS of the packet with this identifier; `None` where it is not under way.
    pub(super) fn qos(&self, id: PacketId) -> Option<QoS> {
        self.entries.get(self.position(id)?).map(|entry| entry.qos)
    }

    /// Takes the packet out; `None` where it is not under way.
    pub(super) fn remove(&mut self, id: PacketId) -> Option<Entry<T>> {
        let at = self.position(id)?;
        self.entries.remove(at)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes everything out, in the order of sending.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry<T>> {
        std::mem::take(&mut self.entries).into_iter()
    }

    /// Gives the memory of the emptied table back; a device at rest owns none.
    pub(super) fn release_memory(&mut self) {
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    fn position(&self, id: PacketId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u16) -> PacketId {
        PacketId::new(value).expect("not zero")
    }

    fn reserve(table: &mut InFlight<u32>, tag: u32) -> PacketId {
        let id = table.free_id(|_| false);
        table.push(Entry {
            id,
            qos: QoS::AtLeastOnce,
            kept: Kept::Tag(tag),
        });
        id
    }

    #[test]
    fn identifiers_in_use_are_skipped_after_the_wrap() {
        let mut table = InFlight::new();
        assert_eq!(reserve(&mut table, 0), id(1));
        for _ in 0..u16::MAX - 1 {
            let next = reserve(&mut table, 1);
            assert!(table.remove(next).is_some());
        }
        assert_eq!(reserve(&mut table, 2), id(2), "1 is still under way");
        assert_eq!(table.free_id(|id| id.get() < 9), id(9));
    }

    #[test]
    fn acknowledgements_may_come_in_any_order_and_only_once() {
        let mut table = InFlight::new();
        let ids: Vec<_> = (0..3).map(|n| reserve(&mut table, n)).collect();
        let mut remove = |at: usize| table.remove(ids[at]).map(|entry| entry.kept.into_tag());
        assert_eq!(remove(2), Some(2));
        assert_eq!(remove(0), Some(0));
        assert_eq!(remove(0), None);
        assert_eq!(table.len(), 1);
    }
}
