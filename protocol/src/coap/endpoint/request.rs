//! What this end asks of peers.

use std::time::Instant;

use bytes::Bytes;

use super::{Endpoint, Event, Failure, NotSent, Output, Timer, TimerKey};
use crate::coap::{
    Code, ContentFormat, Message, MessageId, MessageType, OptionNumber, Token,
    reliability::{Purpose, Waiting},
};

/// A request, before it has an identifier and a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    message: Message,
}

/// A request that has no response, or an observation.
#[derive(Debug)]
pub(super) struct Outstanding<T> {
    tag: T,
    /// Responses come until it is cancelled.
    is_observation: bool,
    timer: Option<TimerKey>,
}

impl Request {
    /// A confirmable one for this path, whose segments are separated by `/`.
    pub fn new(method: Code, path: &str) -> Self {
        let mut message = Message::new(
            MessageType::Confirmable,
            method,
            MessageId(0),
            Token::default(),
        );
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            message.add(OptionNumber::URI_PATH, segment);
        }
        Self { message }
    }

    /// The same, not confirmable.
    #[must_use]
    pub fn non_confirmable(mut self) -> Self {
        self.message.kind = MessageType::NonConfirmable;
        self
    }

    /// The same with `key=value` in its query.
    #[must_use]
    pub fn with_query(self, key: &str, value: &str) -> Self {
        self.with(OptionNumber::URI_QUERY, format!("{key}={value}"))
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
}

impl<K: Copy + Ord, T: Clone> Endpoint<K, T> {
    /// Asks a peer; `tag` is told with the response, or with the failure. Gives the token. A request with Observe 0
    /// gets responses until [`Endpoint::cancel`].
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn request(
        &mut self,
        now: Instant,
        peer: K,
        request: Request,
        tag: T,
    ) -> Result<Token, NotSent> {
        if self.requests.len() >= self.limits.max_requests {
            return Err(NotSent::Full);
        }
        let mut message = request.message;
        let token = self.free_token(peer);
        message.token = token;
        let is_observation = message.uint(OptionNumber::OBSERVE) == Some(0);
        if message.encoded_bytes() > self.limits.max_message_bytes {
            return Err(NotSent::TooLarge);
        }
        let mut timer = None;
        if message.kind == MessageType::Confirmable {
            let purpose = Purpose::Request;
            self.send_confirmable(now, peer, Waiting { message, purpose })?;
        } else {
            let outbox = self.outbox(now, peer).ok_or(NotSent::Full)?;
            message.id = outbox.take_id(now);
            let datagram = message
                .encode(self.limits.max_message_bytes)
                .map_err(|_too_large| NotSent::TooLarge)?;
            let end = now + self.parameters.non_lifetime();
            timer = Some(self.timers.set(end, Timer::GiveUp(peer, token)));
            self.output.push_back(Output::Transmit { peer, datagram });
        }
        let outstanding = Outstanding {
            tag,
            is_observation,
            timer,
        };
        self.requests.insert((peer, token), outstanding);
        Ok(token)
    }

    /// Forgets a request, or an observation: what comes for it is rejected.
    pub fn cancel(&mut self, peer: K, token: Token) {
        self.end_request(peer, token);
        if let Some(outbox) = self.outboxes.get_mut(&peer) {
            outbox.drop_request(token);
            if let Some(sent) = outbox.request(token).and_then(|id| outbox.take(id)) {
                self.timers.clear(sent.timer);
            }
        }
    }

    /// The request has arrived; its response comes by itself, or never.
    pub(super) fn await_response(&mut self, now: Instant, peer: K, token: Token) {
        let end = now + self.parameters.exchange_lifetime();
        let Some(outstanding) = self.requests.get_mut(&(peer, token)) else {
            return;
        };
        let timer = self.timers.set(end, Timer::GiveUp(peer, token));
        if let Some(former) = outstanding.timer.replace(timer) {
            self.timers.clear(former);
        }
    }

    /// Hands out a response.
    pub(super) fn finish_request(&mut self, peer: K, message: Message) {
        let token = message.token;
        let Some(outstanding) = self.requests.get_mut(&(peer, token)) else {
            return;
        };
        if let Some(timer) = outstanding.timer.take() {
            self.timers.clear(timer);
        }
        let goes_on = outstanding.is_observation
            && message.code.is_success()
            && message.first(OptionNumber::OBSERVE).is_some();
        let tag = outstanding.tag.clone();
        if !goes_on {
            self.requests.remove(&(peer, token));
        }
        self.tell(Event::Response {
            tag,
            message: Box::new(message),
        });
    }

    /// Forgets a request; gives its tag.
    pub(super) fn end_request(&mut self, peer: K, token: Token) -> Option<T> {
        let outstanding = self.requests.remove(&(peer, token))?;
        if let Some(timer) = outstanding.timer {
            self.timers.clear(timer);
        }
        Some(outstanding.tag)
    }

    pub(super) fn on_give_up(&mut self, peer: K, token: Token) {
        if let Some(outstanding) = self.requests.remove(&(peer, token)) {
            self.counters.timeouts += 1;
            self.tell(Event::Failed {
                tag: outstanding.tag,
                failure: Failure::Timeout,
            });
        }
    }

    /// A token that no request to this peer has.
    fn free_token(&mut self, peer: K) -> Token {
        loop {
            let bytes = self.random.next().to_be_bytes();
            let token = Token::new(&bytes).unwrap_or_default();
            if !self.requests.contains_key(&(peer, token)) {
                return token;
            }
        }
    }
}
