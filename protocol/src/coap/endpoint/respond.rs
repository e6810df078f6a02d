//! What peers are answered: with their acknowledgement, or by itself.

use std::time::Instant;

use bytes::Bytes;

use super::{Endpoint, Exchange, ExchangeId, NotSent, Timer};
use crate::coap::{
    Code, ContentFormat, Message, MessageId, MessageType, OptionNumber, Token,
    dedup::Reply,
    reliability::{Purpose, Waiting},
};

/// A response, or a notification, before it has an identifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Boxed: most are made where a request cannot be met, and handed on as an error.
    message: Box<Message>,
    is_repeatable: bool,
}

impl Response {
    /// One without options and payload.
    pub fn new(code: Code) -> Self {
        Self {
            message: Box::new(Message::new(
                MessageType::Acknowledgement,
                code,
                MessageId(0),
                Token::default(),
            )),
            is_repeatable: false,
        }
    }

    /// An error with a diagnostic payload. [RFC 7252 s5.5.2]
    pub fn error(code: Code, diagnostic: &str) -> Self {
        Self::new(code).with_payload(Bytes::copy_from_slice(diagnostic.as_bytes()))
    }

    /// The same with one more option.
    #[must_use]
    pub fn with(mut self, number: OptionNumber, value: impl AsRef<[u8]>) -> Self {
        self.message.add(number, value);
        self
    }

    /// The same with one more option, whose value is a number.
    #[must_use]
    pub fn with_uint(mut self, number: OptionNumber, value: u32) -> Self {
        self.message.add_uint(number, value);
        self
    }

    /// The same with a payload.
    #[must_use]
    pub fn with_payload(mut self, payload: Bytes) -> Self {
        self.message.payload = payload;
        self
    }

    /// The same with a payload of this format.
    #[must_use]
    pub fn with_content(self, format: ContentFormat, payload: Bytes) -> Self {
        self.with_uint(OptionNumber::CONTENT_FORMAT, u32::from(format.0))
            .with_payload(payload)
    }

    /// The same, not kept for duplicates: a request that comes again is handed out again, which must do no harm.
    /// [RFC 7252 s4.5]
    #[must_use]
    pub fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    /// Its code.
    pub const fn code(&self) -> Code {
        self.message.code
    }

    /// Its payload.
    pub const fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// Bytes of its datagram with this token.
    pub fn encoded_bytes(&self, token: Token) -> usize {
        self.message.encoded_bytes() + token.as_bytes().len()
    }
}

impl<K: Copy + Ord, T: Clone> Endpoint<K, T> {
    /// Answers a request: with its acknowledgement where that has not gone, else by itself. An answer that is too large
    /// for a datagram becomes 5.00; one to a request that is not known any more goes nowhere.
    pub fn respond(&mut self, now: Instant, exchange: ExchangeId, response: Response) {
        let Some(entry) = self.take_exchange(exchange) else {
            return;
        };
        if entry.suppresses(response.code()) {
            return self.say_nothing(&entry);
        }
        if entry.is_acknowledged {
            // As many wait for this peer as may: it asks again.
            let _full = self.send_response(now, &entry, response, None);
            return;
        }
        let Response {
            mut message,
            is_repeatable,
        } = response;
        message.token = entry.token;
        if entry.is_confirmable {
            message.kind = MessageType::Acknowledgement;
            message.id = entry.id;
        } else {
            let Some(outbox) = self.outbox(now, entry.peer) else {
                return;
            };
            message.kind = MessageType::NonConfirmable;
            message.id = outbox.take_id(now);
        }
        let datagram = message
            .encode(self.limits.max_message_bytes)
            .or_else(|_too_large| {
                message.code = Code::INTERNAL_SERVER_ERROR;
                message.payload = Bytes::new();
                message.clear_options();
                message.encode(self.limits.max_message_bytes)
            })
            .unwrap_or_default();
        if is_repeatable {
            self.received.forget(entry.peer, entry.id);
        } else {
            let reply = Reply::Datagram(datagram.clone());
            self.received.set_reply(entry.peer, entry.id, reply);
        }
        self.transmit(entry.peer, datagram);
    }

    /// Answers a request by a confirmable message of its own, so that the answer is acknowledged: `tag` is told then.
    ///
    /// # Errors
    /// [`NotSent`]; the request has been acknowledged, and no response follows.
    pub fn respond_confirmable(
        &mut self,
        now: Instant,
        exchange: ExchangeId,
        response: Response,
        tag: T,
    ) -> Result<(), NotSent> {
        let Some(entry) = self.take_exchange(exchange) else {
            return Ok(());
        };
        if entry.suppresses(response.code()) {
            self.say_nothing(&entry);
            return Ok(());
        }
        if entry.is_confirmable && !entry.is_acknowledged {
            self.acknowledge(entry.peer, entry.id);
        }
        self.send_response(now, &entry, response, Some(tag))
    }

    /// Leaves a request without an answer; a confirmable one is acknowledged.
    pub fn ignore(&mut self, exchange: ExchangeId) {
        if let Some(entry) = self.take_exchange(exchange) {
            self.say_nothing(&entry);
        }
    }

    /// Sends a notification of an observation, confirmable. One with the same token that waits is replaced, and its tag
    /// is not told.
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn notify(
        &mut self,
        now: Instant,
        peer: K,
        token: Token,
        response: Response,
        tag: Option<T>,
    ) -> Result<(), NotSent> {
        let mut message = *response.message;
        message.kind = MessageType::Confirmable;
        message.token = token;
        let purpose = Purpose::Notification(tag);
        self.send_confirmable(now, peer, Waiting { message, purpose })
    }

    /// Acknowledges a request whose response takes its time.
    pub(super) fn acknowledge_alone(&mut self, now: Instant, exchange: ExchangeId) {
        let Some(entry) = self.exchanges.get_mut(&exchange) else {
            return;
        };
        let end = now + self.parameters.exchange_lifetime();
        entry.timer = Some(self.timers.set(end, Timer::Forget(exchange)));
        entry.is_acknowledged = true;
        let (peer, id) = (entry.peer, entry.id);
        self.acknowledge(peer, id);
    }

    fn acknowledge(&mut self, peer: K, id: MessageId) {
        let ack = self.transmit_empty(peer, MessageType::Acknowledgement, id);
        self.received.set_reply(peer, id, Reply::Datagram(ack));
    }

    fn say_nothing(&mut self, entry: &Exchange<K>) {
        if entry.is_confirmable && !entry.is_acknowledged {
            self.acknowledge(entry.peer, entry.id);
        }
    }

    fn send_response(
        &mut self,
        now: Instant,
        entry: &Exchange<K>,
        response: Response,
        tag: Option<T>,
    ) -> Result<(), NotSent> {
        let mut message = *response.message;
        message.kind = MessageType::Confirmable;
        message.token = entry.token;
        let purpose = Purpose::Response(tag);
        self.send_confirmable(now, entry.peer, Waiting { message, purpose })
    }

    fn take_exchange(&mut self, exchange: ExchangeId) -> Option<Exchange<K>> {
        let entry = self.exchanges.remove(&exchange)?;
        if let Some(timer) = entry.timer {
            self.timers.clear(timer);
        }
        Some(entry)
    }
}

impl<K> Exchange<K> {
    /// Whether the peer does not want to hear this. [RFC 7967 s2.1]
    fn suppresses(&self, code: Code) -> bool {
        let class = code.class();
        class > 0 && self.no_response & (1 << (class - 1)) != 0
    }
}
