//! CONNECT, and the CONNACK that answers it.  Spec: MQTT 5.0 s3.1, s3.2.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Accept, CloseDetails, Connection, ConnectionLimits, Event, Output, State, fit::explaining,
    limits::expiry_secs,
};
use crate::mqtt::{ConnAck, Connect, Packet, Properties, ProtocolVersion, QoS, ReasonCode, Will};

impl<T: Clone> Connection<T> {
    /// Lets the client in, and goes on where its session was.
    pub fn accept(&mut self, now: Instant, accept: Accept<T>) {
        if self.state != State::Deciding {
            return;
        }
        let offer = &self.limits.offer;
        let expiry = accept.session_expiry.min(offer.max_session_expiry);
        self.session_expiry_secs = expiry_secs(expiry);
        self.state = State::Open;
        self.stay_alive(now);
        let properties =
            (self.version == ProtocolVersion::V5).then(|| Box::new(self.connack_properties()));
        let connack = Packet::ConnAck(ConnAck {
            session_present: accept.resumed.is_some(),
            reason: ReasonCode::Success,
            properties,
        });
        if !self.is_small_enough(&connack) {
            // What CONNACK has to say cannot be left out.
            self.state = State::Deciding;
            return self.refuse(ReasonCode::PacketTooLarge);
        }
        self.transmit(connack);
        if let Some(resumed) = accept.resumed {
            self.resume(resumed);
        }
    }

    pub(super) fn handle_first(&mut self, packet: Packet) {
        let Packet::Connect(connect) = packet else {
            // [MQTT-3.1.0-1]
            return self.end(ReasonCode::ProtocolError);
        };
        self.version = connect.version;
        self.keep_alive_secs = self.agreed_keep_alive(connect.keep_alive_secs);
        self.asked_keep_alive_secs = connect.keep_alive_secs;
        if let Some(properties) = &connect.properties {
            self.note_properties(properties);
        }
        self.state = State::Deciding;
        match self.fault_of(&connect) {
            Some(reason) => self.refuse(reason),
            None => self
                .output
                .push_back(Output::Event(Event::Connect(connect))),
        }
    }

