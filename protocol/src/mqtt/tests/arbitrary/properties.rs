//! Any properties that a packet may carry; none before MQTT 5.0.

use std::num::{NonZeroU16, NonZeroU32};

use proptest::{collection::vec, option, prelude::*};

use super::{bytes, text, topic_name};
use crate::mqtt::{PayloadFormat, Properties, ProtocolVersion};

/// Properties as decoding gives them: none rather than an empty set.
pub(super) fn boxed(properties: Properties) -> Option<Box<Properties>> {
    (properties != Properties::default()).then(|| Box::new(properties))
}

pub(super) fn user() -> impl Strategy<Value = Vec<(Box<str>, Box<str>)>> {
    vec((text(), text()), 0..3)
}

/// The properties of messages, or none before MQTT 5.0.
pub(super) fn of_message(version: ProtocolVersion) -> BoxedStrategy<Properties> {
    if !version.has_properties() {
        return Just(Properties::default()).boxed();
    }
    let format = option::of(prop_oneof![
        Just(PayloadFormat::Unspecified),
        Just(PayloadFormat::Utf8)
    ]);
    let strings = (
        option::of(text()),
        option::of(topic_name()),
        option::of(bytes()),
        user(),
    );
    (format, any::<Option<u32>>(), strings)
        .prop_map(|(payload_format, message_expiry_interval_secs, strings)| {
            let (content_type, response_topic, correlation_data, user) = strings;
            Properties {
                payload_format,
                message_expiry_interval_secs,
                content_type,
                response_topic,
                correlation_data,
                user,
                ..Properties::default()
            }
        })
        .boxed()
}

/// The properties of results, or none before MQTT 5.0.
pub(super) fn of_result(version: ProtocolVersion) -> BoxedStrategy<Properties> {
    if !version.has_properties() {
        return Just(Properties::default()).boxed();
    }
    (option::of(text()), user())
        .prop_map(|(reason_string, user)| Properties {
            reason_string,
            user,
            ..Properties::default()
        })
        .boxed()
}

/// The properties that CONNECT and CONNACK share, or none before MQTT 5.0.
pub(super) fn of_connection(version: ProtocolVersion) -> BoxedStrategy<Properties> {
    if !version.has_properties() {
        return Just(Properties::default()).boxed();
    }
    let numbers = (
        any::<Option<u32>>(),
        any::<Option<NonZeroU16>>(),
        any::<Option<u16>>(),
        any::<Option<NonZeroU32>>(),
    );
    (numbers, option::of((text(), option::of(bytes()))), user())
        .prop_map(|(numbers, authentication, user)| {
            let (expiry, receive_maximum, topic_alias_maximum, maximum_packet_size) = numbers;
            let (method, data) = authentication.unzip();
            Properties {
                session_expiry_interval_secs: expiry,
                receive_maximum,
                topic_alias_maximum,
                maximum_packet_size,
                authentication_method: method,
                authentication_data: data.flatten(),
                user,
                ..Properties::default()
            }
        })
        .boxed()
}
