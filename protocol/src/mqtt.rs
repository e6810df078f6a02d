//! MQTT 3.1, 3.1.1 and 5.0: one packet model, a strict codec and the session state above it.
//!
//! [`Decoder`] turns received bytes into [`Packet`]s and refuses whatever the standards forbid;
//! [`Packet::encode`] appends to a buffer. Both work for either end of a connection.

mod codec;
mod connection;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod header;
mod packet;
mod packet_id;
mod properties;
mod qos;
mod reason;
mod subscriptions;
#[cfg(test)]
mod tests;
mod topic;
mod version;
mod wire;

pub use codec::{Decoder, Limits, Role};
pub use connection::{
    Accept, CloseDetails, Connection, ConnectionLimits, Event, Input, Message, NotSent, Offer,
    Output, Phase, Resumed,
};
pub use error::{DecodeError, EncodeError, Violation};
pub use header::PacketType;
pub use packet::{
    Auth, ConnAck, Connect, Disconnect, Packet, PubAck, PubComp, PubRec, PubRel, Publish,
    RetainHandling, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe, Will,
    encode_publish_header,
};
pub use packet_id::PacketId;
pub use properties::{PayloadFormat, Properties};
pub use qos::QoS;
pub use reason::ReasonCode;
pub use subscriptions::{ShareGroup, SubscriptionIndex};
pub use topic::{TopicFilter, TopicName};
pub use version::ProtocolVersion;
