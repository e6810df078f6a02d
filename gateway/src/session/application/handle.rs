//! How messages and orders reach the session of an application, and which sessions there are.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use dashmap::{DashMap, Entry};
use headgate_protocol::identity::DeviceId;
use parking_lot::Mutex;

use crate::{
    model::{Handing, Message},
    service::uplink::{Ended, Offered, Sink},
    session::{
        handle::CloseReason,
        inbox::InboxLimits,
        signals::{Signal, SignalSet, Signals},
    },
};

/// Below these, what is retained is read for a session: as fast as its client takes it.
const LOW_MESSAGES: usize = 64;
const LOW_BYTES: usize = 256 * 1024;

/// One session of an application as others see it.
#[derive(Debug)]
pub struct ApplicationHandle {
    client_id: Box<str>,
    epoch: u64,
    limits: InboxLimits,
    signals: SignalSet,
    inbox: Mutex<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox {
    close: Option<CloseReason>,
    queue: VecDeque<(Arc<Message>, Handing)>,
    bytes: usize,
    /// Devices that are the application's now and of which something is retained: no more than those of which
    /// anything is.
    bound: HashSet<DeviceId>,
}

/// The sessions of applications on this node, by ClientId.
#[derive(Debug)]
pub struct ApplicationTable {
    sessions: DashMap<Box<str>, Arc<ApplicationHandle>>,
    epochs: AtomicU64,
    limits: InboxLimits,
}

impl ApplicationHandle {
    /// The session's ClientId.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Ends the session.
    pub fn end(&self, reason: CloseReason) {
        self.inbox.lock().close.get_or_insert(reason);
        self.signals.raise(Signal::Close);
    }

    /// Waits for a signal.
    pub fn poll_signals(&self, cx: &Context<'_>) -> Poll<Signals> {
        self.signals.poll(cx)
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.inbox.lock().close
    }

    /// Devices that were bound since the last look and of which something is retained.
    pub(super) fn take_bound(&self) -> Vec<DeviceId> {
        std::mem::take(&mut self.inbox.lock().bound)
            .into_iter()
            .collect()
    }

    /// Whether so little waits that more may be read for the session.
    pub(super) fn is_low(&self) -> bool {
        let inbox = self.inbox.lock();
        inbox.queue.len() < LOW_MESSAGES && inbox.bytes < LOW_BYTES
    }

    /// Hands out messages in order until `send` says that one is to stay. What is revoked meanwhile
    /// waits for the end: a message is either sent before or not at all.
    pub(super) fn drain(&self, mut send: impl FnMut(&Message, &Handing) -> bool) {
        let mut inbox = self.inbox.lock();
        while let Some((message, handing)) = inbox.queue.front() {
            if !send(message, handing) {
                return;
            }
            let bytes = message.size();
            inbox.bytes = inbox.bytes.saturating_sub(bytes);
            inbox.queue.pop_front();
        }
        // A session at rest owns no buffer.
        inbox.queue = VecDeque::new();
    }
}

impl Sink for ApplicationHandle {
    fn offer(&self, message: &Arc<Message>, handing: Handing) -> Offered {
        {
            let mut inbox = self.inbox.lock();
            let bytes = inbox.bytes + message.size();
            let has_room = inbox.queue.is_empty()
                || (inbox.queue.len() < self.limits.messages && bytes <= self.limits.bytes);
            if !has_room || inbox.close.is_some() {
                return Offered::Full;
            }
            inbox.bytes = bytes;
            inbox.queue.push_back((Arc::clone(message), handing));
        }
        self.signals.raise(Signal::Mail);
        Offered::Taken
    }

    fn revoke(&self, is_revoked: &dyn Fn(&DeviceId) -> bool) {
        let mut inbox = self.inbox.lock();
        inbox
            .queue
            .retain(|(message, _)| !is_revoked(&message.device.device_id));
        inbox.bytes = inbox.queue.iter().map(|(message, _)| message.size()).sum();
    }

    fn bound(&self, devices: &[DeviceId]) {
        self.inbox.lock().bound.extend(devices.iter().cloned());
        self.signals.raise(Signal::Mail);
    }

