//! How messages stand in Redis: a line of JSON and the payload behind it.

use std::{fmt::Display, str::FromStr};

use bytes::Bytes;
use headgate_protocol::mqtt::QoS;
use serde::{Deserialize, Serialize};

use crate::{
    model::{DeviceName, Id, Message, Millis},
    store::{StoreError, sessions::mailbox},
};

#[derive(Serialize, Deserialize)]
struct Head<'m> {
    device: &'m str,
    product: &'m str,
    node: &'m str,
    topic: std::borrow::Cow<'m, str>,
    qos: u8,
    at: i64,
    /// JSON of its own, as SQLite has it.
    properties: String,
}

/// Writes a message.
pub(in super::super) fn encode(message: &Message) -> Result<Vec<u8>, StoreError> {
    let head = Head {
        device: message.device.device_id.as_str(),
        product: message.device.product_id.as_str(),
        node: message.device.node_id.as_str(),
        topic: (&*message.topic).into(),
        qos: message.qos.bits(),
        at: message.at.as_i64(),
        properties: mailbox::encode(message)?,
    };
    let mut bytes = serde_json::to_vec(&head).map_err(|error| corrupt("message", error))?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&message.payload);
    Ok(bytes)
}

/// Reads what [`encode`] wrote.
pub(in super::super) fn decode(bytes: &[u8]) -> Result<Message, StoreError> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (head, payload) = end
        .and_then(|end| bytes.split_at_checked(end))
        .ok_or_else(|| corrupt("message", "no payload"))?;
    let head: Head<'_> = serde_json::from_slice(head).map_err(|error| corrupt("message", error))?;
    let (properties, retain) = mailbox::decode(&head.properties)?;
    Ok(Message {
        device: DeviceName {
            device_id: parsed("device", head.device)?,
            product_id: parsed("product", head.product)?,
            node_id: parsed("node", head.node)?,
        },
        topic: parsed("topic", &head.topic)?,
        payload: Bytes::copy_from_slice(payload.get(1..).unwrap_or_default()),
        qos: QoS::from_bits(head.qos).ok_or_else(|| corrupt("qos", head.qos))?,
        retain,
        properties,
        at: Millis::from_i64(head.at),
    })
}

/// An id: of 13 characters, so that ids as texts have the order of their numbers.
pub(in super::super) fn id(text: &str) -> Result<Id, StoreError> {
    parsed("id", text)
}

pub(in super::super) fn parsed<T: FromStr<Err: Display>>(
    what: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    text.parse().map_err(|error| corrupt(what, error))
}

/// A stored text that must be UTF-8.
pub(super) fn text(what: &'static str, bytes: Vec<u8>) -> Result<String, StoreError> {
    String::from_utf8(bytes).map_err(|error| corrupt(what, error))
}

pub(in super::super) fn corrupt(column: &'static str, reason: impl Display) -> StoreError {
    StoreError::Corrupt {
        column,
        reason: reason.to_string(),
    }
}
