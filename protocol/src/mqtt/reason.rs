//! Reason codes: the one-byte results of MQTT 5.0, used for every version.
//!
//! MQTT 3.1 and 3.1.1 have return codes in CONNACK and SUBACK only; the codec maps both ways.
//! Spec: MQTT 5.0 s2.4, MQTT 3.1.1 s3.2.2.3 and s3.9.3.

use std::fmt;

use super::{PacketType, QoS};

macro_rules! reason_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $text:literal;)+) => {
        /// The result of an operation; 0x80 and above are failures.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ReasonCode { $($(#[doc = $doc])+ $name = $code,)+ }

        impl ReasonCode {
            /// Every code, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Finds the reason for its number on the wire.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// The number on the wire.
            pub const fn code(self) -> u8 {
                match self { $(Self::$name => $code,)+ }
            }

            const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

reason_codes! {
    /// 0x00: success, normal disconnection, or granted QoS 0.
    Success = 0x00, "success";
    /// 0x01: the subscription is granted with maximum QoS 1.
    GrantedQoS1 = 0x01, "granted QoS 1";
    /// 0x02: the subscription is granted with maximum QoS 2.
    GrantedQoS2 = 0x02, "granted QoS 2";
    /// 0x04: the client disconnects but wants its will published.
    DisconnectWithWill = 0x04, "disconnect with will message";
    /// 0x10: accepted, but nobody subscribes to it.
    NoMatchingSubscribers = 0x10, "no matching subscribers";
    /// 0x11: there was no such subscription.
    NoSubscriptionExisted = 0x11, "no subscription existed";
    /// 0x18: the authentication takes another step.
    ContinueAuthentication = 0x18, "continue authentication";
    /// 0x19: the client starts to authenticate again.
    Reauthenticate = 0x19, "re-authenticate";
    /// 0x80: no reason is given, or none fits.
    UnspecifiedError = 0x80, "unspecified error";
    /// 0x81: the packet could not be parsed.
    MalformedPacket = 0x81, "malformed packet";
    /// 0x82: the packet is not allowed here, or says what it must not.
    ProtocolError = 0x82, "protocol error";
    /// 0x83: valid, but not accepted by this implementation.
    ImplementationSpecificError = 0x83, "implementation specific error";
    /// 0x84: this protocol version is not spoken here.
    UnsupportedProtocolVersion = 0x84, "unsupported protocol version";
    /// 0x85: the `ClientId` is not allowed.
    ClientIdentifierNotValid = 0x85, "client identifier not valid";
    /// 0x86: user name and password do not match.
    BadUserNameOrPassword = 0x86, "bad user name or password";
    /// 0x87: the operation is not permitted.
    NotAuthorized = 0x87, "not authorized";
    /// 0x88: the server is not available.
    ServerUnavailable = 0x88, "server unavailable";
    /// 0x89: the server is busy; try again later.
    ServerBusy = 0x89, "server busy";
    /// 0x8A: banned by administrative action.
    Banned = 0x8A, "banned";
    /// 0x8B: the server is shutting down.
    ServerShuttingDown = 0x8B, "server shutting down";
    /// 0x8C: the authentication method is not supported, or changed.
    BadAuthenticationMethod = 0x8C, "bad authentication method";
    /// 0x8D: nothing came for one and a half times the keep alive.
    KeepAliveTimeout = 0x8D, "keep alive timeout";
    /// 0x8E: another connection took the session over.
    SessionTakenOver = 0x8E, "session taken over";
    /// 0x8F: the topic filter is not accepted.
    TopicFilterInvalid = 0x8F, "topic filter invalid";
    /// 0x90: the topic name is not accepted.
    TopicNameInvalid = 0x90, "topic name invalid";
    /// 0x91: the packet identifier is already in use.
    PacketIdentifierInUse = 0x91, "packet identifier in use";
    /// 0x92: the packet identifier is not known.
    PacketIdentifierNotFound = 0x92, "packet identifier not found";
    /// 0x93: more messages in flight than the Receive Maximum allows.
    ReceiveMaximumExceeded = 0x93, "receive maximum exceeded";
    /// 0x94: the topic alias is zero, or greater than the maximum.
    TopicAliasInvalid = 0x94, "topic alias invalid";
    /// 0x95: the packet is larger than is accepted.
    PacketTooLarge = 0x95, "packet too large";
    /// 0x96: data comes too fast.
    MessageRateTooHigh = 0x96, "message rate too high";
    /// 0x97: a limit set by this implementation or its operator is exceeded.
    QuotaExceeded = 0x97, "quota exceeded";
    /// 0x98: closed by an administrator.
    AdministrativeAction = 0x98, "administrative action";
    /// 0x99: the payload does not match its format indicator.
    PayloadFormatInvalid = 0x99, "payload format invalid";
    /// 0x9A: retained messages are not supported.
    RetainNotSupported = 0x9A, "retain not supported";
    /// 0x9B: a QoS greater than the Maximum QoS was asked for.
    QoSNotSupported = 0x9B, "QoS not supported";
    /// 0x9C: use another server for now.
    UseAnotherServer = 0x9C, "use another server";
    /// 0x9D: use another server from now on.
    ServerMoved = 0x9D, "server moved";
    /// 0x9E: shared subscriptions are not supported.
    SharedSubscriptionsNotSupported = 0x9E, "shared subscriptions not supported";
    /// 0x9F: connections come too fast.
    ConnectionRateExceeded = 0x9F, "connection rate exceeded";
    /// 0xA0: the longest time allowed for a connection is over.
    MaximumConnectTime = 0xA0, "maximum connect time";
    /// 0xA1: subscription identifiers are not supported.
    SubscriptionIdentifiersNotSupported = 0xA1, "subscription identifiers not supported";
    /// 0xA2: wildcard subscriptions are not supported.
    WildcardSubscriptionsNotSupported = 0xA2, "wildcard subscriptions not supported";
}

impl ReasonCode {
    /// The code of SUBACK that grants a subscription with this maximum QoS.
    pub const fn granted(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::Success,
            QoS::AtLeastOnce => Self::GrantedQoS1,
            QoS::ExactlyOnce => Self::GrantedQoS2,
        }
    }

    /// The QoS that this code grants in SUBACK; none for every other code.
    pub const fn granted_qos(self) -> Option<QoS> {
        QoS::from_bits(self.code())
    }

    /// Whether this is a failure.
    pub const fn is_error(self) -> bool {
        self.code() >= 0x80
    }

    /// The CONNACK return code of MQTT 3.1 and 3.1.1 that comes nearest.
    ///
    /// Failures without a counterpart become 3, server unavailable: the device may try again.
    pub const fn connect_return_code(self) -> u8 {
        match self {
            _ if !self.is_error() => 0,
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => 5,
            _ => 3,
        }
    }

    /// Finds the reason that a CONNACK return code of MQTT 3.1 and 3.1.1 stands for.
    pub const fn from_connect_return_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }

    /// Whether MQTT 5.0 lists this code for packets of `packet_type`.
    pub const fn is_allowed_in(self, packet_type: PacketType) -> bool {
        match packet_type {
            PacketType::ConnAck => matches!(
                self.code(),
                0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F
            ),
            PacketType::PubAck | PacketType::PubRec => {
                matches!(
                    self.code(),
                    0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
                )
            }
            PacketType::PubRel | PacketType::PubComp => matches!(self.code(), 0x00 | 0x92),
            PacketType::SubAck => matches!(
                self.code(),
                0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
            ),
            PacketType::UnsubAck => {
                matches!(self.code(), 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
            }
            PacketType::Disconnect => matches!(
                self.code(),
                0x00 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2
            ),
            PacketType::Auth => matches!(self.code(), 0x00 | 0x18 | 0x19),
            _ => false,
        }
    }
}

impl From<ReasonCode> for u8 {
    fn from(reason: ReasonCode) -> Self {
        reason.code()
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
