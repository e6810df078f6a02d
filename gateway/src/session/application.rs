//! The MQTT session of an application: what it hears of its devices, and what it tells them.
//!
//! Driven by the edge like a device's session. An application may have several at once, told apart
//! by their whole ClientId. Messages for it gather in its handle's bounded inbox and go from there
//! into batches as fast as the client takes them; what does not fit is dropped and counted.
//! Invariants: it is offered messages of devices bound to it and no others; its publishes are
//! acknowledged in their order, and only once they are stored.

mod handle;
mod publish;
mod retained;

use std::{collections::VecDeque, num::NonZeroU32, sync::Arc, time::Instant};

use headgate_protocol::mqtt::{
    Accept, Connection, Event, Input, NotSent, Packet, ReasonCode, Subscribe, Subscription,
    Unsubscribe,
};
use smallvec::SmallVec;

pub use self::handle::{ApplicationHandle, ApplicationTable};
use self::publish::Publishing;
use super::{
    batch::Batch,
    device::Sent,
    handle::CloseReason,
    link::{Link, NotPushed},
    node::Node,
    signals::{Signal, Signals},
    subscriptions::{subscription_identifier, wants_retained},
};
use crate::{
    model::Millis,
    service::{
        auth::AuthenticatedApp,
        uplink::{Changed, Replay, Sink, SubscribeOptions, Subscriber},
    },
    telemetry::metrics::{DisconnectReason, DropReason},
};

/// Bytes of messages in one batch, unless it begins with a larger one.
const BATCH_BYTES: usize = 64 * 1024;

/// Publishes that are being stored; nothing more is read meanwhile.
const MAX_PUBLISHING: usize = 128;

/// One session of an application.
#[derive(Debug)]
pub struct ApplicationSession {
    link: Link,
    handle: Arc<ApplicationHandle>,
    subscriber: Subscriber,
    publishing: Publishing,
    /// What is retained and still to be read for its subscriptions.
    replays: VecDeque<Replay>,
}

impl ApplicationSession {
    /// Lets an application in; an older session with this ClientId ends.
    ///
    /// # Errors
    /// The connection, and [`Changed`] where the application was changed since it was looked up.
    pub(super) async fn open(
        node: &Arc<Node>,
        app: &AuthenticatedApp,
        client_id: &str,
        mut connection: Connection<Sent>,
    ) -> Result<Self, (Connection<Sent>, Changed)> {
        let handle = node.applications.handle(client_id);
        let sink: Arc<dyn Sink> = Arc::<ApplicationHandle>::clone(&handle);
        let subscriber = match node.uplink.attach(app, sink) {
            Ok(subscriber) => subscriber,
            Err(changed) => return Err((connection, changed)),
        };
        if node.applications.enter(&handle) {
            node.metrics.session_takeovers.inc();
            node.metrics.disconnects(DisconnectReason::Takeover).inc();
        }
        connection.accept(Instant::now(), Accept::default());
        node.metrics.connections_applications.inc();
        tracing::debug!(app_id = %app.id, client_id, "an application connected");
        let mut session = Self {
            link: Link::new(Arc::clone(node), connection),
            handle,
            subscriber,
            publishing: Publishing::default(),
            replays: VecDeque::new(),
        };
        // CONNACK is the first thing that is written.
        session.act().await;
        Ok(session)
    }

    /// How others reach this session.
    pub fn handle(&self) -> &Arc<ApplicationHandle> {
        &self.handle
    }

    /// Why the session ends, once it does.
    pub fn closing(&self) -> Option<DisconnectReason> {
        self.link.closing
    }

    /// Whether more of what the client says can be taken.
    pub fn wants_input(&self) -> bool {
        self.link.wants_input() && self.publishing.len() < MAX_PUBLISHING
    }

    /// Takes one packet, to be acted on by [`ApplicationSession::act`].
    pub fn take_packet(&mut self, now: Instant, packet: Packet) {
        self.link.connection.handle(now, Input::Packet(packet));
    }

    /// Ends the session because of what the client sent.
    pub fn close_on_violation(&mut self, reason: ReasonCode) {
        self.link.close_on_violation(reason);
        self.link.note_outbox(0);
    }

