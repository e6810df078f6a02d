//! What the sessions of devices and of applications share: the state of the connection, and the
//! packets that wait to be written.
//!
//! A session drains [`Link::poll_event`] after each thing it does, and moves what has gathered
//! into the next batch with [`Link::take_control`]; messages go straight into a batch, their
//! payloads uncopied. At rest a link owns no buffer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use headgate_protocol::mqtt::{
    CloseDetails, Connection, EncodeError, Event, Input, Message as Outgoing, NotSent, Output,
    Packet, PacketId, PacketType, ProtocolVersion, Publish, QoS, ReasonCode,
};
use smallvec::SmallVec;

use super::{
    batch::Batch,
    device::Sent,
    inspect::SessionInfo,
    node::Node,
    pace::{Pace, Pause},
};
use crate::{
    model::{Handing, Message, Millis},
    service::will::WillTicket,
    telemetry::metrics::{DisconnectReason, DropReason},
};

/// Why a message was not put into a batch.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotPushed {
    /// The connection does not take it, or not now.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// It is no packet.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// One client's connection, without what it is for.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) node: Arc<Node>,
    pub(super) connection: Connection<Sent>,
    /// Encoded control packets that the next batch begins with.
    control: BytesMut,
    /// What this session adds to the node's gauge of bytes that wait for clients.
    outbox_bytes: usize,
    pub(super) closing: Option<DisconnectReason>,
    /// What the client said when it took leave: how many seconds its session is to last.
    pub(super) session_expiry_secs: Option<u32>,
    /// What the client left for the case that its connection breaks.
    pub(super) will: Option<Box<WillTicket>>,
    pacing: Option<Box<Pacing>>,
}

/// How fast a client publishes, where that is limited.
#[derive(Debug)]
struct Pacing {
    own: Pace,
    pause: Option<Pause>,
}

impl Link {
    pub(super) fn new(node: Arc<Node>, connection: Connection<Sent>) -> Self {
        Self {
            node,
            connection,
            control: BytesMut::new(),
            outbox_bytes: 0,
            closing: None,
            session_expiry_secs: None,
            will: None,
            pacing: None,
        }
    }

    /// Whether more of what the client says can be taken.
    pub(super) fn wants_input(&self) -> bool {
        self.closing.is_none()
            && self.control.len() < self.node.mqtt.outbox_bytes
            && self.pause().is_none()
    }

