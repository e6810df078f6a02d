//! What comes: duplicates, acknowledgements, Resets, pings, requests and responses.

use std::time::Instant;

use super::{Endpoint, Event, Exchange, ExchangeId, Failure, Timer};
use crate::coap::{
    Code, Message, MessageId, MessageType, OptionNumber, Response, dedup::Reply,
    reliability::Purpose,
};

impl<K: Copy + Ord, T: Clone> Endpoint<K, T> {
    /// Takes a datagram that `peer` sent.
    pub fn handle_datagram(&mut self, now: Instant, peer: K, datagram: &[u8]) {
        let message = match Message::decode(datagram) {
            Ok(message) => message,
            Err(error) => {
                self.counters.malformed += 1;
                if let Some(id) = error.reject {
                    self.reject(peer, id);
                }
                return;
            }
        };
        match (message.kind, message.code) {
            // A ping. [RFC 7252 s4.3]
            (MessageType::Confirmable, Code::EMPTY) => self.reject(peer, message.id),
            (MessageType::Acknowledgement, Code::EMPTY) => {
                self.on_acknowledged(now, peer, message.id);
            }
            (MessageType::Acknowledgement, _) => self.on_piggybacked(now, peer, message),
            (MessageType::Reset, _) => self.on_reset(now, peer, message.id),
            (MessageType::Confirmable | MessageType::NonConfirmable, code) => {
                if self.is_duplicate(now, peer, &message) {
                    return;
                }
                let is_confirmable = message.kind == MessageType::Confirmable;
                let lifetime = if is_confirmable {
                    self.parameters.exchange_lifetime()
                } else {
                    self.parameters.non_lifetime()
                };
                self.received
                    .insert(now, peer, message.id, lifetime, is_confirmable);
                if code.is_request() {
                    self.on_request(now, peer, message);
                } else {
                    self.on_response(now, peer, message);
                }
            }
        }
    }

    /// Answers a message that came before as it was answered then; says whether it did come before.
    fn is_duplicate(&mut self, now: Instant, peer: K, message: &Message) -> bool {
        let reply = match self.received.find(now, peer, message.id) {
            None => return false,
            Some(reply) => reply.clone(),
        };
        self.counters.duplicates += 1;
        // [RFC 7252 s4.2, s4.3]: a duplicate that is confirmable is acknowledged again, another is ignored.
        if let Reply::Datagram(datagram) = reply
            && message.kind == MessageType::Confirmable
        {
            self.transmit(peer, datagram);
        }
        true
    }

    fn on_request(&mut self, now: Instant, peer: K, message: Message) {
        let is_confirmable = message.kind == MessageType::Confirmable;
        self.last_exchange += 1;
        let exchange = ExchangeId(self.last_exchange);
        let entry = Exchange {
            peer,
            id: message.id,
            token: message.token,
            is_confirmable,
            is_acknowledged: false,
            timer: None,
            no_response: message
                .uint(OptionNumber::NO_RESPONSE)
                .and_then(|value| u8::try_from(value).ok())
                .unwrap_or(0),
        };
        let is_full = self.exchanges.len() >= self.limits.max_exchanges;
        self.exchanges.insert(exchange, entry);
        if is_full {
            self.counters.overloaded += 1;
            let response = Response::new(Code::SERVICE_UNAVAILABLE)
                .with_uint(OptionNumber::MAX_AGE, OVERLOADED_SECS)
                .repeatable();
            return self.respond(now, exchange, response);
        }
        if let Some(bad) = message.bad_option(self.known) {
            if !is_confirmable {
                // [RFC 7252 s5.4.1]: such a message is rejected, that is ignored.
                self.exchanges.remove(&exchange);
                return;
            }
            return self.respond(now, exchange, refuse_option(bad));
        }
        let timer = if is_confirmable {
            let at = now + self.parameters.separate_after;
            self.timers.set(at, Timer::Acknowledge(exchange))
        } else {
            let at = now + self.parameters.exchange_lifetime();
            self.timers.set(at, Timer::Forget(exchange))
        };
        if let Some(entry) = self.exchanges.get_mut(&exchange) {
            entry.timer = Some(timer);
        }
        self.tell(Event::Request {
            exchange,
            peer,
            message: Box::new(message),
        });
    }

    /// A response that came by itself.
    fn on_response(&mut self, now: Instant, peer: K, message: Message) {
        let is_confirmable = message.kind == MessageType::Confirmable;
        let (id, token) = (message.id, message.token);
        let is_ours = self.requests.contains_key(&(peer, token));
        if !is_ours || message.bad_option(self.known).is_some() {
            // [RFC 7641 s3.6]: whoever goes on to notify learns so that nobody listens.
            let reset = self.transmit_empty(peer, MessageType::Reset, id);
            self.received.set_reply(peer, id, Reply::Datagram(reset));
            self.counters.rejected += 1;
            return;
        }
        if is_confirmable {
            let ack = self.transmit_empty(peer, MessageType::Acknowledgement, id);
            self.received.set_reply(peer, id, Reply::Datagram(ack));
        }
        // The acknowledgement of the request may be lost or late. [RFC 7252 s5.2.2]
        let request = self.outboxes.get(&peer).and_then(|all| all.request(token));
        if let Some(id) = request {
            self.on_acknowledged(now, peer, id);
        }
        self.finish_request(peer, message);
    }

    /// A response in an acknowledgement.
    fn on_piggybacked(&mut self, now: Instant, peer: K, message: Message) {
        let sent = self
            .outboxes
            .get(&peer)
            .and_then(|outbox| outbox.in_flight(message.id));
        // [RFC 7252 s5.3.2]: the identifier and the token have to match.
        let is_ours = sent.is_some_and(|sent| {
            matches!(sent.purpose, Purpose::Request) && sent.token == message.token
        });
        if !is_ours || message.bad_option(self.known).is_some() {
            return;
        }
        self.on_acknowledged(now, peer, message.id);
        self.finish_request(peer, message);
    }

    fn on_acknowledged(&mut self, now: Instant, peer: K, id: MessageId) {
        let sent = self.outboxes.get_mut(&peer).and_then(|all| all.take(id));
        // One that was acknowledged before, or given up.
        let Some(sent) = sent else { return };
        self.timers.clear(sent.timer);
        match sent.purpose {
            Purpose::Request => self.await_response(now, peer, sent.token),
            Purpose::Response(tag) | Purpose::Notification(tag) => {
                if let Some(tag) = tag {
                    self.tell(Event::Acknowledged(tag));
                }
            }
        }
        self.send_waiting(now, peer);
    }

    fn on_reset(&mut self, now: Instant, peer: K, id: MessageId) {
        let sent = self.outboxes.get_mut(&peer).and_then(|all| all.take(id));
        let Some(sent) = sent else { return };
        self.timers.clear(sent.timer);
        self.on_failed(peer, sent, Failure::Reset);
        self.send_waiting(now, peer);
    }

    fn reject(&mut self, peer: K, id: MessageId) {
        self.counters.rejected += 1;
        self.transmit_empty(peer, MessageType::Reset, id);
    }
}

/// Seconds after which a client that was turned away because of others asks again.
const OVERLOADED_SECS: u32 = 5;

fn refuse_option(bad: OptionNumber) -> Response {
    if matches!(bad, OptionNumber::PROXY_URI | OptionNumber::PROXY_SCHEME) {
        // [RFC 7252 s5.10.2]
        return Response::new(Code::PROXYING_NOT_SUPPORTED);
    }
    Response::error(Code::BAD_OPTION, &format!("option {}", bad.0))
}
