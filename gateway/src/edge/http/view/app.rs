//! Applications, bindings and messages as the API shows and takes them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use headgate_protocol::{
    identity::{AppId, DeviceId},
    mqtt::{PayloadFormat, QoS},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    edge::http::{
        problem::{Problem, RowProblem},
        schema,
    },
    model::{Application, Binding, CredentialSlot, Message, MessageProperties, Millis},
};

/// A program that sees and commands the devices that are bound to it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Application)]
pub struct AppView {
    /// Its id, fixed for ever: its username.
    #[schema(value_type = String)]
    id: AppId,
    /// A label of 1 to 64 characters.
    name: String,
    /// Whether it may come in.
    enabled: bool,
    /// How many devices it has; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::edge::http) devices: Option<u64>,
    /// When it was made.
    #[schema(schema_with = schema::time)]
    created_at: Millis,
    /// When it was last changed.
    #[schema(schema_with = schema::time)]
    updated_at: Millis,
}

impl From<Application> for AppView {
    fn from(app: Application) -> Self {
        Self {
            id: app.id,
            name: app.name,
            enabled: app.enabled,
            devices: None,
            created_at: app.created_at,
            updated_at: app.updated_at,
        }
    }
}

/// An application that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedAppView {
    /// The application.
    #[serde(flatten)]
    pub(in crate::edge::http) app: AppView,
    /// Its primary secret, shown this once.
    pub(in crate::edge::http) secret: String,
}

/// An application to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"id": "billing"}))]
pub struct NewAppBody {
    /// 1 to 64 letters, digits, `_` and `-`.
    #[schema(value_type = String)]
    pub(in crate::edge::http) id: AppId,
    /// A label of 1 to 64 characters; default: the id.
    #[serde(default)]
    pub(in crate::edge::http) name: Option<String>,
}

/// What of an application can be changed; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"enabled": false}))]
pub struct AppPatchBody {
    /// A label of 1 to 64 characters.
    #[serde(default)]
    pub(in crate::edge::http) name: Option<String>,
    /// False: it cannot come in any more, and its sessions and streams end.
    #[serde(default)]
    pub(in crate::edge::http) enabled: Option<bool>,
}

/// Which secret is to be replaced.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"which": "primary", "disconnect": true}))]
pub struct ResetAppSecretBody {
    /// Default: `primary`.
    #[serde(default = "primary")]
    #[schema(schema_with = schema::credential_slot)]
    pub(in crate::edge::http) which: CredentialSlot,
    /// Whether open sessions and streams are to end. Default: false.
    #[serde(default)]
    pub(in crate::edge::http) disconnect: bool,
}

const fn primary() -> CredentialSlot {
    CredentialSlot::Primary
}

/// An application's secret that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppSecretView {
    /// The application.
    #[schema(value_type = String)]
    pub(in crate::edge::http) app_id: AppId,
    /// Which of its two secrets.
    #[schema(schema_with = schema::credential_slot)]
    pub(in crate::edge::http) which: CredentialSlot,
    /// The secret, shown this once.
    pub(in crate::edge::http) secret: String,
}

/// A device that an application sees.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Binding)]
pub struct BindingView {
    /// The device.
    #[schema(value_type = String)]
    device_id: DeviceId,
    /// Since when.
    #[schema(schema_with = schema::time)]
    bound_at: Millis,
}

impl From<Binding> for BindingView {
    fn from(binding: Binding) -> Self {
        Self {
            device_id: binding.device_id,
            bound_at: binding.bound_at,
        }
    }
}

/// Devices to be bound or unbound: one, or a list.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"device_ids": ["sensor_d1"]}))]
pub struct BindBody {
    /// One device.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    device_id: Option<DeviceId>,
    /// Many, at most 10,000.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    device_ids: Option<Vec<DeviceId>>,
}

/// Most devices of one list.
const MAX_DEVICES: usize = 10_000;

