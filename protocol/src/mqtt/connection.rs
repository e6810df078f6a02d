//! The server's side of one MQTT connection, from CONNECT to its end.
//!
//! Sans-IO: the caller hands in decoded packets with [`Connection::handle_packet`] and the passing
//! of time with [`Connection::handle_timeout`], answers the events that need a decision, and after
//! each call drains [`Connection::poll_output`] until it gives `None`. [`Connection::timeout`] says
//! when to call again if nothing happens.
//!
//! `T` is what the caller wants to know again when a QoS 1 packet of its own is acknowledged.
//!
//! Invariants: at most the client's Receive Maximum is under way; what waits behind it is bounded
//! by [`ConnectionLimits`]; nothing is sent before CONNACK nor after the close.
//! Spec: MQTT 3.1.1 and 5.0.

use std::{
    collections::VecDeque,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    ConnAck, Connect, Disconnect, Inflight, Packet, PacketId, Properties, ProtocolVersion, PubAck,
    PubComp, PubRec, PubRel, Publish, QoS, ReasonCode, SubAck, Subscribe, TopicName, UnsubAck,
    Unsubscribe,
};

/// The bounds of one connection.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// The longest keep-alive that a client gets; one of 0 or more becomes this.
    pub max_keep_alive: Duration,
    /// The most messages that wait for the client's Receive Maximum.
    pub outbox_messages: usize,
    /// The most bytes of payload and properties that wait likewise.
    pub outbox_bytes: usize,
    /// The most packets that are under way to the client whatever its Receive Maximum.
    pub max_in_flight: u16,
    /// The most QoS 1 and 2 packets that the client may have under way to us.
    pub receive_maximum: u16,
    /// The largest packet that we take, told to an MQTT 5 client.
    pub max_packet_bytes: u32,
}

/// Something that the caller has to act on.
#[derive(Debug, PartialEq)]
pub enum Event<T> {
    /// A client introduced itself: answer with [`Connection::accept`] or [`Connection::refuse`].
    Connect(Box<Connect>),
    /// A message: act on it, then call [`Connection::acknowledge`] unless it is of QoS 0.
    Publish(Publish),
    /// A request to subscribe: answer with [`Connection::grant`].
    Subscribe(Box<Subscribe>),
    /// A request to unsubscribe: answer with [`Connection::confirm_unsubscribe`].
    Unsubscribe(Box<Unsubscribe>),
    /// The client has taken over the responsibility for a QoS 1 packet.
    Acknowledged(T),
    /// The client took leave; the connection closes.
    Disconnected(ReasonCode),
}

/// What the caller has to do next.
#[derive(Debug, PartialEq)]
pub enum Output<T> {
    /// Send this packet.
    Transmit(Packet),
    /// Act on this.
    Event(Event<T>),
    /// Close the connection once everything before is sent; nothing follows.
    Close(ReasonCode),
}

/// A message of the caller's to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<T> {
    /// Where to.
    pub topic: TopicName,
    /// The bytes.
    pub payload: Bytes,
    /// At most QoS 1.
    pub qos: QoS,
    /// What to report when it is acknowledged.
    pub tag: T,
    /// Properties of MQTT 5.0, left out for a client that does not speak it.
    pub properties: Option<Box<Properties>>,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The client does not acknowledge, and its outbox is full.
    #[error("the outbox of the client is full")]
    OutboxFull,
    /// The packet would be above the client's Maximum Packet Size.
    #[error("the message is larger than the client takes")]
    TooLarge,
    /// Nothing is sent before CONNACK nor after the close.
    #[error("the connection is not open")]
    NotOpen,
}

impl<T> Message<T> {
    /// The most bytes that its PUBLISH may have: an identifier is counted, and the longest form of
    /// the lengths.
    fn packet_bytes(&self) -> u64 {
        const REST: usize = 1 + 4 + 2 + 2 + 1;
        let bytes = self
            .bytes()
            .saturating_add(self.topic.as_str().len() + REST);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// What of it the sender may make as long as it likes.
    fn bytes(&self) -> usize {
        let properties = self.properties.as_ref();
        let properties = properties.map_or(0, |properties| properties.publish_bytes());
        self.payload.len().saturating_add(properties)
    }
}

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
    state: State,
    version: ProtocolVersion,
    keep_alive: Duration,
    /// When the connection is given up unless something is received.
    expires_at: Instant,
    client_max_packet_bytes: u32,
    client_receive_maximum: u16,
    assigned_client_id: Option<Box<str>>,
    in_flight: Inflight<T>,
    waiting: VecDeque<Message<T>>,
    waiting_bytes: usize,
    /// QoS 2 packets that the client has not released.
    unreleased: SmallVec<[PacketId; 2]>,
    output: VecDeque<Output<T>>,
}

