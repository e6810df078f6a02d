//! UNSUBSCRIBE: a client gives subscriptions up.  Spec: MQTT 5.0 s3.10.

use smallvec::SmallVec;

use crate::mqtt::{
    DecodeError, EncodeError, PacketId, PacketType, Properties, ProtocolVersion, TopicFilter,
    Violation,
    codec::Rules,
    properties::Context,
    wire::{Reader, Sink},
};

/// Gives up one or more subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Identifier that UNSUBACK answers.
    pub packet_id: PacketId,
    /// The filters as they were subscribed to, at least one.
    pub filters: SmallVec<[TopicFilter; 1]>,
    /// Properties of MQTT 5.0.
    pub properties: Option<Box<Properties>>,
}

impl Unsubscribe {
    pub(in crate::mqtt) fn decode(
        reader: &mut Reader<'_>,
        rules: &Rules,
    ) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let properties = Properties::decode(reader, CONTEXT, rules)?;
        let mut filters = SmallVec::new();
        while !reader.is_empty() {
            rules.check_filter_count(filters.len())?;
            filters.push(rules.topic_filter(reader.string()?)?);
        }
        // [MQTT-3.10.3-2]
        if filters.is_empty() {
            return Err(Violation::UnsubscribeEmpty.into());
        }
        Ok(Self {
            packet_id,
            filters,
            properties,
        })
    }

    pub(super) fn write_body<S: Sink>(
        &self,
        version: ProtocolVersion,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        if self.filters.is_empty() {
            return Err(EncodeError::EmptyPayload(PacketType::Unsubscribe));
        }
        sink.packet_id(self.packet_id);
        Properties::encode(self.properties.as_deref(), CONTEXT, version, sink)?;
        self.filters
            .iter()
            .try_for_each(|filter| sink.string(filter))
    }
}

const CONTEXT: Context = Context::Packet(PacketType::Unsubscribe);
