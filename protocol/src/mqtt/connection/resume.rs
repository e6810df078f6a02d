//! What a session takes from one connection to the next.  Spec: MQTT 5.0 s4.1, s4.4.

use super::{
    Connection, Message,
    in_flight::{Entry, Kept},
    inbound::Unreleased,
};
use crate::mqtt::{Packet, PacketId, PubRel};

/// What a session had under way when its connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed<T> {
    /// What was sent and not acknowledged to the end: those whose PUBREC came first, in that order, and
    /// then the others in the order of sending. A message whose PUBREC came has no payload any more.
    pub in_flight: Vec<(PacketId, Phase, Message<T>)>,
    /// Messages that were not sent yet, oldest first.
    pub waiting: Vec<Message<T>>,
    /// QoS 2 messages of the client that were acted on and acknowledged, and that it did not release.
    pub unreleased: Vec<PacketId>,
}

/// How far the exchange of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// PUBLISH went out: it goes again.
    Published,
    /// PUBREC came: PUBREL goes again, and never PUBLISH.
    Released,
}

impl<T> Default for Resumed<T> {
    fn default() -> Self {
        Self {
            in_flight: Vec::new(),
            waiting: Vec::new(),
            unreleased: Vec::new(),
        }
    }
}

impl<T: Clone> Connection<T> {
    /// Takes out what the session needs on its next connection; the link is gone.
    ///
    /// What was sent with [`Connection::reserve`] is not part of it: there is no message to send again.
    pub fn suspend(&mut self) -> Resumed<T> {
        let published = self.in_flight.drain();
        let rare = self.rare.take().unwrap_or_default();
        let released = rare.released.into_iter();
        let kept = |phase: Phase| {
            move |entry: Entry<T>| match entry.kept {
                Kept::Message(message) => Some((entry.id, phase, *message)),
                Kept::Tag(_) => None,
            }
        };
        let in_flight = released
            .filter_map(kept(Phase::Released))
            .chain(published.filter_map(kept(Phase::Published)))
            .chain(rare.resuming.into_iter().filter_map(kept(Phase::Published)))
            .collect();
        let unreleased = rare.unreleased.iter().filter(|one| one.is_acted_on);
        let resumed = Resumed {
            in_flight,
            waiting: rare.waiting.into(),
            unreleased: unreleased.map(|one| one.id).collect(),
        };
        self.abandon();
        resumed
    }

    /// Goes on where an earlier connection ended: releases first, then what was not acknowledged, in
    /// its order and under its identifiers. [MQTT-4.4.0-1], [MQTT-4.6.0-1]
    pub(super) fn resume(&mut self, resumed: Resumed<T>) {
        let Resumed {
            in_flight,
            waiting,
            unreleased,
        } = resumed;
        // What went out last has the identifier that the next one follows.
        if let Some((id, ..)) = in_flight.last() {
            self.in_flight.resume_after(*id);
        }
        let mut releases = Vec::new();
        for (id, phase, message) in in_flight {
            let entry = Entry {
                id,
                qos: message.qos,
                kept: Kept::Message(Box::new(message)),
            };
            match phase {
                Phase::Released => {
                    releases.push(id);
                    self.rare().released.push_back(entry);
                }
                Phase::Published => self.rare().resuming.push_back(entry),
            }
        }
        if !unreleased.is_empty() {
            let acted_on = |id| Unreleased {
                id,
                is_acted_on: true,
            };
            self.rare().unreleased = unreleased.into_iter().map(acted_on).collect();
        }
        for message in waiting {
            let rare = self.rare();
            rare.waiting_bytes = rare.waiting_bytes.saturating_add(message.bytes());
            rare.waiting.push_back(message);
        }
        for id in releases {
            self.transmit(Packet::PubRel(PubRel::new(id)));
        }
        self.send_waiting();
    }
}
