//! The session of one device: what it may, what it asks for, and what is sent to it.
//!
//! Driven by the edge: [`DeviceSession::take_packet`], [`DeviceSession::handle_signals`] and
//! [`DeviceSession::handle_timeout`] as they come, [`DeviceSession::act`] after each, and
//! [`DeviceSession::fill`] for each write. Control packets and messages go before chunks.
//!
//! Invariants: chunks are sent only after `get_chunks` on this connection; what the device has not
//! been sent yet is a cursor and never a queue; at most `mqtt.outbox_bytes` of control packets wait.

mod kept;
mod mail;
mod messages;
mod sending;
mod topics;
mod uploads;
mod vendor;

use std::{net::IpAddr, sync::Arc, time::Instant};

use headgate_protocol::{
    mqtt::{Connection, Event, Input, Packet, ReasonCode},
    transfer::window::Chunk,
};

use self::{mail::Mail, uploads::UploadLane};
use super::{
    handle::{CloseReason, SessionHandle},
    inspect::{Ends, SessionInfo},
    link::Link,
    node::Node,
    pump::{ActiveTransfer, Slot},
    signals::{Signal, Signals},
    subscriptions::Subscriptions,
};
use crate::{
    model::Id,
    service::{
        auth::AuthenticatedDevice,
        delivery::{Hold, LiveDelivery},
        uplink::{Persistent, SessionChange},
        will::WillTicket,
    },
    telemetry::metrics::DisconnectReason,
};

/// What a QoS 1 or 2 packet of ours was, when its acknowledgement comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// A message that nothing depends on.
    Message,
    /// A message that is stored for the client under this id.
    Mail(Id),
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
    link: Link,
    handle: Arc<SessionHandle>,
    device: AuthenticatedDevice,
    subscriptions: Subscriptions,
    /// What of the session outlives the connection, if anything does.
    kept: Option<Box<Persistent>>,
    /// Messages from applications on their way to the device.
    mail: Option<Box<Mail>>,
    /// Up to where the mailbox has been read on this connection.
    read_to: Option<Id>,
    announcing: Announcing,
    /// The delivery whose announcement is on its way.
    announced: Option<Arc<LiveDelivery>>,
    transfer: Option<Box<ActiveTransfer>>,
    /// The delivery whose chunks may still be acknowledged, and the first request since the device
    /// last said where it stands: chunks of it and of later ones count, also after its end.
    acknowledging: Option<(Arc<LiveDelivery>, u32)>,
    generations: u32,
    /// What is being uploaded, if anything.
    uploads: Option<Box<UploadLane>>,
    reached_at: Option<IpAddr>,
    /// Where it is not the device's id.
    client_id: Option<Box<str>>,
}

impl DeviceSession {
    pub(super) fn new(
        node: Arc<Node>,
        device: AuthenticatedDevice,
        handle: Arc<SessionHandle>,
        connection: Connection<Sent>,
        reached_at: Option<IpAddr>,
        client_id: &str,
    ) -> Self {
        let is_named = !client_id.is_empty() && client_id != device.device_id.as_str();
        Self {
            link: Link::new(node, connection),
            handle,
            device,
            subscriptions: Subscriptions::default(),
            kept: None,
            mail: None,
            read_to: None,
            announcing: Announcing::NotListening,
            announced: None,
            transfer: None,
            acknowledging: None,
            generations: 0,
            uploads: None,
            reached_at,
            client_id: is_named.then(|| client_id.into()),
        }
    }

    /// Says CONNACK, which is the first thing that is written, and looks for what waits.
    pub(super) async fn begin(&mut self, now: Instant) {
        if self.is_subscribed_since_connect() || !self.subscriptions.is_empty() {
            self.read_mailbox();
            self.listen(now);
        }
        self.act(now).await;
    }

    /// Takes note of what the device left for the case that its connection breaks.
    pub(super) fn leave_will(&mut self, will: Option<Box<WillTicket>>) {
        self.link.will = will;
    }

    /// How others reach this session.
    pub fn handle(&self) -> &Arc<SessionHandle> {
        &self.handle
    }

    /// Why the session ends, once it does: the edge writes what is left and closes.
    pub fn closing(&self) -> Option<DisconnectReason> {
        self.link.closing
    }

    /// Whether more of what the device says can be taken.
    pub fn wants_input(&self) -> bool {
        self.link.wants_input() && self.uploads_want_input()
    }

    /// Whether something that the device published is acknowledged later than the rest.
    pub fn acknowledges_later(&self) -> bool {
        self.uploads.is_some()
    }

    /// Takes one packet, to be acted on by [`DeviceSession::act`].
    pub fn take_packet(&mut self, now: Instant, packet: Packet) {
        self.link.connection.handle(now, Input::Packet(packet));
    }

    /// Ends the session because of what the peer sent; `explanation` is for people.
    pub fn close_on_violation(&mut self, reason: ReasonCode, explanation: &str) {
        self.link.close_on_violation(reason, explanation);
        self.link.note_outbox(0);
    }

