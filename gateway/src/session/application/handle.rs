//! How messages and orders reach the session of an application, and which sessions there are.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll},
};

use dashmap::{DashMap, Entry};
use headgate_protocol::identity::{AppId, DeviceId};
use parking_lot::Mutex;

use crate::{
    model::{Handing, Id, Message, Millis},
    service::uplink::{Ended, Offered, QueueLink, Queued, SessionKey, Sink, Standing},
    session::{
        handle::CloseReason,
        inbox::InboxLimits,
        signals::{Signal, SignalSet, Signals},
        table::smallest,
    },
};

/// Below these, what is retained is read for a session: as fast as its client takes it.
const LOW_MESSAGES: usize = 64;
const LOW_BYTES: usize = 256 * 1024;

/// One session of an application as others see it.
#[derive(Debug)]
pub struct ApplicationHandle {
    client_id: Box<str>,
    since: Millis,
    /// Of the claim, where nodes share the sessions.
    epoch: AtomicI64,
    limits: InboxLimits,
    signals: SignalSet,
    inbox: Mutex<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox {
    close: Option<CloseReason>,
    queue: VecDeque<Waiting>,
    bytes: usize,
    /// Devices that are the application's now and of which something is retained: no more than those of which
    /// anything is.
    bound: HashSet<DeviceId>,
    /// What only a persistent session has.
    stored: Option<Box<StoredInbox>>,
}

/// A message that waits for the client.
#[derive(Debug)]
struct Waiting {
    /// Under which id it is stored, if it is.
    id: Option<Id>,
    message: Arc<Message>,
    handing: Handing,
}

/// How far the session is with what is stored for it.
#[derive(Debug, Default)]
struct StoredInbox {
    /// Read from the store; goes before everything else.
    page: VecDeque<Queued>,
    /// Up to where the store has been read, or messages were handed over.
    read_to: Option<Id>,
    /// The store is being read: what was handed over waits until it has been.
    is_reading: bool,
    /// More waits in the store than was handed over.
    is_behind: bool,
    /// How often messages were taken back.
    revocations: u64,
}

/// A place in the store from where on messages are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageWanted {
    /// Those behind this one.
    pub(super) after: Option<Id>,
    revocations: u64,
}

/// The sessions of applications on this node, by ClientId.
#[derive(Debug)]
pub struct ApplicationTable {
    sessions: DashMap<Box<str>, Arc<ApplicationHandle>>,
    limits: InboxLimits,
}

impl ApplicationHandle {
    /// The session's ClientId.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// When it began.
    pub fn since(&self) -> Millis {
        self.since
    }

    /// The epoch of the session's claim; 0 where no other node could have it.
    pub fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The claim by which this session has its client, where another node could have it.
    pub(super) fn standing(&self, app: &AppId) -> Option<Standing> {
        let epoch = self.epoch();
        (epoch > 0).then(|| Standing {
            key: SessionKey::Application(app.clone(), self.client_id().into()),
            epoch,
        })
    }

    pub(super) fn claimed(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Release);
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
    pub(super) fn drain(&self, mut send: impl FnMut(Option<Id>, &Message, &Handing) -> bool) {
        let mut inbox = self.inbox.lock();
        let Inbox {
            queue,
            bytes,
            stored,
            ..
        } = &mut *inbox;
        if let Some(stored) = stored {
            while let Some(next) = stored.page.front() {
                if !send(Some(next.id), &next.message, &next.handing) {
                    return;
                }
                stored.page.pop_front();
            }
            stored.page = VecDeque::new();
            if stored.is_reading {
                return;
            }
        }
        while let Some(next) = queue.front() {
            let read_to = stored.as_mut().map(|stored| &mut stored.read_to);
            // What was read from the store already has been sent.
            let is_read = next.id.is_some() && read_to.as_ref().is_some_and(|to| next.id <= **to);
            if !is_read && !send(next.id, &next.message, &next.handing) {
                return;
            }
            if let Some(read_to) = read_to {
                *read_to = next.id.max(*read_to);
            }
            *bytes = bytes.saturating_sub(next.message.size());
            queue.pop_front();
        }
        // A session at rest owns no buffer.
        *queue = VecDeque::new();
    }

    /// The session is persistent; `waits`: something is stored for it already.
    pub(super) fn keep(&self, waits: bool) {
        self.inbox.lock().stored = Some(Box::new(StoredInbox {
            is_reading: waits,
            ..StoredInbox::default()
        }));
    }

    /// What the session is to read from the store next; `None` while it has enough.
    pub(super) fn wanted(&self) -> Option<PageWanted> {
        let mut inbox = self.inbox.lock();
        let has_queue = !inbox.queue.is_empty();
        let stored = inbox.stored.as_mut()?;
        if stored.is_behind && !stored.is_reading && !has_queue {
            stored.is_behind = false;
            stored.is_reading = true;
        }
        (stored.is_reading && stored.page.is_empty()).then_some(PageWanted {
            after: stored.read_to,
            revocations: stored.revocations,
        })
    }

    /// Takes what was read; a page that was read before messages were taken back is read again.
    pub(super) fn add_page(&self, wanted: PageWanted, page: Vec<Queued>, last: Option<Id>) {
        let mut inbox = self.inbox.lock();
        let Some(stored) = &mut inbox.stored else {
            return;
        };
        if stored.revocations != wanted.revocations {
            return;
        }
        stored.is_reading = last.is_some();
        stored.read_to = last.max(stored.read_to);
        stored.page = page.into();
    }

