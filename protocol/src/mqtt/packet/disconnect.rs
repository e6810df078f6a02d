//! DISCONNECT: the last packet of a connection.  Spec: MQTT 5.0 s3.14.

use super::ack;
use crate::mqtt::{
    DecodeError, EncodeError, PacketType, Properties, ProtocolVersion, ReasonCode, Violation,
    codec::Rules,
    wire::{Reader, Sink},
};

/// Ends the connection; before MQTT 5.0 only clients send it, without a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Why; success is a normal disconnection.
    pub reason: ReasonCode,
    /// Properties of MQTT 5.0.
    pub properties: Option<Box<Properties>>,
}

impl Disconnect {
    /// Disconnects for `reason`.
    pub const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            properties: None,
        }
    }

    pub(in crate::mqtt) fn decode(
        reader: &mut Reader<'_>,
        rules: &Rules,
    ) -> Result<Self, DecodeError> {
        // [MQTT-3.14.2-1]
        let refusal = Violation::DisconnectReason;
        let (reason, properties) =
            ack::decode_reason(PacketType::Disconnect, refusal, reader, rules)?;
        Ok(Self { reason, properties })
    }

    pub(super) fn write_body<S: Sink>(
        &self,
        version: ProtocolVersion,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        let properties = self.properties.as_deref();
        ack::write_reason(
            PacketType::Disconnect,
            self.reason,
            properties,
            version,
            sink,
        )
    }
}
