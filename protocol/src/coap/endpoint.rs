//! One end of CoAP: messages in and out, requests and responses above them.
//!
//! Sans-IO: the caller hands in datagrams with [`Endpoint::handle_datagram`] and the passing of time with
//! [`Endpoint::handle_timeout`], answers [`Event::Request`] with [`Endpoint::respond`] or its like, and after each call
//! drains [`Endpoint::poll_output`] until it gives `None`. [`Endpoint::timeout`] says when to call again if nothing
//! happens.
//!
//! `K` names a peer: on plain UDP its address, over DTLS the association, so that what is known of a peer outlives its
//! address. `T` is what the caller wants to know again of a message of its own.
//!
//! Invariants: a request is handed out once within `EXCHANGE_LIFETIME`, unless its answer was declared repeatable or
//! its entry was pushed out by newer ones; every table is bounded by [`Limits`]; nothing is sent to a peer that this
//! end has not heard of or was asked to send to.
//! Spec: RFC 7252 s4 and s5.2, RFC 7641, RFC 7967.

mod receive;
mod request;
mod respond;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;

pub use self::{request::Request, respond::Response};
use super::{
    Message, MessageId, MessageType, OptionNumber, Parameters, Token,
    dedup::Received,
    random::Random,
    reliability::{InFlight, Outbox, Purpose, Waiting},
    timers::{TimerKey, Timers},
};

/// The bounds of an endpoint's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Received messages that are remembered; about 100 bytes each besides their replies.
    pub max_received: usize,
    /// Bytes of replies that are kept for duplicates.
    pub max_reply_bytes: usize,
    /// Requests of peers that are not answered; one more is answered with 5.03.
    pub max_exchanges: usize,
    /// Peers to which messages of our own went lately; about 100 bytes each.
    pub max_peers: usize,
    /// Confirmable messages to one peer that wait for those before them.
    pub max_waiting: usize,
    /// Requests of our own that have no response, observations included.
    pub max_requests: usize,
    /// The largest datagram that is sent, in bytes.
    pub max_message_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_received: 100_000,
            max_reply_bytes: 16 * 1024 * 1024,
            max_exchanges: 1_000,
            max_peers: 100_000,
            max_waiting: 8,
            max_requests: 1_000,
            // [RFC 7252 s4.6]: a message of 1,152 bytes with 1,024 of payload fits most links.
            max_message_bytes: 1_152,
        }
    }
}

/// Names a request of a peer until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(u64);

/// Something that the caller has to act on.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<K, T> {
    /// A peer asks for something: answer it.
    Request {
        /// To be named in the answer.
        exchange: ExchangeId,
        /// Who asks.
        peer: K,
        /// What for.
        message: Box<Message>,
    },
    /// A response to a request of ours, or a notification.
    Response {
        /// The request's.
        tag: T,
        /// The response.
        message: Box<Message>,
    },
    /// The peer has a message of ours.
    Acknowledged(T),
    /// A message of ours came to nothing.
    Failed {
        /// The message's.
        tag: T,
        /// Why.
        failure: Failure,
    },
}

/// Why a message came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The peer did not answer.
    #[error("no answer")]
    Timeout,
    /// The peer rejected it: it knows nothing of the observation, or was restarted.
    #[error("rejected by the peer")]
    Reset,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// As many messages wait for the peer, or requests for responses, as may.
    #[error("too many messages wait")]
    Full,
    /// It is larger than a datagram may be.
    #[error("the message is too large")]
    TooLarge,
}

/// What the caller has to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Output<K, T> {
    /// Send this.
    Transmit {
        /// To whom.
        peer: K,
        /// The datagram.
        datagram: Bytes,
    },
    /// Act on this.
    Event(Event<K, T>),
}

/// What has happened since the endpoint was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that were no messages.
    pub malformed: u64,
    /// Messages that had been received before.
    pub duplicates: u64,
    /// Messages of ours that were sent again.
    pub retransmissions: u64,
    /// Messages of ours that no acknowledgement came for.
    pub timeouts: u64,
    /// Messages that were rejected with a Reset.
    pub rejected: u64,
    /// Requests that were answered with 5.03 because too many were not answered.
    pub overloaded: u64,
}

/// How much is in an endpoint's tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// Received messages that are remembered.
    pub received: usize,
    /// Bytes of replies that are kept.
    pub reply_bytes: usize,
    /// Requests that are not answered.
    pub exchanges: usize,
    /// Peers with messages of ours.
    pub peers: usize,
    /// Requests of our own.
    pub requests: usize,
}

