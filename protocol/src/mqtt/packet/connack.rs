//! CONNACK: the server's answer to CONNECT.  Spec: MQTT 5.0 s3.2, MQTT 3.1.1 s3.2.

use super::ack;
use crate::mqtt::{
    DecodeError, EncodeError, PacketType, Properties, ProtocolVersion, ReasonCode, Violation,
    codec::Rules,
    properties::Context,
    wire::{Reader, Sink},
};

/// Accepts or refuses a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAck {
    /// Whether the session goes on where it was; written only with success, and never in MQTT 3.1.
    pub session_present: bool,
    /// The result; mapped to and from the return codes of MQTT 3.1 and 3.1.1.
    pub reason: ReasonCode,
    /// Properties of MQTT 5.0.
    pub properties: Option<Box<Properties>>,
}

impl ConnAck {
    /// Accepts the connection.
    pub const fn accepted(session_present: bool) -> Self {
        Self {
            session_present,
            reason: ReasonCode::Success,
            properties: None,
        }
    }

    /// Refuses the connection.
    pub const fn refused(reason: ReasonCode) -> Self {
        Self {
            session_present: false,
            reason,
            properties: None,
        }
    }

    pub(in crate::mqtt) fn decode(
        reader: &mut Reader<'_>,
        rules: &Rules,
    ) -> Result<Self, DecodeError> {
        let session_present = match (reader.u8()?, rules.version) {
            (0, _) => false,
            (1, ProtocolVersion::V311 | ProtocolVersion::V5) => true,
            // [MQTT-3.2.2-1]
            _ => return Err(Violation::ReservedConnAckFlags.into()),
        };
        // [MQTT-3.2.2-8]
        let refusal = Violation::ConnAckReason;
        let reason = if rules.version.has_properties() {
            ack::decode_code(PacketType::ConnAck, refusal, reader)?
        } else {
            ReasonCode::from_connect_return_code(reader.u8()?).ok_or(refusal)?
        };
        // [MQTT-3.2.2-6]
        if session_present && reason.is_error() {
            return Err(Violation::SessionPresentOnRefusal.into());
        }
        let properties = Properties::decode(reader, CONTEXT, rules)?;
        Ok(Self {
            session_present,
            reason,
            properties,
        })
    }

    pub(super) fn write_body<S: Sink>(
        &self,
        version: ProtocolVersion,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        let says_session = version != ProtocolVersion::V31 && !self.reason.is_error();
        sink.u8(u8::from(self.session_present && says_session));
        // Also before MQTT 5.0, so that only refusals that mean one are mapped.
        let reason = ack::checked(PacketType::ConnAck, self.reason)?;
        sink.u8(match version {
            ProtocolVersion::V5 => reason.code(),
            ProtocolVersion::V31 | ProtocolVersion::V311 => reason.connect_return_code(),
        });
        Properties::encode(self.properties.as_deref(), CONTEXT, version, sink)
    }
}

const CONTEXT: Context = Context::Packet(PacketType::ConnAck);
