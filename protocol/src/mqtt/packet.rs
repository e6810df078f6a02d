//! The packets and how they are written.
//!
//! One model for MQTT 3.1, 3.1.1 and 5.0: where a version lacks a field, writing leaves it out and
//! reading gives its neutral value, so a message from a 5.0 client can go to a 3.1.1 one as it is.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod puback;
mod pubcomp;
mod publish;
mod pubrec;
mod pubrel;
mod suback;
mod subscribe;
mod unsuback;
mod unsubscribe;

use bytes::{BufMut, BytesMut};

pub use self::{
    auth::Auth,
    connack::ConnAck,
    connect::{Connect, Will},
    disconnect::Disconnect,
    puback::PubAck,
    pubcomp::PubComp,
    publish::{Publish, encode_publish_header},
    pubrec::PubRec,
    pubrel::PubRel,
    suback::SubAck,
    subscribe::{RetainHandling, Subscribe, Subscription},
    unsuback::UnsubAck,
    unsubscribe::Unsubscribe,
};
use super::{
    EncodeError, PacketType, ProtocolVersion,
    wire::{Count, MAX_VAR_INT, Sink},
};

/// Any MQTT Control Packet; at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// CONNECT.
    Connect(Box<Connect>),
    /// CONNACK.
    ConnAck(ConnAck),
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK.
    PubAck(PubAck),
    /// PUBREC.
    PubRec(PubRec),
    /// PUBREL.
    PubRel(PubRel),
    /// PUBCOMP.
    PubComp(PubComp),
    /// SUBSCRIBE.
    Subscribe(Box<Subscribe>),
    /// SUBACK.
    SubAck(SubAck),
    /// UNSUBSCRIBE.
    Unsubscribe(Box<Unsubscribe>),
    /// UNSUBACK.
    UnsubAck(UnsubAck),
    /// PINGREQ.
    PingReq,
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(Disconnect),
    /// AUTH.
    Auth(Auth),
}

impl Packet {
    /// Which packet this is.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet to `buf` in the form of `version`.
    ///
    /// Properties and reason codes that `version` lacks are left out. CONNECT is written in its own
    /// version, whatever `version` says.
    ///
    /// # Errors
    /// When the packet cannot exist; `buf` is then as it was.
    pub fn encode(&self, version: ProtocolVersion, buf: &mut BytesMut) -> Result<(), EncodeError> {
        let version = self.version_or(version);
        let body_len = self.body_len(version)?;
        begin(self.first_byte(), body_len, body_len, buf)?;
        self.write_body(version, buf)
    }

    /// The number of bytes that [`encode`](Self::encode) would append.
    ///
    /// # Errors
    /// When the packet cannot exist.
    pub fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        let body_len = self.body_len(self.version_or(version))?;
        let mut header = Count::default();
        header.var_int(body_len)?;
        Ok(1 + header.bytes() + body_len)
    }

    fn version_or(&self, version: ProtocolVersion) -> ProtocolVersion {
        match self {
            Self::Connect(connect) => connect.version,
            _ => version,
        }
    }

    fn first_byte(&self) -> u8 {
        match self {
            Self::Publish(publish) => publish.flags().first_byte(),
            _ => self.packet_type().first_byte(),
        }
    }

    fn body_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        let mut count = Count::default();
        self.write_body(version, &mut count)?;
        Ok(count.bytes())
    }

    fn write_body<S: Sink>(
        &self,
        version: ProtocolVersion,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        match self {
            Self::Connect(connect) => connect.write_body(sink),
            Self::ConnAck(connack) => connack.write_body(version, sink),
            Self::Publish(publish) => {
                publish.write_head(version, sink)?;
                sink.slice(&publish.payload);
                Ok(())
            }
            Self::PubAck(ack) => ack.write_body(version, sink),
            Self::PubRec(ack) => ack.write_body(version, sink),
            Self::PubRel(ack) => ack.write_body(version, sink),
            Self::PubComp(ack) => ack.write_body(version, sink),
            Self::Subscribe(subscribe) => subscribe.write_body(version, sink),
            Self::SubAck(suback) => suback.write_body(version, sink),
            Self::Unsubscribe(unsubscribe) => unsubscribe.write_body(version, sink),
            Self::UnsubAck(unsuback) => unsuback.write_body(version, sink),
            Self::PingReq | Self::PingResp => Ok(()),
            Self::Disconnect(disconnect) => disconnect.write_body(version, sink),
            Self::Auth(auth) => auth.write_body(version, sink),
        }
    }
}

/// Writes the fixed header of a body of `body_len` bytes and makes room for `room` bytes after it.
fn begin(first: u8, body_len: usize, room: usize, buf: &mut BytesMut) -> Result<(), EncodeError> {
    if body_len > MAX_VAR_INT {
        return Err(EncodeError::TooLarge {
            size_bytes: body_len,
        });
    }
    buf.reserve(MAX_FIXED_HEADER_BYTES + room);
    buf.put_u8(first);
    buf.var_int(body_len)
}

const MAX_FIXED_HEADER_BYTES: usize = 5;
