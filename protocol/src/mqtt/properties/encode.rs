//! Writing a block of properties.

use super::{
    Context, PayloadFormat, Properties,
    allowed::{PropertySet, id},
};
use crate::mqtt::{
    EncodeError, PacketType, ProtocolVersion, QoS,
    wire::{Count, MAX_VAR_INT, Sink},
};

impl Properties {
    /// Writes a Property Length and the properties; nothing in versions that have none.
    pub(in crate::mqtt) fn encode<S: Sink>(
        properties: Option<&Self>,
        context: Context,
        version: ProtocolVersion,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        if !version.has_properties() {
            return Ok(());
        }
        let Some(properties) = properties else {
            // [MQTT-2.2.2-1]
            return sink.var_int(0);
        };
        let mut count = Count::default();
        properties.write(context, &mut count)?;
        sink.var_int(count.bytes())?;
        properties.write(context, sink)
    }

    /// The bytes that these take in a PUBLISH, the longest form of their own length among them;
    /// `usize::MAX` where they cannot stand there.
    pub(in crate::mqtt) fn publish_bytes(&self) -> usize {
        let mut count = Count::default();
        match self.write(Context::Packet(PacketType::Publish), &mut count) {
            Ok(()) => count.bytes() + 4,
            Err(_) => usize::MAX,
        }
    }

    fn write<S: Sink>(&self, context: Context, sink: &mut S) -> Result<(), EncodeError> {
        let mut out = Writer {
            sink,
            allowed: context.allowed(),
        };
        let utf8 = self
            .payload_format
            .map(|format| format == PayloadFormat::Utf8);
        out.flag(id::PAYLOAD_FORMAT, utf8)?;
        out.u32(
            id::MESSAGE_EXPIRY_INTERVAL,
            self.message_expiry_interval_secs,
        )?;
        out.string(id::CONTENT_TYPE, self.content_type.as_deref())?;
        out.string(id::RESPONSE_TOPIC, self.response_topic.as_deref())?;
        out.binary(id::CORRELATION_DATA, self.correlation_data.as_deref())?;
        self.write_subscription_identifiers(context, &mut out)?;
        out.u32(
            id::SESSION_EXPIRY_INTERVAL,
            self.session_expiry_interval_secs,
        )?;
        out.string(id::ASSIGNED_CLIENT_ID, self.assigned_client_id.as_deref())?;
        out.u16(id::SERVER_KEEP_ALIVE, self.server_keep_alive_secs)?;
        out.string(
            id::AUTHENTICATION_METHOD,
            self.authentication_method.as_deref(),
        )?;
        if self.authentication_data.is_some() && self.authentication_method.is_none() {
            return Err(EncodeError::PropertyNotAllowed {
                id: id::AUTHENTICATION_DATA,
            });
        }
        out.binary(id::AUTHENTICATION_DATA, self.authentication_data.as_deref())?;
        out.flag(
            id::REQUEST_PROBLEM_INFORMATION,
            self.request_problem_information,
        )?;
        out.u32(id::WILL_DELAY_INTERVAL, self.will_delay_interval_secs)?;
        out.flag(
            id::REQUEST_RESPONSE_INFORMATION,
            self.request_response_information,
        )?;
        out.string(
            id::RESPONSE_INFORMATION,
            self.response_information.as_deref(),
        )?;
        out.string(id::SERVER_REFERENCE, self.server_reference.as_deref())?;
        out.string(id::REASON_STRING, self.reason_string.as_deref())?;
        out.u16(id::RECEIVE_MAXIMUM, self.receive_maximum.map(Into::into))?;
        out.u16(id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum)?;
        out.u16(id::TOPIC_ALIAS, self.topic_alias.map(Into::into))?;
        if self.maximum_qos == Some(QoS::ExactlyOnce) {
            return Err(EncodeError::PropertyOutOfRange {
                id: id::MAXIMUM_QOS,
            });
        }
        out.flag(
            id::MAXIMUM_QOS,
            self.maximum_qos.map(|qos| qos == QoS::AtLeastOnce),
        )?;
        out.flag(id::RETAIN_AVAILABLE, self.retain_available)?;
        for (name, value) in &self.user {
            out.string(id::USER_PROPERTY, Some(name))?;
            out.sink.string(value)?;
        }
        out.u32(
            id::MAXIMUM_PACKET_SIZE,
            self.maximum_packet_size.map(Into::into),
        )?;
        out.flag(
            id::WILDCARD_SUBSCRIPTION_AVAILABLE,
            self.wildcard_subscription_available,
        )?;
        out.flag(
            id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
            self.subscription_identifiers_available,
        )?;
        out.flag(
            id::SHARED_SUBSCRIPTION_AVAILABLE,
            self.shared_subscription_available,
        )
    }

    fn write_subscription_identifiers<S: Sink>(
        &self,
        context: Context,
        out: &mut Writer<'_, S>,
    ) -> Result<(), EncodeError> {
        let property = id::SUBSCRIPTION_IDENTIFIER;
        if self.subscription_identifiers.len() > 1 && !context.repeats(property) {
            return Err(EncodeError::PropertyNotAllowed { id: property });
        }
        for number in &self.subscription_identifiers {
            let number = usize::try_from(number.get()).unwrap_or(usize::MAX);
            if number > MAX_VAR_INT {
                return Err(EncodeError::PropertyOutOfRange { id: property });
            }
            out.begin(property)?;
            out.sink.var_int(number)?;
        }
        Ok(())
    }
}

/// Writes the properties that are present and allowed.
struct Writer<'s, S> {
    sink: &'s mut S,
    allowed: PropertySet,
}

impl<S: Sink> Writer<'_, S> {
    fn begin(&mut self, property: u8) -> Result<(), EncodeError> {
        if !self.allowed.contains(property) {
            return Err(EncodeError::PropertyNotAllowed { id: property });
        }
        self.sink.u8(property);
        Ok(())
    }

    fn flag(&mut self, property: u8, value: Option<bool>) -> Result<(), EncodeError> {
        if let Some(value) = value {
            self.begin(property)?;
            self.sink.u8(value.into());
        }
        Ok(())
    }

    fn u16(&mut self, property: u8, value: Option<u16>) -> Result<(), EncodeError> {
        if let Some(value) = value {
            self.begin(property)?;
            self.sink.u16(value);
        }
        Ok(())
    }

    fn u32(&mut self, property: u8, value: Option<u32>) -> Result<(), EncodeError> {
        if let Some(value) = value {
            self.begin(property)?;
            self.sink.u32(value);
        }
        Ok(())
    }

    fn string(&mut self, property: u8, value: Option<&str>) -> Result<(), EncodeError> {
        if let Some(value) = value {
            self.begin(property)?;
            self.sink.string(value)?;
        }
        Ok(())
    }

    fn binary(&mut self, property: u8, value: Option<&[u8]>) -> Result<(), EncodeError> {
        if let Some(value) = value {
            self.begin(property)?;
            self.sink.binary(value)?;
        }
        Ok(())
    }
}
