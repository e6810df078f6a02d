//! The decoder: from received bytes to packets.
//!
//! The connection's reader appends to a buffer and calls [`Decoder::decode`] until it yields
//! `None`. The decoder owns what must be known across packets: the version, and whether the
//! connection was opened. It never allocates by a length that the peer claims.
//! Invariants: a packet is taken from the buffer whole or not at all; sizes are checked by the
//! fixed header alone.  Spec: MQTT 5.0 s2, s3.1.0, s3.2.0.

use bytes::{Buf, BytesMut};

use super::{
    Auth, ConnAck, Connect, DecodeError, Disconnect, Packet, PacketType, ProtocolVersion, PubAck,
    PubComp, PubRec, PubRel, Publish, SubAck, Subscribe, TopicFilter, TopicName, UnsubAck,
    Unsubscribe, Violation,
    header::{self, FirstByte},
    topic::level_count,
    wire::Reader,
};

/// Which end of the connection this is; the peer is the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This end is the server: CONNECT must come first, and nothing that only servers send.
    Server,
    /// This end is the client: CONNACK (or AUTH) must come first, and nothing that only clients
    /// send.
    Client,
}

/// What a decoder takes, beyond what the standards allow; every limit is inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of a packet with its fixed header, in bytes.
    pub max_packet_bytes: usize,
    /// Size of CONNECT with its fixed header, in bytes, where this end is the server.
    pub max_connect_bytes: usize,
    /// Length of a topic name or filter, in bytes.
    pub max_topic_bytes: usize,
    /// Levels of a topic name or filter, `$share/{name}` not counted.
    pub max_topic_levels: usize,
    /// Length of a `ClientId`, in bytes. The 23 of MQTT 3.1 are not enforced: devices in the field
    /// exceed them.
    pub max_client_id_bytes: usize,
    /// Filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub max_filters_per_packet: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_packet_bytes: 262_144,
            max_connect_bytes: 8_192,
            max_topic_bytes: 255,
            max_topic_levels: 10,
            max_client_id_bytes: 256,
            max_filters_per_packet: 32,
        }
    }
}

/// Decodes the packets of one connection.
///
/// After an error the stream cannot be followed any more: the connection is to be closed.
#[derive(Clone, Debug)]
pub struct Decoder {
    role: Role,
    limits: Limits,
    version: Option<ProtocolVersion>,
    /// Whether the packet that opens the connection was decoded: CONNECT, or for a client CONNACK.
    opened: bool,
    /// Whether CONNECT named an authentication method, without which a client sends no AUTH.
    authenticates: bool,
}

impl Decoder {
    /// Makes a decoder for a new connection.
    pub const fn new(role: Role, limits: Limits) -> Self {
        Self {
            role,
            limits,
            version: None,
            opened: false,
            authenticates: false,
        }
    }

    /// Sets the version, which a client needs before it can decode.
    ///
    /// A server has nothing to set: CONNECT says it.
    pub const fn set_version(&mut self, version: ProtocolVersion) {
        self.version = Some(version);
    }

    /// The version: for a server known as soon as the level in CONNECT was read, also when the
    /// rest of CONNECT was refused, so that the refusal can be said in it.
    pub const fn version(&self) -> Option<ProtocolVersion> {
        self.version
    }

