//! The session of a client of the conformance profile: anyone, in a topic space of its own.
//!
//! Driven by the edge like a device's session. Everything that MQTT has is here: the protocol's state
//! machine keeps the exchanges, [`Space`] subscriptions, queues, retained messages and wills.
//! Messages go from the space's queue into batches as fast as the client takes them.
//! Invariants: a PUBLISH is acknowledged once the space has it; what the space hands out is either
//! sent or stays in its queue.  Spec: MQTT 3.1.1 and 5.0.

mod handle;
mod open;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use headgate_protocol::mqtt::{
    Connection, Event, Input, Message as Outgoing, NotSent, Output, Packet, PacketType,
    ProtocolVersion, Publish, ReasonCode, Resumed, Subscribe, Unsubscribe, Will,
};
use smallvec::SmallVec;

use self::handle::ConformanceHandle;
pub use self::open::{ConformanceProfile, admit_anyone};
use super::{
    batch::Batch,
    device::Sent,
    handle::CloseReason,
    node::Node,
    signals::{Signal, Signals},
};
use crate::{
    model::Millis,
    service::space::{Left, Space, SpaceKey, SpaceMessage, WillOrder},
    telemetry::metrics::{DisconnectReason, DropReason},
};

/// Bytes of messages in one batch, unless it begins with a larger one.
const BATCH_BYTES: usize = 64 * 1024;

/// One client's session, as long as it is connected.
#[derive(Debug)]
pub struct ConformanceSession {
    node: Arc<Node>,
    space: Arc<Space<Resumed<Sent>>>,
    handle: Arc<ConformanceHandle>,
    key: SpaceKey,
    connection: Connection<Sent>,
    /// Encoded control packets that the next batch begins with.
    control: BytesMut,
    /// To be published unless the client takes its leave.
    will: Option<Will>,
    session_expiry: Duration,
    closing: Option<DisconnectReason>,
}

impl ConformanceSession {
    /// How others reach this session.
    pub(super) fn handle(&self) -> &ConformanceHandle {
        &self.handle
    }

    /// Why the session ends, once it does.
    pub fn closing(&self) -> Option<DisconnectReason> {
        self.closing
    }

    /// Whether more of what the client says can be taken.
    pub fn wants_input(&self) -> bool {
        self.closing.is_none() && self.control.len() < self.node.mqtt.outbox_bytes
    }

    /// Takes one packet, and acts on it.
    pub fn take_packet(&mut self, now: Instant, packet: Packet) {
        self.connection.handle(now, Input::Packet(packet));
        self.act();
    }

    /// Ends the session because of what the client sent.
    pub fn close_on_violation(&mut self, reason: ReasonCode) {
        self.close(
            reason,
            match reason {
                ReasonCode::PacketTooLarge => DisconnectReason::PacketTooLarge,
                _ => DisconnectReason::ProtocolError,
            },
        );
    }

    /// Takes what others signalled; messages are looked for by [`ConformanceSession::fill`].
    pub fn handle_signals(&mut self, signals: Signals) {
        if signals.has(Signal::Close) {
            let (reason, why) = CloseReason::explain(self.handle.close_reason());
            self.close(reason, why);
        }
    }

    /// When [`ConformanceSession::handle_timeout`] wants to be called.
    pub fn timeout(&self) -> Option<Instant> {
        self.connection.timeout()
    }

