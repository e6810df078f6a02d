//! SUBACK: the server's answer to SUBSCRIBE.  Spec: MQTT 5.0 s3.9.

use smallvec::SmallVec;

use super::ack;
use crate::mqtt::{
    DecodeError, EncodeError, PacketId, PacketType, Properties, ProtocolVersion, ReasonCode,
    Violation,
    codec::Rules,
    properties::Context,
    wire::{Reader, Sink},
};

/// Grants or refuses each subscription that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck {
    /// Identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// One result for each filter, in their order; before MQTT 5.0 every refusal is written 0x80.
    pub reasons: SmallVec<[ReasonCode; 4]>,
    /// Properties of MQTT 5.0.
    pub properties: Option<Box<Properties>>,
}

impl SubAck {
    pub(in crate::mqtt) fn decode(
        reader: &mut Reader<'_>,
        rules: &Rules,
    ) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let properties = Properties::decode(reader, CONTEXT, rules)?;
        let mut reasons = SmallVec::new();
        while !reader.is_empty() {
            // [MQTT-3.9.3-2]
            let refusal = Violation::SubAckReason;
            let reason = ack::decode_code(PacketType::SubAck, refusal, reader)?;
            let is_old = matches!(reason.code(), 0..=2 | 0x80);
            if !rules.version.has_properties() && !is_old {
                return Err(refusal.into());
            }
            reasons.push(reason);
        }
        if reasons.is_empty() {
            return Err(Violation::SubAckEmpty.into());
        }
        Ok(Self {
            packet_id,
            reasons,
            properties,
        })
    }

    pub(super) fn write_body<S: Sink>(
        &self,
        version: ProtocolVersion,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        if self.reasons.is_empty() {
            return Err(EncodeError::EmptyPayload(PacketType::SubAck));
        }
        sink.packet_id(self.packet_id);
        Properties::encode(self.properties.as_deref(), CONTEXT, version, sink)?;
        for reason in &self.reasons {
            let reason = ack::checked(PacketType::SubAck, *reason)?;
            let is_failure = reason.is_error() && !version.has_properties();
            sink.u8(if is_failure {
                ReasonCode::UnspecifiedError.code()
            } else {
                reason.code()
            });
        }
        Ok(())
    }
}

const CONTEXT: Context = Context::Packet(PacketType::SubAck);
