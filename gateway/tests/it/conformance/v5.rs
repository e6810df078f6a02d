//! The twenty-seven cases of `client_test5.py`.

mod flow;
mod messages;
mod sessions;
mod subscriptions;

use headgate_protocol::mqtt::ProtocolVersion;

use self::{
    flow::{
        client_topic_alias, flow_control1, flow_control2, maximum_packet_size, server_keep_alive,
        server_topic_alias,
    },
    messages::{
        basic, dollar_topics, overlapping_subscriptions, payload_format, publication_expiry,
        request_response, retained_message, user_properties,
    },
    sessions::{
        assigned_clientid, keepalive, offline_message_queueing, redelivery_on_reconnect,
        session_expiry, will_delay, will_message, zero_length_clientid,
    },
    subscriptions::{
        shared_subscriptions, subscribe_failure, subscribe_identifiers, subscribe_options,
        unsubscribe,
    },
};
use super::{Case, cases};

const V: ProtocolVersion = ProtocolVersion::V5;

pub(super) const CASES: [Case; 27] = cases![
    basic,
    retained_message,
    will_message,
    zero_length_clientid,
    offline_message_queueing,
    overlapping_subscriptions,
    keepalive,
    redelivery_on_reconnect,
    subscribe_failure,
    dollar_topics,
    unsubscribe,
    session_expiry,
    shared_subscriptions,
    user_properties,
    payload_format,
    publication_expiry,
    subscribe_options,
    assigned_clientid,
    subscribe_identifiers,
    request_response,
    client_topic_alias,
    server_topic_alias,
    maximum_packet_size,
    server_keep_alive,
    will_delay,
    flow_control1,
    flow_control2,
];
