//! What an application publishes: to one of its devices, and acknowledged once it is stored.
//!
//! Several publishes are under way at once while the client goes on to publish, so that one commit stores many of
//! them and a device's answer is not waited for by what goes to others; they are begun and acknowledged in the order
//! in which they came.  Spec: MQTT 5.0 s4.6.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use futures_util::stream::{FuturesOrdered, Stream as _, StreamExt as _};
use headgate_protocol::mqtt::{Publish, QoS, ReasonCode};

use super::ApplicationSession;
use crate::{
    model::{Message, MessageProperties, Millis},
    service::uplink::{NotSent, Origin, Sending},
};

/// The publishes that are being stored, oldest first; what is left when the connection is gone was not acknowledged,
/// and is sent by the client again.
#[derive(Default)]
pub(super) struct Publishing(FuturesOrdered<Pin<Box<dyn Future<Output = Done> + Send>>>);

/// A publish, and what is said of it; `None`: it is not known what became of it.
type Done = (Publish, Option<ReasonCode>);

impl Publishing {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl ApplicationSession {
    pub(super) async fn handle_publish(&mut self, publish: Publish) {
        let node = Arc::clone(&self.link.node);
        let app = self.app.clone();
        let session = self.attached.id();
        // Found before it is begun: what waits for the registry must not be overtaken.
        let device = match node.uplink.resolve(publish.topic.as_str()).await {
            Ok(Some(device)) => match node.uplink.is_bound(&app, &device.device_id).await {
                Ok(true) => Ok(Some(device)),
                Ok(false) => Ok(None),
                Err(error) => Err(error),
            },
            other => other,
        };
        let device = match device {
            Ok(Some(device)) => device,
            Ok(None) => {
                self.log_refused(&publish);
                return self.settled_as(publish, Some(ReasonCode::NotAuthorized));
            }
            Err(error) => {
                tracing::warn!(%error, app_id = %app, "a message to a device could not be handed on");
                return self.settled_as(publish, None);
            }
        };
        let at = Millis::now();
        let message = Message {
            device: (*device).clone(),
            topic: publish.topic.clone(),
            // A copy: the payload is a slice of the buffer that everyone on this thread reads into.
            payload: Bytes::copy_from_slice(&publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            properties: MessageProperties::of_publish(publish.properties.as_deref(), at),
            at,
        };
        let publish = Publish {
            payload: Bytes::new(),
            ..publish
        };
        // At QoS 2 a persistent session's client sends it again until it hears of it, also to the next process.
        let receipt = match (publish.qos, publish.packet_id, self.attached.kept()) {
            (QoS::ExactlyOnce, Some(packet_id), Some(kept)) => Some(kept.receipt(packet_id)),
            _ => None,
        };
        let is_sent_again = publish.packet_id.is_some();
        let sending = Sending {
            receipt,
            sender: is_sent_again.then(|| self.handle.standing(&app)).flatten(),
        };
        self.begin(async move {
            let origin = Origin::App(&app, session);
            let sent = node
                .uplink
                .publish_to_device(origin, message, sending)
                .await;
            let reason = match sent {
                Ok(_) => Some(ReasonCode::Success),
                Err(error) => refusal(&error),
            };
            (publish, reason)
        });
    }

    /// Acknowledges what is stored by now; says whether anything was.
    pub(super) fn acknowledge_stored(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_acknowledged = false;
        while let Poll::Ready(Some((publish, reason))) =
            Pin::new(&mut self.publishing.0).poll_next(cx)
        {
            self.acknowledge(&publish, reason);
            has_acknowledged = true;
        }
        has_acknowledged
    }

    /// Waits until everything that was published is stored, and acknowledges it.
    pub(super) async fn settle(&mut self) {
        while let Some((publish, reason)) = self.publishing.0.next().await {
            self.acknowledge(&publish, reason);
        }
        while self.link.poll_event().is_some() {}
    }

    fn settled_as(&mut self, publish: Publish, reason: Option<ReasonCode>) {
        if self.publishing.0.is_empty() {
            self.acknowledge(&publish, reason);
        } else {
            self.begin(std::future::ready((publish, reason)));
        }
    }

    /// Begins a publish, and acknowledges those before it that are stored.
    fn begin(&mut self, publishing: impl Future<Output = Done> + Send + 'static) {
        self.publishing.0.push_back(Box::pin(publishing));
        // Polled at once, so that they are handed to the store in this order; whoever waits for
        // them polls them again.
        self.acknowledge_stored(&mut Context::from_waker(Waker::noop()));
    }

    fn acknowledge(&mut self, publish: &Publish, reason: Option<ReasonCode>) {
        match reason {
            Some(reason) => self.link.acknowledge(publish, reason),
            None => self.link.fail(publish),
        }
    }

    fn log_refused(&self, publish: &Publish) {
        if let Some(left_out) = self.link.node.refusals.admit(Instant::now()) {
            tracing::info!(
                app_id = %self.app,
                topic = publish.topic.as_str(),
                left_out,
                "a message to a device that is not bound to the application was refused"
            );
        }
    }
}

/// What a client is told; `None` where it may send the message again.
fn refusal(error: &NotSent) -> Option<ReasonCode> {
    match error {
        NotSent::NotBound | NotSent::UnknownDevice | NotSent::ForeignTopic => {
            Some(ReasonCode::NotAuthorized)
        }
        NotSent::TooLarge { .. } | NotSent::MailboxFull | NotSent::RetainedFull => {
            Some(ReasonCode::QuotaExceeded)
        }
        NotSent::Offline => Some(ReasonCode::NoMatchingSubscribers),
        NotSent::Unavailable | NotSent::Store(_) => None,
    }
}

impl std::fmt::Debug for Publishing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Publishing").field(&self.0.len()).finish()
    }
}
