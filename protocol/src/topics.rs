//! The topics that a device may use, and what a message on one of them is for.
//!
//! Every device has its own: `{product}/{device}/#` for its data, `$resource/up|down/...` for
//! resources, and those of a vendor whose credential form its product allows. A product's topic
//! policy may add filters. Everything else is refused, so no device can see or name another.

pub mod huawei;
mod pattern;
pub mod tencent;

use self::pattern::Pattern;
use crate::identity::{DeviceId, NodeId, ProductId};

/// The gateway's own topics; no policy reaches them.
const RESOURCE: &str = "$resource/";
const UP_SERVICE: &str = "$resource/up/service/";
const UP_CHUNK: &str = "$resource/up/chunk/";
const DOWN_SERVICE: &str = "$resource/down/service/";
const DOWN_CHUNK: &str = "$resource/down/chunk/";

/// What devices of every product subscribe to.
const SUBSCRIBE: [&str; 3] = [
    "{product}/{device}/#",
    "$resource/down/service/{product}/{device}",
    "$resource/down/chunk/{product}/{device}/#",
];
/// What devices of a product with Huawei's form subscribe to.
const HUAWEI_SUBSCRIBE: &str = "$oc/devices/{device_id}/#";

/// The names by which one device stands in topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNames<'a> {
    /// `{product}`.
    pub product: &'a ProductId,
    /// `{device}`: the node id, never the label.
    pub node: &'a NodeId,
    /// `{device_id}` of Huawei's topics.
    pub device: &'a DeviceId,
}

/// Whose topics a product's devices use besides the gateway's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vendors {
    /// `$oc/devices/{device_id}/...`.
    pub huawei: bool,
    /// `$sys`, `$broadcast`, `$rrpc`, `$shadow`, `$ota`.
    pub tencent: bool,
}

/// The topics of a product's devices, compiled once for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductTopics {
    vendors: Vendors,
    publish: Box<[Pattern]>,
    subscribe: Box<[Pattern]>,
    /// What the product's own policy adds.
    more_publish: Box<[Pattern]>,
    more_subscribe: Box<[Pattern]>,
}

/// What a PUBLISH of a device is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpTopic {
    /// `$resource/up/service/{product}/{device}`: a transfer message.
    Service,
    /// `$resource/up/chunk/{product}/{device}/{transfer}/{offset}`: bytes of an upload, as
    /// [`up_chunk`] splits it.
    Chunk,
    /// The device's data, for applications.
    Data,
    /// `$oc/devices/{device_id}/sys/events/up`: for the gateway's services, or data.
    HuaweiEvents,
    /// `$sys/operation/{product}/{device}`: a question to the gateway.
    TencentOperation,
    /// `$ota/report/{product}/{device}`: a report on an update, or of a version.
    TencentOta,
}

impl DeviceNames<'_> {
    /// Where transfer messages to the device go.
    pub fn down_service(self) -> String {
        format!("{DOWN_SERVICE}{}/{}", self.product, self.node)
    }

    /// Where the bytes of a transfer go: `$resource/down/chunk/{product}/{device}/{transfer}/`,
    /// to be followed by the offset in decimal.
    pub fn chunk_prefix(self, transfer: &str) -> String {
        format!("{DOWN_CHUNK}{}/{}/{transfer}/", self.product, self.node)
    }

    /// Where Huawei's services answer the device.
    pub fn huawei_events_down(self) -> String {
        format!("{}{}/{}", huawei::PREFIX, self.device, huawei::EVENTS_DOWN)
    }

    /// Where Tencent's questions are answered.
    pub fn tencent_operation_result(self) -> String {
        format!(
            "{}{}/{}",
            tencent::OPERATION_RESULT,
            self.product,
            self.node
        )
    }

    /// Where Tencent's devices are told of updates.
    pub fn tencent_ota_update(self) -> String {
        format!("{}{}/{}", tencent::OTA_UPDATE, self.product, self.node)
    }

    /// Whether this topic of Huawei's goes down to this device.
    pub fn is_huawei_down(self, topic: &str) -> bool {
        huawei::split(topic)
            .is_some_and(|(id, rest)| id == self.device.as_str() && huawei::is_down(rest))
    }

    /// Whether `rest` is `{product}/{device}`.
    fn is_own(self, rest: &str) -> bool {
        rest.strip_prefix(self.product.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| rest == self.node.as_str())
    }
}

