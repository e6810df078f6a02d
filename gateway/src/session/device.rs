//! The session of one device: what it may, what it asks for, and what is sent to it.
//!
//! Driven by the edge: [`DeviceSession::handle_packet`] for each packet, then
//! [`DeviceSession::fill`] for each write, [`DeviceSession::handle_signals`] and
//! [`DeviceSession::handle_timeout`] as they come. Control packets and messages go before chunks.
//!
//! Invariants: chunks are sent only after `get_chunks` on this connection; what the device has not
//! been sent yet is a cursor and never a queue; at most `mqtt.outbox_bytes` of control packets wait.

mod messages;
mod sending;

use std::{net::IpAddr, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use headgate_protocol::{
    mqtt::{
        Connection, Event, Message, NotSent, Output, Packet, PacketId, ProtocolVersion, Publish,
        QoS, ReasonCode, Subscribe, TopicFilter, TopicName, Unsubscribe,
    },
    topics::{DeviceTopics, UpTopic},
    transfer::window::Chunk,
};
use smallvec::SmallVec;

use super::{
    handle::{CloseReason, SessionHandle, Signals},
    node::Node,
    pump::{ActiveTransfer, Slot},
};
use crate::{
    service::{auth::AuthenticatedDevice, delivery::LiveDelivery},
    telemetry::metrics::{DisconnectReason, DropReason},
};

/// What a QoS 1 packet of ours was, when its acknowledgement comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// A message that nothing depends on.
    Message,
    /// The announcement of the delivery that [`DeviceSession`] keeps.
    Announcement,
    /// A chunk of the request of this generation.
    Chunk {
        /// Which request.
        generation: u32,
        /// Which bytes.
        chunk: Chunk,
    },
}

/// When the device is told of what waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announcing {
    /// It has not subscribed.
    NotListening,
    /// At this time, unless it asks before.
    At(Instant),
    /// When it is woken.
    WhenWoken,
}

/// One device's session.
#[derive(Debug)]
pub struct DeviceSession {
    node: Arc<Node>,
    handle: Arc<SessionHandle>,
    device: AuthenticatedDevice,
    topics: DeviceTopics,
    connection: Connection<Sent>,
    subscriptions: SmallVec<[(TopicFilter, QoS); 2]>,
    announcing: Announcing,
    /// The delivery whose announcement is on its way.
    announced: Option<Arc<LiveDelivery>>,
    transfer: Option<Box<ActiveTransfer>>,
    /// The delivery whose chunks may still be acknowledged, and the first request since the device
    /// last said where it stands: chunks of it and of later ones count, also after its end.
    acknowledging: Option<(Arc<LiveDelivery>, u32)>,
    generations: u32,
    /// Encoded control packets that the next batch begins with.
    control: BytesMut,
    /// What this session adds to the node's gauge of bytes that wait for devices.
    outbox_bytes: usize,
    reached_at: Option<IpAddr>,
    closing: Option<DisconnectReason>,
}

impl DeviceSession {
    pub(super) fn new(
        node: Arc<Node>,
        device: AuthenticatedDevice,
        handle: Arc<SessionHandle>,
        connection: Connection<Sent>,
        reached_at: Option<IpAddr>,
    ) -> Self {
        Self {
            topics: DeviceTopics::new(&device.product.id, &device.node_id),
            node,
            handle,
            device,
            connection,
            subscriptions: SmallVec::new(),
            announcing: Announcing::NotListening,
            announced: None,
            transfer: None,
            acknowledging: None,
            generations: 0,
            control: BytesMut::new(),
            outbox_bytes: 0,
            reached_at,
            closing: None,
        }
    }

    /// How others reach this session.
    pub fn handle(&self) -> &Arc<SessionHandle> {
        &self.handle
    }

    /// Why the session ends, once it does: the edge writes what is left and closes.
    pub fn closing(&self) -> Option<DisconnectReason> {
        self.closing
    }

