//! Messages that devices were handed and that are not stored yet: most are acknowledged within moments, and then a row
//! written and deleted is saved.
//!
//! Whoever sent such a message is told nothing until its device has acknowledged it or it is stored, whichever comes
//! first. Invariants: bounded in bytes; the messages of a device are stored in the order of their ids.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use headgate_protocol::identity::DeviceId;

use super::writer::Put;
use crate::model::Id;

/// How long a device's acknowledgement is waited for at least: some round trips of a local network. A device farther
/// away costs its sender this much, once in a while.
const MIN_HOLD: Duration = Duration::from_millis(10);
/// And at most, however long devices take.
const MAX_HOLD: Duration = Duration::from_millis(80);
/// Of the time that acknowledgements take at present: a gateway that is busy answers all devices later, and would be
/// busier still if it stored what is about to be acknowledged.
const HOLD_FACTOR: u32 = 4;
/// One acknowledgement moves the mean by such a part.
const MEAN_OF: u32 = 64;
/// Bytes that are held; beyond them messages are stored at once.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Devices that are remembered to be slow.
const MAX_SLOW: usize = 65_536;

/// What is held.
#[derive(Default)]
pub(super) struct Held {
    puts: HashMap<Id, (Instant, Put)>,
    /// Since when each is held, in this order; some of them are gone.
    since: VecDeque<(Instant, Id)>,
    bytes: usize,
    /// What devices take to acknowledge, on average.
    taken: Duration,
    /// Whose last one was not acknowledged in time: what is for them is stored at once.
    slow: HashSet<DeviceId>,
}

impl Held {
    /// Whether a message may be held.
    pub(super) fn admits(&self, put: &Put) -> bool {
        let is_for_device_alone = put.mail.is_some() && put.receivers.is_empty();
        is_for_device_alone
            && put.receipt.is_none()
            && self.bytes + put.message.size() <= MAX_BYTES
            && !self.slow.contains(&put.message.device.device_id)
    }

    /// Holds a message that its device's session has.
    pub(super) fn insert(&mut self, id: Id, put: Put, now: Instant) {
        self.bytes += put.message.size();
        self.since.push_back((now, id));
        self.puts.insert(id, (now, put));
    }

    /// The device has acknowledged it.
    pub(super) fn acknowledged(&mut self, id: Id, now: Instant) -> Option<Put> {
        let (since, put) = self.take(id)?;
        self.note(now.duration_since(since));
        Some(put)
    }

    fn take(&mut self, id: Id) -> Option<(Instant, Put)> {
        let (since, put) = self.puts.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(put.message.size());
        let is_gone = |(_, id): &mut (Instant, Id)| !self.puts.contains_key(id);
        while self.since.pop_front_if(is_gone).is_some() {}
        Some((since, put))
    }