    fn close(&self, _reason: Ended) {
        self.end(CloseReason::Administrative);
    }
}

impl ApplicationTable {
    /// No sessions, each of which will hold so much that its client has not taken.
    pub fn new(limits: InboxLimits) -> Self {
        Self {
            sessions: DashMap::new(),
            epochs: AtomicU64::new(0),
            limits,
        }
    }

    /// The handle of a session that is about to begin.
    pub(super) fn handle(&self, client_id: &str) -> Arc<ApplicationHandle> {
        Arc::new(ApplicationHandle {
            client_id: client_id.into(),
            epoch: self.epochs.fetch_add(1, Ordering::Relaxed),
            limits: self.limits,
            signals: SignalSet::default(),
            inbox: Mutex::default(),
        })
    }

    /// Enters a session; one with its ClientId is told to end. Says whether there was one.
    pub(super) fn enter(&self, handle: &Arc<ApplicationHandle>) -> bool {
        let former = match self.sessions.entry(handle.client_id.clone()) {
            Entry::Occupied(mut entry) => Some(entry.insert(Arc::clone(handle))),
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(handle));
                None
            }
        };
        former
            .inspect(|former| former.end(CloseReason::Takeover))
            .is_some()
    }

    /// Strikes a session out, unless a newer one has its ClientId.
    pub(super) fn leave(&self, handle: &ApplicationHandle) {
        self.sessions
            .remove_if(&handle.client_id, |_, known| known.epoch == handle.epoch);
    }

    /// Every session, to be ended at a rate of the caller's choice.
    pub fn all(&self) -> Vec<Arc<ApplicationHandle>> {
        self.sessions
            .iter()
            .map(|entry| Arc::clone(entry.value()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use headgate_protocol::mqtt::QoS;

    use super::*;
    use crate::model::{DeviceName, MessageProperties, Millis};

    fn message(device: &str, bytes: usize) -> Arc<Message> {
        Arc::new(Message {
            device: DeviceName {
                device_id: device.parse().expect("legal"),
                product_id: "P".parse().expect("legal"),
                node_id: "d".parse().expect("legal"),
            },
            topic: "P/d/x".parse().expect("a topic"),
            payload: Bytes::from(vec![0; bytes]),
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: MessageProperties::default(),
            at: Millis::from_i64(1),
        })
    }

    fn table() -> ApplicationTable {
        ApplicationTable::new(InboxLimits {
            messages: 3,
            bytes: 1_000,
        })
    }

    fn sent(handle: &ApplicationHandle) -> Vec<String> {
        let mut sent = Vec::new();
        handle.drain(|message, _| {
            sent.push(message.device.device_id.to_string());
            true
        });
        sent
    }

    #[test]
    fn the_inbox_is_bounded_in_messages_and_bytes() {
        let handle = table().handle("app:a");
        let at = || Handing::at(QoS::AtLeastOnce);
        assert_eq!(handle.offer(&message("x", 5_000), at()), Offered::Taken);
        assert_eq!(handle.offer(&message("x", 1), at()), Offered::Full, "bytes");
        assert_eq!(sent(&handle).len(), 1);
        for _ in 0..3 {
            assert_eq!(handle.offer(&message("x", 1), at()), Offered::Taken);
        }
        assert_eq!(
            handle.offer(&message("x", 1), at()),
            Offered::Full,
            "messages"
        );
    }

    #[test]
    fn what_is_revoked_is_not_sent() {
        let handle = table().handle("app:a");
        for device in ["x", "y", "x"] {
            handle.offer(&message(device, 1), Handing::at(QoS::AtMostOnce));
        }
        handle.revoke(&|device| device.as_str() == "x");
        assert_eq!(sent(&handle), ["y"]);
        assert_eq!(handle.inbox.lock().bytes, 0);
    }

    #[test]
    fn sessions_are_told_apart_by_their_whole_client_id() {
        let table = table();
        let (first, other) = (table.handle("app:a:1"), table.handle("app:a:2"));
        assert!(!table.enter(&first) && !table.enter(&other));
        let second = table.handle("app:a:1");
        assert!(table.enter(&second));
        assert_eq!(first.close_reason(), Some(CloseReason::Takeover));
        assert_eq!(other.close_reason(), None);
        table.leave(&first);
        assert_eq!(table.all().len(), 2, "the second one stays");
    }
}
