//! The body that all acknowledgements of one message share: packet identifier, reason, properties.

use crate::mqtt::{
    DecodeError, EncodeError, PacketId, PacketType, Properties, ProtocolVersion, ReasonCode,
    Violation,
    codec::Rules,
    properties::Context,
    wire::{Reader, Sink},
};

/// Reads the body. Before MQTT 5.0 it is the packet identifier alone.
pub(super) fn decode(
    packet_type: PacketType,
    refusal: Violation,
    reader: &mut Reader<'_>,
    rules: &Rules,
) -> Result<(PacketId, ReasonCode, Option<Box<Properties>>), DecodeError> {
    let packet_id = reader.packet_id()?;
    let (reason, properties) = decode_reason(packet_type, refusal, reader, rules)?;
    Ok((packet_id, reason, properties))
}

/// Reads a reason code and properties, either of which may be left out at the end of a packet.
pub(super) fn decode_reason(
    packet_type: PacketType,
    refusal: Violation,
    reader: &mut Reader<'_>,
    rules: &Rules,
) -> Result<(ReasonCode, Option<Box<Properties>>), DecodeError> {
    if !rules.version.has_properties() || reader.is_empty() {
        return Ok((ReasonCode::Success, None));
    }
    let reason = decode_code(packet_type, refusal, reader)?;
    if reader.is_empty() {
        return Ok((reason, None));
    }
    let properties = Properties::decode(reader, Context::Packet(packet_type), rules)?;
    Ok((reason, properties))
}

/// Reads one reason code of MQTT 5.0.
pub(super) fn decode_code(
    packet_type: PacketType,
    refusal: Violation,
    reader: &mut Reader<'_>,
) -> Result<ReasonCode, Violation> {
    ReasonCode::from_code(reader.u8()?)
        .filter(|reason| reason.is_allowed_in(packet_type))
        .ok_or(refusal)
}

/// Writes the body, in MQTT 5.0 as short as it may be.
pub(super) fn write<S: Sink>(
    packet_type: PacketType,
    packet_id: PacketId,
    reason: ReasonCode,
    properties: Option<&Properties>,
    version: ProtocolVersion,
    sink: &mut S,
) -> Result<(), EncodeError> {
    sink.packet_id(packet_id);
    write_reason(packet_type, reason, properties, version, sink)
}

/// Writes a reason code and properties, leaving out what says nothing.
pub(super) fn write_reason<S: Sink>(
    packet_type: PacketType,
    reason: ReasonCode,
    properties: Option<&Properties>,
    version: ProtocolVersion,
    sink: &mut S,
) -> Result<(), EncodeError> {
    if !version.has_properties() || (reason == ReasonCode::Success && properties.is_none()) {
        return Ok(());
    }
    sink.u8(checked(packet_type, reason)?.code());
    if properties.is_some() {
        Properties::encode(properties, Context::Packet(packet_type), version, sink)?;
    }
    Ok(())
}

/// Passes a reason code that MQTT 5.0 lists for the packet.
pub(super) const fn checked(
    packet_type: PacketType,
    reason: ReasonCode,
) -> Result<ReasonCode, EncodeError> {
    if reason.is_allowed_in(packet_type) {
        Ok(reason)
    } else {
        Err(EncodeError::ReasonNotAllowed {
            packet_type,
            reason,
        })
    }
}
