//! What the fuzzers run, also as ordinary tests over their corpus; no part of the product.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    Block, Code, Endpoint, Event, ExchangeId, Limits, Message, OptionNumber, Output, Parameters,
    Request, Response, Szx, Token,
};

/// Decodes a datagram; what is a message is written again, which must be read as the same message.
///
/// # Panics
/// When the codec is wrong.
pub fn decode(datagram: &[u8]) {
    let Ok(message) = Message::decode(datagram) else {
        return;
    };
    let again = message
        .encode(usize::MAX)
        .expect("what was read is written");
    assert_eq!(again.len(), message.encoded_bytes());
    assert_eq!(Message::decode(&again), Ok(message.clone()));
    let _bad = message.bad_option(KNOWN);
    let (_path, _query) = (message.path(), message.query("k"));
    for number in [OptionNumber::BLOCK1, OptionNumber::BLOCK2] {
        let block = message.first(number).map(Block::decode);
        if let Some(Ok(block)) = block
            && let Ok(slice) = block.slice(1 << 30, Szx::MAX)
        {
            assert!(slice.offset + slice.len as u64 <= 1 << 30);
        }
    }
}

/// Runs operations on an endpoint: datagrams of two peers, answers, notifications, requests, time.
///
/// # Panics
/// When a table grows beyond its bound, or a datagram that is sent cannot be read.
pub fn endpoint(now: Instant, operations: &[u8]) {
    let limits = Limits {
        max_received: 8,
        max_reply_bytes: 256,
        max_exchanges: 4,
        max_peers: 2,
        max_waiting: 2,
        max_requests: 2,
        max_message_bytes: 128,
    };
    let mut run = Run {
        endpoint: Endpoint::new(Parameters::default(), limits, KNOWN, 1),
        now,
        open: Vec::new(),
        tokens: vec![Token::default()],
    };
    let mut rest = operations;
    while let Some((operation, behind)) = rest.split_first() {
        rest = run.step(*operation, behind);
        run.drain();
        run.check();
    }
}

const KNOWN: &[OptionNumber] = &[
    OptionNumber::URI_PATH,
    OptionNumber::URI_QUERY,
    OptionNumber::BLOCK1,
    OptionNumber::BLOCK2,
];

struct Run {
    endpoint: Endpoint<u8, u8>,
    now: Instant,
    open: Vec<ExchangeId>,
    tokens: Vec<Token>,
}

impl Run {
    /// Carries out one operation; gives what follows it.
    fn step<'a>(&mut self, operation: u8, rest: &'a [u8]) -> &'a [u8] {
        let (now, peer) = (self.now, (operation >> 3) & 1);
        match operation & 0b111 {
            0 | 1 => {
                let (len, rest) = rest.split_first().unwrap_or((&0, rest));
                let len = usize::from(*len).min(rest.len());
                let (datagram, rest) = rest.split_at(len);
                self.endpoint.handle_datagram(now, peer, datagram);
                return rest;
            }
            2 => {
                self.now += Duration::from_millis(u64::from(operation >> 4) * 1_000 + 1);
                self.endpoint.handle_timeout(self.now);
            }
            3 => {
                if let Some(exchange) = self.open.pop() {
                    let response = Response::new(Code::CONTENT)
                        .with_payload(Bytes::from(vec![0; usize::from(operation)]));
                    self.endpoint.respond(now, exchange, response);
                }
            }
            4 => {
                if let Some(exchange) = self.open.pop() {
                    let response = Response::new(Code::CHANGED).repeatable();
                    let _sent = self
                        .endpoint
                        .respond_confirmable(now, exchange, response, 1);
                }
            }
            5 => {
                let token = self.tokens[usize::from(operation >> 4) % self.tokens.len()];
                let response = Response::new(Code::CONTENT).with_uint(OptionNumber::OBSERVE, 7);
                let _sent = self.endpoint.notify(now, peer, token, response, Some(2));
            }
            6 => {
                let request = Request::new(Code::GET, "a/b").with_uint(OptionNumber::OBSERVE, 0);
                let request = if operation & 0x80 == 0 {
                    request
                } else {
                    request.non_confirmable()
                };
                if let Ok(token) = self.endpoint.request(now, peer, request, 3) {
                    self.tokens.push(token);
                }
            }
            _ => match self.tokens.pop() {
                Some(token) if !self.tokens.is_empty() => self.endpoint.cancel(peer, token),
                Some(token) => self.tokens.push(token),
                None => self.endpoint.forget(peer),
            },
        }
        rest
    }

    fn drain(&mut self) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { datagram, .. } => {
                    assert!(datagram.len() <= 128);
                    assert!(Message::decode(&datagram).is_ok(), "{datagram:?}");
                }
                Output::Event(Event::Request { exchange, .. }) => self.open.push(exchange),
                Output::Event(_) => {}
            }
        }
    }

    fn check(&self) {
        let depths = self.endpoint.depths();
        assert!(depths.received <= 8 && depths.reply_bytes <= 256);
        assert!(depths.exchanges <= 4 && depths.peers <= 2 && depths.requests <= 2);
        if let Some(at) = self.endpoint.timeout() {
            assert!(
                at + Duration::from_secs(1) > self.now,
                "a timer was left behind"
            );
        }
    }
}