    fn note_properties(&mut self, properties: &Properties) {
        self.client_receive_maximum = properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get);
        self.client_max_packet_bytes = properties
            .maximum_packet_size
            .map_or(u32::MAX, NonZeroU32::get);
        self.client_topic_alias_maximum = properties
            .topic_alias_maximum
            .unwrap_or(0)
            .min(self.limits.offer.outbound_topic_aliases);
        self.wants_problem_information = properties.request_problem_information != Some(false);
        self.asked_for_session = properties.session_expiry_interval_secs.unwrap_or(0) > 0;
    }

    /// Why the client cannot be let in, whoever it is.
    fn fault_of(&self, connect: &Connect) -> Option<ReasonCode> {
        let properties = connect.properties.as_ref();
        if properties.is_some_and(|properties| properties.authentication_method.is_some()) {
            // [MQTT-4.12.0-1]
            return Some(ReasonCode::BadAuthenticationMethod);
        }
        let is_v5 = self.version == ProtocolVersion::V5;
        // [MQTT-3.1.3-8]: before 5.0 only a clean session may leave its name to us.
        if connect.client_id.is_empty() && !connect.clean_start && !is_v5 {
            return Some(ReasonCode::ClientIdentifierNotValid);
        }
        let will = connect.will.as_ref().filter(|_| is_v5)?;
        self.fault_of_will(will)
    }

    fn fault_of_will(&self, will: &Will) -> Option<ReasonCode> {
        let offer = &self.limits.offer;
        // [MQTT-3.2.2-13]
        if will.retain && !offer.retain_available {
            return Some(ReasonCode::RetainNotSupported);
        }
        // [MQTT-3.2.2-12]
        if will.qos.bits() > offer.max_qos.bits() {
            return Some(ReasonCode::QoSNotSupported);
        }
        None
    }

    fn agreed_keep_alive(&self, asked_secs: u16) -> u16 {
        if asked_secs == 0 && self.limits.allow_no_keep_alive {
            return 0;
        }
        let max = match self.limits.server_keep_alive {
            // [MQTT-3.1.2-21]: told in CONNACK, which only 5.0 can.
            Some(told) if self.version == ProtocolVersion::V5 => told,
            _ => self.limits.max_keep_alive,
        };
        let max_secs = u16::try_from(max.as_secs()).unwrap_or(u16::MAX).max(1);
        match asked_secs {
            0 => max_secs,
            asked => asked.min(max_secs),
        }
    }

    fn connack_properties(&mut self) -> Properties {
        let limits = &self.limits;
        let offer = limits.offer;
        let is_agreed = self.keep_alive_secs == self.asked_keep_alive_secs;
        Properties {
            receive_maximum: NonZeroU16::new(limits.receive_maximum),
            maximum_qos: (offer.max_qos != QoS::ExactlyOnce).then_some(offer.max_qos),
            retain_available: unless_offered(offer.retain_available),
            maximum_packet_size: NonZeroU32::new(limits.max_packet_bytes),
            session_expiry_interval_secs: Some(self.session_expiry_secs),
            topic_alias_maximum: (offer.topic_alias_maximum > 0)
                .then_some(offer.topic_alias_maximum),
            server_keep_alive_secs: (!is_agreed).then_some(self.keep_alive_secs),
            subscription_identifiers_available: unless_offered(offer.subscription_identifiers),
            shared_subscription_available: unless_offered(offer.shared_subscriptions),
            assigned_client_id: self
                .rare
                .as_mut()
                .and_then(|rare| rare.assigned_client_id.take()),
            ..Properties::default()
        }
    }
}

impl<T> Connection<T> {
    /// Has other limits than those that it began with: who the client is was said in CONNECT. Before
    /// [`Connection::accept`].
    pub fn set_limits(&mut self, limits: Arc<ConnectionLimits>) {
        if self.state == State::Deciding {
            self.limits = limits;
        }
    }

    /// Turns the client away; the connection closes after the CONNACK.
    pub fn refuse(&mut self, reason: ReasonCode) {
        self.refuse_with(reason, CloseDetails::default());
    }

    /// Turns the client away, and tells an MQTT 5 client more than the reason.
    pub fn refuse_with(&mut self, reason: ReasonCode, details: CloseDetails) {
        if !matches!(self.state, State::Opening | State::Deciding) {
            return;
        }
        let connack = ConnAck {
            session_present: false,
            reason,
            properties: details.into_properties(reason),
        };
        self.transmit(Packet::ConnAck(connack));
        self.end(reason);
    }

    /// Tells an MQTT 5 client, in CONNACK, the client identifier that it was given.
    pub fn assign_client_id(&mut self, client_id: &str) {
        self.rare().assigned_client_id = Some(client_id.into());
    }

    /// How long the client may be silent, which is given up after one and a half of this; zero is for
    /// ever.
    pub fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive_secs.into())
    }

    /// How long the session outlives the connection, as it was agreed on in CONNACK; in seconds.
    pub fn session_expiry_secs(&self) -> u32 {
        self.session_expiry_secs
    }
}

impl CloseDetails {
    pub(super) fn into_properties(self, reason: ReasonCode) -> Option<Box<Properties>> {
        let points_elsewhere = matches!(
            reason,
            ReasonCode::UseAnotherServer | ReasonCode::ServerMoved
        );
        let mut properties = explaining(self.reason_string);
        if let Some(server) = self.server_reference.filter(|_| points_elsewhere) {
            properties.get_or_insert_default().server_reference = Some(server);
        }
        properties
    }
}

/// What is there is not mentioned: that is what no mention means.
const fn unless_offered(offered: bool) -> Option<bool> {
    if offered { None } else { Some(false) }
}