    /// When [`Link::handle_timeout`] wants to be called.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let pause = self.pause().map(|pause| pause.until);
        [self.connection.timeout(), pause]
            .into_iter()
            .flatten()
            .min()
    }

    fn pause(&self) -> Option<Pause> {
        self.pacing.as_ref()?.pause
    }

    /// Takes note of what the client published: it is not read from for a while where that was too fast.
    pub(super) fn pace(&mut self, publish: &Publish, is_device: bool) {
        let rates = &self.node.rates;
        let has_own = is_device && rates.limits_devices();
        let fresh = || {
            Box::new(Pacing {
                own: Pace::new(Instant::now()),
                pause: None,
            })
        };
        let own = has_own.then(|| &mut self.pacing.get_or_insert_with(fresh).own);
        let Some(pause) = rates.take(publish, own) else {
            return;
        };
        let pacing = self.pacing.get_or_insert_with(fresh);
        // Several that came in one turn are one wait.
        match pacing.pause.replace(pause) {
            Some(former) => self.node.metrics.rate_pauses.waiting(former.reason).dec(),
            None => self.node.metrics.rate_pauses.begun(pause.reason).inc(),
        }
        self.node.metrics.rate_pauses.waiting(pause.reason).inc();
    }

    fn end_pause(&mut self) {
        if let Some(pacing) = &mut self.pacing
            && let Some(pause) = pacing.pause.take()
        {
            self.node.metrics.rate_pauses.waiting(pause.reason).dec();
        }
    }

    pub(super) fn version(&self) -> ProtocolVersion {
        self.connection.version()
    }

    /// The next thing that the client did; packets that answer it gather meanwhile.
    pub(super) fn poll_event(&mut self) -> Option<Event<Sent>> {
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
                Output::Event(Event::Disconnected {
                    reason,
                    session_expiry,
                }) => {
                    self.session_expiry_secs = session_expiry;
                    self.closing = Some(DisconnectReason::Client);
                    // [MQTT-3.14.4-3]
                    if reason == ReasonCode::Success
                        && let Some(will) = self.will.take()
                    {
                        self.node.wills.withdraw(&will);
                    }
                }
                // The decoder lets one CONNECT through, and that made this session.
                Output::Event(Event::Connect(_)) => {}
                Output::Event(event) => return Some(event),
            }
        }
        None
    }

    /// Corrects the node's gauge of bytes that wait; `more` wait outside of the connection.
    pub(super) fn note_outbox(&mut self, more: usize) {
        let bytes = self.control.len() + self.connection.waiting_bytes() + more;
        if bytes != self.outbox_bytes {
            let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
            self.node
                .metrics
                .outbox_bytes
                .add(signed(bytes) - signed(self.outbox_bytes));
            self.outbox_bytes = bytes;
        }
    }

    /// What the connection says of the session; the rest is the session's to fill in.
    pub(super) fn inspect(&self) -> SessionInfo {
        SessionInfo {
            since: Millis::now(),
            client_id: String::new(),
            version: Some(self.version()),
            address: None,
            listener: None,
            keep_alive: self.connection.keep_alive(),
            session_expiry_secs: self.connection.session_expiry_secs(),
            subscriptions: Vec::new(),
            outbox_bytes: self.outbox_bytes,
            outbox_messages: self.connection.waiting_messages(),
        }
    }

    /// Moves the control packets that wait into the batch.
    pub(super) fn take_control(&mut self, batch: &mut Batch) {
        if !self.control.is_empty() {
            batch.push_encoded(&self.control);
            // Nothing is kept by a connection at rest.
            self.control = BytesMut::new();
        }
    }

    /// Acknowledges a PUBLISH of the client. Before MQTT 5 there is no way to say no: the message
    /// is taken and dropped.
    pub(super) fn acknowledge(&mut self, publish: &Publish, reason: ReasonCode) {
        if let Some(packet_id) = publish.packet_id {
            let said = if self.version() == ProtocolVersion::V5 {
                reason
            } else {
                ReasonCode::Success
            };
            let explanation = explanation_of_refusal(said).map(Into::into);
            self.connection
                .acknowledge_with(packet_id, publish.qos, said, explanation);
        }
    }

    /// Does not acknowledge a PUBLISH, because what it brought could not be handed on: an MQTT 5 client
    /// is told so; an older one loses the connection, and sends it again on the next.
    pub(super) fn fail(&mut self, publish: &Publish) {
        if publish.qos == QoS::AtMostOnce {
            return;
        }
        if self.version() == ProtocolVersion::V5 {
            self.acknowledge(publish, ReasonCode::ImplementationSpecificError);
        } else {
            self.close(ReasonCode::UnspecifiedError, DisconnectReason::ServerError);
        }
    }

    /// Sends a message of the gateway's own.
    ///
    /// # Errors
    /// [`NotSent`] where it was dropped, which is counted.
    pub(super) fn send(&mut self, message: Outgoing<Sent>) -> Result<(), NotSent> {
        self.connection.send(message).inspect_err(|error| {
            let reason = match error {
                NotSent::OutboxFull | NotSent::NoQuota => DropReason::OutboxFull,
                NotSent::TooLarge => DropReason::TooLarge,
                NotSent::NotOpen => DropReason::Offline,
            };
            self.node.metrics.messages_dropped(reason).inc();
        })
    }

    /// Puts a message into the batch, its payload uncopied.
    ///
    /// Gives its identifier, which one of QoS 0 has not.
    ///
    /// # Errors
    /// [`NotPushed`]; the batch is as before then, and no identifier is taken.
    pub(super) fn push(
        &mut self,
        batch: &mut Batch,
        message: &Message,
        handing: &Handing,
        tag: Sent,
    ) -> Result<Option<PacketId>, NotPushed> {
        let version = self.version();
        let mut outgoing = Outgoing::new(message.topic.clone(), message.payload.clone(), tag);
        outgoing.qos = handing.qos;
        outgoing.retain = handing.retain;
        outgoing
            .subscription_ids
            .clone_from(&handing.subscription_ids);
        if version == ProtocolVersion::V5 {
            outgoing.properties = message.properties.to_publish(Millis::now());
        }
        let publish = self.connection.prepare(outgoing)?;
        // What was said before comes first: it may be what gave the topic its alias.
        self.take_control(batch);
        let payload: SmallVec<[Bytes; 2]> = SmallVec::from_iter([publish.payload.clone()]);
        batch.push_packet(|head| publish.encode_header(version, head), payload)?;
        self.node
            .metrics
            .packets_out(PacketType::Publish.number())
            .inc();
        Ok(publish.packet_id)
    }

    /// Ends the connection for `why`, and tells an MQTT 5 client `reason`.
    pub(super) fn close(&mut self, reason: ReasonCode, why: DisconnectReason) {
        let goes_elsewhere =
            why == DisconnectReason::ServerShutdown || reason == ReasonCode::UseAnotherServer;
        let (reason, details) = match &self.node.elsewhere {
            Some((reference, elsewhere)) if goes_elsewhere => {
                let details = CloseDetails {
                    server_reference: Some(reference.clone()),
                    reason_string: None,
                };
                // Who is to come back some time is not told that it is for good.
                let is_for_good = why == DisconnectReason::ServerShutdown;
                (if is_for_good { *elsewhere } else { reason }, details)
            }
            _ => (reason, explained(explanation_of_close(why))),
        };
        self.end_with(reason, details, why);
    }

    fn end_with(&mut self, reason: ReasonCode, details: CloseDetails, why: DisconnectReason) {
        self.connection.close_with(reason, details);
        while self.poll_event().is_some() {}
        self.closing = Some(why);
    }

    /// Ends the connection because of what the client sent.
    pub(super) fn close_on_violation(&mut self, reason: ReasonCode, explanation: &str) {
        let why = match reason {
            ReasonCode::PacketTooLarge => DisconnectReason::PacketTooLarge,
            _ => DisconnectReason::ProtocolError,
        };
        self.end_with(reason, explained(Some(explanation)), why);
    }

    /// What the client was to be told could not be stored: it is told nothing, and comes again.
    pub(super) fn break_off(&mut self, batch: &mut Batch) {
        batch.clear();
        self.control = BytesMut::new();
        self.connection.abandon();
        self.closing.get_or_insert(DisconnectReason::ServerError);
    }

    /// Takes note of the time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let is_paused = !self.wants_input();
        if self.pause().is_some_and(|pause| now >= pause.until) {
            self.end_pause();
        }
        if is_paused {
            // We do not read, so the client cannot be blamed for its silence.
            self.connection.stay_alive(now);
        }
        self.connection.handle(now, Input::Timeout);
    }

    /// The connection is gone.
    pub(super) fn end(&mut self, reason: DisconnectReason) {
        self.control = BytesMut::new();
        self.end_pause();
        if let Some(will) = self.will.take()
            // Whoever is told to go elsewhere is not lost; its will stays stored.
            && reason != DisconnectReason::ServerShutdown
        {
            let expiry = self.session_expiry_secs;
            let expiry = expiry.unwrap_or_else(|| self.connection.session_expiry_secs());
            let expiry = Duration::from_secs(expiry.into());
            self.node.wills.lost(&will, expiry);
        }
        self.connection.abandon();
        self.note_outbox(0);
        // One that was taken over is counted by the session that took over.
        if reason != DisconnectReason::Takeover {
            self.node.metrics.disconnects(reason).inc();
        }
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

fn explained(explanation: Option<&str>) -> CloseDetails {
    CloseDetails {
        server_reference: None,
        reason_string: explanation.map(Into::into),
    }
}

/// What whoever writes a device's program wants to know of a message that was not taken.
const fn explanation_of_refusal(reason: ReasonCode) -> Option<&'static str> {
    match reason {
        ReasonCode::NotAuthorized => Some("the topic is none that this client may publish on"),
        ReasonCode::QuotaExceeded => {
            Some("no room: too much waits or is retained there, or the payload is too large")
        }
        ReasonCode::ImplementationSpecificError => Some("it could not be stored: send it again"),
        _ => None,
    }
}

const fn explanation_of_close(why: DisconnectReason) -> Option<&'static str> {
    match why {
        DisconnectReason::Takeover => Some("another connection of the same identity took over"),
        _ => None,
    }
}
