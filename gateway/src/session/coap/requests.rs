//! Which request is for what.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use headgate_protocol::coap::{Code, ContentFormat, OptionNumber, Response};

use super::{Asked, CoapServer, Done, peer::Peer, registration::RdId, unavailable};

/// Seconds after which whoever asked a node that ends asks again.
const DRAINING_SECS: u32 = 10;
/// How long an Echo holds.
const ECHO_SECS: u32 = 60;
/// What is here, for `.well-known/core`: short, since whoever asks may be someone else.
const LINKS: &[u8] = b"</rd>,</t>;obs,</r>,</u>,</d>,</c>;obs";

impl CoapServer {
    pub(super) fn handle_request(&mut self, now: Instant, asked: Asked) {
        if self.is_draining {
            return self.answer(now, &asked, unavailable(DRAINING_SECS));
        }
        let Some(path) = asked.message.path() else {
            return self.answer(now, &asked, Response::new(Code::BAD_REQUEST));
        };
        let is = |code: Code| asked.message.code == code;
        match path[..] {
            ["rd"] | ["rd", _]
                if let Peer::Association(association) = asked.peer
                    && (is(Code::POST) || is(Code::DELETE)) =>
            {
                self.admit_secured(now, asked, association);
            }
            ["rd"] if is(Code::POST) => self.register(now, asked),
            ["rd", id] if is(Code::POST) || is(Code::DELETE) => {
                let known = RdId::parse(id).filter(|id| self.registrations.get(*id).is_some());
                match known {
                    Some(id) if is(Code::POST) => self.renew(now, &asked, id),
                    Some(id) => self.leave(now, &asked, id),
                    None => self.answer(now, &asked, Response::new(Code::NOT_FOUND)),
                }
            }
            [".well-known", "core"] if is(Code::GET) => {
                let links = Bytes::from_static(LINKS);
                let response =
                    Response::new(Code::CONTENT).with_content(ContentFormat::LINKS, links);
                self.answer(now, &asked, response.repeatable());
            }
            ["rd"] | ["rd", _] | [".well-known", "core"] => {
                self.answer(now, &asked, Response::new(Code::METHOD_NOT_ALLOWED));
            }
            ["t" | "r" | "u" | "d" | "c", ..] => self.admit(now, asked),
            _ => self.answer(now, &asked, Response::new(Code::NOT_FOUND)),
        }
    }

    /// Finds out which device asks, and wakes it up.
    fn admit(&mut self, now: Instant, mut asked: Asked) {
        if let Peer::Association(association) = asked.peer {
            return self.admit_secured(now, asked, association);
        }
        let id = asked.message.query("rd").and_then(RdId::parse);
        let Some(id) = id.filter(|id| self.registrations.get(*id).is_some()) else {
            // Nothing more is said: whoever asks may be guessing.
            return self.answer(now, &asked, Response::new(Code::UNAUTHORIZED));
        };
        let secs = secs_since(self.started, now);
        if let Some(echo) = asked.message.first(OptionNumber::ECHO) {
            let address = address_bytes(asked.peer);
            if self.echo.is_fresh(echo, &address, secs, ECHO_SECS) {
                self.registrations.set_proven(id, asked.peer);
            }
        }
        let Some(registration) = self.registrations.get(id) else {
            return;
        };
        asked.is_proven = registration.is_proven(asked.peer);
        if registration.awake.is_some() {
            self.note_uplink(now, id);
            return self.dispatch(now, asked, id);
        }
        let (node, name) = (Arc::clone(&self.node), registration.name.clone());
        self.spawn(async move {
            let device = node.authenticator.admit_unsecured(&name, None).await;
            Done::Admitted(asked, id, device)
        });
    }

    /// Serves a request of a device that is awake.
    pub(super) fn dispatch(&mut self, now: Instant, asked: Asked, id: RdId) {
        let path = asked.message.path().unwrap_or_default();
        let is_small = match (asked.message.code, &path[..]) {
            (Code::GET, ["t" | "c"] | ["r", _]) => asked.is_proven,
            _ => true,
        };
        if !is_small {
            self.node.metrics.coap.echo.inc();
            let response = self.ask_for_echo(asked.peer);
            return self.endpoint.respond(now, asked.exchange, response);
        }
        match (asked.message.code, &path[..]) {
            (Code::GET, ["t"]) => self.get_delivery(now, asked, id),
            (Code::POST, ["t", transfer]) => {
                let transfer = (*transfer).to_owned();
                self.report(now, asked, id, &transfer);
            }
            (Code::GET, ["r", transfer]) => {
                let transfer = (*transfer).to_owned();
                self.get_block(now, asked, id, transfer);
            }
            (Code::PUT, ["u", name]) => {
                let name = (*name).to_owned();
                self.put_block(now, asked, id, name);
            }
            (Code::GET, ["u", name]) => {
                let name = (*name).to_owned();
                self.get_upload(asked, id, name);
            }
            (Code::POST, ["d", rest @ ..]) => {
                let rest: Vec<_> = rest.iter().map(|level| (*level).to_owned()).collect();
                self.publish(now, asked, id, &rest);
            }
            (Code::GET, ["c"]) => self.get_command(now, asked, id),
            _ if is_here(&path) => {
                self.answer(now, &asked, Response::new(Code::METHOD_NOT_ALLOWED));
            }
            _ => self.answer(now, &asked, Response::new(Code::NOT_FOUND)),
        }
    }

    /// 4.01 with a value that only whoever is at this address gets to know.
    pub(super) fn ask_for_echo(&self, peer: Peer) -> Response {
        let secs = secs_since(self.started, Instant::now());
        let value = self.echo.value(&address_bytes(peer), secs);
        Response::new(Code::UNAUTHORIZED)
            .with(OptionNumber::ECHO, value)
            .repeatable()
    }
}

/// Whether there is something at this path, for another method.
fn is_here(path: &[&str]) -> bool {
    matches!(path, ["t" | "c"] | ["t" | "r" | "u", _] | ["d", ..])
}

fn secs_since(started: Instant, now: Instant) -> u32 {
    u32::try_from(now.saturating_duration_since(started).as_secs()).unwrap_or(u32::MAX)
}

/// An address as Echo covers it.
fn address_bytes(peer: Peer) -> Vec<u8> {
    let address = match peer {
        Peer::Address(address) => address,
        // Whoever has an association is never asked.
        Peer::Association(association) => return association.0.to_be_bytes().to_vec(),
    };
    let mut bytes = match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend_from_slice(&address.port().to_be_bytes());
    bytes
}
