//! What the device publishes and subscribes to, and whether it may.
//!
//! The rules are its product's and are looked up each time: a change is in force at once.

use std::{num::NonZeroU32, time::Instant};

use bytes::Bytes;
use headgate_protocol::{
    credential::Form,
    mqtt::{
        Message as Outgoing, ProtocolVersion, Publish, QoS, ReasonCode, Subscribe, Subscription,
        TopicFilter, Unsubscribe,
    },
    topics::{DeviceNames, UpTopic},
};

use super::{Announcing, DeviceSession, Sent};
use crate::{
    model::{DeviceName, Handing, Message, MessageProperties, Millis},
    service::{
        uplink::{KeptSubscription, NotPublished, NotRetained, SessionChange, Terms},
        vendor::{Verdict, huawei, tencent},
    },
    session::subscriptions::{subscription_identifier, wants_retained},
};

impl DeviceSession {
    /// The names by which the device stands in topics.
    pub(super) fn names(&self) -> DeviceNames<'_> {
        DeviceNames {
            product: &self.device.product.id,
            node: &self.device.node_id,
            device: &self.device.device_id,
        }
    }

    pub(super) async fn handle_publish(&mut self, publish: Publish) {
        let topics = self.handle.rules.topics();
        let reason = match topics.classify_publish(self.names(), publish.topic.as_str()) {
            Some(UpTopic::Service) => {
                self.handle_service_message(&publish.payload).await;
                Some(ReasonCode::Success)
            }
            Some(UpTopic::Chunk) => return self.take_upload_chunk(&publish),
            Some(UpTopic::Data) => self.hand_on(&publish).await,
            Some(UpTopic::HuaweiEvents) => {
                let received = Millis::now();
                let verdict = huawei::ask(self.names(), &publish.payload, received, Millis::now());
                self.follow(&publish, verdict).await
            }
            Some(UpTopic::TencentOta) => Box::pin(self.take_tencent_ota(&publish)).await,
            Some(UpTopic::TencentOperation) => {
                let received = Millis::now();
                let verdict = tencent::ask(self.names(), &publish.payload, received, Millis::now());
                self.follow(&publish, verdict).await
            }
            None => {
                self.log_refused("publish", publish.topic.as_str());
                Some(ReasonCode::NotAuthorized)
            }
        };
        if let Some(reason) = reason {
            self.note_taken(&publish, reason);
        }
        let reason = match reason {
            Some(reason) if self.uploads.is_none() => {
                return self.link.acknowledge(&publish, reason);
            }
            Some(reason) => reason,
            None if self.uploads.is_some() && self.link.version() == ProtocolVersion::V5 => {
                ReasonCode::ImplementationSpecificError
            }
            None => return self.link.fail(&publish),
        };
        let packet = publish.packet_id.map(|packet_id| (packet_id, publish.qos));
        self.answer_in_order(packet, reason);
    }

    /// Does what the vendor's platform would do about a message to it.
    async fn follow(&mut self, publish: &Publish, verdict: Verdict) -> Option<ReasonCode> {
        match verdict {
            Verdict::Answer { topic, payload } => {
                self.tell_on(&topic, payload.into(), Sent::Message);
                Some(ReasonCode::Success)
            }
            Verdict::Taken => Some(ReasonCode::Success),
            Verdict::Transfers(transfers) => {
                self.serve_huawei(transfers).await;
                Some(ReasonCode::Success)
            }
            Verdict::Data => self.hand_on(publish).await,
        }
    }

    /// Hands a message of the device to the applications; `None` where it could not be.
    pub(super) async fn hand_on(&mut self, publish: &Publish) -> Option<ReasonCode> {
        let at = Millis::now();
        let message = Message {
            device: DeviceName {
                device_id: self.device.device_id.clone(),
                product_id: self.device.product.id.clone(),
                node_id: self.device.node_id.clone(),
            },
            topic: publish.topic.clone(),
            // A copy: the payload may be a slice of the buffer that everyone on this thread reads into.
            payload: Bytes::copy_from_slice(&publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            properties: MessageProperties::of_publish(publish.properties.as_deref(), at),
            at,
        };
        let is_heard = self.loop_back(&message) | self.link.node.requests.answer(&message);
        let terms = Terms {
            may_refuse: self.link.version() == ProtocolVersion::V5,
            sending: self.sending(publish),
        };
        let handing_out = self.link.node.uplink.publish_from_device(message, terms);
        match handing_out.await {
            Ok(published) if published.receivers > 0 || is_heard => Some(ReasonCode::Success),
            Ok(_) => Some(ReasonCode::NoMatchingSubscribers),
            Err(NotPublished::NotRetained(NotRetained::Full) | NotPublished::QueueFull) => {
                Some(ReasonCode::QuotaExceeded)
            }
            Err(error) => {
                tracing::warn!(%error, device_id = %self.device.device_id, "a message could not be handed on");
                None
            }
        }
    }

    /// Gives a device its own message back where it subscribed to that; says whether it did.
    fn loop_back(&mut self, message: &Message) -> bool {
        // Vendors' topics go one way each, and their platforms echo nothing.
        if message.topic.starts_with('$') {
            return false;
        }
        let Some(handing) = self.subscriptions.handing(message, true) else {
            return false;
        };
        let properties = match self.link.version() {
            ProtocolVersion::V5 => message.properties.to_publish(message.at),
            _ => None,
        };
        let own = Outgoing {
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            qos: handing.qos.min(self.max_unstored_qos()),
            retain: handing.retain,
            subscription_ids: handing.subscription_ids,
            tag: Sent::Message,
            properties,
        };
        let sent = self.link.send(own);
        if let Err(error) = sent {
            tracing::debug!(device_id = %self.device.device_id, %error, "a message was dropped");
        }
        sent.is_ok()
    }

    pub(super) fn handle_subscribe(&mut self, now: Instant, subscribe: &Subscribe) {
        let identifier = subscription_identifier(subscribe);
        let reasons = subscribe
            .filters
            .iter()
            .map(|asked| self.subscribe(now, asked, identifier))
            .collect();
        self.link.connection.grant(subscribe.packet_id, reasons);
        // What waits may be what it has subscribed to just now.
        self.read_mailbox();
    }

    fn subscribe(
        &mut self,
        now: Instant,
        asked: &Subscription,
        identifier: Option<NonZeroU32>,
    ) -> ReasonCode {
        let filter = &asked.filter;
        if filter.is_shared() {
            return ReasonCode::SharedSubscriptionsNotSupported;
        }
        let topics = self.handle.rules.topics();
        if !topics.may_subscribe(self.names(), filter.as_str()) {
            self.log_refused("subscribe", filter.as_str());
            return ReasonCode::NotAuthorized;
        }
        let max = self.link.node.mqtt.max_subscriptions;
        let Some(inserted) = self.subscriptions.insert(asked, identifier, max) else {
            return ReasonCode::QuotaExceeded;
        };
        if self.kept.is_some() {
            let asked = asked.clone();
            let kept = KeptSubscription { asked, identifier };
            self.note_change(SessionChange::Subscribed(kept));
        }
        if wants_retained(asked.retain_handling, inserted.is_new) {
            self.replay(&asked.filter);
        }
        self.listen(now);
        ReasonCode::granted(inserted.qos)
    }

    pub(super) fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let reasons = unsubscribe
            .filters
            .iter()
            .map(|filter| {
                if self.subscriptions.remove(filter) {
                    self.note_change(SessionChange::Unsubscribed(filter.clone()));
                    ReasonCode::Success
                } else {
                    ReasonCode::NoSubscriptionExisted
                }
            })
            .collect();
        self.note_listening();
        self.link
            .connection
            .confirm_unsubscribe(unsubscribe.packet_id, reasons);
    }

    /// Drops the subscriptions that the product's rules do not allow any more.
    pub(super) fn drop_forbidden(&mut self) {
        let topics = self.handle.rules.topics();
        let names = DeviceNames {
            product: &self.device.product.id,
            node: &self.device.node_id,
            device: &self.device.device_id,
        };
        let dropped: Vec<TopicFilter> = self
            .subscriptions
            .keep(|filter| topics.may_subscribe(names, filter));
        if !dropped.is_empty() {
            tracing::info!(
                device_id = %self.device.device_id,
                filters = dropped.len(),
                "subscriptions that the product does not allow any more were dropped"
            );
            for filter in dropped {
                self.note_change(SessionChange::Unsubscribed(filter));
            }
            self.note_listening();
        }
    }

    /// The QoS at which the device wants messages on this topic, if at all.
    pub(super) fn granted_qos(&self, topic: &str) -> Option<QoS> {
        self.subscriptions
            .granted(topic, false)
            .or_else(|| self.hears(topic).then_some(QoS::AtMostOnce))
    }

    /// How the device wants a message, if at all.
    pub(super) fn handing(&self, message: &Message) -> Option<Handing> {
        self.subscriptions.handing(message, false).or_else(|| {
            let hears = self.hears(&message.topic);
            hears.then(|| Handing::at(QoS::AtMostOnce))
        })
    }

    /// Whether the device gets messages on this topic without a subscription: one that came in
    /// Huawei's form subscribes to nothing.
    fn hears(&self, topic: &str) -> bool {
        self.is_subscribed_since_connect()
            && self
                .handle
                .rules
                .topics()
                .hears_unsubscribed(self.names(), topic)
    }

    /// Whether messages may go to the device before it has subscribed.
    pub(super) fn is_subscribed_since_connect(&self) -> bool {
        self.device.form == Form::Huawei
    }

    fn note_listening(&mut self) {
        if self.hears_of_deliveries().is_none() {
            self.announcing = Announcing::NotListening;
        }
    }

    fn log_refused(&self, what: &'static str, topic: &str) {
        if let Some(left_out) = self.link.node.refusals.admit(Instant::now()) {
            tracing::info!(
                device_id = %self.device.device_id,
                what,
                topic,
                left_out,
                "a topic that the device may not use was refused"
            );
        }
    }
}
