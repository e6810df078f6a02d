//! The MQTT session of an application: what it hears of its devices, and what it tells them.
//!
//! Driven by the edge like a device's session. An application may have several at once, told apart
//! by their whole ClientId. Messages for it gather in its handle's bounded inbox and go from there
//! into batches as fast as the client takes them; what does not fit is dropped and counted, unless the session is
//! persistent: then it is stored, and read again when there is room.
//! Invariants: it is offered messages of devices bound to it and no others; its publishes are
//! acknowledged in their order, and only once they are stored.

mod attached;
mod handle;
mod publish;
mod retained;
mod stored;

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use headgate_protocol::{
    identity::AppId,
    mqtt::{
        Connect, Connection, Event, Input, Packet, ReasonCode, Subscribe, Subscription, Unsubscribe,
    },
};
use smallvec::SmallVec;

pub use self::handle::{ApplicationHandle, ApplicationTable};
use self::{attached::Attached, publish::Publishing};
use super::{
    batch::Batch,
    device::Sent,
    handle::CloseReason,
    link::Link,
    node::Node,
    persistent,
    signals::{Signal, Signals},
    subscriptions::{subscription_identifier, wants_retained},
    will::{self, WillRefused},
};
use crate::{
    model::{Will, WillKey},
    service::{
        auth::AuthenticatedApp,
        uplink::{NotKept, QueueLink, Replay, SessionChange, SessionKey, Sink, SubscribeOptions},
    },
    telemetry::metrics::DisconnectReason,
};

/// Publishes that are being stored; nothing more is read meanwhile.
const MAX_PUBLISHING: usize = 128;

/// Why an application is not let in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotOpened {
    /// It was changed since it was looked up.
    #[error("the application was changed meanwhile")]
    Changed,
    /// Its session could not be had.
    #[error(transparent)]
    Session(#[from] NotKept),
    /// Its will was refused.
    #[error(transparent)]
    Will(WillRefused),
}

/// One session of an application.
#[derive(Debug)]
pub struct ApplicationSession {
    link: Link,
    handle: Arc<ApplicationHandle>,
    app: AppId,
    attached: Attached,
    publishing: Publishing,
    /// What is retained and still to be read for its subscriptions.
    replays: VecDeque<Replay>,
    /// When the store, which could not be read, is tried again.
    retry_at: Option<Instant>,
}

