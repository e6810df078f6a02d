//! What can go wrong, told apart by blame.
//!
//! [`Violation`]: the peer broke a rule of the standard. Other [`DecodeError`]s: the peer asks for
//! more than this end gives. [`EncodeError`]: this program asked for a packet that cannot exist.

mod violation;

use thiserror::Error;

pub use self::violation::Violation;
use super::{PacketType, ReasonCode};

/// Why received bytes are refused. The connection must be closed after any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The peer broke a rule.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The packet is larger than the limit; known from its fixed header alone.
    #[error("packet of {size_bytes} bytes is larger than the limit of {max_bytes}")]
    TooLarge {
        /// Size that the fixed header claims, itself included.
        size_bytes: usize,
        /// The limit that applies.
        max_bytes: usize,
    },
    /// CONNECT asks for a version of MQTT that is not spoken here.
    #[error("protocol level {level} is not supported")]
    UnsupportedVersion {
        /// The protocol level in CONNECT.
        level: u8,
    },
    /// The `ClientId` is longer than the limit.
    #[error("client identifier of {size_bytes} bytes is longer than the limit of {max_bytes}")]
    ClientIdTooLong {
        /// Length of the `ClientId`.
        size_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// A topic name is longer than the limit.
    #[error("topic name of {size_bytes} bytes is longer than the limit of {max_bytes}")]
    TopicNameTooLong {
        /// Length of the name.
        size_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// A topic name has more levels than the limit.
    #[error("topic name of {levels} levels is deeper than the limit of {max_levels}")]
    TopicNameTooDeep {
        /// Number of levels.
        levels: usize,
        /// The limit.
        max_levels: usize,
    },
    /// A topic filter is longer than the limit.
    #[error("topic filter of {size_bytes} bytes is longer than the limit of {max_bytes}")]
    TopicFilterTooLong {
        /// Length of the filter.
        size_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// A topic filter has more levels than the limit.
    #[error("topic filter of {levels} levels is deeper than the limit of {max_levels}")]
    TopicFilterTooDeep {
        /// Number of levels, without those of `$share/{name}`.
        levels: usize,
        /// The limit.
        max_levels: usize,
    },
    /// One SUBSCRIBE or UNSUBSCRIBE holds more filters than the limit.
    #[error("more than {max_filters} topic filters in one packet")]
    TooManyFilters {
        /// The limit.
        max_filters: usize,
    },
    /// One packet holds more user properties than the limit.
    #[error("more than {max_properties} user properties in one packet")]
    TooManyUserProperties {
        /// The limit.
        max_properties: usize,
    },
    /// A client's decoder was used before [`set_version`](super::Decoder::set_version).
    #[error("the protocol version is not set")]
    VersionNotSet,
}

impl DecodeError {
    /// The reason for the CONNACK or DISCONNECT that may precede closing.
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::Violation(violation) => violation.reason_code(),
            Self::TooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::UnsupportedVersion { .. } => ReasonCode::UnsupportedProtocolVersion,
            Self::ClientIdTooLong { .. } => ReasonCode::ClientIdentifierNotValid,
            Self::TopicNameTooLong { .. } | Self::TopicNameTooDeep { .. } => {
                ReasonCode::TopicNameInvalid
            }
            Self::TopicFilterTooLong { .. } | Self::TopicFilterTooDeep { .. } => {
                ReasonCode::TopicFilterInvalid
            }
            Self::TooManyFilters { .. } | Self::TooManyUserProperties { .. } => {
                ReasonCode::QuotaExceeded
            }
            Self::VersionNotSet => ReasonCode::ImplementationSpecificError,
        }
    }
}

/// Why a packet cannot be written. The buffer is left as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The packet is larger than a Remaining Length can say (268,435,455 bytes).
    #[error("packet body of {size_bytes} bytes is larger than the protocol allows")]
    TooLarge {
        /// Length after the fixed header.
        size_bytes: usize,
    },
    /// A string or binary field is longer than 65,535 bytes.
    #[error("field of {size_bytes} bytes is longer than 65535")]
    FieldTooLong {
        /// Length of the field.
        size_bytes: usize,
    },
    /// A string holds U+0000.
    #[error("string holds the null character")]
    NullCharacter,
    /// This version has no such packet.
    #[error("{0} does not exist in this protocol version")]
    NotInVersion(PacketType),
    /// PUBLISH with QoS 1 or 2 needs a packet identifier.
    #[error("publish with QoS above 0 lacks a packet identifier")]
    PacketIdMissing,
    /// PUBLISH with QoS 0 has no packet identifier.
    #[error("publish with QoS 0 has a packet identifier")]
    PacketIdUnexpected,
    /// PUBLISH with QoS 0 is never sent again.
    #[error("publish with QoS 0 has the DUP flag")]
    DupWithQoS0,
    /// PUBLISH without a topic name or alias, or before MQTT 5.0 without a name.
    #[error("publish lacks a topic name")]
    TopicNameMissing,
    /// SUBSCRIBE, UNSUBSCRIBE, SUBACK or UNSUBACK with an empty list.
    #[error("{0} has an empty payload")]
    EmptyPayload(PacketType),
    /// Before MQTT 5.0 a password needs a user name.
    #[error("password without user name")]
    PasswordWithoutUserName,
    /// A shared subscription cannot ask for no local messages.
    #[error("no local on a shared subscription")]
    NoLocalOnShared,
    /// AUTH names its authentication method, unless it says nothing but success.
    #[error("auth lacks an authentication method")]
    AuthMethodMissing,
    /// The reason code is not listed for this packet.
    #[error("reason code {reason:?} does not belong in {packet_type}")]
    ReasonNotAllowed {
        /// The packet.
        packet_type: PacketType,
        /// The code.
        reason: ReasonCode,
    },
    /// The property is not listed for this packet, or stands twice where it may stand once.
    #[error("property {id:#04x} does not belong here")]
    PropertyNotAllowed {
        /// Identifier of the property.
        id: u8,
    },
    /// The value is outside the property's range.
    #[error("property {id:#04x} has a value out of range")]
    PropertyOutOfRange {
        /// Identifier of the property.
        id: u8,
    },
}
