//! PUBLISH: an application message.  Spec: MQTT 5.0 s3.3.

use bytes::{Bytes, BytesMut};

use super::begin;
use crate::mqtt::{
    DecodeError, EncodeError, PacketId, PacketType, Properties, ProtocolVersion, QoS, TopicName,
    Violation,
    codec::Rules,
    header::PublishFlags,
    properties::Context,
    wire::{Count, Reader, Sink},
};

/// A message under a topic, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Whether this may repeat an earlier attempt; never with QoS 0.
    pub dup: bool,
    /// How it is to be handed over.
    pub qos: QoS,
    /// From a client: keep it. From a server: it was kept.
    pub retain: bool,
    /// The topic; empty only in MQTT 5.0 where a topic alias stands for it.
    pub topic: TopicName,
    /// Identifier of the exchange; present exactly when QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// Properties of MQTT 5.0.
    pub properties: Option<Box<Properties>>,
    /// The message itself; when decoded, a slice of the read buffer's memory.
    pub payload: Bytes,
}

impl Publish {
    /// Makes a message of QoS 0 without properties.
    pub const fn new(topic: TopicName, payload: Bytes) -> Self {
        Self {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: None,
            payload,
        }
    }

    /// Appends all of the packet but its payload, which the caller sends next, without a copy.
    ///
    /// # Errors
    /// When the packet cannot exist; `buf` is then as it was.
    pub fn encode_header(
        &self,
        version: ProtocolVersion,
        buf: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let mut count = Count::default();
        self.write_head(version, &mut count)?;
        let body_len = count.bytes().saturating_add(self.payload.len());
        begin(self.flags().first_byte(), body_len, count.bytes(), buf)?;
        self.write_head(version, buf)
    }

    /// The number of bytes of the whole packet.
    pub(in crate::mqtt) fn encoded_len(
        &self,
        version: ProtocolVersion,
    ) -> Result<usize, EncodeError> {
        let mut count = Count::default();
        self.write_head(version, &mut count)?;
        let body_len = count.bytes().saturating_add(self.payload.len());
        let mut header = Count::default();
        header.var_int(body_len)?;
        Ok(1 + header.bytes() + body_len)
    }

    pub(super) const fn flags(&self) -> PublishFlags {
        PublishFlags {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
        }
    }

    /// Reads all but the payload, which is left in `reader`.
    pub(in crate::mqtt) fn decode_head(
        reader: &mut Reader<'_>,
        flags: PublishFlags,
        rules: &Rules,
    ) -> Result<Self, DecodeError> {
        let PublishFlags { dup, qos, retain } = flags;
        let name = reader.string()?;
        // Whether an alias stands for an empty name is known only after the properties.
        let topic = match name {
            "" if rules.version.has_properties() => TopicName::aliased(),
            _ => rules.topic_name(name)?,
        };
        let packet_id = match qos {
            // [MQTT-2.2.1-2]
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => Some(reader.packet_id()?),
        };
        let properties = Properties::decode(reader, CONTEXT, rules)?;
        if topic.is_empty() && !has_alias(properties.as_deref()) {
            return Err(Violation::EmptyTopicName.into());
        }
        let payload = Bytes::new();
        Ok(Self {
            dup,
            qos,
            retain,
            topic,
            packet_id,
            properties,
            payload,
        })
    }

    pub(super) fn write_head<S: Sink>(
        &self,
        version: ProtocolVersion,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        let properties = self.properties.as_deref();
        if self.topic.is_empty() && !(version.has_properties() && has_alias(properties)) {
            return Err(EncodeError::TopicNameMissing);
        }
        check_flags(self.flags(), self.packet_id)?;
        sink.string(&self.topic)?;
        if let Some(packet_id) = self.packet_id {
            sink.packet_id(packet_id);
        }
        Properties::encode(properties, CONTEXT, version, sink)
    }
}

/// Appends the header of a PUBLISH without properties; `payload_len` bytes of payload are to
/// follow, written by the caller from wherever they are.
///
/// `topic` must be a topic name: not empty, without wildcards.
///
/// # Errors
/// When the packet cannot exist; `buf` is then as it was.
#[expect(clippy::too_many_arguments, reason = "each is one field of the packet")]
pub fn encode_publish_header(
    buf: &mut BytesMut,
    version: ProtocolVersion,
    topic: &str,
    qos: QoS,
    packet_id: Option<PacketId>,
    dup: bool,
    retain: bool,
    payload_len: usize,
) -> Result<(), EncodeError> {
    debug_assert!(
        TopicName::check(topic).is_ok(),
        "{topic:?} is no topic name"
    );
    if topic.is_empty() {
        return Err(EncodeError::TopicNameMissing);
    }
    let flags = PublishFlags { dup, qos, retain };
    check_flags(flags, packet_id)?;
    let mut count = Count::default();
    count.string(topic)?;
    let head_len = count.bytes()
        + if packet_id.is_some() { 2 } else { 0 }
        + usize::from(version.has_properties());
    begin(
        flags.first_byte(),
        head_len.saturating_add(payload_len),
        head_len,
        buf,
    )?;
    buf.string(topic)?;
    if let Some(packet_id) = packet_id {
        buf.packet_id(packet_id);
    }
    Properties::encode(None, CONTEXT, version, buf)
}

fn check_flags(flags: PublishFlags, packet_id: Option<PacketId>) -> Result<(), EncodeError> {
    match (flags.qos, packet_id) {
        // [MQTT-2.2.1-2]
        (QoS::AtMostOnce, Some(_)) => Err(EncodeError::PacketIdUnexpected),
        // [MQTT-3.3.1-2]
        (QoS::AtMostOnce, None) if flags.dup => Err(EncodeError::DupWithQoS0),
        // [MQTT-2.2.1-3], [MQTT-2.2.1-4]
        (QoS::AtLeastOnce | QoS::ExactlyOnce, None) => Err(EncodeError::PacketIdMissing),
        _ => Ok(()),
    }
}

fn has_alias(properties: Option<&Properties>) -> bool {
    properties.is_some_and(|properties| properties.topic_alias.is_some())
}

const CONTEXT: Context = Context::Packet(PacketType::Publish);