impl BindBody {
    /// The devices, each with its place from 1.
    pub(in crate::edge::http) fn into_devices(self) -> Result<Vec<(u32, DeviceId)>, Problem> {
        let devices = match (self.device_id, self.device_ids) {
            (Some(one), None) => vec![one],
            (None, Some(many)) if (1..=MAX_DEVICES).contains(&many.len()) => many,
            (None, Some(_)) => {
                return Err(Problem::field(
                    "device_ids",
                    "must name 1 to 10,000 devices",
                ));
            }
            _ => {
                let detail = "give either device_id or device_ids";
                return Err(Problem::field("device_id", detail));
            }
        };
        Ok((1..).zip(devices).collect())
    }
}

/// What became of devices that were to be bound or unbound.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = BindReport)]
pub struct BindReportView {
    /// How many were named.
    pub(in crate::edge::http) rows: u64,
    /// How many bindings were made or ended; the others were as they should be.
    pub(in crate::edge::http) changed: u64,
    /// Those that cannot be used, at most 1,000.
    pub(in crate::edge::http) errors: Vec<RowProblem>,
    /// How many cannot be used in all.
    pub(in crate::edge::http) error_count: u64,
}

/// A message to a device.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"payload": "on", "qos": 1}))]
pub struct NewMessageBody {
    /// One of the device's own topics; default: `{product}/{device}/down`.
    #[serde(default)]
    pub(in crate::edge::http) topic: Option<String>,
    /// The payload as text; this, or `payload_base64`.
    #[serde(default)]
    payload: Option<String>,
    /// The payload in base64.
    #[serde(default)]
    payload_base64: Option<String>,
    /// 0: sent now or not at all; 1: waits for the device. Default: 1.
    #[serde(default = "at_least_once")]
    #[schema(minimum = 0, maximum = 1)]
    qos: u8,
    /// Whether it is kept for whoever subscribes to its topic later; an empty one takes the kept one away.
    #[serde(default)]
    pub(in crate::edge::http) retain: bool,
    /// MIME type of the payload.
    #[serde(default)]
    content_type: Option<String>,
    /// Where a response is wanted.
    #[serde(default)]
    response_topic: Option<String>,
    /// What responses are told apart by, in base64.
    #[serde(default)]
    correlation_data: Option<String>,
    /// Seconds after which it is of no use any more.
    #[serde(default)]
    expiry_secs: Option<u32>,
}

const fn at_least_once() -> u8 {
    1
}

impl NewMessageBody {
    /// The payload.
    pub(in crate::edge::http) fn payload(&self) -> Result<Vec<u8>, Problem> {
        match (&self.payload, &self.payload_base64) {
            (Some(text), None) => Ok(text.clone().into_bytes()),
            (None, Some(text)) => decode("payload_base64", text),
            _ => {
                let detail = "give either payload or payload_base64";
                Err(Problem::field("payload", detail))
            }
        }
    }

    /// How hard to try.
    pub(in crate::edge::http) fn qos(&self) -> Result<QoS, Problem> {
        match self.qos {
            0 => Ok(QoS::AtMostOnce),
            1 => Ok(QoS::AtLeastOnce),
            _ => Err(Problem::field("qos", "must be 0 or 1")),
        }
    }

    /// The properties of a message that is sent at `now`.
    pub(in crate::edge::http) fn properties(
        &self,
        now: Millis,
    ) -> Result<MessageProperties, Problem> {
        if self
            .content_type
            .as_ref()
            .is_some_and(|kind| kind.len() > MAX_TEXT_BYTES)
        {
            return Err(Problem::field("content_type", "is longer than 1,024 bytes"));
        }
        let correlation_data = match &self.correlation_data {
            Some(text) if text.len() > MAX_TEXT_BYTES => {
                return Err(Problem::field(
                    "correlation_data",
                    "is longer than 1,024 bytes",
                ));
            }
            Some(text) => Some(decode("correlation_data", text)?.into()),
            None => None,
        };
        let response_topic = match &self.response_topic {
            Some(text) if text.len() > MAX_TEXT_BYTES => {
                return Err(Problem::field(
                    "response_topic",
                    "is longer than 1,024 bytes",
                ));
            }
            Some(text) => Some(
                text.parse()
                    .map_err(|error| Problem::field("response_topic", format!("{error}")))?,
            ),
            None => None,
        };
        let expiry = |secs| now.after(std::time::Duration::from_secs(u64::from(secs)));
        Ok(MessageProperties {
            payload_format: self.payload.as_ref().map(|_| PayloadFormat::Utf8),
            content_type: self.content_type.as_deref().map(Into::into),
            response_topic,
            correlation_data,
            user: Vec::new(),
            expires_at: self.expiry_secs.map(expiry),
        })
    }
}