    /// Takes what others signalled, to be acted on; messages are looked for by [`ApplicationSession::fill`].
    pub fn handle_signals(&mut self, signals: Signals) {
        if signals.has(Signal::Close) {
            let (reason, why) = CloseReason::explain(self.handle.close_reason());
            self.link.close(reason, why);
        }
    }

    /// When [`ApplicationSession::handle_timeout`] wants to be called.
    pub fn timeout(&self) -> Option<Instant> {
        self.link.connection.timeout()
    }

    /// Takes note of the time, to be acted on.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.link.handle_timeout(now);
    }

    /// Puts into `batch` what is to be sent now; leaves it empty where there is nothing.
    pub async fn fill(&mut self, batch: &mut Batch) {
        // What came in one turn is stored in one commit, and acknowledged before more is read.
        self.settle().await;
        self.link.take_control(batch);
        if self.link.closing.is_none() {
            self.read_retained().await;
            self.fill_messages(batch);
        }
        self.link.note_outbox(0);
    }

    /// The connection is gone.
    pub fn end(mut self, reason: DisconnectReason) {
        self.link.end(reason);
        let node = &self.link.node;
        node.metrics.connections_applications.dec();
        node.applications.leave(&self.handle);
        tracing::debug!(
            app_id = %self.subscriber.app(),
            client_id = self.handle.client_id(),
            reason = reason.label(),
            "an application's session ended"
        );
    }

    fn fill_messages(&mut self, batch: &mut Batch) {
        let Self { link, handle, .. } = self;
        handle.drain(|message, handing| {
            if batch.len() >= BATCH_BYTES {
                return false;
            }
            if message.is_expired(Millis::now()) {
                link.node.metrics.messages_dropped(DropReason::Expired).inc();
                return true;
            }
            match link.push(batch, message, handing, Sent::Message) {
                Ok(()) => true,
                Err(NotPushed::NotSent(NotSent::NoQuota | NotSent::NotOpen)) => false,
                Err(error) => {
                    link.node.metrics.messages_dropped(DropReason::TooLarge).inc();
                    tracing::info!(client_id = handle.client_id(), %error, "a message to an application was dropped");
                    true
                }
            }
        });
    }

    /// Acts on everything that was taken.
    pub async fn act(&mut self) {
        while let Some(event) = self.link.poll_event() {
            match event {
                Event::Publish(publish) => self.handle_publish(publish).await,
                Event::Subscribe(subscribe) => self.handle_subscribe(&subscribe).await,
                Event::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe),
                // The link keeps the last two to itself.
                Event::Acknowledged(_)
                | Event::Received(_)
                | Event::Released(_)
                | Event::Connect(_)
                | Event::Disconnected { .. } => {}
            }
        }
        self.link.note_outbox(0);
    }

    async fn handle_subscribe(&mut self, subscribe: &Subscribe) {
        let identifier = subscription_identifier(subscribe);
        let mut reasons = SmallVec::new();
        for asked in &subscribe.filters {
            reasons.push(self.subscribe(asked, identifier).await);
        }
        self.link.connection.grant(subscribe.packet_id, reasons);
    }

    /// Any filter will do: only messages of devices bound to the application are looked at.
    async fn subscribe(
        &mut self,
        asked: &Subscription,
        identifier: Option<NonZeroU32>,
    ) -> ReasonCode {
        if asked.filter.is_shared() {
            return ReasonCode::SharedSubscriptionsNotSupported;
        }
        let options = SubscribeOptions {
            qos: asked.qos,
            no_local: asked.no_local,
            retain_as_published: asked.retain_as_published,
            retain_handling: asked.retain_handling,
            identifier,
        };
        let is_new = match self.subscriber.subscribe(&asked.filter, options) {
            Ok(is_new) => is_new,
            Err(_too_many) => return ReasonCode::QuotaExceeded,
        };
        if wants_retained(asked.retain_handling, is_new) {
            self.replay(&asked.filter).await;
        }
        ReasonCode::granted(options.qos)
    }

    fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let reasons = unsubscribe
            .filters
            .iter()
            .map(|filter| {
                if self.subscriber.unsubscribe(filter) {
                    ReasonCode::Success
                } else {
                    ReasonCode::NoSubscriptionExisted
                }
            })
            .collect();
        self.link
            .connection
            .confirm_unsubscribe(unsubscribe.packet_id, reasons);
    }
}