    /// Takes note of the time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.wants_input() {
            // We do not read, so the client cannot be blamed for its silence.
            self.connection.stay_alive(now);
        }
        self.connection.handle(now, Input::Timeout);
        self.act();
    }

    /// Puts into `batch` what is to be sent now; leaves it empty where there is nothing.
    pub fn fill(&mut self, batch: &mut Batch) {
        if !self.control.is_empty() {
            batch.push_encoded(&self.control);
            self.control = BytesMut::new();
        }
        if self.closing.is_none() {
            self.fill_messages(batch);
        }
    }

    /// The connection is gone.
    pub fn end(mut self, reason: DisconnectReason) {
        let will = self.will.take().map(|will| {
            let delay = will.properties.as_ref();
            let delay = delay.and_then(|all| all.will_delay_interval_secs);
            let delay = Duration::from_secs(u64::from(delay.unwrap_or(0))).min(self.session_expiry);
            WillOrder {
                message: SpaceMessage::of_will(&will, Millis::now().after(delay)),
                delay,
            }
        });
        let left = Left {
            kept: self.connection.suspend(),
            session_expiry: self.session_expiry,
            will,
        };
        self.space.detach(self.key, left);
        self.node.metrics.disconnects(reason).inc();
        tracing::debug!(
            client_id = self.handle.client_id(),
            reason = reason.label(),
            "a session of the conformance profile ended"
        );
    }

    fn close(&mut self, reason: ReasonCode, why: DisconnectReason) {
        self.connection.close(reason);
        self.act();
        self.closing = Some(why);
    }

    /// Acts on what the client did; packets that answer it gather meanwhile.
    fn act(&mut self) {
        while let Some(output) = self.connection.poll_output() {
            match output {
                Output::Transmit(packet) => self.encode(&packet),
                Output::Event(event) => self.handle_event(event),
                Output::Close(reason) => {
                    self.closing.get_or_insert(match reason {
                        ReasonCode::KeepAliveTimeout => DisconnectReason::KeepAlive,
                        _ => DisconnectReason::ProtocolError,
                    });
                }
            }
        }
    }

    fn handle_event(&mut self, event: Event<Sent>) {
        match event {
            Event::Publish(publish) => self.handle_publish(&publish),
            Event::Subscribe(subscribe) => self.handle_subscribe(&subscribe),
            Event::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe),
            Event::Disconnected {
                reason,
                session_expiry,
            } => {
                // [MQTT-3.14.4-3]
                self.will.take_if(|_| reason == ReasonCode::Success);
                if let Some(secs) = session_expiry {
                    self.session_expiry = Duration::from_secs(secs.into());
                }
                self.closing = Some(DisconnectReason::Client);
            }
            // What is under way is the connection's; CONNECT made this session.
            Event::Acknowledged(_)
            | Event::Received(_)
            | Event::Released(_)
            | Event::Connect(_) => {}
        }
    }

    fn handle_publish(&mut self, publish: &Publish) {
        let message = SpaceMessage::of_publish(publish, Millis::now());
        let receivers = self.space.publish(self.key, message);
        let Some(packet_id) = publish.packet_id else {
            return;
        };
        let is_v5 = self.connection.version() == ProtocolVersion::V5;
        let reason = if receivers == 0 && is_v5 {
            ReasonCode::NoMatchingSubscribers
        } else {
            ReasonCode::Success
        };
        self.connection.acknowledge(packet_id, publish.qos, reason);
    }

    fn handle_subscribe(&mut self, subscribe: &Subscribe) {
        let properties = subscribe.properties.as_ref();
        let identifier = properties.and_then(|all| all.subscription_identifiers.first().copied());
        let reasons = subscribe
            .filters
            .iter()
            .map(|asked| self.space.subscribe(self.key, asked, identifier))
            .collect();
        self.connection.grant(subscribe.packet_id, reasons);
    }

    fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        let reason = |filter| {
            if self.space.unsubscribe(self.key, filter) {
                ReasonCode::Success
            } else {
                ReasonCode::NoSubscriptionExisted
            }
        };
        let reasons = unsubscribe.filters.iter().map(reason).collect();
        self.connection
            .confirm_unsubscribe(unsubscribe.packet_id, reasons);
    }

    fn fill_messages(&mut self, batch: &mut Batch) {
        let Self {
            node,
            space,
            connection,
            key,
            ..
        } = self;
        let (version, now) = (connection.version(), Millis::now());
        space.drain(*key, |message, handing| {
            if batch.len() >= BATCH_BYTES {
                return false;
            }
            let properties = &message.properties;
            if properties.expires_at.is_some_and(|end| end <= now) {
                node.metrics.messages_dropped(DropReason::Expired).inc();
                return true;
            }
            let outgoing = Outgoing {
                qos: handing.qos,
                retain: handing.retain,
                subscription_ids: handing.subscription_ids.clone(),
                properties: properties.to_publish(now),
                ..Outgoing::new(
                    message.topic.clone(),
                    message.payload.clone(),
                    Sent::Message,
                )
            };
            match connection.prepare(outgoing) {
                Ok(publish) => {
                    let payload: SmallVec<[Bytes; 2]> =
                        SmallVec::from_iter([publish.payload.clone()]);
                    let pushed =
                        batch.push_packet(|head| publish.encode_header(version, head), payload);
                    if let Err(error) = pushed {
                        tracing::warn!(%error, "a message could not be encoded");
                    }
                    node.metrics.packets_out(PacketType::Publish.number()).inc();
                    true
                }
                Err(NotSent::TooLarge) => {
                    // [MQTT-3.1.2-25]
                    node.metrics.messages_dropped(DropReason::TooLarge).inc();
                    true
                }
                Err(NotSent::NoQuota | NotSent::OutboxFull | NotSent::NotOpen) => false,
            }
        });
    }

    fn encode(&mut self, packet: &Packet) {
        self.node
            .metrics
            .packets_out(packet.packet_type().number())
            .inc();
        if let Err(error) = packet.encode(self.connection.version(), &mut self.control) {
            tracing::warn!(kind = ?packet.packet_type(), %error, "a packet could not be encoded");
        }
    }
}