    /// Those that were not acknowledged in time.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Id, Put)> {
        let hold = self.hold();
        let mut late = Vec::new();
        while let Some((since, id)) = self.since.front().copied()
            && since + hold <= now
        {
            let Some((_, put)) = self.take(id) else { break };
            self.note(now.duration_since(since));
            if self.slow.len() < MAX_SLOW {
                self.slow.insert(put.message.device.device_id.clone());
            }
            late.push((id, put));
        }
        late
    }

    /// How long an acknowledgement is waited for.
    fn hold(&self) -> Duration {
        (self.taken * HOLD_FACTOR).clamp(MIN_HOLD, MAX_HOLD)
    }

    /// An acknowledgement took so long, or longer.
    fn note(&mut self, taken: Duration) {
        self.taken = (self.taken * (MEAN_OF - 1) + taken.min(MAX_HOLD)) / MEAN_OF;
    }

    /// Those of a device, in the order of their ids.
    pub(super) fn take_of(&mut self, device: &DeviceId) -> Vec<(Id, Put)> {
        let is_its = |put: &Put| put.message.device.device_id == *device;
        let mut ids: Vec<Id> = self
            .puts
            .iter()
            .filter(|(_, (_, put))| is_its(put))
            .map(|(id, _)| *id)
            .collect();
        ids.sort_unstable();
        ids.into_iter()
            .filter_map(|id| Some((id, self.take(id)?.1)))
            .collect()
    }

    /// All of them, in the order of their ids.
    pub(super) fn take_all(&mut self) -> Vec<(Id, Put)> {
        let since = std::mem::take(&mut self.since);
        since
            .into_iter()
            .filter_map(|(_, id)| Some((id, self.take(id)?.1)))
            .collect()
    }

    /// When the next one is to be stored.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let hold = self.hold();
        self.since.front().map(|(since, _)| *since + hold)
    }

    pub(super) fn contains(&self, id: Id) -> bool {
        self.puts.contains_key(&id)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.puts.len()
    }

    /// Devices get another chance.
    pub(super) fn forgive(&mut self) {
        self.slow = HashSet::new();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use headgate_protocol::mqtt::QoS;
    use tokio::sync::oneshot;

    use super::*;
    use crate::model::{DeviceName, Message, MessageProperties, Millis};

    fn put(device: &str) -> Put {
        let message = Message {
            device: DeviceName {
                device_id: device.parse().expect("legal"),
                product_id: "P".parse().expect("legal"),
                node_id: "d".parse().expect("legal"),
            },
            topic: "P/d/x".parse().expect("a topic"),
            payload: Bytes::from_static(b"x"),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: MessageProperties::default(),
            at: Millis::from_i64(1),
        };
        Put {
            message: Arc::new(message),
            mail: None,
            receivers: Vec::new(),
            receipt: None,
            sender: None,
            stored: oneshot::channel().0,
            is_offered: true,
            forwards: Vec::new(),
        }
    }

    fn id(value: i64) -> Id {
        Id::from_i64(value).expect("positive")
    }

    fn ids(puts: &[(Id, Put)]) -> Vec<i64> {
        puts.iter().map(|(id, _)| id.as_i64()).collect()
    }

    #[test]
    fn what_is_not_acknowledged_in_time_is_stored_in_order_and_its_device_is_slow() {
        let (mut held, begun) = (Held::default(), Instant::now());
        for (number, device) in [(1, "a"), (2, "b"), (3, "a")] {
            held.insert(id(number), put(device), begun);
        }
        let hold = MIN_HOLD;
        held.insert(id(4), put("c"), begun + hold);
        assert!(held.acknowledged(id(2), begun).is_some());
        assert!(held.acknowledged(id(2), begun).is_none());
        assert_eq!(ids(&held.take_due(begun)), [] as [i64; 0]);
        assert_eq!(ids(&held.take_due(begun + hold)), [1, 3]);
        let is_slow = |device: &str| {
            let device: DeviceId = device.parse().expect("legal");
            held.slow.contains(&device)
        };
        assert!(is_slow("a") && !is_slow("b") && !is_slow("c"));
        assert_eq!(held.next_due(), Some(begun + hold + hold));
        held.forgive();
        assert!(held.slow.is_empty());
        assert_eq!(ids(&held.take_all()), [4]);
        assert_eq!((held.len(), held.bytes, held.next_due()), (0, 0, None));
    }

    #[test]
    fn a_busy_gateway_waits_longer_and_never_for_longer_than_its_limit() {
        let (mut held, begun) = (Held::default(), Instant::now());
        let mut number = 0;
        let mut answer_after = |held: &mut Held, taken: Duration| {
            number += 1;
            held.insert(id(number), put("a"), begun);
            assert!(held.acknowledged(id(number), begun + taken).is_some());
        };
        for _ in 0..500 {
            answer_after(&mut held, Duration::from_millis(9));
        }
        assert!(held.hold() > 3 * MIN_HOLD && held.hold() < MAX_HOLD);
        for _ in 0..500 {
            answer_after(&mut held, Duration::from_mins(1));
        }
        assert_eq!(held.hold(), MAX_HOLD);
        for _ in 0..500 {
            answer_after(&mut held, Duration::from_millis(1));
        }
        assert_eq!(held.hold(), MIN_HOLD);
    }

    #[test]
    fn a_device_s_own_are_taken_in_order() {
        let (mut held, begun) = (Held::default(), Instant::now());
        for (number, device) in [(3, "a"), (5, "b"), (9, "a"), (11, "a")] {
            held.insert(id(number), put(device), begun);
        }
        let device: DeviceId = "a".parse().expect("legal");
        assert_eq!(ids(&held.take_of(&device)), [3, 9, 11]);
        assert!(held.contains(id(5)) && held.len() == 1);
    }
}