/// Longest text of a property, in bytes.
const MAX_TEXT_BYTES: usize = 1_024;

fn decode(field: &'static str, text: &str) -> Result<Vec<u8>, Problem> {
    STANDARD
        .decode(text)
        .map_err(|_| Problem::field(field, "is not base64"))
}

/// What became of a message to a device.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SentMessage)]
pub struct SentView<'a> {
    /// `sent`: the device's session has it; `queued`: it waits for the device.
    #[schema(schema_with = schema::sent)]
    pub(in crate::edge::http) status: &'static str,
    /// Its id while it waits; absent with `qos` 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = schema::id)]
    pub(in crate::edge::http) message_id: Option<crate::model::Id>,
    /// What the device answered; only where it was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::edge::http) response: Option<MessageView<'a>>,
}

/// A message that waits for a device, without its payload.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WaitingMessage)]
pub struct WaitingView {
    /// Its id.
    #[schema(schema_with = schema::id)]
    pub(in crate::edge::http) message_id: crate::model::Id,
    /// Under which topic.
    pub(in crate::edge::http) topic: String,
    /// 1 or 2.
    pub(in crate::edge::http) qos: u8,
    /// Of its payload, in bytes.
    pub(in crate::edge::http) size: usize,
    /// MIME type of the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::edge::http) content_type: Option<String>,
    /// When it was sent.
    #[schema(schema_with = schema::time)]
    pub(in crate::edge::http) at: Millis,
    /// When it is dropped.
    #[schema(schema_with = schema::time)]
    pub(in crate::edge::http) expires_at: Millis,
}

/// How many messages were dropped.
#[derive(Debug, Serialize, ToSchema)]
pub struct DroppedView {
    /// How many.
    pub(in crate::edge::http) dropped: usize,
}

/// The data of a `message` event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Message)]
pub struct MessageView<'a> {
    /// The device that sent it, or that it was sent to.
    device_id: &'a str,
    /// Its product.
    product_id: &'a str,
    /// Its id within its product.
    node_id: &'a str,
    /// Under which topic.
    topic: &'a str,
    /// 0, 1 or 2.
    qos: u8,
    /// The payload, where it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    /// The payload in base64, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    /// When it reached the gateway.
    #[schema(schema_with = schema::time)]
    at: Millis,
    /// What MQTT 5 says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<PropertiesView<'a>>,
}

/// Properties of a message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessageProperties)]
struct PropertiesView<'a> {
    /// MIME type of the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    /// Where a response is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<&'a str>,
    /// What responses are told apart by, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_data: Option<String>,
    /// Names and values of the sender's own, in their order.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(value_type = Vec<Vec<String>>)]
    user: &'a [(Box<str>, Box<str>)],
}

impl<'a> MessageView<'a> {
    /// A message as a stream shows it.
    pub(in crate::edge::http) fn of(message: &'a Message) -> Self {
        let text = std::str::from_utf8(&message.payload).ok();
        let properties = &message.properties;
        let has_properties = properties.content_type.is_some()
            || properties.response_topic.is_some()
            || properties.correlation_data.is_some()
            || !properties.user.is_empty();
        Self {
            device_id: message.device.device_id.as_str(),
            product_id: message.device.product_id.as_str(),
            node_id: message.device.node_id.as_str(),
            topic: &message.topic,
            qos: message.qos.bits(),
            payload: text,
            payload_base64: text.is_none().then(|| STANDARD.encode(&message.payload)),
            at: message.at,
            properties: has_properties.then(|| PropertiesView {
                content_type: properties.content_type.as_deref(),
                response_topic: properties.response_topic.as_deref(),
                correlation_data: properties
                    .correlation_data
                    .as_ref()
                    .map(|data| STANDARD.encode(data)),
                user: &properties.user,
            }),
        }
    }
}