    /// Whether more of what the device says can be taken.
    pub fn wants_input(&self) -> bool {
        self.closing.is_none() && self.control.len() < self.node.mqtt.outbox_bytes
    }

    /// Takes one packet.
    pub async fn handle_packet(&mut self, now: Instant, packet: Packet) {
        self.connection.handle_packet(now, packet);
        self.drain(now).await;
    }

    /// Ends the session because of what the peer sent.
    pub async fn close_on_violation(&mut self, reason: ReasonCode) {
        self.connection.close(reason);
        self.drain(Instant::now()).await;
        self.closing = Some(match reason {
            ReasonCode::PacketTooLarge => DisconnectReason::PacketTooLarge,
            _ => DisconnectReason::ProtocolError,
        });
    }

    /// Takes what others signalled.
    pub async fn handle_signals(&mut self, now: Instant, signals: Signals) {
        if signals.has_close() {
            let (reason, why) = match self.handle.close_reason() {
                Some(CloseReason::Takeover) => {
                    (ReasonCode::SessionTakenOver, DisconnectReason::Takeover)
                }
                Some(CloseReason::Shutdown) => (
                    ReasonCode::ServerShuttingDown,
                    DisconnectReason::ServerShutdown,
                ),
                _ => (
                    ReasonCode::AdministrativeAction,
                    DisconnectReason::Administrative,
                ),
            };
            self.connection.close(reason);
            self.drain(now).await;
            self.closing = Some(why);
            return;
        }
        if signals.has_slot() {
            self.take_slot(now);
        }
        if signals.has_canceled() {
            self.tell_canceled();
        }
        if signals.has_wake() && self.announcing == Announcing::WhenWoken {
            self.announce();
        }
        self.drain(now).await;
    }

    /// When [`DeviceSession::handle_timeout`] wants to be called.
    pub fn timeout(&self) -> Option<Instant> {
        let announce = match self.announcing {
            Announcing::At(at) => Some(at),
            Announcing::NotListening | Announcing::WhenWoken => None,
        };
        let memory = self.transfer.as_ref().and_then(|active| active.memory_due);
        [self.connection.timeout(), announce, memory]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes note of the time.
    pub async fn handle_timeout(&mut self, now: Instant) {
        if let Announcing::At(at) = self.announcing
            && now >= at
        {
            self.announce();
        }
        if let Some(active) = &mut self.transfer {
            // The next batch, if there may be one, looks for memory itself.
            active.memory_due.take_if(|due| now >= *due);
        }
        if !self.wants_input() {
            // We do not read, so the device cannot be blamed for its silence.
            self.connection.stay_alive(now);
        }
        self.connection.handle_timeout(now);
        self.drain(now).await;
    }

    /// The connection is gone: places are given back, and cursors kept.
    pub fn end(mut self, reason: DisconnectReason) {
        self.drop_transfer(Instant::now());
        self.control = BytesMut::new();
        self.connection.abandon();
        self.note_outbox();
        let metrics = &self.node.metrics;
        metrics.connections_mqtt.dec();
        // One that was taken over is counted by the session that took over.
        if reason != DisconnectReason::Takeover {
            metrics.disconnects(reason).inc();
        }
        if self.node.table.leave(&self.handle) {
            self.node.delivery.on_disconnected(&self.device.device_id);
        }
        self.node.presence.seen(&self.device.device_id);
        tracing::debug!(device_id = %self.device.device_id, reason = reason.label(), "a device's session ended");
    }

    /// Acts on everything that the connection has to say.
    pub(super) async fn drain(&mut self, now: Instant) {
        while let Some(output) = self.connection.poll_output() {
            match output {
                Output::Transmit(packet) => self.encode(&packet),
                Output::Close(reason) => {
                    self.closing.get_or_insert(match reason {
                        ReasonCode::KeepAliveTimeout => DisconnectReason::KeepAlive,
                        ReasonCode::Success | ReasonCode::DisconnectWithWill => {
                            DisconnectReason::Client
                        }
                        _ => DisconnectReason::ProtocolError,
                    });
                }
                Output::Event(event) => self.handle_event(now, event).await,
            }
        }
        self.note_outbox();
    }

    /// Corrects the node's gauge of bytes that wait for devices.
    fn note_outbox(&mut self) {
        let bytes = self.control.len() + self.connection.waiting_bytes();
        if bytes != self.outbox_bytes {
            let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
            self.node
                .metrics
                .outbox_bytes
                .add(signed(bytes) - signed(self.outbox_bytes));
            self.outbox_bytes = bytes;
        }
    }

    async fn handle_event(&mut self, now: Instant, event: Event<Sent>) {
        match event {
            Event::Publish(publish) => self.handle_publish(publish).await,
            Event::Subscribe(subscribe) => self.handle_subscribe(now, &subscribe),
            Event::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe),
            Event::Acknowledged(sent) => self.handle_acknowledged(now, sent).await,
            // The decoder lets one CONNECT through, and that made this session.
            Event::Connect(_) => {}
            Event::Disconnected(_) => self.closing = Some(DisconnectReason::Client),
        }
    }

