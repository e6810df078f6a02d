//! Which property may stand in which packet.  Spec: MQTT 5.0 table 2-4.

use crate::mqtt::{PacketType, Role};

/// Identifiers of the properties on the wire.
pub(super) mod id {
    pub(in super::super) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(in super::super) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub(in super::super) const CONTENT_TYPE: u8 = 0x03;
    pub(in super::super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(in super::super) const CORRELATION_DATA: u8 = 0x09;
    pub(in super::super) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub(in super::super) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub(in super::super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(in super::super) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(in super::super) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(in super::super) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(in super::super) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(in super::super) const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub(in super::super) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(in super::super) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(in super::super) const SERVER_REFERENCE: u8 = 0x1C;
    pub(in super::super) const REASON_STRING: u8 = 0x1F;
    pub(in super::super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(in super::super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(in super::super) const TOPIC_ALIAS: u8 = 0x23;
    pub(in super::super) const MAXIMUM_QOS: u8 = 0x24;
    pub(in super::super) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(in super::super) const USER_PROPERTY: u8 = 0x26;
    pub(in super::super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(in super::super) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(in super::super) const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 0x29;
    pub(in super::super) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// The block that properties stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mqtt) enum Context {
    /// The will properties in the payload of CONNECT.
    Will,
    /// The properties of a packet.
    Packet(PacketType),
}

impl Context {
    /// The properties that may stand here, whoever sends them.
    pub(super) const fn allowed(self) -> PropertySet {
        match self {
            Self::Will => WILL,
            Self::Packet(packet_type) => match packet_type {
                PacketType::Connect => CONNECT,
                PacketType::ConnAck => CONNACK,
                PacketType::Publish => PUBLISH,
                PacketType::PubAck
                | PacketType::PubRec
                | PacketType::PubRel
                | PacketType::PubComp
                | PacketType::SubAck
                | PacketType::UnsubAck => ACKNOWLEDGEMENT,
                PacketType::Subscribe => SUBSCRIBE,
                PacketType::Unsubscribe => UNSUBSCRIBE,
                PacketType::Disconnect => DISCONNECT,
                PacketType::Auth => AUTH,
                PacketType::PingReq | PacketType::PingResp => PropertySet::NONE,
            },
        }
    }

    /// The properties that may stand here when the peer of `role` sends them.
    pub(super) const fn allowed_to(self, role: Role) -> PropertySet {
        let allowed = self.allowed();
        match (self, role) {
            // [MQTT-3.3.4-6]
            (Self::Packet(PacketType::Publish), Role::Server) => {
                allowed.without(id::SUBSCRIPTION_IDENTIFIER)
            }
            (Self::Packet(PacketType::Disconnect), Role::Server) => {
                allowed.without(id::SERVER_REFERENCE)
            }
            // [MQTT-3.14.2-2]
            (Self::Packet(PacketType::Disconnect), Role::Client) => {
                allowed.without(id::SESSION_EXPIRY_INTERVAL)
            }
            _ => allowed,
        }
    }

    /// Whether the property may stand here more than once.
    pub(super) fn repeats(self, property: u8) -> bool {
        match property {
            id::USER_PROPERTY => true,
            id::SUBSCRIPTION_IDENTIFIER => self == Self::Packet(PacketType::Publish),
            _ => false,
        }
    }
}

/// A set of property identifiers; all of them are below 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PropertySet(u64);

impl PropertySet {
    pub(super) const NONE: Self = Self(0);

    pub(super) const fn contains(self, property: u8) -> bool {
        self.0 & Self::bit(property) != 0
    }

    #[must_use]
    pub(super) const fn with(self, property: u8) -> Self {
        Self(self.0 | Self::bit(property))
    }

    const fn without(self, property: u8) -> Self {
        Self(self.0 & !Self::bit(property))
    }

    const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn bit(property: u8) -> u64 {
        if property < 64 { 1 << property } else { 0 }
    }
}

const USER: PropertySet = PropertySet::NONE.with(id::USER_PROPERTY);
const ACKNOWLEDGEMENT: PropertySet = USER.with(id::REASON_STRING);
const AUTHENTICATION: PropertySet = USER
    .with(id::AUTHENTICATION_METHOD)
    .with(id::AUTHENTICATION_DATA);
const AUTH: PropertySet = AUTHENTICATION.with(id::REASON_STRING);
const SUBSCRIBE: PropertySet = USER.with(id::SUBSCRIPTION_IDENTIFIER);
const UNSUBSCRIBE: PropertySet = USER;
const DISCONNECT: PropertySet = ACKNOWLEDGEMENT
    .with(id::SESSION_EXPIRY_INTERVAL)
    .with(id::SERVER_REFERENCE);

const MESSAGE: PropertySet = USER
    .with(id::PAYLOAD_FORMAT)
    .with(id::MESSAGE_EXPIRY_INTERVAL)
    .with(id::CONTENT_TYPE)
    .with(id::RESPONSE_TOPIC)
    .with(id::CORRELATION_DATA);
const WILL: PropertySet = MESSAGE.with(id::WILL_DELAY_INTERVAL);
const PUBLISH: PropertySet = MESSAGE
    .with(id::SUBSCRIPTION_IDENTIFIER)
    .with(id::TOPIC_ALIAS);

const CONNECTION: PropertySet = AUTHENTICATION
    .with(id::SESSION_EXPIRY_INTERVAL)
    .with(id::RECEIVE_MAXIMUM)
    .with(id::TOPIC_ALIAS_MAXIMUM)
    .with(id::MAXIMUM_PACKET_SIZE);
const CONNECT: PropertySet = CONNECTION
    .with(id::REQUEST_PROBLEM_INFORMATION)
    .with(id::REQUEST_RESPONSE_INFORMATION);
const CONNACK: PropertySet = CONNECTION
    .with(id::ASSIGNED_CLIENT_ID)
    .with(id::SERVER_KEEP_ALIVE)
    .with(id::RESPONSE_INFORMATION)
    .with(id::SERVER_REFERENCE)
    .with(id::REASON_STRING)
    .with(id::MAXIMUM_QOS)
    .with(id::RETAIN_AVAILABLE)
    .with(id::WILDCARD_SUBSCRIPTION_AVAILABLE)
    .with(id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE)
    .with(id::SHARED_SUBSCRIPTION_AVAILABLE);

/// Every property that MQTT 5.0 defines.
pub(super) const KNOWN: PropertySet = CONNECT.union(CONNACK).union(WILL).union(PUBLISH);
