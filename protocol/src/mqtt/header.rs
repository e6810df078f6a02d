//! The fixed header: packet type, flags and Remaining Length.
//!
//! All that can be refused by these bytes alone is refused before more of the packet is awaited.
//! Spec: MQTT 5.0 s2.1.

use std::fmt;

use super::{ProtocolVersion, QoS, Violation, wire};

/// The fifteen MQTT Control Packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PacketType {
    /// Connection request, client to server.
    Connect,
    /// Connect acknowledgement, server to client.
    ConnAck,
    /// Publish message, either way.
    Publish,
    /// Publish acknowledgement (QoS 1).
    PubAck,
    /// Publish received (QoS 2, first answer).
    PubRec,
    /// Publish release (QoS 2, second step).
    PubRel,
    /// Publish complete (QoS 2, last answer).
    PubComp,
    /// Subscribe request, client to server.
    Subscribe,
    /// Subscribe acknowledgement, server to client.
    SubAck,
    /// Unsubscribe request, client to server.
    Unsubscribe,
    /// Unsubscribe acknowledgement, server to client.
    UnsubAck,
    /// Ping request, client to server.
    PingReq,
    /// Ping response, server to client.
    PingResp,
    /// Disconnect notification; from a server only in MQTT 5.0.
    Disconnect,
    /// Authentication exchange, MQTT 5.0 only.
    Auth,
}

impl PacketType {
    /// Every type, in order of its number.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::ConnAck,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::SubAck,
        Self::Unsubscribe,
        Self::UnsubAck,
        Self::PingReq,
        Self::PingResp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// The number on the wire, 1 to 15.
    pub const fn number(self) -> u8 {
        match self {
            Self::Connect => 1,
            Self::ConnAck => 2,
            Self::Publish => 3,
            Self::PubAck => 4,
            Self::PubRec => 5,
            Self::PubRel => 6,
            Self::PubComp => 7,
            Self::Subscribe => 8,
            Self::SubAck => 9,
            Self::Unsubscribe => 10,
            Self::UnsubAck => 11,
            Self::PingReq => 12,
            Self::PingResp => 13,
            Self::Disconnect => 14,
            Self::Auth => 15,
        }
    }

    /// Finds the type for its number on the wire.
    pub fn from_number(number: u8) -> Option<Self> {
        let index = usize::from(number).checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// The packet's name in lower case, for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnAck => "connack",
            Self::Publish => "publish",
            Self::PubAck => "puback",
            Self::PubRec => "pubrec",
            Self::PubRel => "pubrel",
            Self::PubComp => "pubcomp",
            Self::Subscribe => "subscribe",
            Self::SubAck => "suback",
            Self::Unsubscribe => "unsubscribe",
            Self::UnsubAck => "unsuback",
            Self::PingReq => "pingreq",
            Self::PingResp => "pingresp",
            Self::Disconnect => "disconnect",
            Self::Auth => "auth",
        }
    }

    /// The first byte of every packet of this type but PUBLISH.
    pub(super) const fn first_byte(self) -> u8 {
        self.number() << 4 | self.required_flags()
    }

    const fn required_flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    const fn wrong_flags(self) -> Violation {
        match self {
            Self::PubRel => Violation::PubRelFlags,
            Self::Subscribe => Violation::SubscribeFlags,
            Self::Unsubscribe => Violation::UnsubscribeFlags,
            Self::Disconnect => Violation::DisconnectFlags,
            Self::Auth => Violation::AuthFlags,
            _ => Violation::ReservedHeaderFlags,
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The flags of PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PublishFlags {
    pub(super) dup: bool,
    pub(super) qos: QoS,
    pub(super) retain: bool,
}

impl PublishFlags {
    const NONE: Self = Self {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
    };
    const DUP: u8 = 0b1000;

    fn decode(flags: u8) -> Result<Self, Violation> {
        let dup = flags & Self::DUP != 0;
        // [MQTT-3.3.1-4]
        let qos = QoS::from_bits(flags >> 1 & 0b11).ok_or(Violation::QoS3)?;
        // [MQTT-3.3.1-2]
        if dup && qos == QoS::AtMostOnce {
            return Err(Violation::DupWithQoS0);
        }
        Ok(Self {
            dup,
            qos,
            retain: flags & 1 != 0,
        })
    }

    pub(super) fn first_byte(self) -> u8 {
        PacketType::Publish.first_byte()
            | u8::from(self.dup) << 3
            | self.qos.bits() << 1
            | u8::from(self.retain)
    }
}

/// What the first byte of a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstByte {
    pub(super) packet_type: PacketType,
    /// Neutral for all packets but PUBLISH.
    pub(super) publish: PublishFlags,
}

impl FirstByte {
    /// Reads the flags in the byte; `version` is unknown before CONNECT.
    pub(super) fn decode(
        packet_type: PacketType,
        byte: u8,
        version: Option<ProtocolVersion>,
    ) -> Result<Self, Violation> {
        let flags = byte & 0x0F;
        if packet_type == PacketType::Publish {
            return Ok(Self {
                packet_type,
                publish: PublishFlags::decode(flags)?,
            });
        }
        if packet_type == PacketType::Auth && version != Some(ProtocolVersion::V5) {
            return Err(Violation::ReservedPacketType);
        }
        // MQTT 3.1 sends PUBREL, SUBSCRIBE and UNSUBSCRIBE with QoS 1, and repeats them with DUP.
        let is_repeated = version == Some(ProtocolVersion::V31)
            && packet_type.required_flags() != 0
            && flags == packet_type.required_flags() | PublishFlags::DUP;
        // [MQTT-2.1.3-1]
        if flags != packet_type.required_flags() && !is_repeated {
            return Err(packet_type.wrong_flags());
        }
        Ok(Self {
            packet_type,
            publish: PublishFlags::NONE,
        })
    }
}

/// Reads the Remaining Length at the front of `bytes`: its value and its own length.
pub(super) fn remaining_length(
    bytes: &[u8],
    packet_type: PacketType,
) -> Result<Option<(usize, usize)>, Violation> {
    let Some((value, len)) = wire::var_int(bytes)? else {
        return Ok(None);
    };
    if value != 0 && matches!(packet_type, PacketType::PingReq | PacketType::PingResp) {
        return Err(Violation::PingWithBody);
    }
    // A target whose addresses are shorter cannot hold such a packet anyway.
    Ok(Some((usize::try_from(value).unwrap_or(usize::MAX), len)))
}