    async fn handle_publish(&mut self, publish: Publish) {
        let reason = match self.topics.classify_publish(publish.topic.as_str()) {
            Some(UpTopic::Service) => {
                // Boxed, like every rare wait of a session: ten thousand devices at rest would
                // each keep room for it otherwise.
                Box::pin(self.handle_service_message(&publish.payload)).await;
                ReasonCode::Success
            }
            Some(UpTopic::Data(_)) => {
                self.loop_back(&publish);
                ReasonCode::Success
            }
            None => {
                tracing::info!(
                    device_id = %self.device.device_id,
                    topic = publish.topic.as_str(),
                    "a message on a topic that the device may not use was refused"
                );
                ReasonCode::NotAuthorized
            }
        };
        if let Some(packet_id) = publish.packet_id {
            // Before MQTT 5 there is no way to say no; the message is taken and dropped.
            let said = if self.connection.version() == ProtocolVersion::V5 {
                reason
            } else {
                ReasonCode::Success
            };
            self.connection.acknowledge(packet_id, publish.qos, said);
        }
    }

    /// Gives a device its own message back where it subscribed to that.
    fn loop_back(&mut self, publish: &Publish) {
        if let Some(granted) = self.granted_qos(publish.topic.as_str()) {
            // A copy: the payload is a slice of the buffer that everyone on this thread reads into.
            let payload = Bytes::copy_from_slice(&publish.payload);
            self.send(
                publish.topic.clone(),
                payload,
                publish.qos.min(granted),
                Sent::Message,
            );
        }
    }

    fn handle_subscribe(&mut self, now: Instant, subscribe: &Subscribe) {
        let asks_for_identifier = subscribe
            .properties
            .as_ref()
            .is_some_and(|properties| !properties.subscription_identifiers.is_empty());
        if asks_for_identifier {
            return self
                .connection
                .close(ReasonCode::SubscriptionIdentifiersNotSupported);
        }
        let reasons = subscribe
            .filters
            .iter()
            .map(|asked| self.subscribe(now, &asked.filter, asked.qos))
            .collect();
        self.connection.grant(subscribe.packet_id, reasons);
    }

