//! Awake and asleep: when a device can be reached, and what is signalled to it meanwhile.
//!
//! An uplink wakes a device up for as long as its product says. Then it is away as a device is whose connection is lost:
//! its deliveries give up their places and keep their cursors, messages stay in the mailbox.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use headgate_protocol::mqtt::QoS;
use prometheus::IntGauge;

use super::{
    Asked, CoapServer, Done, Timer,
    registration::{Awake, RdId},
};
use crate::{
    model::AuthKind,
    service::auth::{AuthError, AuthenticatedDevice},
    session::{
        handle::CloseReason,
        inspect::SessionInfo,
        node::Node,
        signals::{Signal, Signals},
    },
    telemetry::metrics::DisconnectReason,
};

impl CoapServer {
    pub(super) fn on_admitted(
        &mut self,
        now: Instant,
        asked: Asked,
        id: RdId,
        device: Result<Option<AuthenticatedDevice>, AuthError>,
    ) {
        if self.registrations.get(id).is_none() {
            let gone = self.refuse(None);
            return self.answer(now, &asked, gone);
        }
        match device {
            Ok(Some(device)) => {
                if self.wake_up(now, id, device) {
                    self.dispatch(now, asked, id);
                } else {
                    self.answer(now, &asked, super::unavailable(1));
                }
            }
            refused => {
                let response = self.refuse(refused.as_ref().err());
                if refused.as_ref().err().is_none_or(AuthError::is_refusal) {
                    // It was deleted, frozen, or has to prove who it is now.
                    self.hang_up(id);
                }
                self.answer(now, &asked, response);
            }
        }
    }

    /// Enters the device into the node; `false` where it was changed in the registry in this moment.
    pub(super) fn wake_up(&mut self, now: Instant, id: RdId, device: AuthenticatedDevice) -> bool {
        let Some(registration) = self.registrations.get_mut(id) else {
            return false;
        };
        if registration.awake.is_some() {
            self.note_uplink(now, id);
            return true;
        }
        let node = &self.node;
        let rules = node.table.topics().rules(&device.product);
        let (handle, took_over) = node.table.enter(&device.device_id, rules);
        // Whoever freezes it from here on closes this session.
        if !node.authenticator.is_unchanged(&registration.name, &device) {
            node.table.leave(&handle);
            return false;
        }
        if took_over {
            node.metrics.session_takeovers.inc();
            node.metrics.disconnects(DisconnectReason::Takeover).inc();
        }
        node.presence.seen(&device.device_id);
        node.delivery
            .on_connected(&device.device_id, handle.claim());
        connections(node, &device).inc();
        // Where nodes share the sessions, the others are to know where the device is.
        let is_shared = node.uplink.sessions().is_shared();
        let placing = is_shared.then(|| (Arc::clone(node), Arc::clone(&handle)));
        let reach = device.product.reachable_after_uplink_secs;
        let until = reach.map(|secs| now + Duration::from_secs(u64::from(secs)));
        registration.device = device;
        registration.awake = Some(Awake {
            handle,
            until,
            waker: self.ready.waker(id),
        });
        if let Some(until) = until {
            self.set_timer(until, Timer::Sleep(id));
        }
        // Not at once: it may be about to ask by itself.
        let soon = now + self.node.delivery_config.announce_delay;
        self.set_timer(soon, Timer::Tell(id));
        if let Some((node, handle)) = placing {
            self.spawn(async move {
                node.place(&handle).await;
                Done::Nothing
            });
        }
        self.handle_signals(now, id);
        true
    }

    /// A device that is awake was heard of.
    pub(super) fn note_uplink(&mut self, now: Instant, id: RdId) {
        if let Some(registration) = self.registrations.get_mut(id)
            && let Some(awake) = &mut registration.awake
            && let Some(secs) = registration.device.product.reachable_after_uplink_secs
        {
            // The timer looks at this when it is due.
            awake.until = Some(now + Duration::from_secs(u64::from(secs)));
        }
    }

    /// Lets a device sleep whose time is over.
    pub(super) fn may_sleep(&mut self, now: Instant, id: RdId) {
        let awake = self
            .registrations
            .get(id)
            .and_then(|all| all.awake.as_ref());
        let Some(until) = awake.and_then(|awake| awake.until) else {
            return;
        };
        if until > now {
            self.set_timer(until, Timer::Sleep(id));
        } else {
            self.fall_asleep(id);
        }
    }

