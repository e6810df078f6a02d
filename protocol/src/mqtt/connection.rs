//! The server's side of one MQTT connection, from CONNECT to its end.
//!
//! Sans-IO: the caller hands in what happened with [`Connection::handle`], answers the events that
//! need a decision, and after each call drains [`Connection::poll_output`] until it gives `None`.
//! [`Connection::timeout`] says when to call again if nothing happens. A session that outlives its
//! connection is taken out with [`Connection::suspend`] and handed to the next one in [`Accept`].
//!
//! `T` is what the caller wants to know again when a QoS 1 or 2 packet of its own is acknowledged.
//!
//! Invariants: at most the client's Receive Maximum is under way; what waits behind it is bounded
//! by [`ConnectionLimits`], as is what the client has under way; nothing is sent before CONNACK nor
//! after the close. What few connections need is one allocation that the others do not have.
//! Spec: MQTT 3.1.1 and 5.0.

mod aliases;
mod fit;
mod in_flight;
mod inbound;
mod limits;
mod message;
mod opening;
mod outbound;
mod output;
mod rare;
mod resume;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use smallvec::SmallVec;

use self::{in_flight::InFlight, rare::Rare};
pub use self::{
    limits::{ConnectionLimits, Offer},
    message::{Message, NotSent},
    output::{Accept, CloseDetails, Event, Input, Output},
    resume::{Phase, Resumed},
};
use super::{
    Disconnect, Packet, PacketId, ProtocolVersion, ReasonCode, SubAck, Subscribe, UnsubAck,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// CONNECT has not come.
    Opening,
    /// CONNECT came and waits for the caller's verdict.
    Deciding,
    Open,
    Closed,
}

/// One client's connection.
#[derive(Debug)]
pub struct Connection<T> {
    limits: Arc<ConnectionLimits>,
    /// When the connection is given up unless something is received.
    expires_at: Instant,
    in_flight: InFlight<T>,
    output: VecDeque<Output<T>>,
    rare: Option<Box<Rare<T>>>,
    client_max_packet_bytes: u32,
    session_expiry_secs: u32,
    client_receive_maximum: u16,
    /// The most aliases that are used towards the client.
    client_topic_alias_maximum: u16,
    keep_alive_secs: u16,
    asked_keep_alive_secs: u16,
    /// QoS 1 packets of the client that the caller has not acknowledged.
    unanswered: u16,
    state: State,
    version: ProtocolVersion,
    wants_problem_information: bool,
    /// Whether CONNECT had a Session Expiry Interval above zero.
    asked_for_session: bool,
}

impl<T> Connection<T> {
    /// A connection whose CONNECT must come before `connect_by`.
    pub fn new(limits: Arc<ConnectionLimits>, connect_by: Instant) -> Self {
        Self {
            limits,
            expires_at: connect_by,
            in_flight: InFlight::new(),
            output: VecDeque::new(),
            rare: None,
            client_max_packet_bytes: u32::MAX,
            session_expiry_secs: 0,
            client_receive_maximum: u16::MAX,
            client_topic_alias_maximum: 0,
            keep_alive_secs: 0,
            asked_keep_alive_secs: 0,
            unanswered: 0,
            state: State::Opening,
            version: ProtocolVersion::V311,
            wants_problem_information: true,
            asked_for_session: false,
        }
    }

    /// The next thing to do; `None` when there is nothing until the next call.
    pub fn poll_output(&mut self) -> Option<Output<T>> {
        let next = self.output.pop_front();
        if next.is_none() {
            if self.output.capacity() > 16 {
                self.output = VecDeque::new();
            }
            self.release_rare();
        }
        next
    }

    /// When [`Input::Timeout`] is wanted; `None` once closed, and for a client without keep-alive.
    pub fn timeout(&self) -> Option<Instant> {
        match self.state {
            State::Closed => None,
            State::Open if self.keep_alive_secs == 0 => None,
            State::Opening | State::Deciding | State::Open => Some(self.expires_at),
        }
    }

    /// The version that the client speaks; 3.1.1 until CONNECT says otherwise.
    pub fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The largest packet that the client takes, in bytes.
    pub fn client_max_packet_bytes(&self) -> u32 {
        self.client_max_packet_bytes
    }

    /// How many packets the client takes at QoS 1 and 2 before it has acknowledged one.
    pub fn client_receive_maximum(&self) -> u16 {
        self.client_receive_maximum
    }

    /// Messages that wait for the client's Receive Maximum.
    pub fn waiting_messages(&self) -> usize {
        self.rare
            .as_ref()
            .map_or(0, |rare| rare.waiting.len() + rare.resuming.len())
    }