    fn subscribe(&mut self, now: Instant, filter: &TopicFilter, qos: QoS) -> ReasonCode {
        if filter.is_shared() {
            return ReasonCode::SharedSubscriptionsNotSupported;
        }
        if !self.topics.may_subscribe(filter.as_str()) {
            tracing::info!(
                device_id = %self.device.device_id,
                filter = filter.as_str(),
                "a subscription to what the device may not see was refused"
            );
            return ReasonCode::NotAuthorized;
        }
        let granted = qos.min(QoS::AtLeastOnce);
        let held = self.subscriptions.len();
        match self
            .subscriptions
            .iter_mut()
            .find(|(known, _)| known == filter)
        {
            Some((_, known)) => *known = granted,
            None if held >= self.node.mqtt.max_subscriptions => return ReasonCode::QuotaExceeded,
            None => self.subscriptions.push((filter.clone(), granted)),
        }
        if self.announcing == Announcing::NotListening
            && filter.matches(&self.topics.down_service())
        {
            self.announcing = Announcing::At(now + self.node.delivery_config.announce_delay);
        }
        match granted {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce | QoS::ExactlyOnce => ReasonCode::GrantedQoS1,
        }
    }

    fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let reasons = unsubscribe
            .filters
            .iter()
            .map(|filter| {
                let before = self.subscriptions.len();
                self.subscriptions.retain(|(known, _)| known != filter);
                if self.subscriptions.len() < before {
                    ReasonCode::Success
                } else {
                    ReasonCode::NoSubscriptionExisted
                }
            })
            .collect();
        if self.granted_qos(&self.topics.down_service()).is_none() {
            self.announcing = Announcing::NotListening;
        }
        self.connection
            .confirm_unsubscribe(unsubscribe.packet_id, reasons);
    }

    /// The QoS at which the device wants messages on this topic, if at all.
    fn granted_qos(&self, topic: &str) -> Option<QoS> {
        self.subscriptions
            .iter()
            .filter(|(filter, _)| filter.matches(topic))
            .map(|(_, qos)| *qos)
            .max()
    }

    /// Sends a message, or drops it where the device takes nothing.
    fn send(&mut self, topic: TopicName, payload: Bytes, qos: QoS, tag: Sent) {
        let message = Message {
            topic,
            payload,
            qos,
            tag,
        };
        if let Err(error) = self.connection.send(message) {
            let reason = match error {
                NotSent::OutboxFull => DropReason::OutboxFull,
                NotSent::TooLarge => DropReason::TooLarge,
                NotSent::NotOpen => DropReason::Offline,
            };
            self.node.metrics.messages_dropped(reason).inc();
            tracing::debug!(device_id = %self.device.device_id, %error, "a message was dropped");
        }
    }

    fn encode(&mut self, packet: &Packet) {
        self.node
            .metrics
            .packets_out(packet.packet_type().number())
            .inc();
        if let Err(error) = packet.encode(self.connection.version(), &mut self.control) {
            tracing::warn!(device_id = %self.device.device_id, %error, "a packet could not be encoded");
        }
    }

    fn take_slot(&mut self, now: Instant) {
        if let Some(ticket) = self.handle.take_slot() {
            let ticket = super::slots::Ticket::from_grant(ticket);
            match &mut self.transfer {
                Some(transfer) if transfer.slot == Slot::Waiting => {
                    transfer.slot = Slot::Held(ticket);
                }
                // The transfer ended while it waited.
                _ => self.node.slots.release(ticket, now),
            }
        }
    }

    fn drop_transfer(&mut self, now: Instant) {
        if let Some(transfer) = self.transfer.take() {
            match transfer.slot {
                Slot::Held(ticket) => self.node.slots.release(ticket, now),
                Slot::Waiting => {
                    self.node.slots.leave(&self.handle);
                    // It may have been given in this very moment.
                    if let Some(ticket) = self.handle.take_slot() {
                        self.node
                            .slots
                            .release(super::slots::Ticket::from_grant(ticket), now);
                    }
                }
                Slot::None => {}
            }
            self.node
                .metrics
                .chunks_in_flight
                .sub(i64::from(transfer.pump.in_flight_chunks()));
        }
        self.acknowledging
            .take_if(|(delivery, _)| delivery.state().is_final());
        self.connection.release_memory();
    }

    /// The identifier of a PUBLISH of ours that the caller encodes.
    fn reserve(&mut self, tag: Sent) -> Option<PacketId> {
        self.connection.reserve(tag)
    }
}
