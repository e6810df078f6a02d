//! CONNECT: a client opens a connection.  Spec: MQTT 5.0 s3.1, MQTT 3.1.1 s3.1, MQTT 3.1 s3.1.

use bytes::Bytes;

use crate::mqtt::{
    DecodeError, EncodeError, PacketType, Properties, ProtocolVersion, QoS, TopicName, Violation,
    codec::Rules,
    properties::Context,
    wire::{Reader, Sink},
};

/// The first packet of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The version that the connection is to speak.
    pub version: ProtocolVersion,
    /// Whether an earlier session is discarded (Clean Session before MQTT 5.0).
    pub clean_start: bool,
    /// The longest the client is silent, in seconds; 0 is for ever.
    pub keep_alive_secs: u16,
    /// Names the client; empty when the server is to choose.
    pub client_id: Box<str>,
    /// The user name.
    pub username: Option<Box<str>>,
    /// The password: any bytes, and in MQTT 5.0 also without a user name.
    pub password: Option<Bytes>,
    /// What to publish when the connection breaks.
    pub will: Option<Will>,
    /// Properties of MQTT 5.0.
    pub properties: Option<Box<Properties>>,
}

/// The message that the server publishes when a connection ends without DISCONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The topic, never empty.
    pub topic: TopicName,
    /// The message.
    pub payload: Bytes,
    /// How it is published.
    pub qos: QoS,
    /// Whether it is kept.
    pub retain: bool,
    /// Will properties of MQTT 5.0.
    pub properties: Option<Box<Properties>>,
}

impl Connect {
    /// Makes a CONNECT with a clean start, without keep alive, credentials or will.
    pub fn new(version: ProtocolVersion, client_id: impl Into<Box<str>>) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive_secs: 0,
            client_id: client_id.into(),
            username: None,
            password: None,
            will: None,
            properties: None,
        }
    }

    /// Reads protocol name and level.
    pub(in crate::mqtt) fn decode_version(
        reader: &mut Reader<'_>,
    ) -> Result<ProtocolVersion, DecodeError> {
        let name = reader.string()?;
        // [MQTT-3.1.2-1]
        if !matches!(name, "MQTT" | "MQIsdp") {
            return Err(Violation::UnknownProtocolName.into());
        }
        let level = reader.u8()?;
        // [MQTT-3.1.2-2]
        ProtocolVersion::from_name_and_level(name, level)
            .ok_or(DecodeError::UnsupportedVersion { level })
    }

    /// Reads what follows protocol name and level.
    pub(in crate::mqtt) fn decode(
        reader: &mut Reader<'_>,
        rules: &Rules,
    ) -> Result<Self, DecodeError> {
        let flags = Flags::decode(reader.u8()?, rules.version)?;
        let keep_alive_secs = reader.u16()?;
        let properties = Properties::decode(reader, CONTEXT, rules)?;
        let client_id = decode_client_id(reader, flags.clean_start, rules)?;
        let will = match flags.will {
            Some((qos, retain)) => Some(Will::decode(reader, qos, retain, rules)?),
            None => None,
        };
        // In MQTT 3.1 the Remaining Length takes precedence over these two flags (s3.1).
        let may_lack = rules.version == ProtocolVersion::V31;
        let mut username = None;
        if flags.username && !(may_lack && reader.is_empty()) {
            username = Some(reader.string()?.into());
        }
        let mut password = None;
        if flags.password && !(may_lack && reader.is_empty()) {
            password = Some(Bytes::copy_from_slice(reader.binary()?));
        }
        Ok(Self {
            version: rules.version,
            clean_start: flags.clean_start,
            keep_alive_secs,
            client_id,
            username,
            password,
            will,
            properties,
        })
    }

    pub(super) fn write_body<S: Sink>(&self, sink: &mut S) -> Result<(), EncodeError> {
        let version = self.version;
        // [MQTT-3.1.2-22] of MQTT 3.1.1
        if !version.has_properties() && self.password.is_some() && self.username.is_none() {
            return Err(EncodeError::PasswordWithoutUserName);
        }
        sink.string(version.name())?;
        sink.u8(version.level());
        sink.u8(self.flags().encode());
        sink.u16(self.keep_alive_secs);
        Properties::encode(self.properties.as_deref(), CONTEXT, version, sink)?;
        sink.string(&self.client_id)?;
        if let Some(will) = &self.will {
            will.write(version, sink)?;
        }
        if let Some(username) = &self.username {
            sink.string(username)?;
        }
        if let Some(password) = &self.password {
            sink.binary(password)?;
        }
        Ok(())
    }

    fn flags(&self) -> Flags {
        Flags {
            clean_start: self.clean_start,
            will: self.will.as_ref().map(|will| (will.qos, will.retain)),
            username: self.username.is_some(),
            password: self.password.is_some(),
        }
    }
}

