//! What goes to one peer and wants an acknowledgement: what is on its way, and what waits for its turn.
//!
//! Invariants: at most `NSTART` messages are on their way; an identifier is not used again within
//! `EXCHANGE_LIFETIME`; of two notifications of one observation that wait only the later one does.
//! Spec: RFC 7252 s4.2, s4.4 and s4.7, RFC 7641 s4.5.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Message, MessageId, Token, timers::TimerKey};

/// The messages to one peer.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    next_id: MessageId,
    in_flight: SmallVec<[InFlight<T>; 1]>,
    waiting: VecDeque<Waiting<T>>,
    /// When an identifier was last used.
    used_at: Instant,
}

/// A confirmable message that has been sent.
#[derive(Debug)]
pub(super) struct InFlight<T> {
    pub(super) id: MessageId,
    pub(super) token: Token,
    pub(super) datagram: Bytes,
    /// What follows the transmission before.
    pub(super) timeout: Duration,
    pub(super) retransmissions: u32,
    pub(super) timer: TimerKey,
    pub(super) purpose: Purpose<T>,
}

/// A confirmable message that has not been sent.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    /// Its identifier is given when it is sent.
    pub(super) message: Message,
    pub(super) purpose: Purpose<T>,
}

/// What a message of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose<T> {
    /// A request; its tag stands with the request.
    Request,
    /// A response.
    Response(Option<T>),
    /// A notification of an observation.
    Notification(Option<T>),
}

impl<T> Outbox<T> {
    pub(super) fn new(first: MessageId, now: Instant) -> Self {
        Self {
            next_id: first,
            in_flight: SmallVec::new(),
            waiting: VecDeque::new(),
            used_at: now,
        }
    }

    /// An identifier for a message to the peer.
    pub(super) fn take_id(&mut self, now: Instant) -> MessageId {
        let id = self.next_id;
        self.next_id = MessageId(id.0.wrapping_add(1));
        self.used_at = now;
        id
    }

    /// Whether nothing is known of the peer that is still of use.
    pub(super) fn is_spent(&self, now: Instant, lifetime: Duration) -> bool {
        self.is_idle() && now.saturating_duration_since(self.used_at) >= lifetime
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.waiting.is_empty()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn has_room(&self, nstart: u8) -> bool {
        self.in_flight.len() < usize::from(nstart.max(1))
    }

    /// Has a message wait; one of the same observation gives it its place.
    pub(super) fn wait(&mut self, new: Waiting<T>) {
        let is_notification = |purpose: &Purpose<T>| matches!(purpose, Purpose::Notification(_));
        if is_notification(&new.purpose) {
            let same = |known: &&mut Waiting<T>| {
                is_notification(&known.purpose) && known.message.token == new.message.token
            };
            if let Some(known) = self.waiting.iter_mut().find(same) {
                *known = new;
                return;
            }
        }
        self.waiting.push_back(new);
    }

    /// Whether a notification with this token would take the place of one that waits.
    pub(super) fn has_notification(&self, token: Token) -> bool {
        self.waiting.iter().any(|known| {
            matches!(known.purpose, Purpose::Notification(_)) && known.message.token == token
        })
    }

    pub(super) fn next_waiting(&mut self) -> Option<Waiting<T>> {
        self.waiting.pop_front()
    }

    pub(super) fn send(&mut self, sent: InFlight<T>) {
        self.in_flight.push(sent);
    }

    pub(super) fn in_flight(&self, id: MessageId) -> Option<&InFlight<T>> {
        self.in_flight.iter().find(|sent| sent.id == id)
    }

    pub(super) fn in_flight_mut(&mut self, id: MessageId) -> Option<&mut InFlight<T>> {
        self.in_flight.iter_mut().find(|sent| sent.id == id)
    }

    /// The identifier of the request with this token, as long as it is on its way.
    pub(super) fn request(&self, token: Token) -> Option<MessageId> {
        let is_it =
            |sent: &&InFlight<T>| matches!(sent.purpose, Purpose::Request) && sent.token == token;
        self.in_flight.iter().find(is_it).map(|sent| sent.id)
    }

    pub(super) fn take(&mut self, id: MessageId) -> Option<InFlight<T>> {
        let at = self.in_flight.iter().position(|sent| sent.id == id)?;
        Some(self.in_flight.swap_remove(at))
    }

    /// Takes everything out.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = TimerKey> {
        self.waiting = VecDeque::new();
        std::mem::take(&mut self.in_flight)
            .into_iter()
            .map(|sent| sent.timer)
    }

    /// Drops a request that waits.
    pub(super) fn drop_request(&mut self, token: Token) {
        self.waiting.retain(|known| {
            !matches!(known.purpose, Purpose::Request) || known.message.token != token
        });
    }
}