/// One end.
#[derive(Debug)]
pub struct Endpoint<K, T> {
    parameters: Parameters,
    limits: Limits,
    /// The options that the caller acts on.
    known: &'static [OptionNumber],
    random: Random,
    received: Received<K>,
    outboxes: BTreeMap<K, Outbox<T>>,
    exchanges: BTreeMap<ExchangeId, Exchange<K>>,
    last_exchange: u64,
    requests: BTreeMap<(K, Token), request::Outstanding<T>>,
    timers: Timers<Timer<K>>,
    /// What is over is looked for at most this often.
    swept_at: Option<Instant>,
    output: VecDeque<Output<K, T>>,
    counters: Counters,
}

/// A request of a peer.
#[derive(Debug)]
struct Exchange<K> {
    peer: K,
    id: MessageId,
    token: Token,
    is_confirmable: bool,
    /// The acknowledgement has gone: the response goes by itself.
    is_acknowledged: bool,
    timer: Option<TimerKey>,
    /// Classes of responses that the peer does not want. [RFC 7967]
    no_response: u8,
}

#[derive(Clone, Copy, Debug)]
enum Timer<K> {
    Retransmit(K, MessageId),
    /// A request has been waiting for its response: it is acknowledged by itself.
    Acknowledge(ExchangeId),
    /// A request has not been answered for so long that nobody waits any more.
    Forget(ExchangeId),
    /// No response comes any more.
    GiveUp(K, Token),
}