impl ApplicationSession {
    /// Lets an application in; an older session with this ClientId ends.
    ///
    /// # Errors
    /// The connection, and why.
    pub(super) async fn open(
        node: &Arc<Node>,
        app: &AuthenticatedApp,
        connect: &Connect,
        will: Option<Will>,
        mut connection: Connection<Sent>,
    ) -> Result<Self, (Connection<Sent>, NotOpened)> {
        let client_id: &str = &connect.client_id;
        let handle = node.applications.handle(client_id);
        let key = SessionKey::Application(app.id.clone(), client_id.into());
        let mut opened = match persistent::open(node, key, connect).await {
            Ok(opened) => opened,
            Err(error) => return Err((connection, error.into())),
        };
        if let Some(place) = opened.place {
            handle.claimed(place.epoch);
        }
        let key = WillKey::Application(app.id.clone(), client_id.into());
        let will = match will::enter(node, &key, will, opened.is_present).await {
            Ok(will) => will,
            Err(error) => {
                node.give_up_application(&app.id, &handle);
                return Err((connection, NotOpened::Will(error)));
            }
        };
        let accept = persistent::accept(&mut opened, connect.version);
        let attached = if let Some(persistent) = opened.session.take() {
            let link: Arc<dyn QueueLink> = Arc::<ApplicationHandle>::clone(&handle);
            handle.keep(persistent.attach(link));
            Attached::Kept(Box::new(persistent))
        } else {
            let sink: Arc<dyn Sink> = Arc::<ApplicationHandle>::clone(&handle);
            Attached::Own(node.uplink.attach(app, sink))
        };
        if node.applications.enter(&handle) {
            node.metrics.session_takeovers.inc();
            node.metrics.disconnects(DisconnectReason::Takeover).inc();
        }
        // After it was attached: a change before this is seen here, one after it closes the session.
        if !node.uplink.is_current(app) {
            node.leave_application(&app.id, &handle);
            if let Some(will) = &will {
                node.wills.withdraw(will);
            }
            return Err((connection, NotOpened::Changed));
        }
        connection.set_limits(Arc::clone(&node.application_limits));
        connection.accept(Instant::now(), accept);
        node.metrics.connections_applications.inc();
        tracing::debug!(app_id = %app.id, client_id, "an application connected");
        let mut link = Link::new(Arc::clone(node), connection);
        link.will = will;
        let mut session = Self {
            link,
            handle,
            app: app.id.clone(),
            attached,
            publishing: Publishing::default(),
            replays: VecDeque::new(),
            retry_at: None,
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

    /// Whether something that the client published is acknowledged later than the rest.
    pub fn acknowledges_later(&self) -> bool {
        self.publishing.len() > 0
    }

    /// Waits for a signal, or for something published to be stored: it is acknowledged with what is written next.
    pub fn poll_signals(&mut self, cx: &mut Context<'_>) -> Poll<Signals> {
        let has_acknowledged = self.acknowledge_stored(cx);
        match self.handle.poll_signals(cx) {
            Poll::Pending if has_acknowledged => Poll::Ready(Signals::NONE),
            polled => polled,
        }
    }

    /// Takes one packet, to be acted on by [`ApplicationSession::act`].
    pub fn take_packet(&mut self, now: Instant, packet: Packet) {
        self.link.connection.handle(now, Input::Packet(packet));
    }

    /// Ends the session because of what the client sent; `explanation` is for people.
    pub fn close_on_violation(&mut self, reason: ReasonCode, explanation: &str) {
        self.link.close_on_violation(reason, explanation);
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
        let due = [self.link.timeout(), self.retry_at];
        due.into_iter().flatten().min()
    }

    /// Takes note of the time, to be acted on.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.link.handle_timeout(now);
    }

    /// Puts into `batch` what is to be sent now; leaves it empty where there is nothing.
    pub async fn fill(&mut self, batch: &mut Batch) {
        if self.link.closing.is_some() {
            // Nothing that was published before the goodbye is given up.
            self.settle().await;
        }
        if !self.keep(batch).await {
            return;
        }
        self.link.take_control(batch);
        if self.link.closing.is_none() {
            self.read_retained().await;
            self.fill_messages(batch).await;
            self.keep(batch).await;
        }
        self.link.note_outbox(0);
    }

    /// The connection is gone.
    pub fn end(mut self, reason: DisconnectReason) {
        self.link.end(reason);
        let node = &self.link.node;
        node.metrics.connections_applications.dec();
        node.leave_application(&self.app, &self.handle);
        if let (Some(kept), Some(secs)) = (self.attached.kept(), self.link.session_expiry_secs) {
            kept.set_expiry_secs(secs);
        }
        tracing::debug!(
            app_id = %self.app,
            client_id = self.handle.client_id(),
            reason = reason.label(),
            "an application's session ended"
        );
    }

    /// Acts on everything that was taken.
    pub async fn act(&mut self) {
        while let Some(event) = self.link.poll_event() {
            match event {
                Event::Publish(publish) => {
                    self.link.pace(&publish, false);
                    self.handle_publish(publish).await;
                }
                Event::Subscribe(subscribe) => self.handle_subscribe(&subscribe).await,
                Event::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe),
                Event::Received(sent) => self.handle_received(sent),
                Event::Acknowledged(sent) => self.handle_acknowledged(sent),
                Event::Released(packet_id) => {
                    if let Some(kept) = self.attached.kept() {
                        kept.note(SessionChange::Released(packet_id));
                    }
                }
                // The link keeps these to itself.
                Event::Connect(_) | Event::Disconnected { .. } => {}
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
        let options = SubscribeOptions {
            qos: asked.qos,
            no_local: asked.no_local,
            retain_as_published: asked.retain_as_published,
            retain_handling: asked.retain_handling,
            identifier,
        };
        let is_new = match self.attached.subscribe(asked, options) {
            Ok(is_new) => is_new,
            Err(_too_many) => return ReasonCode::QuotaExceeded,
        };
        // What is retained is for no single member of a group.
        if !asked.filter.is_shared() && wants_retained(asked.retain_handling, is_new) {
            self.replay(&asked.filter).await;
        }
        ReasonCode::granted(options.qos)
    }

    fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let reasons = unsubscribe
            .filters
            .iter()
            .map(|filter| {
                if self.attached.unsubscribe(filter) {
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