    fn push(&self, inbox: &mut Inbox, waiting: Waiting) -> bool {
        let bytes = inbox.bytes + waiting.message.size();
        let has_room = inbox.queue.is_empty()
            || (inbox.queue.len() < self.limits.messages && bytes <= self.limits.bytes);
        if !has_room || inbox.close.is_some() {
            return false;
        }
        inbox.bytes = bytes;
        inbox.queue.push_back(waiting);
        true
    }
}

impl QueueLink for ApplicationHandle {
    fn offer_stored(&self, queued: Queued) -> bool {
        let taken = {
            let mut inbox = self.inbox.lock();
            let is_behind = inbox.stored.as_ref().is_none_or(|stored| stored.is_behind);
            let waiting = Waiting {
                id: Some(queued.id),
                message: queued.message,
                handing: queued.handing,
            };
            let taken = !is_behind && self.push(&mut inbox, waiting);
            if let Some(stored) = inbox.stored.as_mut().filter(|_| !taken) {
                stored.is_behind = true;
            }
            taken
        };
        self.signals.raise(Signal::Mail);
        taken
    }

    fn behind(&self) {
        if let Some(stored) = self.inbox.lock().stored.as_mut() {
            stored.is_behind = true;
        }
        self.signals.raise(Signal::Mail);
    }
}

impl Sink for ApplicationHandle {
    fn offer(&self, message: &Arc<Message>, handing: Handing) -> Offered {
        let waiting = Waiting {
            id: None,
            message: Arc::clone(message),
            handing,
        };
        let taken = self.push(&mut self.inbox.lock(), waiting);
        if !taken {
            return Offered::Full;
        }
        self.signals.raise(Signal::Mail);
        Offered::Taken
    }

    fn revoke(&self, is_revoked: &dyn Fn(&DeviceId) -> bool) {
        let mut inbox = self.inbox.lock();
        inbox
            .queue
            .retain(|one| !is_revoked(&one.message.device.device_id));
        inbox.bytes = inbox.queue.iter().map(|one| one.message.size()).sum();
        if let Some(stored) = &mut inbox.stored {
            stored.revocations += 1;
            stored
                .page
                .retain(|one| !is_revoked(&one.message.device.device_id));
        }
    }

    fn bound(&self, devices: &[DeviceId]) {
        self.inbox.lock().bound.extend(devices.iter().cloned());
        self.signals.raise(Signal::Mail);
    }

    fn close(&self, reason: Ended) {
        self.end(match reason {
            Ended::SessionEnded => CloseReason::QueueFull,
            Ended::Disabled | Ended::Deleted | Ended::SecretReset => CloseReason::Administrative,
        });
    }
}

impl ApplicationTable {
    /// No sessions, each of which will hold so much that its client has not taken.
    pub fn new(limits: InboxLimits) -> Self {
        Self {
            sessions: DashMap::new(),
            limits,
        }
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.sessions.len()
    }

    /// The handle of a session that is about to begin.
    pub(super) fn handle(&self, client_id: &str) -> Arc<ApplicationHandle> {
        Arc::new(ApplicationHandle {
            client_id: client_id.into(),
            since: Millis::now(),
            epoch: AtomicI64::new(0),
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

    /// Strikes a session out, unless a newer one has its ClientId; says whether it did.
    pub(in crate::session) fn leave(&self, handle: &ApplicationHandle) -> bool {
        let struck = self.sessions.remove_if(&handle.client_id, |_, known| {
            std::ptr::eq(Arc::as_ptr(known), handle)
        });
        struck.is_some()
    }

    /// The session with this ClientId.
    pub fn of(&self, client_id: &str) -> Option<Arc<ApplicationHandle>> {
        let known = self.sessions.get(client_id)?;
        Some(Arc::clone(&known))
    }

    /// Up to `limit` sessions in the order of their `ClientId`s, those behind `after`.
    pub fn page(&self, after: Option<&str>, limit: usize) -> Vec<Arc<ApplicationHandle>> {
        let handles = self.sessions.iter().map(|entry| Arc::clone(entry.value()));
        smallest(
            handles.filter(|handle| after.is_none_or(|after| handle.client_id() > after)),
            limit,
            |handle| handle.client_id(),
        )
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
    use crate::model::{DeviceName, MessageProperties};

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
        handle.drain(|_, message, _| {
            sent.push(message.device.device_id.to_string());
            true
        });
        sent
    }

    #[test]
    fn the_inbox_is_bounded_in_messages_and_bytes() {
        let handle = table().handle("app:a");
        let at = || Handing::at(QoS::AtLeastOnce);
        assert!(matches!(
            handle.offer(&message("x", 5_000), at()),
            Offered::Taken
        ));
        assert!(
            matches!(handle.offer(&message("x", 1), at()), Offered::Full),
            "bytes"
        );
        assert_eq!(sent(&handle).len(), 1);
        for _ in 0..3 {
            assert!(matches!(
                handle.offer(&message("x", 1), at()),
                Offered::Taken
            ));
        }
        assert!(
            matches!(handle.offer(&message("x", 1), at()), Offered::Full),
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
