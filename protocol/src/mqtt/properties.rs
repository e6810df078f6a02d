//! Properties of MQTT 5.0 packets.
//!
//! One struct holds all of them; a table says which packet may carry which, and both decoding and
//! encoding go by it. Packets of earlier versions carry none.  Spec: MQTT 5.0 s2.2.2.

mod allowed;
mod decode;
mod encode;

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

pub(super) use self::allowed::Context;
use super::{QoS, TopicName};

/// The properties of one packet, or of a will; absent ones are `None` or empty.
///
/// Intervals are in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Whether the payload is text (PUBLISH, will).
    pub payload_format: Option<PayloadFormat>,
    /// How long the message lives (PUBLISH, will).
    pub message_expiry_interval_secs: Option<u32>,
    /// MIME type or the like of the payload (PUBLISH, will).
    pub content_type: Option<Box<str>>,
    /// Where a response is to be published (PUBLISH, will).
    pub response_topic: Option<TopicName>,
    /// What the requester tells its responses apart by (PUBLISH, will).
    pub correlation_data: Option<Bytes>,
    /// Number of a subscription, 1 to 268,435,455: one in SUBSCRIBE, any in PUBLISH from a server.
    pub subscription_identifiers: Vec<NonZeroU32>,
    /// How long the session outlives its connection (CONNECT, CONNACK, DISCONNECT).
    pub session_expiry_interval_secs: Option<u32>,
    /// The `ClientId` that the server chose (CONNACK).
    pub assigned_client_id: Option<Box<str>>,
    /// The keep alive to use instead of the client's (CONNACK).
    pub server_keep_alive_secs: Option<u16>,
    /// Name of the extended authentication method (CONNECT, CONNACK, AUTH).
    pub authentication_method: Option<Box<str>>,
    /// Data of that method (CONNECT, CONNACK, AUTH).
    pub authentication_data: Option<Bytes>,
    /// Whether reason strings and user properties are wanted on failures (CONNECT).
    pub request_problem_information: Option<bool>,
    /// How long the will waits (will).
    pub will_delay_interval_secs: Option<u32>,
    /// Whether response information is wanted (CONNECT).
    pub request_response_information: Option<bool>,
    /// Base of response topics (CONNACK).
    pub response_information: Option<Box<str>>,
    /// Another server to use (CONNACK, DISCONNECT from a server).
    pub server_reference: Option<Box<str>>,
    /// Reason for people to read (acknowledgements, DISCONNECT, AUTH).
    pub reason_string: Option<Box<str>>,
    /// How many QoS 1 and 2 messages may be in flight towards the sender (CONNECT, CONNACK).
    pub receive_maximum: Option<NonZeroU16>,
    /// The greatest topic alias that the sender takes (CONNECT, CONNACK).
    pub topic_alias_maximum: Option<u16>,
    /// Number that stands, from now on, for the topic (PUBLISH).
    pub topic_alias: Option<NonZeroU16>,
    /// The greatest QoS that the server takes, 0 or 1 (CONNACK).
    pub maximum_qos: Option<QoS>,
    /// Whether the server keeps retained messages (CONNACK).
    pub retain_available: Option<bool>,
    /// Names and values of the application's own; the same name may stand more than once (all).
    pub user: Vec<(Box<str>, Box<str>)>,
    /// The largest packet, in bytes, that the sender takes (CONNECT, CONNACK).
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Whether the server takes wildcards in filters (CONNACK).
    pub wildcard_subscription_available: Option<bool>,
    /// Whether the server takes subscription identifiers (CONNACK).
    pub subscription_identifiers_available: Option<bool>,
    /// Whether the server takes shared subscriptions (CONNACK).
    pub shared_subscription_available: Option<bool>,
}

/// What a payload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadFormat {
    /// Bytes.
    #[default]
    Unspecified,
    /// UTF-8 text; the codec does not look at it.
    Utf8,
}

/// The most user properties taken in one block. Each costs about 32 bytes more than it has on the
/// wire, so without a limit a packet of empty ones would grow sixfold in memory.
const MAX_USER_PROPERTIES: usize = 64;