    /// Bytes of payload and properties that wait for the client's Receive Maximum.
    pub fn waiting_bytes(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.waiting_bytes)
    }

    /// Moves the keep-alive deadline as if something had been received: reading was paused by us.
    pub fn stay_alive(&mut self, now: Instant) {
        if self.state == State::Open {
            let keep_alive = self.keep_alive();
            self.expires_at = now + keep_alive + keep_alive / 2;
        }
    }

    /// Ends the connection: DISCONNECT with this reason to an MQTT 5 client, then the close.
    pub fn close(&mut self, reason: ReasonCode) {
        self.close_with(reason, CloseDetails::default());
    }

    /// Ends the connection, and tells an MQTT 5 client more than the reason.
    pub fn close_with(&mut self, reason: ReasonCode, details: CloseDetails) {
        if self.version == ProtocolVersion::V5 && self.state == State::Open {
            self.transmit(Packet::Disconnect(Disconnect {
                reason,
                properties: details.into_properties(reason),
            }));
        }
        self.end(reason);
    }

    /// Ends the connection without a word: the link is gone.
    pub fn abandon(&mut self) {
        self.end(ReasonCode::UnspecifiedError);
        self.output = VecDeque::new();
        self.in_flight = InFlight::new();
        self.rare = None;
    }

    /// Gives back memory that only a busy connection needs.
    pub fn release_memory(&mut self) {
        self.in_flight.release_memory();
        self.release_rare();
        if self.output.is_empty() {
            self.output = VecDeque::new();
        }
    }

    fn end(&mut self, reason: ReasonCode) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.output.push_back(Output::Close(reason));
        }
    }
}

impl<T: Clone> Connection<T> {
    /// Takes note of what happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match (self.state, input) {
            // The decoder lets nothing but CONNECT come first; what follows it at once waits in
            // the caller's buffer until the verdict.
            (State::Closed, _) | (State::Deciding, Input::Packet(_)) => {}
            (_, Input::Timeout) => self.handle_timeout(now),
            (State::Opening, Input::Packet(packet)) => self.handle_first(packet),
            (State::Open, Input::Packet(packet)) => {
                self.stay_alive(now);
                self.handle_packet(packet);
            }
        }
    }

    /// Answers a SUBSCRIBE with one reason per filter.
    pub fn grant(&mut self, packet_id: PacketId, reasons: SmallVec<[ReasonCode; 4]>) {
        self.transmit(Packet::SubAck(SubAck {
            packet_id,
            reasons,
            properties: None,
        }));
    }

    /// Answers an UNSUBSCRIBE with one reason per filter.
    pub fn confirm_unsubscribe(&mut self, packet_id: PacketId, reasons: SmallVec<[ReasonCode; 4]>) {
        self.transmit(Packet::UnsubAck(UnsubAck {
            packet_id,
            reasons,
            properties: None,
        }));
    }

    /// Closes where CONNECT or the keep-alive is overdue.
    fn handle_timeout(&mut self, now: Instant) {
        if self.timeout().is_some_and(|due| now >= due) {
            // [MQTT-3.1.2-22]: one and a half keep-alive periods without a packet.
            self.close(ReasonCode::KeepAliveTimeout);
        }
    }

    fn handle_packet(&mut self, packet: Packet) {
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::PubAck(ack) => self.handle_puback(ack.packet_id),
            Packet::PubRec(rec) => self.handle_pubrec(rec.packet_id, rec.reason),
            Packet::PubRel(rel) => self.handle_release(rel.packet_id),
            Packet::PubComp(comp) => self.handle_pubcomp(comp.packet_id),
            Packet::Subscribe(subscribe) => self.handle_subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => self
                .output
                .push_back(Output::Event(Event::Unsubscribe(unsubscribe))),
            Packet::PingReq => self.transmit(Packet::PingResp),
            Packet::Disconnect(disconnect) => self.handle_disconnect(&disconnect),
            // A second CONNECT [MQTT-3.1.0-2]; AUTH without an exchange that CONNACK agreed on
            // [MQTT-4.12.0-1]; and what the decoder refuses from a client anyway.
            Packet::Connect(_)
            | Packet::Auth(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => self.close(ReasonCode::ProtocolError),
        }
    }

    fn handle_subscribe(&mut self, subscribe: Box<Subscribe>) {
        let properties = subscribe.properties.as_ref();
        let has_identifier = properties.is_some_and(|all| !all.subscription_identifiers.is_empty());
        if has_identifier && !self.limits.offer.subscription_identifiers {
            // s3.2.2.3.12: CONNACK said that there are none.
            return self.close(ReasonCode::SubscriptionIdentifiersNotSupported);
        }
        self.output
            .push_back(Output::Event(Event::Subscribe(subscribe)));
    }

    fn handle_disconnect(&mut self, disconnect: &Disconnect) {
        let properties = disconnect.properties.as_ref();
        let asked = properties.and_then(|all| all.session_expiry_interval_secs);
        // s3.14.2.2.2: there is no session to prolong.
        if asked.is_some_and(|secs| secs > 0) && !self.asked_for_session {
            return self.close(ReasonCode::ProtocolError);
        }
        let max_secs = limits::expiry_secs(self.limits.offer.max_session_expiry);
        let event = Event::Disconnected {
            reason: disconnect.reason,
            session_expiry: asked.map(|secs| secs.min(max_secs)),
        };
        self.output.push_back(Output::Event(event));
        self.end(disconnect.reason);
    }
}

#[cfg(test)]
mod tests;
