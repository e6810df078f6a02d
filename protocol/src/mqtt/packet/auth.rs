//! AUTH: a step of extended authentication, MQTT 5.0 only.  Spec: MQTT 5.0 s3.15.

use super::ack;
use crate::mqtt::{
    DecodeError, EncodeError, PacketType, Properties, ProtocolVersion, ReasonCode, Violation,
    codec::Rules,
    wire::{Reader, Sink},
};

/// Goes on with, or repeats, an authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// What is asked for, or success.
    pub reason: ReasonCode,
    /// Method and data.
    pub properties: Option<Box<Properties>>,
}

impl Auth {
    pub(in crate::mqtt) fn decode(
        reader: &mut Reader<'_>,
        rules: &Rules,
    ) -> Result<Self, DecodeError> {
        // Success without a method may be left out whole (s3.15.2.1); all else names the method.
        if reader.is_empty() {
            return Ok(Self {
                reason: ReasonCode::Success,
                properties: None,
            });
        }
        // [MQTT-3.15.2-1]
        let refusal = Violation::AuthReason;
        let (reason, properties) = ack::decode_reason(PacketType::Auth, refusal, reader, rules)?;
        let has_method = properties
            .as_ref()
            .is_some_and(|all| all.authentication_method.is_some());
        if !has_method {
            return Err(Violation::AuthMethodMissing.into());
        }
        Ok(Self { reason, properties })
    }

    pub(super) fn write_body<S: Sink>(
        &self,
        version: ProtocolVersion,
        sink: &mut S,
    ) -> Result<(), EncodeError> {
        if !version.has_properties() {
            return Err(EncodeError::NotInVersion(PacketType::Auth));
        }
        let properties = self.properties.as_deref();
        let says_nothing = self.reason == ReasonCode::Success && properties.is_none();
        if !says_nothing && !has_method(properties) {
            return Err(EncodeError::AuthMethodMissing);
        }
        ack::write_reason(PacketType::Auth, self.reason, properties, version, sink)
    }
}

fn has_method(properties: Option<&Properties>) -> bool {
    properties.is_some_and(|properties| properties.authentication_method.is_some())
}
