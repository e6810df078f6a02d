//! The rules of the standards that a received packet can break.

use std::fmt;

use crate::mqtt::ReasonCode;

macro_rules! violations {
    ($($(#[doc = $doc:literal])+ $name:ident: $clause:literal, $reason:ident, $text:literal;)+) => {
        /// A rule of the standard that the peer broke; the connection is closed for it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Violation { $($(#[doc = $doc])+ $name,)+ }

        impl Violation {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The clause: its number in MQTT 5.0, or in MQTT 3.1.1 where only that has the rule.
            ///
            /// Without a last `-n` it is a section: the standard gives the statement no number.
            pub const fn clause(self) -> &'static str {
                match self { $(Self::$name => $clause,)+ }
            }

            /// The reason code for the CONNACK or DISCONNECT that may precede closing.
            pub const fn reason_code(self) -> ReasonCode {
                match self { $(Self::$name => ReasonCode::$reason,)+ }
            }

            const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

violations! {
    // Data representation and the fixed header.
    /// A string is not UTF-8, or encodes a surrogate.
    IllFormedUtf8: "MQTT-1.5.4-1", MalformedPacket, "string is not well-formed UTF-8";
    /// A string holds U+0000.
    NullCharacter: "MQTT-1.5.4-2", MalformedPacket, "string holds the null character";
    /// A variable byte integer has more than four bytes.
    VariableByteIntegerTooLong: "MQTT-1.5.5", MalformedPacket,
        "variable byte integer has more than four bytes";
    /// A variable byte integer is padded.
    VariableByteIntegerNotMinimal: "MQTT-1.5.5-1", MalformedPacket,
        "variable byte integer does not use the fewest bytes";
    /// The packet type is 0, or 15 before MQTT 5.0.
    ReservedPacketType: "MQTT-2.1.2", MalformedPacket, "packet type is reserved";
    /// Flags of the fixed header differ from what the packet type demands.
    ReservedHeaderFlags: "MQTT-2.1.3-1", MalformedPacket, "reserved flags of the fixed header are set";
    /// A field reaches beyond the end of the packet.
    Truncated: "MQTT-2.1.4", MalformedPacket, "packet is shorter than its fields";
    /// Bytes follow the last field.
    TrailingBytes: "MQTT-2.1.4", MalformedPacket, "packet is longer than its fields";
    /// The packet identifier is zero.
    PacketIdZero: "MQTT-2.2.1-3", ProtocolError, "packet identifier is zero";

    // Properties.
    /// No property has this identifier.
    UnknownProperty: "MQTT-2.2.2.2", MalformedPacket, "property identifier is unknown";
    /// The property does not belong in this packet.
    PropertyNotAllowed: "MQTT-2.2.2.2", MalformedPacket, "property does not belong in this packet";
    /// A property that may stand once stands twice.
    DuplicateProperty: "MQTT-2.2.2", ProtocolError, "property stands more than once";
    /// A property has a value out of its range.
    PropertyOutOfRange: "MQTT-2.2.2", ProtocolError, "property has a value out of range";
    /// Authentication Data without an Authentication Method.
    AuthenticationDataWithoutMethod: "MQTT-3.1.2.11.10", ProtocolError,
        "authentication data without a method";

    // Who may send what, and when.
    /// The first packet of a client is not CONNECT.
    FirstPacketNotConnect: "MQTT-3.1.0-1", ProtocolError, "first packet is not CONNECT";
    /// A client sent CONNECT again.
    SecondConnect: "MQTT-3.1.0-2", ProtocolError, "second CONNECT";
    /// The first packet of a server is neither CONNACK nor AUTH.
    FirstPacketNotConnAck: "MQTT-3.2.0-1", ProtocolError, "first packet is not CONNACK";
    /// A server sent CONNACK again.
    SecondConnAck: "MQTT-3.2.0-2", ProtocolError, "second CONNACK";
    /// A client sent a packet that only servers send.
    ServerPacketFromClient: "MQTT-2.1.2", ProtocolError, "packet that only a server sends";
    /// A server sent a packet that only clients send.
    ClientPacketFromServer: "MQTT-2.1.2", ProtocolError, "packet that only a client sends";

    // CONNECT.
    /// The protocol name is neither `MQTT` nor `MQIsdp`.
    UnknownProtocolName: "MQTT-3.1.2-1", UnsupportedProtocolVersion, "protocol name is not MQTT";
    /// The reserved connect flag is set.
    ReservedConnectFlag: "MQTT-3.1.2-3", MalformedPacket, "reserved connect flag is set";
    /// Will QoS without a will.
    WillQoSWithoutWill: "MQTT-3.1.2-11", MalformedPacket, "will QoS without a will";
    /// Will QoS 3.
    WillQoS3: "MQTT-3.1.2-12", MalformedPacket, "will QoS is 3";
    /// Will Retain without a will.
    WillRetainWithoutWill: "MQTT-3.1.2-13", MalformedPacket, "will retain without a will";
    /// A password without a user name, before MQTT 5.0 (the number is that of MQTT 3.1.1).
    PasswordWithoutUserName: "MQTT-3.1.2-22", MalformedPacket, "password without user name";
    /// An empty `ClientId` without a clean session, or in MQTT 3.1 (number of MQTT 3.1.1).
    EmptyClientId: "MQTT-3.1.3-8", ClientIdentifierNotValid,
        "client identifier is empty without a clean session";

    // CONNACK.
    /// Reserved flags of CONNACK are set.
    ReservedConnAckFlags: "MQTT-3.2.2-1", MalformedPacket, "reserved flags of CONNACK are set";
    /// A refusal says that a session is present.
    SessionPresentOnRefusal: "MQTT-3.2.2-6", ProtocolError, "session present in a refusal";
    /// The reason code is not listed for CONNACK.
    ConnAckReason: "MQTT-3.2.2-8", ProtocolError, "reason code does not belong in CONNACK";

    // PUBLISH and its acknowledgements.
    /// DUP with QoS 0.
    DupWithQoS0: "MQTT-3.3.1-2", MalformedPacket, "DUP flag with QoS 0";
    /// QoS 3.
    QoS3: "MQTT-3.3.1-4", MalformedPacket, "QoS is 3";
    /// A topic name holds `+` or `#`.
    WildcardInTopicName: "MQTT-3.3.2-2", TopicNameInvalid, "topic name holds a wildcard";
    /// Topic alias 0.
    TopicAliasZero: "MQTT-3.3.2-8", TopicAliasInvalid, "topic alias is zero";
    /// A response topic holds `+` or `#`.
    WildcardInResponseTopic: "MQTT-3.3.2-14", TopicNameInvalid, "response topic holds a wildcard";
    /// A client sent a subscription identifier in PUBLISH.
    SubscriptionIdFromClient: "MQTT-3.3.4-6", ProtocolError,
        "subscription identifier in PUBLISH from a client";
    /// The reason code is not listed for PUBACK.
    PubAckReason: "MQTT-3.4.2-1", ProtocolError, "reason code does not belong in PUBACK";
    /// The reason code is not listed for PUBREC.
    PubRecReason: "MQTT-3.5.2-1", ProtocolError, "reason code does not belong in PUBREC";
    /// Flags of PUBREL differ from 0010.
    PubRelFlags: "MQTT-3.6.1-1", MalformedPacket, "reserved flags of PUBREL are wrong";
    /// The reason code is not listed for PUBREL.
    PubRelReason: "MQTT-3.6.2-1", ProtocolError, "reason code does not belong in PUBREL";
    /// The reason code is not listed for PUBCOMP.
    PubCompReason: "MQTT-3.7.2-1", ProtocolError, "reason code does not belong in PUBCOMP";

    // Subscriptions.
    /// Flags of SUBSCRIBE differ from 0010.
    SubscribeFlags: "MQTT-3.8.1-1", MalformedPacket, "reserved flags of SUBSCRIBE are wrong";
    /// SUBSCRIBE without a filter.
    SubscribeEmpty: "MQTT-3.8.3-2", ProtocolError, "SUBSCRIBE without a topic filter";
    /// No Local on a shared subscription.
    NoLocalOnShared: "MQTT-3.8.3-4", ProtocolError, "no local on a shared subscription";
    /// Reserved subscription options are set.
    ReservedSubscriptionOptions: "MQTT-3.8.3-5", MalformedPacket,
        "reserved subscription options are set";
    /// A subscription asks for QoS 3.
    SubscriptionQoS3: "MQTT-3.8.3.1", ProtocolError, "subscription asks for QoS 3";
    /// Retain Handling 3.
    RetainHandling3: "MQTT-3.8.3.1", ProtocolError, "retain handling is 3";
    /// The reason code is not listed for SUBACK.
    SubAckReason: "MQTT-3.9.3-2", ProtocolError, "reason code does not belong in SUBACK";
    /// SUBACK without a reason code.
    SubAckEmpty: "MQTT-3.9.3", ProtocolError, "SUBACK without a reason code";
    /// Flags of UNSUBSCRIBE differ from 0010.
    UnsubscribeFlags: "MQTT-3.10.1-1", MalformedPacket, "reserved flags of UNSUBSCRIBE are wrong";
    /// UNSUBSCRIBE without a filter.
    UnsubscribeEmpty: "MQTT-3.10.3-2", ProtocolError, "UNSUBSCRIBE without a topic filter";
    /// The reason code is not listed for UNSUBACK.
    UnsubAckReason: "MQTT-3.11.3-2", ProtocolError, "reason code does not belong in UNSUBACK";
    /// UNSUBACK of MQTT 5.0 without a reason code.
    UnsubAckEmpty: "MQTT-3.11.3", ProtocolError, "UNSUBACK without a reason code";

    // The rest.
    /// PINGREQ or PINGRESP with a body.
    PingWithBody: "MQTT-3.12", MalformedPacket, "PINGREQ or PINGRESP with a body";
    /// Flags of DISCONNECT are set.
    DisconnectFlags: "MQTT-3.14.1-1", MalformedPacket, "reserved flags of DISCONNECT are set";
    /// The reason code is not listed for DISCONNECT.
    DisconnectReason: "MQTT-3.14.2-1", ProtocolError, "reason code does not belong in DISCONNECT";
    /// A server sent a session expiry interval in DISCONNECT.
    SessionExpiryFromServer: "MQTT-3.14.2-2", ProtocolError,
        "session expiry interval in DISCONNECT from a server";
    /// Flags of AUTH are set.
    AuthFlags: "MQTT-3.15.1-1", MalformedPacket, "reserved flags of AUTH are set";
    /// The reason code is not listed for AUTH.
    AuthReason: "MQTT-3.15.2-1", ProtocolError, "reason code does not belong in AUTH";
    /// AUTH without an Authentication Method.
    AuthMethodMissing: "MQTT-3.15.2.2.2", ProtocolError, "AUTH without an authentication method";
    /// AUTH from a client whose CONNECT named no Authentication Method.
    AuthNotStarted: "MQTT-4.12.0-7", ProtocolError, "AUTH without a method in CONNECT";

    // Topic names and filters.
    /// `#` is not the last level, or not alone in it.
    MultiLevelWildcardMisplaced: "MQTT-4.7.1-1", TopicFilterInvalid, "misplaced multi-level wildcard";
    /// `+` is not alone in its level.
    SingleLevelWildcardMisplaced: "MQTT-4.7.1-2", TopicFilterInvalid,
        "misplaced single-level wildcard";
    /// A topic name is empty and no alias stands for it.
    EmptyTopicName: "MQTT-4.7.3-1", ProtocolError, "topic name is empty";
    /// A topic filter is empty.
    EmptyTopicFilter: "MQTT-4.7.3-1", TopicFilterInvalid, "topic filter is empty";
    /// A topic name or filter has more than 65,535 bytes.
    TopicTooLong: "MQTT-4.7.3-3", MalformedPacket, "topic has more than 65535 bytes";
    /// `$share//`: the share name is empty.
    ShareNameEmpty: "MQTT-4.8.2-1", TopicFilterInvalid, "share name is empty";
    /// The share name holds a wildcard, or no topic filter follows it.
    ShareNameInvalid: "MQTT-4.8.2-2", TopicFilterInvalid, "shared subscription is not well formed";
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.text(), self.clause())
    }
}

impl std::error::Error for Violation {}
