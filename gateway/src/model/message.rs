//! A message between a device and applications, whichever wire it came by.

use std::num::NonZeroU32;

use bytes::Bytes;
use headgate_protocol::{
    identity::{DeviceId, NodeId, ProductId},
    mqtt::{PayloadFormat, Properties, QoS, TopicName},
};
use smallvec::SmallVec;

use crate::model::time::Millis;

/// A device by all of its ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName {
    /// Its id in the whole gateway.
    pub device_id: DeviceId,
    /// Its product.
    pub product_id: ProductId,
    /// Its id within its product.
    pub node_id: NodeId,
}

/// A message from a device or to one. What travels is an `Arc` of it.
///
/// The payload is memory of the message's own: a slice of a read buffer would hold the whole buffer
/// for as long as the message waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The device that sent it, or that it is for.
    pub device: DeviceName,
    /// A topic of that device.
    pub topic: TopicName,
    /// The message itself.
    pub payload: Bytes,
    /// How hard to try.
    pub qos: QoS,
    /// Whether its sender wanted it kept for whoever subscribes later.
    pub retain: bool,
    /// What MQTT 5 says of it.
    pub properties: MessageProperties,
    /// When it reached the gateway.
    pub at: Millis,
}

impl Message {
    /// About what it takes to keep, in bytes.
    pub fn size(&self) -> usize {
        let user = &self.properties.user;
        let user: usize = user
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let named = self
            .properties
            .content_type
            .as_ref()
            .map_or(0, |kind| kind.len())
            + self
                .properties
                .response_topic
                .as_ref()
                .map_or(0, |topic| topic.len())
            + self
                .properties
                .correlation_data
                .as_ref()
                .map_or(0, Bytes::len);
        self.topic.len() + self.payload.len() + named + user
    }

    /// Whether its time is over.
    pub fn is_expired(&self, now: Millis) -> bool {
        self.properties.expires_at.is_some_and(|end| end <= now)
    }
}

/// How a message is handed to one client, whatever number of its subscriptions match.
///
/// Spec: MQTT 5.0 s3.3.4, s3.8.4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handing {
    /// The lower of the message's and the highest that the subscriptions grant.
    pub qos: QoS,
    /// What the PUBLISH says of RETAIN.
    pub retain: bool,
    /// The numbers that the client gave the subscriptions.
    pub subscription_ids: SmallVec<[NonZeroU32; 1]>,
}

impl Handing {
    /// The same at no more than this quality of service.
    #[must_use]
    pub fn at_most(&self, qos: QoS) -> Self {
        Self {
            qos: self.qos.min(qos),
            ..self.clone()
        }
    }

    /// At this quality of service, and nothing else to say.
    pub fn at(qos: QoS) -> Self {
        Self {
            qos,
            ..Self::default()
        }
    }
}

/// Properties of PUBLISH that go from sender to receiver unchanged.  Spec: MQTT 5.0 s3.3.2.3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageProperties {
    /// Whether the payload is text.
    pub payload_format: Option<PayloadFormat>,
    /// MIME type or the like of the payload.
    pub content_type: Option<Box<str>>,
    /// Where a response is wanted.
    pub response_topic: Option<TopicName>,
    /// What the requester tells its responses apart by.
    pub correlation_data: Option<Bytes>,
    /// Names and values of the sender's own.
    pub user: Vec<(Box<str>, Box<str>)>,
    /// When it is of no use any more.
    pub expires_at: Option<Millis>,
}

impl MessageProperties {
    /// What of a PUBLISH that came at `at` goes on to the receivers.
    pub fn of_publish(properties: Option<&Properties>, at: Millis) -> Self {
        let Some(properties) = properties else {
            return Self::default();
        };
        Self {
            payload_format: properties.payload_format,
            content_type: properties.content_type.clone(),
            response_topic: properties.response_topic.clone(),
            correlation_data: properties
                .correlation_data
                .as_deref()
                .map(Bytes::copy_from_slice),
            user: properties.user.clone(),
            expires_at: properties
                .message_expiry_interval_secs
                .map(|secs| at.after(std::time::Duration::from_secs(u64::from(secs)))),
        }
    }

    /// The properties of the PUBLISH that hands the message on at `now`; `None` where there are none.
    pub fn to_publish(&self, now: Millis) -> Option<Box<Properties>> {
        if *self == Self::default() {
            return None;
        }
        Some(Box::new(Properties {
            payload_format: self.payload_format,
            content_type: self.content_type.clone(),
            response_topic: self.response_topic.clone(),
            correlation_data: self.correlation_data.clone(),
            user: self.user.clone(),
            // [MQTT-3.3.2-6]: what is left of the interval.
            message_expiry_interval_secs: self.expires_at.map(|end| {
                let left = end.since(now).as_millis().div_ceil(1_000);
                u32::try_from(left).unwrap_or(u32::MAX)
            }),
            ..Properties::default()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_go_through_and_the_expiry_shrinks() {
        let at = Millis::from_i64(1_000_000);
        let sent = Properties {
            payload_format: Some(PayloadFormat::Utf8),
            content_type: Some("text/plain".into()),
            response_topic: Some("P/d/answer".parse().expect("a topic")),
            correlation_data: Some(Bytes::from_static(b"\x00\x01")),
            user: vec![("a".into(), "b".into())],
            message_expiry_interval_secs: Some(60),
            ..Properties::default()
        };
        let kept = MessageProperties::of_publish(Some(&sent), at);
        let later = at.after(std::time::Duration::from_millis(20_500));
        let mut expected = sent;
        expected.message_expiry_interval_secs = Some(40);
        assert_eq!(kept.to_publish(later).as_deref(), Some(&expected));
        assert_eq!(MessageProperties::of_publish(None, at).to_publish(at), None);
    }
}
