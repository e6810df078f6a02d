//! What the device publishes and subscribes to, and whether it may.
//!
//! The rules are its product's and are looked up each time: a change is in force at once.

use std::time::Instant;

use bytes::Bytes;
use headgate_protocol::{
    mqtt::{Publish, QoS, ReasonCode, Subscribe, Subscription, TopicFilter, Unsubscribe},
    topics::{DeviceNames, UpTopic},
};

use super::{Announcing, DeviceSession, Sent};
use crate::session::subscriptions::granted_reason;

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
                // Boxed, like every rare wait of a session: ten thousand devices at rest would
                // each keep room for it otherwise.
                Box::pin(self.handle_service_message(&publish.payload)).await;
                ReasonCode::Success
            }
            Some(UpTopic::Data | UpTopic::HuaweiEvents | UpTopic::TencentOperation) => {
                self.loop_back(&publish);
                ReasonCode::Success
            }
            None => {
                self.log_refused("publish", publish.topic.as_str());
                ReasonCode::NotAuthorized
            }
        };
        self.link.acknowledge(&publish, reason);
    }

    /// Gives a device its own message back where it subscribed to that.
    fn loop_back(&mut self, publish: &Publish) {
        // Vendors' topics go one way each, and their platforms echo nothing.
        if publish.topic.starts_with('$') {
            return;
        }
        if let Some(granted) = self.subscriptions.granted(publish.topic.as_str(), true) {
            // A copy: the payload is a slice of the buffer that everyone on this thread reads into.
            let payload = Bytes::copy_from_slice(&publish.payload);
            let qos = publish.qos.min(granted);
            if let Err(error) = self
                .link
                .send(publish.topic.clone(), payload, qos, Sent::Message)
            {
                tracing::debug!(device_id = %self.device.device_id, %error, "a message was dropped");
            }
        }
    }

    pub(super) fn handle_subscribe(&mut self, now: Instant, subscribe: &Subscribe) {
        let asks_for_identifier = subscribe
            .properties
            .as_ref()
            .is_some_and(|properties| !properties.subscription_identifiers.is_empty());
        if asks_for_identifier {
            return self
                .link
                .connection
                .close(ReasonCode::SubscriptionIdentifiersNotSupported);
        }
        let reasons = subscribe
            .filters
            .iter()
            .map(|asked| self.subscribe(now, asked))
            .collect();
        self.link.connection.grant(subscribe.packet_id, reasons);
    }

    fn subscribe(&mut self, now: Instant, asked: &Subscription) -> ReasonCode {
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
        let Some(granted) = self.subscriptions.insert(asked, max) else {
            return ReasonCode::QuotaExceeded;
        };
        if self.announcing == Announcing::NotListening
            && filter.matches(&self.names().down_service())
        {
            self.announcing = Announcing::At(now + self.link.node.delivery_config.announce_delay);
        }
        granted_reason(granted)
    }

    pub(super) fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let reasons = unsubscribe
            .filters
            .iter()
            .map(|filter| {
                if self.subscriptions.remove(filter) {
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
            self.note_listening();
        }
    }

    /// The QoS at which the device wants messages on this topic, if at all.
    pub(super) fn granted_qos(&self, topic: &str) -> Option<QoS> {
        self.subscriptions.granted(topic, false)
    }

    fn note_listening(&mut self) {
        if self.granted_qos(&self.names().down_service()).is_none() {
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
