//! UNSUBACK: the server's answer to UNSUBSCRIBE.  Spec: MQTT 5.0 s3.11.

use smallvec::SmallVec;

use super::ack;
use crate::mqtt::{
    DecodeError, EncodeError, PacketId, PacketType, Properties, ProtocolVersion, ReasonCode,
    Violation,
    codec::Rules,
    properties::Context,
    wire::{Reader, Sink},
};

/// Confirms that subscriptions are given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsubAck {
    /// Identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// One result for each filter, in their order; before MQTT 5.0 there are none on the wire.
    pub reasons: SmallVec<[ReasonCode; 4]>,
    /// Properties of MQTT 5.0.
    pub properties: Option<Box<Properties>>,
}

impl UnsubAck {
    pub(in crate::mqtt) fn decode(
        reader: &mut Reader<'_>,
        rules: &Rules,
    ) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let mut reasons = SmallVec::new();
        if !rules.version.has_properties() {
            return Ok(Self {
                packet_id,
                reasons,
                properties: None,
            });
        }
        let properties = Properties::decode(reader, CONTEXT, rules)?;
        while !reader.is_empty() {
            // [MQTT-3.11.3-2]
            let refusal = Violation::UnsubAckReason;
            reasons.push(ack::decode_code(PacketType::UnsubAck, refusal, reader)?);
        }
        if reasons.is_empty() {
            return Err(Violation::UnsubAckEmpty.into());
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
        sink.packet_id(self.packet_id);
        if !version.has_properties() {
            return Ok(());
        }
        if self.reasons.is_empty() {
            return Err(EncodeError::EmptyPayload(PacketType::UnsubAck));
        }
        Properties::encode(self.properties.as_deref(), CONTEXT, version, sink)?;
        for reason in &self.reasons {
            sink.u8(ack::checked(PacketType::UnsubAck, *reason)?.code());
        }
        Ok(())
    }
}

const CONTEXT: Context = Context::Packet(PacketType::UnsubAck);
