//! A message of the caller's to the client.

use std::num::NonZeroU32;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::mqtt::{PacketId, Properties, ProtocolVersion, Publish, QoS, TopicName};

/// A message of the caller's to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<T> {
    /// Where to.
    pub topic: TopicName,
    /// The bytes.
    pub payload: Bytes,
    /// How it is handed over.
    pub qos: QoS,
    /// Whether it is said to have been retained.
    pub retain: bool,
    /// The identifiers of the subscriptions that it belongs to; told to an MQTT 5 client.
    pub subscription_ids: SmallVec<[NonZeroU32; 1]>,
    /// What to report when it is acknowledged.
    pub tag: T,
    /// Properties of MQTT 5.0, left out for a client that does not speak it. A message expiry is
    /// what is left of it now.
    pub properties: Option<Box<Properties>>,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The client does not acknowledge, and its outbox is full.
    #[error("the outbox of the client is full")]
    OutboxFull,
    /// The client must acknowledge others first.
    #[error("the client has as much to acknowledge as it takes")]
    NoQuota,
    /// The packet would be above the client's Maximum Packet Size.
    #[error("the message is larger than the client takes")]
    TooLarge,
    /// Nothing is sent before CONNACK nor after the close.
    #[error("the connection is not open")]
    NotOpen,
}

impl<T> Message<T> {
    /// A message of QoS 0 without properties.
    pub fn new(topic: TopicName, payload: Bytes, tag: T) -> Self {
        Self {
            topic,
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            subscription_ids: SmallVec::new(),
            tag,
            properties: None,
        }
    }

    /// The most bytes that its PUBLISH may have: an identifier is counted, and the longest form of
    /// the lengths.
    pub(super) fn packet_bytes(&self) -> u64 {
        const REST: usize = 1 + 4 + 2 + 2 + 4;
        let bytes = self
            .bytes()
            .saturating_add(self.topic.as_str().len() + REST)
            .saturating_add(self.subscription_ids.len() * 5);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// What of it the sender may make as long as it likes.
    pub(super) fn bytes(&self) -> usize {
        let properties = self.properties.as_ref();
        let properties = properties.map_or(0, |properties| properties.publish_bytes());
        self.payload.len().saturating_add(properties)
    }

    /// Its PUBLISH, and what to report.
    pub(super) fn into_publish(
        self,
        version: ProtocolVersion,
        packet_id: Option<PacketId>,
        dup: bool,
    ) -> (Publish, T) {
        let properties = if version == ProtocolVersion::V5 {
            with_identifiers(self.properties, &self.subscription_ids)
        } else {
            None
        };
        let publish = Publish {
            dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic,
            packet_id,
            properties,
            payload: self.payload,
        };
        (publish, self.tag)
    }

    /// Drops what is not needed once the client has it: its PUBREC came.
    pub(super) fn shrink(&mut self) {
        self.payload = Bytes::new();
        self.properties = None;
        self.subscription_ids = SmallVec::new();
    }
}

fn with_identifiers(
    properties: Option<Box<Properties>>,
    identifiers: &[NonZeroU32],
) -> Option<Box<Properties>> {
    if identifiers.is_empty() {
        return properties;
    }
    let mut properties = properties.unwrap_or_default();
    properties
        .subscription_identifiers
        .extend_from_slice(identifiers);
    Some(properties)
}
