//! `/rd`: devices come, say where they are now, and leave.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use headgate_protocol::coap::{Code, OptionNumber, Response};

use super::{
    Asked, CoapServer, Done, Timer,
    peer::Peer,
    registration::{RdId, Registration},
    unavailable,
};
use crate::{
    model::random,
    service::auth::{AuthError, AuthenticatedDevice},
    telemetry::metrics::DisconnectReason,
};

impl CoapServer {
    pub(super) fn register(&mut self, now: Instant, asked: Asked) {
        let name: Option<Box<str>> = asked.message.query("ep").map(Into::into);
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return self.answer(now, &asked, Response::error(Code::BAD_REQUEST, "ep"));
        };
        if let Err(response) = self.lifetime(&asked) {
            return self.answer(now, &asked, response);
        }
        let product = asked.message.query("pid").map(str::to_owned);
        let node = Arc::clone(&self.node);
        self.spawn(async move {
            let admitted = node
                .authenticator
                .admit_unsecured(&name, product.as_deref());
            let device = admitted.await;
            Done::Registered(asked, name, device)
        });
    }

    pub(super) fn on_registered(
        &mut self,
        now: Instant,
        asked: &Asked,
        name: Box<str>,
        device: Result<Option<AuthenticatedDevice>, AuthError>,
    ) {
        let attempts = &self.node.metrics.connect_attempts;
        let device = match device {
            Ok(Some(device)) => device,
            refused => {
                attempts.refused_coap.inc();
                let response = self.refuse(refused.err().as_ref());
                return self.answer(now, asked, response);
            }
        };
        let former = self.registrations.of_device(&device.device_id);
        let Ok(random) = random() else {
            return self.answer(now, asked, unavailable(60));
        };
        if former.is_none() && self.registrations.is_full() {
            attempts.over_limit_coap.inc();
            return self.answer(now, asked, unavailable(60));
        }
        attempts.accepted_coap.inc();
        if let Some(former) = former {
            // It was restarted, or another one uses its name: the newer one counts, as with MQTT.
            self.forget(former);
        }
        let lifetime = self.lifetime(asked).unwrap_or(self.config.default_lifetime);
        let id = RdId(u64::from_ne_bytes(random));
        tracing::debug!(device_id = %device.device_id, "a device registered by CoAP");
        let expires_at = Some(now + lifetime);
        let registration =
            Registration::new(device.clone(), name, asked.peer, asked.source, expires_at);
        self.registrations.insert(id, registration);
        self.set_timer(now + lifetime, Timer::Expire(id));
        if !self.wake_up(now, id, device) {
            self.forget(id);
            return self.answer(now, asked, unavailable(1));
        }
        let response = Response::new(Code::CREATED)
            .with(OptionNumber::LOCATION_PATH, "rd")
            .with(OptionNumber::LOCATION_PATH, id.to_string());
        self.answer(now, asked, response);
    }

    pub(super) fn renew(&mut self, now: Instant, asked: &Asked, id: RdId) {
        let lifetime = match self.lifetime(asked) {
            Ok(lifetime) => lifetime,
            Err(response) => return self.answer(now, asked, response),
        };
        self.registrations.set_address(id, asked.peer);
        if let Some(registration) = self.registrations.get_mut(id) {
            registration.expires_at = Some(now + lifetime);
            registration.source = asked.source.or(registration.source);
            self.node.presence.seen(&registration.device.device_id);
        }
        self.set_timer(now + lifetime, Timer::Expire(id));
        self.note_uplink(now, id);
        self.answer(now, asked, Response::new(Code::CHANGED));
    }

    pub(super) fn leave(&mut self, now: Instant, asked: &Asked, id: RdId) {
        self.metrics.disconnects(DisconnectReason::Client).inc();
        self.forget(id);
        self.answer(now, asked, Response::new(Code::DELETED));
    }

    /// Ends a registration whose lifetime is over.
    pub(super) fn expire(&mut self, now: Instant, id: RdId) {
        let Some(registration) = self.registrations.get(id) else {
            return;
        };
        // Renewed: another timer is set.
        if registration.expires_at.is_some_and(|at| at <= now) {
            self.metrics.disconnects(DisconnectReason::KeepAlive).inc();
            self.forget(id);
        }
    }

    /// Ends a registration.
    pub(super) fn forget(&mut self, id: RdId) {
        self.leave_node(id);
        self.announcing.remove(&id);
        let gone = self.registrations.remove(id);
        if let Some(gone) = &gone
            && self.node.table.of(&gone.device.device_id).is_none()
        {
            self.node.delivery.on_disconnected(&gone.device.device_id);
        }
        if let Some(Peer::Association(association)) = gone.map(|gone| gone.address)
            && let Some(known) = self.associations.get_mut(&association)
        {
            known.registration = None;
        }
    }

    /// The lifetime that is asked for, within what is allowed.
    fn lifetime(&self, asked: &Asked) -> Result<Duration, Response> {
        let Some(text) = asked.message.query("lt") else {
            return Ok(self.config.default_lifetime);
        };
        let secs = text.parse::<u32>().ok().filter(|secs| *secs > 0);
        let secs = secs.ok_or_else(|| Response::error(Code::BAD_REQUEST, "lt"))?;
        Ok(Duration::from_secs(u64::from(secs)).min(self.config.max_lifetime))
    }

    /// What a device that is not let in is told.
    pub(super) fn refuse(&self, error: Option<&AuthError>) -> Response {
        let failures = &self.node.metrics.auth_failures;
        match error {
            None => {
                failures.unknown_or_wrong.inc();
                Response::new(Code::NOT_FOUND)
            }
            Some(error) if error.is_refusal() => {
                failures.disabled.inc();
                Response::new(Code::FORBIDDEN)
            }
            Some(error) => {
                tracing::warn!(%error, "a device could not be let in by CoAP");
                unavailable(10)
            }
        }
    }
}