impl<K: Copy + Ord, T: Clone> Endpoint<K, T> {
    /// An end that knows nobody. Its caller acts on the options `known`; requests with other critical ones are refused
    /// here. `seed` makes identifiers and times differ from those of other endpoints.
    pub fn new(
        parameters: Parameters,
        limits: Limits,
        known: &'static [OptionNumber],
        seed: u64,
    ) -> Self {
        Self {
            received: Received::new(limits.max_received.max(1), limits.max_reply_bytes),
            parameters,
            limits,
            known,
            random: Random::new(seed),
            outboxes: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            last_exchange: 0,
            requests: BTreeMap::new(),
            timers: Timers::new(),
            swept_at: None,
            output: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// The next thing to do; `None` when there is nothing until the next call.
    pub fn poll_output(&mut self) -> Option<Output<K, T>> {
        let next = self.output.pop_front();
        if next.is_none() && self.output.capacity() > 1_024 {
            self.output = VecDeque::new();
        }
        next
    }

    /// When [`Endpoint::handle_timeout`] wants to be called.
    pub fn timeout(&self) -> Option<Instant> {
        let sweep = self.received.next_end().map(|end| match self.swept_at {
            Some(at) => end.max(at + SWEEP_INTERVAL),
            None => end,
        });
        [self.timers.next(), sweep].into_iter().flatten().min()
    }

    /// Takes note of the time.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::Retransmit(peer, id) => self.on_retransmit(now, peer, id),
                Timer::Acknowledge(exchange) => self.acknowledge_alone(now, exchange),
                Timer::Forget(exchange) => {
                    self.exchanges.remove(&exchange);
                }
                Timer::GiveUp(peer, token) => self.on_give_up(peer, token),
            }
        }
        let due = self
            .swept_at
            .is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_INTERVAL);
        if due {
            self.swept_at = Some(now);
            self.received.expire(now);
        }
    }

    /// What has happened so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// How much is in the tables.
    pub fn depths(&self) -> Depths {
        Depths {
            received: self.received.len(),
            reply_bytes: self.received.reply_bytes(),
            exchanges: self.exchanges.len(),
            peers: self.outboxes.len(),
            requests: self.requests.len(),
        }
    }

    /// Drops what is on its way to a peer or waits for it; nothing is said of it any more.
    pub fn forget(&mut self, peer: K) {
        if let Some(outbox) = self.outboxes.get_mut(&peer) {
            for timer in outbox.clear() {
                self.timers.clear(timer);
            }
        }
    }

    fn on_retransmit(&mut self, now: Instant, peer: K, id: MessageId) {
        let Some(outbox) = self.outboxes.get_mut(&peer) else {
            return;
        };
        let most = self.parameters.retransmissions();
        if let Some(sent) = outbox.in_flight_mut(id)
            && sent.retransmissions < most
        {
            sent.retransmissions += 1;
            sent.timeout *= 2;
            sent.timer = self
                .timers
                .set(now + sent.timeout, Timer::Retransmit(peer, id));
            let datagram = sent.datagram.clone();
            self.counters.retransmissions += 1;
            self.output.push_back(Output::Transmit { peer, datagram });
            return;
        }
        if let Some(sent) = outbox.take(id) {
            self.counters.timeouts += 1;
            self.on_failed(peer, sent, Failure::Timeout);
        }
        self.send_waiting(now, peer);
    }

    fn on_failed(&mut self, peer: K, sent: InFlight<T>, failure: Failure) {
        let tag = match sent.purpose {
            Purpose::Request => self.end_request(peer, sent.token),
            Purpose::Response(tag) | Purpose::Notification(tag) => tag,
        };
        if let Some(tag) = tag {
            self.tell(Event::Failed { tag, failure });
        }
    }

    /// Sends a confirmable message, now or when those before it are done.
    fn send_confirmable(
        &mut self,
        now: Instant,
        peer: K,
        waiting: Waiting<T>,
    ) -> Result<(), NotSent> {
        if waiting.message.encoded_bytes() > self.limits.max_message_bytes {
            return Err(NotSent::TooLarge);
        }
        let (nstart, max_waiting) = (self.parameters.nstart, self.limits.max_waiting);
        let outbox = self.outbox(now, peer).ok_or(NotSent::Full)?;
        let replaces = matches!(waiting.purpose, Purpose::Notification(_))
            && outbox.has_notification(waiting.message.token);
        let goes_at_once = outbox.has_room(nstart) && outbox.waiting() == 0;
        if !goes_at_once && !replaces && outbox.waiting() >= max_waiting {
            return Err(NotSent::Full);
        }
        outbox.wait(waiting);
        self.send_waiting(now, peer);
        Ok(())
    }

    fn send_waiting(&mut self, now: Instant, peer: K) {
        while let Some(outbox) = self.outboxes.get_mut(&peer)
            && outbox.has_room(self.parameters.nstart)
        {
            let Some(Waiting {
                mut message,
                purpose,
            }) = outbox.next_waiting()
            else {
                return;
            };
            message.id = outbox.take_id(now);
            // Its size was looked at when it was taken.
            let Ok(datagram) = message.encode(self.limits.max_message_bytes) else {
                continue;
            };
            let timeout = self.parameters.first_timeout(self.random.next_u32());
            let timer = Timer::Retransmit(peer, message.id);
            outbox.send(InFlight {
                id: message.id,
                token: message.token,
                datagram: datagram.clone(),
                timeout,
                retransmissions: 0,
                timer: self.timers.set(now + timeout, timer),
                purpose,
            });
            self.output.push_back(Output::Transmit { peer, datagram });
        }
    }

    /// What goes to a peer; `None` where there are too many peers.
    fn outbox(&mut self, now: Instant, peer: K) -> Option<&mut Outbox<T>> {
        if !self.outboxes.contains_key(&peer) {
            if self.outboxes.len() >= self.limits.max_peers {
                let lifetime = self.parameters.exchange_lifetime();
                self.outboxes
                    .retain(|_, outbox| !outbox.is_spent(now, lifetime));
            }
            if self.outboxes.len() >= self.limits.max_peers {
                // Their identifiers may come again early: better than to serve nobody new.
                self.outboxes.retain(|_, outbox| !outbox.is_idle());
            }
            if self.outboxes.len() >= self.limits.max_peers {
                return None;
            }
            let first = MessageId(self.random.next_u16());
            self.outboxes.insert(peer, Outbox::new(first, now));
        }
        self.outboxes.get_mut(&peer)
    }

    fn transmit_empty(&mut self, peer: K, kind: MessageType, id: MessageId) -> Bytes {
        let datagram = Message::empty(kind, id)
            .encode(self.limits.max_message_bytes)
            .unwrap_or_default();
        self.transmit(peer, datagram.clone());
        datagram
    }

    fn transmit(&mut self, peer: K, datagram: Bytes) {
        if !datagram.is_empty() {
            self.output.push_back(Output::Transmit { peer, datagram });
        }
    }

    fn tell(&mut self, event: Event<K, T>) {
        self.output.push_back(Output::Event(event));
    }
}

/// What is over stays in memory for at most so long.
const SWEEP_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