impl ProductTopics {
    /// Compiles the topics of a product: the default ones, and its policy's filters, whose grammar
    /// has been checked.
    pub fn compile<S: AsRef<str>>(
        product: &ProductId,
        vendors: Vendors,
        publish: &[S],
        subscribe: &[S],
    ) -> Self {
        let compile = |template: &str| Pattern::compile(template, product);
        let more = |filters: &[S]| {
            filters
                .iter()
                .map(|filter| compile(filter.as_ref()))
                .collect()
        };
        let tencent = |templates: &'static [&'static str]| {
            let templates = if vendors.tencent { templates } else { &[] };
            templates.iter().copied()
        };
        Self {
            vendors,
            publish: ["{product}/{device}/#"]
                .into_iter()
                .chain(tencent(&tencent::PUBLISH))
                .map(compile)
                .collect(),
            subscribe: SUBSCRIBE
                .into_iter()
                .chain(vendors.huawei.then_some(HUAWEI_SUBSCRIBE))
                .chain(tencent(&tencent::SUBSCRIBE))
                .map(compile)
                .collect(),
            more_publish: more(publish),
            more_subscribe: more(subscribe),
        }
    }

    /// What a message that `device` published on `topic` is for; `None`: it may not use it.
    pub fn classify_publish(&self, device: DeviceNames<'_>, topic: &str) -> Option<UpTopic> {
        if topic.starts_with(RESOURCE) {
            if let Some(chunk) = up_chunk(topic) {
                return device.is_own(chunk.owner).then_some(UpTopic::Chunk);
            }
            let owner = topic.strip_prefix(UP_SERVICE)?;
            return device.is_own(owner).then_some(UpTopic::Service);
        }
        if self.vendors.huawei
            && let Some((id, rest)) = huawei::split(topic)
            && id == device.device.as_str()
        {
            return match rest {
                huawei::EVENTS_UP => Some(UpTopic::HuaweiEvents),
                // Else it could speak to applications as if it were the platform.
                rest if huawei::is_down(rest) => None,
                _ => Some(UpTopic::Data),
            };
        }
        let is_allowed =
            |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.covers(device, topic));
        if is_allowed(&self.publish) {
            let is_own_below = |prefix: &str| {
                topic
                    .strip_prefix(prefix)
                    .is_some_and(|owner| device.is_own(owner))
            };
            return Some(if is_own_below(tencent::OPERATION) {
                UpTopic::TencentOperation
            } else if is_own_below(tencent::OTA_REPORT) {
                UpTopic::TencentOta
            } else {
                UpTopic::Data
            });
        }
        is_allowed(&self.more_publish).then_some(UpTopic::Data)
    }

    /// Whether `device` gets what is published on `topic` though it has not subscribed: what goes
    /// down on Huawei's topics, where devices subscribe to nothing.
    pub fn hears_unsubscribed(&self, device: DeviceNames<'_>, topic: &str) -> bool {
        self.vendors.huawei && device.is_huawei_down(topic)
    }

    /// Whether `device` may subscribe to `filter`: every topic that the filter can match must be
    /// one that the device may see.
    pub fn may_subscribe(&self, device: DeviceNames<'_>, filter: &str) -> bool {
        let is_allowed = |patterns: &[Pattern]| {
            patterns
                .iter()
                .any(|pattern| pattern.covers(device, filter))
        };
        is_allowed(&self.subscribe)
            || (!filter.starts_with(RESOURCE) && is_allowed(&self.more_subscribe))
    }
}

/// The parts of the topic on which a device sends a chunk of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpChunk<'a> {
    /// `{product}/{device}`.
    owner: &'a str,
    /// Which upload, as the device writes it.
    pub transfer: &'a str,
    /// Where the bytes belong, as the device writes it.
    pub offset: &'a str,
}

/// Splits `$resource/up/chunk/{product}/{device}/{transfer}/{offset}`.
pub fn up_chunk(topic: &str) -> Option<UpChunk<'_>> {
    let (rest, offset) = topic.strip_prefix(UP_CHUNK)?.rsplit_once('/')?;
    let (owner, transfer) = rest.rsplit_once('/')?;
    (!transfer.is_empty()).then_some(UpChunk {
        owner,
        transfer,
        offset,
    })
}

/// Where a device publishes its response to what is published on `topic`; `None` where the topic's
/// vendor knows no responses.
pub fn response_to(topic: &str) -> Option<String> {
    match huawei::split(topic) {
        Some((id, rest)) => {
            huawei::response_to(rest).map(|rest| format!("{}{id}/{rest}", huawei::PREFIX))
        }
        None => tencent::response_to(topic),
    }
}

#[cfg(test)]
mod tests;