    /// Takes what others signalled, to be acted on; `ends` are those of its connection, where the signals ask
    /// for them.
    pub fn handle_signals(&mut self, now: Instant, signals: Signals, ends: Ends) {
        if signals.has(Signal::Close) {
            let (reason, why) = CloseReason::explain(self.handle.close_reason());
            self.link.close(reason, why);
            self.link.note_outbox(0);
            return;
        }
        if signals.has(Signal::Slot) {
            self.take_slot(now);
        }
        if signals.has(Signal::Uploads) {
            self.handle_upload_news();
        }
        if signals.has(Signal::Canceled) {
            self.tell_canceled();
        }
        if signals.has(Signal::Rules) {
            self.drop_forbidden();
        }
        if signals.has(Signal::Mail) {
            self.note_mail();
        }
        if signals.has(Signal::Inspect) {
            self.answer_inspectors(ends);
        }
        if signals.has(Signal::Wake) && self.announcing == Announcing::WhenWoken {
            self.announce();
        }
        self.handle.release_memory();
    }

    fn answer_inspectors(&self, ends: Ends) {
        let info = SessionInfo {
            since: self.handle.since,
            client_id: self
                .client_id
                .as_deref()
                .unwrap_or(self.device.device_id.as_str())
                .to_owned(),
            address: ends.client,
            listener: ends.listener,
            subscriptions: self.subscriptions.shown(),
            ..self.link.inspect()
        };
        let info = SessionInfo {
            outbox_messages: info.outbox_messages + self.mail.as_ref().map_or(0, |mail| mail.len()),
            ..info
        };
        for inspector in self.handle.take_inspectors() {
            // Whoever asked may have gone.
            let _gone = inspector.send(info.clone());
        }
    }

    /// When [`DeviceSession::handle_timeout`] wants to be called.
    pub fn timeout(&self) -> Option<Instant> {
        let announce = match self.announcing {
            Announcing::At(at) => Some(at),
            Announcing::NotListening | Announcing::WhenWoken => None,
        };
        let memory = self.transfer.as_ref().and_then(|active| active.memory_due);
        let mail = self.mail.as_ref().and_then(|mail| mail.timeout());
        [self.link.timeout(), announce, memory, mail]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes note of the time, to be acted on.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Announcing::At(at) = self.announcing
            && now >= at
        {
            self.announce();
        }
        if let Some(active) = &mut self.transfer {
            // The next batch, if there may be one, looks for memory itself.
            active.memory_due.take_if(|due| now >= *due);
        }
        if !self.uploads_want_input() {
            // We do not read, so the device cannot be blamed for its silence.
            self.link.connection.stay_alive(now);
        }
        self.link.handle_timeout(now);
    }

    /// The connection is gone: places are given back, and cursors kept.
    pub fn end(mut self, reason: DisconnectReason) {
        self.drop_transfer(Instant::now());
        if let (Some(kept), Some(secs)) = (&mut self.kept, self.link.session_expiry_secs) {
            kept.set_expiry_secs(secs);
        }
        self.link.end(reason);
        let node = &self.link.node;
        node.metrics.connections_mqtt.of(self.device.auth).dec();
        if node.table.leave(&self.handle) {
            node.delivery.on_disconnected(&self.device.device_id);
        }
        node.presence.seen(&self.device.device_id);
        tracing::debug!(device_id = %self.device.device_id, reason = reason.label(), "a device's session ended");
    }

    /// Acts on everything that was taken.
    pub async fn act(&mut self, now: Instant) {
        while let Some(event) = self.link.poll_event() {
            match event {
                // Boxed, like every rare wait of a session: ten thousand devices at rest would each
                // keep room for it otherwise.
                Event::Publish(publish) => {
                    self.link.pace(&publish, true);
                    Box::pin(self.handle_publish(publish)).await;
                }
                Event::Subscribe(subscribe) => self.handle_subscribe(now, &subscribe),
                Event::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe),
                Event::Acknowledged(sent) => self.handle_acknowledged(now, sent).await,
                Event::Received(sent) => self.handle_received(sent),
                Event::Released(packet_id) => self.note_change(SessionChange::Released(packet_id)),
                // The link keeps these to itself.
                Event::Connect(_) | Event::Disconnected { .. } => {}
            }
        }
        self.note_outbox();
    }

    fn note_outbox(&mut self) {
        let mail_bytes = self.mail.as_ref().map_or(0, |mail| mail.bytes());
        self.link.note_outbox(mail_bytes);
    }

    fn take_slot(&mut self, now: Instant) {
        if let Some(ticket) = self.handle.take_slot() {
            let ticket = super::slots::Ticket::from_grant(ticket);
            match &mut self.transfer {
                Some(transfer) if transfer.slot == Slot::Waiting => {
                    transfer.hold(ticket);
                }
                // The transfer ended while it waited.
                _ => self.link.node.slots.release(ticket, now),
            }
        }
    }

    fn drop_transfer(&mut self, now: Instant) {
        if let Some(mut transfer) = self.transfer.take() {
            let node = &self.link.node;
            transfer.settle(now, 0);
            transfer.count_acknowledged(&node.metrics);
            transfer.delivery.set_hold(Hold::None);
            match transfer.slot {
                Slot::Held(ticket) => node.slots.release(ticket, now),
                Slot::Waiting => {
                    node.slots.leave(&self.handle);
                    // It may have been given in this very moment.
                    if let Some(ticket) = self.handle.take_slot() {
                        node.slots
                            .release(super::slots::Ticket::from_grant(ticket), now);
                    }
                }
                Slot::None => {}
            }
            node.metrics
                .chunks_in_flight
                .sub(i64::from(transfer.pump.in_flight_chunks()));
        }
        self.acknowledging
            .take_if(|(delivery, _)| delivery.state().is_final());
        self.link.connection.release_memory();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_at_rest_is_small() {
        // Counted in what README says of an idle connection.
        assert!(size_of::<DeviceSession>() <= 512);
        assert!(size_of::<SessionHandle>() <= 112);
    }
}