impl<T> Connection<T> {
    /// A connection whose CONNECT must come before `connect_by`.
    pub fn new(limits: Arc<ConnectionLimits>, connect_by: Instant) -> Self {
        let in_flight = Inflight::new(usize::from(limits.max_in_flight));
        Self {
            limits,
            state: State::Opening,
            version: ProtocolVersion::V311,
            keep_alive: Duration::ZERO,
            expires_at: connect_by,
            client_max_packet_bytes: u32::MAX,
            client_receive_maximum: u16::MAX,
            assigned_client_id: None,
            in_flight,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            unreleased: SmallVec::new(),
            output: VecDeque::new(),
        }
    }

    /// The next thing to do; `None` when there is nothing until the next call.
    pub fn poll_output(&mut self) -> Option<Output<T>> {
        let next = self.output.pop_front();
        if next.is_none() && self.output.capacity() > 16 {
            self.output = VecDeque::new();
        }
        next
    }

    /// When [`Connection::handle_timeout`] wants to be called; `None` once closed.
    pub fn timeout(&self) -> Option<Instant> {
        (self.state != State::Closed).then_some(self.expires_at)
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

    /// How many packets the client takes at QoS 1 before it has acknowledged one.
    pub fn client_receive_maximum(&self) -> u16 {
        self.client_receive_maximum
    }

    /// How long the client may be silent; it is given up after one and a half of this.
    pub fn keep_alive(&self) -> Duration {
        self.keep_alive
    }

    /// Messages that wait for the client's Receive Maximum.
    pub fn waiting_messages(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes of payload and properties that wait for the client's Receive Maximum.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Takes a packet that the client sent.
    pub fn handle_packet(&mut self, now: Instant, packet: Packet) {
        match self.state {
            State::Opening => return self.handle_first(packet),
            // The decoder lets nothing but CONNECT come first; what follows it at once waits in
            // the caller's buffer until the verdict.
            State::Deciding | State::Closed => return,
            State::Open => {}
        }
        self.stay_alive(now);
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::PubAck(ack) => self.handle_acknowledgement(ack.packet_id),
            // Nothing of ours goes at QoS 2; a client that thinks so is let go on. [MQTT-4.3.3-4]
            Packet::PubRec(rec) => {
                let rel = PubRel {
                    packet_id: rec.packet_id,
                    reason: ReasonCode::PacketIdentifierNotFound,
                    properties: None,
                };
                self.transmit(Packet::PubRel(rel));
            }
            Packet::PubRel(rel) => self.handle_release(rel.packet_id),
            Packet::PubComp(_) => {}
            Packet::Subscribe(subscribe) => self
                .output
                .push_back(Output::Event(Event::Subscribe(subscribe))),
            Packet::Unsubscribe(unsubscribe) => self
                .output
                .push_back(Output::Event(Event::Unsubscribe(unsubscribe))),
            Packet::PingReq => self.transmit(Packet::PingResp),
            Packet::Disconnect(disconnect) => {
                self.output
                    .push_back(Output::Event(Event::Disconnected(disconnect.reason)));
                self.end(disconnect.reason);
            }
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

    /// Takes note of the time; closes where CONNECT or the keep-alive is overdue.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.state != State::Closed && now >= self.expires_at {
            // [MQTT-3.1.2-22]: one and a half keep-alive periods without a packet.
            self.close(ReasonCode::KeepAliveTimeout);
        }
    }

    /// Moves the keep-alive deadline as if something had been received: reading was paused by us.
    pub fn stay_alive(&mut self, now: Instant) {
        if self.state == State::Open {
            self.expires_at = now + self.keep_alive + self.keep_alive / 2;
        }
    }

    /// Lets the client in.
    pub fn accept(&mut self, now: Instant) {
        if self.state != State::Deciding {
            return;
        }
        self.state = State::Open;
        self.stay_alive(now);
        let properties =
            (self.version == ProtocolVersion::V5).then(|| Box::new(self.connack_properties()));
        let connack = ConnAck {
            session_present: false,
            reason: ReasonCode::Success,
            properties,
        };
        self.transmit(Packet::ConnAck(connack));
    }

    /// Turns the client away; the connection closes after the CONNACK.
    pub fn refuse(&mut self, reason: ReasonCode) {
        if !matches!(self.state, State::Opening | State::Deciding) {
            return;
        }
        let connack = ConnAck {
            session_present: false,
            reason,
            properties: None,
        };
        self.transmit(Packet::ConnAck(connack));
        self.end(reason);
    }

    /// Answers a PUBLISH that has been acted on; `qos` is that of the PUBLISH.
    pub fn acknowledge(&mut self, packet_id: PacketId, qos: QoS, reason: ReasonCode) {
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                self.transmit(Packet::PubAck(PubAck {
                    packet_id,
                    reason,
                    properties: None,
                }));
            }
            QoS::ExactlyOnce => {
                if reason.is_error() {
                    self.unreleased.retain(|id| *id != packet_id);
                }
                self.transmit(Packet::PubRec(PubRec {
                    packet_id,
                    reason,
                    properties: None,
                }));
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

    /// Sends a message, or keeps it until the client has acknowledged others.
    ///
    /// # Errors
    /// [`NotSent`] where it can be neither sent nor kept.
    pub fn send(&mut self, message: Message<T>) -> Result<(), NotSent> {
        if self.state != State::Open {
            return Err(NotSent::NotOpen);
        }
        // [MQTT-3.1.2-24]
        if message.packet_bytes() > u64::from(self.client_max_packet_bytes) {
            return Err(NotSent::TooLarge);
        }
        if message.qos == QoS::AtMostOnce || (self.waiting.is_empty() && self.has_send_quota()) {
            self.transmit_message(message);
            return Ok(());
        }
        let bytes = self.waiting_bytes.saturating_add(message.bytes());
        if self.waiting.len() >= self.limits.outbox_messages || bytes > self.limits.outbox_bytes {
            return Err(NotSent::OutboxFull);
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back(message);
        Ok(())
    }

    /// Takes a packet identifier for a PUBLISH that the caller encodes itself; `None` where the
    /// client's Receive Maximum is reached or messages wait, which go first.
    pub fn reserve(&mut self, tag: T) -> Option<PacketId> {
        if self.state != State::Open || !self.waiting.is_empty() || !self.has_send_quota() {
            return None;
        }
        self.in_flight.reserve(tag)
    }

    /// How many packets of the caller's own may follow with [`Connection::reserve`].
    pub fn send_quota(&self) -> u16 {
        if self.state != State::Open || !self.waiting.is_empty() {
            return 0;
        }
        let used = u16::try_from(self.in_flight.len()).unwrap_or(u16::MAX);
        self.client_receive_maximum
            .min(self.limits.max_in_flight)
            .saturating_sub(used)
    }

    /// Ends the connection: DISCONNECT with this reason to an MQTT 5 client, then the close.
    pub fn close(&mut self, reason: ReasonCode) {
        if self.state == State::Closed {
            return;
        }
        if self.version == ProtocolVersion::V5 && self.state == State::Open {
            self.transmit(Packet::Disconnect(Disconnect {
                reason,
                properties: None,
            }));
        }
        self.end(reason);
    }

    /// Ends the connection without a word: the link is gone.
    pub fn abandon(&mut self) {
        self.end(ReasonCode::UnspecifiedError);
        self.output.clear();
    }

    /// Gives back memory that only a busy connection needs.
    pub fn release_memory(&mut self) {
        self.in_flight.release_memory();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        if self.output.is_empty() {
            self.output = VecDeque::new();
        }
    }

    fn handle_first(&mut self, packet: Packet) {
        let Packet::Connect(connect) = packet else {
            // [MQTT-3.1.0-1]
            return self.end(ReasonCode::ProtocolError);
        };
        self.version = connect.version;
        let asked = Duration::from_secs(u64::from(connect.keep_alive_secs));
        self.keep_alive = match asked {
            Duration::ZERO => self.limits.max_keep_alive,
            asked => asked.min(self.limits.max_keep_alive),
        };
        if let Some(properties) = &connect.properties {
            self.client_receive_maximum =
                properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get);
            self.client_max_packet_bytes = properties
                .maximum_packet_size
                .map_or(u32::MAX, NonZeroU32::get);
        }
        self.state = State::Deciding;
        if connect
            .properties
            .as_ref()
            .is_some_and(|properties| properties.authentication_method.is_some())
        {
            return self.refuse(ReasonCode::BadAuthenticationMethod);
        }
        // [MQTT-3.1.3-8]: before 5.0 only a clean session may leave its name to us.
        if connect.client_id.is_empty()
            && !connect.clean_start
            && self.version != ProtocolVersion::V5
        {
            return self.refuse(ReasonCode::ClientIdentifierNotValid);
        }
        self.output
            .push_back(Output::Event(Event::Connect(connect)));
    }

    /// Tells an MQTT 5 client, in CONNACK, the client identifier that it was given.
    pub fn assign_client_id(&mut self, client_id: &str) {
        self.assigned_client_id = Some(client_id.into());
    }

    fn handle_publish(&mut self, publish: Publish) {
        if self.version == ProtocolVersion::V5 {
            // CONNACK said that neither is available. [MQTT-3.2.2-14], s3.3.2.3.4
            if publish.retain {
                return self.close(ReasonCode::RetainNotSupported);
            }
            if publish
                .properties
                .as_ref()
                .is_some_and(|properties| properties.topic_alias.is_some())
            {
                return self.close(ReasonCode::TopicAliasInvalid);
            }
        }
        if let (QoS::ExactlyOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
            if self.unreleased.contains(&packet_id) {
                // [MQTT-4.3.3-10]: the same message again; it is acknowledged and not acted on.
                let rec = PubRec {
                    packet_id,
                    reason: ReasonCode::Success,
                    properties: None,
                };
                return self.transmit(Packet::PubRec(rec));
            }
            if self.unreleased.len() >= usize::from(self.limits.receive_maximum) {
                return self.close(ReasonCode::ReceiveMaximumExceeded);
            }
            self.unreleased.push(packet_id);
        }
        self.output
            .push_back(Output::Event(Event::Publish(publish)));
    }

    fn handle_acknowledgement(&mut self, packet_id: PacketId) {
        // An identifier that is not in use is no harm: the packet may have been dropped by us.
        if let Some(tag) = self.in_flight.acknowledge(packet_id) {
            self.output
                .push_back(Output::Event(Event::Acknowledged(tag)));
            while self.has_send_quota() {
                let Some(message) = self.waiting.pop_front() else {
                    break;
                };
                self.waiting_bytes = self.waiting_bytes.saturating_sub(message.bytes());
                self.transmit_message(message);
            }
        }
    }

    fn handle_release(&mut self, packet_id: PacketId) {
        let known = self.unreleased.contains(&packet_id);
        self.unreleased.retain(|id| *id != packet_id);
        let reason = if known {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        self.transmit(Packet::PubComp(PubComp {
            packet_id,
            reason,
            properties: None,
        }));
    }

    fn has_send_quota(&self) -> bool {
        self.in_flight.has_room() && self.in_flight.len() < usize::from(self.client_receive_maximum)
    }

    fn transmit_message(&mut self, message: Message<T>) {
        let packet_id = match message.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => self.in_flight.reserve(message.tag),
        };
        let publish = Publish {
            dup: false,
            qos: if packet_id.is_some() {
                QoS::AtLeastOnce
            } else {
                QoS::AtMostOnce
            },
            retain: false,
            topic: message.topic,
            packet_id,
            properties: message.properties,
            payload: message.payload,
        };
        self.transmit(Packet::Publish(publish));
    }

    fn connack_properties(&mut self) -> Properties {
        let keep_alive_secs = u16::try_from(self.keep_alive.as_secs()).unwrap_or(u16::MAX);
        Properties {
            receive_maximum: NonZeroU16::new(self.limits.receive_maximum),
            retain_available: Some(false),
            maximum_packet_size: NonZeroU32::new(self.limits.max_packet_bytes),
            session_expiry_interval_secs: Some(0),
            server_keep_alive_secs: Some(keep_alive_secs),
            assigned_client_id: self.assigned_client_id.take(),
            subscription_identifiers_available: Some(false),
            shared_subscription_available: Some(false),
            ..Properties::default()
        }
    }

    fn transmit(&mut self, packet: Packet) {
        if self.state != State::Closed {
            self.output.push_back(Output::Transmit(packet));
        }
    }

    fn end(&mut self, reason: ReasonCode) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.waiting = VecDeque::new();
            self.waiting_bytes = 0;
            self.output.push_back(Output::Close(reason));
        }
    }
}

#[cfg(test)]
mod tests;