impl Will {
    fn decode(
        reader: &mut Reader<'_>,
        qos: QoS,
        retain: bool,
        rules: &Rules,
    ) -> Result<Self, DecodeError> {
        let properties = Properties::decode(reader, Context::Will, rules)?;
        let topic = rules.topic_name(reader.string()?)?;
        let payload = Bytes::copy_from_slice(reader.binary()?);
        Ok(Self {
            topic,
            payload,
            qos,
            retain,
            properties,
        })
    }

    fn write<S: Sink>(&self, version: ProtocolVersion, sink: &mut S) -> Result<(), EncodeError> {
        if self.topic.is_empty() {
            return Err(EncodeError::TopicNameMissing);
        }
        Properties::encode(self.properties.as_deref(), Context::Will, version, sink)?;
        sink.string(&self.topic)?;
        sink.binary(&self.payload)
    }
}

fn decode_client_id(
    reader: &mut Reader<'_>,
    clean_start: bool,
    rules: &Rules,
) -> Result<Box<str>, DecodeError> {
    let client_id = reader.string()?;
    let max_bytes = rules.limits.max_client_id_bytes;
    if client_id.len() > max_bytes {
        return Err(DecodeError::ClientIdTooLong {
            size_bytes: client_id.len(),
            max_bytes,
        });
    }
    // [MQTT-3.1.3-8] of MQTT 3.1.1; MQTT 3.1 wants at least one character always.
    let may_be_empty = match rules.version {
        ProtocolVersion::V31 => false,
        ProtocolVersion::V311 => clean_start,
        ProtocolVersion::V5 => true,
    };
    if client_id.is_empty() && !may_be_empty {
        return Err(Violation::EmptyClientId.into());
    }
    Ok(client_id.into())
}

/// The Connect Flags.
#[derive(Clone, Copy, Debug)]
struct Flags {
    clean_start: bool,
    /// Will QoS and Will Retain, when there is a will.
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl Flags {
    fn decode(flags: u8, version: ProtocolVersion) -> Result<Self, Violation> {
        // [MQTT-3.1.2-3]
        if flags & RESERVED != 0 {
            return Err(Violation::ReservedConnectFlag);
        }
        // [MQTT-3.1.2-12]
        let will_qos = QoS::from_bits(flags >> 3 & 0b11).ok_or(Violation::WillQoS3)?;
        let will_retain = flags & WILL_RETAIN != 0;
        let will = if flags & WILL != 0 {
            Some((will_qos, will_retain))
        } else if will_qos != QoS::AtMostOnce {
            // [MQTT-3.1.2-11]
            return Err(Violation::WillQoSWithoutWill);
        } else if will_retain {
            // [MQTT-3.1.2-13]
            return Err(Violation::WillRetainWithoutWill);
        } else {
            None
        };
        let username = flags & USERNAME != 0;
        let password = flags & PASSWORD != 0;
        // [MQTT-3.1.2-22] of MQTT 3.1.1
        if password && !username && !version.has_properties() {
            return Err(Violation::PasswordWithoutUserName);
        }
        Ok(Self {
            clean_start: flags & CLEAN_START != 0,
            will,
            username,
            password,
        })
    }

    fn encode(self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some((qos, retain)) = self.will {
            flags |= WILL | qos.bits() << 3;
            if retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.username {
            flags |= USERNAME;
        }
        if self.password {
            flags |= PASSWORD;
        }
        flags
    }
}

const RESERVED: u8 = 0x01;
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USERNAME: u8 = 0x80;

const CONTEXT: Context = Context::Packet(PacketType::Connect);