    /// The limits.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes one packet from the front of `buf`, or nothing (`None`) while it is incomplete.
    ///
    /// The payload of PUBLISH is a slice of `buf`'s memory, not a copy; all else is copied.
    ///
    /// # Errors
    /// A [`DecodeError`] when the packet is refused, as early as that is certain: packets that are
    /// too large or not allowed here, without waiting for their bodies.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let Some((&first, rest)) = buf.split_first() else {
            return Ok(None);
        };
        let packet_type =
            PacketType::from_number(first >> 4).ok_or(Violation::ReservedPacketType)?;
        self.check_turn(packet_type)?;
        let first = FirstByte::decode(packet_type, first, self.version)?;
        let Some((body_len, len_len)) = header::remaining_length(rest, packet_type)? else {
            return Ok(None);
        };
        let header_len = 1 + len_len;
        let packet_len = header_len.saturating_add(body_len);
        self.check_size(packet_len)?;
        let Some(body) = buf.get(header_len..packet_len) else {
            return Ok(None);
        };
        let (mut packet, payload_len) = self.decode_body(first, Reader::new(body))?;
        buf.advance(packet_len - payload_len);
        if let Packet::Publish(publish) = &mut packet
            && payload_len > 0
        {
            publish.payload = buf.split_to(payload_len).freeze();
        }
        Ok(Some(packet))
    }

    /// Refuses packets that the peer may not send, or not now.
    const fn check_turn(&self, packet_type: PacketType) -> Result<(), Violation> {
        let is_v5 = matches!(self.version, Some(ProtocolVersion::V5));
        let is_connect = matches!(packet_type, PacketType::Connect);
        let is_connack = matches!(packet_type, PacketType::ConnAck);
        let is_disconnect = matches!(packet_type, PacketType::Disconnect);
        let is_auth = matches!(packet_type, PacketType::Auth);
        let is_of_server = matches!(
            packet_type,
            PacketType::ConnAck | PacketType::SubAck | PacketType::UnsubAck | PacketType::PingResp
        );
        let is_of_client = matches!(
            packet_type,
            PacketType::Connect
                | PacketType::Subscribe
                | PacketType::Unsubscribe
                | PacketType::PingReq
        );
        match self.role {
            // [MQTT-3.1.0-1]
            Role::Server if !self.opened && !is_connect => Err(Violation::FirstPacketNotConnect),
            // [MQTT-3.1.0-2]
            Role::Server if self.opened && is_connect => Err(Violation::SecondConnect),
            Role::Server if is_of_server => Err(Violation::ServerPacketFromClient),
            // [MQTT-4.12.0-7]
            Role::Server if is_auth && is_v5 && !self.authenticates => {
                Err(Violation::AuthNotStarted)
            }
            Role::Client if is_of_client => Err(Violation::ClientPacketFromServer),
            // [MQTT-3.2.0-1]
            Role::Client if !self.opened && !is_connack && !is_auth => {
                Err(Violation::FirstPacketNotConnAck)
            }
            // [MQTT-3.2.0-2]
            Role::Client if self.opened && is_connack => Err(Violation::SecondConnAck),
            // Before MQTT 5.0 a server closes the connection without a word.
            Role::Client if is_disconnect && !is_v5 => Err(Violation::ClientPacketFromServer),
            _ => Ok(()),
        }
    }

    const fn check_size(&self, size_bytes: usize) -> Result<(), DecodeError> {
        let max_bytes = match self.role {
            Role::Server if !self.opened => self.limits.max_connect_bytes,
            _ => self.limits.max_packet_bytes,
        };
        if size_bytes > max_bytes {
            return Err(DecodeError::TooLarge {
                size_bytes,
                max_bytes,
            });
        }
        Ok(())
    }

    fn rules(&self) -> Result<Rules, DecodeError> {
        let version = self.version.ok_or(DecodeError::VersionNotSet)?;
        Ok(Rules {
            version,
            role: self.role,
            limits: self.limits,
        })
    }

    /// Decodes all but the payload of PUBLISH, and tells how long that is.
    fn decode_body(
        &mut self,
        first: FirstByte,
        mut body: Reader<'_>,
    ) -> Result<(Packet, usize), DecodeError> {
        let reader = &mut body;
        if first.packet_type == PacketType::Connect {
            self.version = Some(Connect::decode_version(reader)?);
        }
        let rules = self.rules()?;
        let packet = match first.packet_type {
            PacketType::Connect => Packet::Connect(Connect::decode(reader, &rules)?.into()),
            PacketType::ConnAck => Packet::ConnAck(ConnAck::decode(reader, &rules)?),
            PacketType::Publish => {
                let publish = Publish::decode_head(reader, first.publish, &rules)?;
                return Ok((Packet::Publish(publish), reader.len()));
            }
            PacketType::PubAck => Packet::PubAck(PubAck::decode(reader, &rules)?),
            PacketType::PubRec => Packet::PubRec(PubRec::decode(reader, &rules)?),
            PacketType::PubRel => Packet::PubRel(PubRel::decode(reader, &rules)?),
            PacketType::PubComp => Packet::PubComp(PubComp::decode(reader, &rules)?),
            PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(reader, &rules)?.into()),
            PacketType::SubAck => Packet::SubAck(SubAck::decode(reader, &rules)?),
            PacketType::Unsubscribe => {
                Packet::Unsubscribe(Unsubscribe::decode(reader, &rules)?.into())
            }
            PacketType::UnsubAck => Packet::UnsubAck(UnsubAck::decode(reader, &rules)?),
            PacketType::PingReq => Packet::PingReq,
            PacketType::PingResp => Packet::PingResp,
            PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(reader, &rules)?),
            PacketType::Auth => Packet::Auth(Auth::decode(reader, &rules)?),
        };
        body.finish()?;
        self.note_opened(&packet);
        Ok((packet, 0))
    }

    fn note_opened(&mut self, packet: &Packet) {
        match packet {
            Packet::Connect(connect) => {
                self.opened = true;
                let properties = connect.properties.as_ref();
                self.authenticates =
                    properties.is_some_and(|all| all.authentication_method.is_some());
            }
            Packet::ConnAck(_) => self.opened = true,
            _ => {}
        }
    }
}

/// What decides whether a body is accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) version: ProtocolVersion,
    pub(super) role: Role,
    pub(super) limits: Limits,
}

impl Rules {
    /// Checks a topic name against the limits and the grammar.
    pub(super) fn topic_name(&self, name: &str) -> Result<TopicName, DecodeError> {
        let max_bytes = self.limits.max_topic_bytes;
        if name.len() > max_bytes {
            return Err(DecodeError::TopicNameTooLong {
                size_bytes: name.len(),
                max_bytes,
            });
        }
        let topic = TopicName::try_from(name)?;
        let (levels, max_levels) = (level_count(name), self.limits.max_topic_levels);
        if levels > max_levels {
            return Err(DecodeError::TopicNameTooDeep { levels, max_levels });
        }
        Ok(topic)
    }

    /// Checks a topic filter against the limits and the grammar.
    pub(super) fn topic_filter(&self, filter: &str) -> Result<TopicFilter, DecodeError> {
        let max_bytes = self.limits.max_topic_bytes;
        if filter.len() > max_bytes {
            return Err(DecodeError::TopicFilterTooLong {
                size_bytes: filter.len(),
                max_bytes,
            });
        }
        let topic = TopicFilter::try_from(filter)?;
        let (levels, max_levels) = (level_count(topic.pattern()), self.limits.max_topic_levels);
        if levels > max_levels {
            return Err(DecodeError::TopicFilterTooDeep { levels, max_levels });
        }
        Ok(topic)
    }

    /// Refuses one more filter after `count` of them.
    pub(super) const fn check_filter_count(&self, count: usize) -> Result<(), DecodeError> {
        let max_filters = self.limits.max_filters_per_packet;
        if count >= max_filters {
            return Err(DecodeError::TooManyFilters { max_filters });
        }
        Ok(())
    }
}
