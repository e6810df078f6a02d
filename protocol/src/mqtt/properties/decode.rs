//! Reading a block of properties.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use super::{
    Context, MAX_USER_PROPERTIES, PayloadFormat, Properties,
    allowed::{KNOWN, PropertySet, id},
};
use crate::mqtt::{
    DecodeError, PacketType, QoS, Role, TopicName, Violation, codec::Rules, wire::Reader,
};

impl Properties {
    /// Reads a Property Length and the properties after it; `None` when there are none, or when
    /// the version has none.
    pub(in crate::mqtt) fn decode(
        reader: &mut Reader<'_>,
        context: Context,
        rules: &Rules,
    ) -> Result<Option<Box<Self>>, DecodeError> {
        if !rules.version.has_properties() {
            return Ok(None);
        }
        let len = reader.var_int()?;
        if len == 0 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| Violation::Truncated)?;
        let mut block = Reader::new(reader.take(len)?);
        let mut properties = Box::<Self>::default();
        let mut seen = PropertySet::NONE;
        while !block.is_empty() {
            let property = u8::try_from(block.var_int()?).unwrap_or(u8::MAX);
            check_place(property, context, rules.role, seen)?;
            seen = seen.with(property);
            properties.read(property, &mut block, rules)?;
        }
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(Violation::AuthenticationDataWithoutMethod.into());
        }
        Ok(Some(properties))
    }

    fn read(
        &mut self,
        property: u8,
        block: &mut Reader<'_>,
        rules: &Rules,
    ) -> Result<(), DecodeError> {
        match property {
            id::PAYLOAD_FORMAT => {
                let utf8 = flag(block)?;
                self.payload_format = Some(if utf8 {
                    PayloadFormat::Utf8
                } else {
                    PayloadFormat::Unspecified
                });
            }
            id::MESSAGE_EXPIRY_INTERVAL => self.message_expiry_interval_secs = Some(block.u32()?),
            id::CONTENT_TYPE => self.content_type = Some(block.string()?.into()),
            id::RESPONSE_TOPIC => self.response_topic = Some(response_topic(block, rules)?),
            id::CORRELATION_DATA => self.correlation_data = Some(bytes(block)?),
            id::SUBSCRIPTION_IDENTIFIER => {
                let number = NonZeroU32::new(block.var_int()?);
                self.subscription_identifiers
                    .push(number.ok_or(Violation::PropertyOutOfRange)?);
            }
            id::TOPIC_ALIAS => {
                // [MQTT-3.3.2-8]
                let alias = NonZeroU16::new(block.u16()?).ok_or(Violation::TopicAliasZero)?;
                self.topic_alias = Some(alias);
            }
            id::REASON_STRING => self.reason_string = Some(block.string()?.into()),
            id::USER_PROPERTY => self.read_user_property(block)?,
            _ => self.read_of_connection(property, block)?,
        }
        Ok(())
    }

    /// Reads a property of the connection: of CONNECT, CONNACK, AUTH or DISCONNECT.
    fn read_of_connection(
        &mut self,
        property: u8,
        block: &mut Reader<'_>,
    ) -> Result<(), Violation> {
        match property {
            id::SESSION_EXPIRY_INTERVAL => self.session_expiry_interval_secs = Some(block.u32()?),
            id::ASSIGNED_CLIENT_ID => self.assigned_client_id = Some(block.string()?.into()),
            id::SERVER_KEEP_ALIVE => self.server_keep_alive_secs = Some(block.u16()?),
            id::AUTHENTICATION_METHOD => self.authentication_method = Some(block.string()?.into()),
            id::AUTHENTICATION_DATA => self.authentication_data = Some(bytes(block)?),
            id::REQUEST_PROBLEM_INFORMATION => {
                self.request_problem_information = Some(flag(block)?);
            }
            id::WILL_DELAY_INTERVAL => self.will_delay_interval_secs = Some(block.u32()?),
            id::REQUEST_RESPONSE_INFORMATION => {
                self.request_response_information = Some(flag(block)?);
            }
            id::RESPONSE_INFORMATION => self.response_information = Some(block.string()?.into()),
            id::SERVER_REFERENCE => self.server_reference = Some(block.string()?.into()),
            id::RECEIVE_MAXIMUM => {
                let maximum = NonZeroU16::new(block.u16()?);
                self.receive_maximum = Some(maximum.ok_or(Violation::PropertyOutOfRange)?);
            }
            id::TOPIC_ALIAS_MAXIMUM => self.topic_alias_maximum = Some(block.u16()?),
            id::MAXIMUM_QOS => {
                let at_least_once = flag(block)?;
                self.maximum_qos = Some(if at_least_once {
                    QoS::AtLeastOnce
                } else {
                    QoS::AtMostOnce
                });
            }
            id::RETAIN_AVAILABLE => self.retain_available = Some(flag(block)?),
            id::MAXIMUM_PACKET_SIZE => {
                let maximum = NonZeroU32::new(block.u32()?);
                self.maximum_packet_size = Some(maximum.ok_or(Violation::PropertyOutOfRange)?);
            }
            id::WILDCARD_SUBSCRIPTION_AVAILABLE => {
                self.wildcard_subscription_available = Some(flag(block)?);
            }
            id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE => {
                self.subscription_identifiers_available = Some(flag(block)?);
            }
            id::SHARED_SUBSCRIPTION_AVAILABLE => {
                self.shared_subscription_available = Some(flag(block)?);
            }
            _ => return Err(Violation::UnknownProperty),
        }
        Ok(())
    }

    fn read_user_property(&mut self, block: &mut Reader<'_>) -> Result<(), DecodeError> {
        if self.user.len() >= MAX_USER_PROPERTIES {
            return Err(DecodeError::TooManyUserProperties {
                max_properties: MAX_USER_PROPERTIES,
            });
        }
        let name = block.string()?;
        let value = block.string()?;
        self.user.push((name.into(), value.into()));
        Ok(())
    }
}

fn check_place(
    property: u8,
    context: Context,
    role: Role,
    seen: PropertySet,
) -> Result<(), Violation> {
    if !KNOWN.contains(property) {
        return Err(Violation::UnknownProperty);
    }
    if !context.allowed_to(role).contains(property) {
        return Err(match (context, property) {
            (Context::Packet(PacketType::Publish), id::SUBSCRIPTION_IDENTIFIER) => {
                Violation::SubscriptionIdFromClient
            }
            (Context::Packet(PacketType::Disconnect), id::SESSION_EXPIRY_INTERVAL) => {
                Violation::SessionExpiryFromServer
            }
            _ => Violation::PropertyNotAllowed,
        });
    }
    if seen.contains(property) && !context.repeats(property) {
        return Err(Violation::DuplicateProperty);
    }
    Ok(())
}

fn response_topic(block: &mut Reader<'_>, rules: &Rules) -> Result<TopicName, DecodeError> {
    rules
        .topic_name(block.string()?)
        .map_err(|error| match error {
            // [MQTT-3.3.2-14]
            DecodeError::Violation(Violation::WildcardInTopicName) => {
                Violation::WildcardInResponseTopic.into()
            }
            _ => error,
        })
}

fn flag(block: &mut Reader<'_>) -> Result<bool, Violation> {
    match block.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Violation::PropertyOutOfRange),
    }
}

/// Copies a binary field: a slice of the packet would keep all of it in memory.
fn bytes(block: &mut Reader<'_>) -> Result<Bytes, Violation> {
    block.binary().map(Bytes::copy_from_slice)
}