    /// The device cannot be reached any more; it is still registered.
    pub(super) fn fall_asleep(&mut self, id: RdId) {
        self.announcing.remove(&id);
        let Some(registration) = self.registrations.get_mut(id) else {
            return;
        };
        registration.reading = None;
        registration.command = None;
        if let Some(watched) = &mut registration.deliveries {
            watched.told = None;
        }
        let sleeps = registration
            .device
            .product
            .reachable_after_uplink_secs
            .is_some();
        let device = registration.device.device_id.clone();
        if self.leave_node(id) && sleeps {
            let (delivery, max_idle) = (self.node.delivery.clone(), self.config.max_idle_wakeups);
            self.spawn(async move {
                delivery.on_asleep(&device, max_idle).await;
                Done::Nothing
            });
        }
    }

    /// Takes a device that is awake out of the node; says whether it was there, and in no newer session.
    pub(super) fn leave_node(&mut self, id: RdId) -> bool {
        let Some(registration) = self.registrations.get_mut(id) else {
            return false;
        };
        let Some(awake) = registration.awake.take() else {
            return false;
        };
        let (node, device) = (&self.node, &registration.device.device_id);
        connections(node, &registration.device).dec();
        node.presence.seen(device);
        let was_here = node.table.leave(&awake.handle);
        if was_here
            && registration
                .device
                .product
                .reachable_after_uplink_secs
                .is_some()
        {
            // It wakes up here, and finds what is for it at once.
            node.delivery.on_away(device);
        } else if was_here {
            node.delivery.on_disconnected(device);
        }
        was_here
    }

    /// Acts on what others signalled to a device.
    pub(super) fn handle_signals(&mut self, now: Instant, id: RdId) {
        loop {
            let awake = self
                .registrations
                .get(id)
                .and_then(|all| all.awake.as_ref());
            let Some(awake) = awake else { return };
            let cx = Context::from_waker(&awake.waker);
            let Poll::Ready(signals) = awake.handle.poll_signals(&cx) else {
                return;
            };
            let handle = Arc::clone(&awake.handle);
            if signals.has(Signal::Close) {
                return self.close(id, handle.close_reason());
            }
            if signals.has(Signal::Mail) {
                let inbox = handle.take_mail();
                self.keep_transient(id, inbox.queue);
                self.tell_command(now, id);
            }
            if signals.has(Signal::Inspect) {
                self.answer_inspectors(now, id);
            }
            // The device sees both where it asks: the blocks of a cancelled delivery end with 4.04, and the last block of
            // an upload is answered when that is stored.
            let _seen = (handle.take_canceled(), handle.take_upload_news());
            if wants_delivery(signals) {
                self.tell_delivery(now, id);
            }
            handle.release_memory();
        }
    }

    fn answer_inspectors(&self, now: Instant, id: RdId) {
        let Some(registration) = self.registrations.get(id) else {
            return;
        };
        let Some(awake) = &registration.awake else {
            return;
        };
        let watched = [
            ("t", &registration.deliveries),
            ("c", &registration.commands),
        ];
        let watched = watched.into_iter().filter(|(_, watched)| watched.is_some());
        let info = SessionInfo {
            session_expiry_secs: 0,
            since: awake.handle.since,
            client_id: registration.name.to_string(),
            version: None,
            address: registration.source,
            listener: None,
            keep_alive: registration
                .expires_at
                .map_or(Duration::ZERO, |at| at.saturating_duration_since(now)),
            subscriptions: watched
                .map(|(path, _)| (path.to_owned(), QoS::AtLeastOnce))
                .collect(),
            outbox_bytes: registration
                .command
                .as_ref()
                .map_or(0, |command| command.body.len()),
            outbox_messages: usize::from(registration.command.is_some())
                + registration.transient.len(),
        };
        for inspector in awake.handle.take_inspectors() {
            // Whoever asked may have gone.
            let _gone = inspector.send(info.clone());
        }
    }

    /// Tells a device what waits for it, as far as it watches.
    pub(super) fn tell_what_waits(&mut self, now: Instant, id: RdId) {
        self.tell_delivery(now, id);
        self.tell_command(now, id);
    }

    fn close(&mut self, id: RdId, reason: Option<CloseReason>) {
        let (_, why) = CloseReason::explain(reason);
        if reason == Some(CloseReason::Shutdown) {
            // The node drains: whoever asks is told to come again, and an association may outlive the restart.
            self.leave_node(id);
            return;
        }
        if reason == Some(CloseReason::Takeover) {
            // Its session by MQTT is the newer one; it may come back.
            return self.fall_asleep(id);
        }
        self.metrics.disconnects(why).inc();
        self.hang_up(id);
    }
}

/// The gauge of devices that are let in like this one.
fn connections<'n>(node: &'n Node, device: &AuthenticatedDevice) -> &'n IntGauge {
    match device.auth {
        AuthKind::None => &node.metrics.connections_coap,
        auth => node.metrics.connections_coaps.of(auth),
    }
}

fn wants_delivery(signals: Signals) -> bool {
    signals.has(Signal::Wake) || signals.has(Signal::Canceled)
}
