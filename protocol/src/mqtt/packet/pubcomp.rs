//! PUBCOMP: the last answer to a PUBLISH of QoS 2.  Spec: MQTT 5.0 s3.7.

use super::ack;
use crate::mqtt::{
    DecodeError, EncodeError, PacketId, PacketType, Properties, ProtocolVersion, ReasonCode,
    Violation,
    codec::Rules,
    wire::{Reader, Sink},
};

/// Completes a PUBLISH of QoS 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PubComp {
    /// Identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// The result; always success before MQTT 5.0.
    pub reason: ReasonCode,
    /// Properties of MQTT 5.0.
    pub properties: Option<Box<Properties>>,
}

impl PubComp {
    /// Acknowledges with success.
    pub const fn new(packet_id: PacketId) -> Self {
        Self {
            packet_id,
            reason: ReasonCode::Success,
            properties: None,
        }
    }

    pub(in crate::mqtt) fn decode(
        reader: &mut Reader<'_>,
        rules: &Rules,
    ) -> Result<Self, DecodeError> {
        // [MQTT-3.7.2-1]
        let refusal = Violation::PubCompReason;
        let (packet_id, reason, properties) =
            ack::decode(PacketType::PubComp, refusal, reader, rules)?;
        Ok(Self {
            packet_id,
            reason,
            properties,
        })
    }

    pub(super) fn write_body<S: Sink>(
        &self,
        version: ProtocolVersion,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        let properties = self.properties.as_deref();
        ack::write(
            PacketType::PubComp,
            self.packet_id,
            self.reason,
            properties,
            version,
            sink,
        )
    }
}
