//! Devices over DTLS: keys for handshakes, and which device an association is.
//!
//! The edge speaks DTLS. It says who wants a key, who has shown one, and which associations end, and does what
//! [`CoapServer::poll_secured`] says. A device is let in with its first request, and again after each sleep; an
//! association lasts as long as its credential.
//!
//! Invariants: an association is of one device and a device has one association; a name that is unknown gets a key all
//! the same, which nobody has, as late as one that is known gets its own.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use headgate_protocol::{
    coap::{Code, OptionNumber, Response},
    credential::Claim,
};
use zeroize::Zeroizing;

use super::{
    Asked, CoapServer, Done,
    peer::{AssociationId, Peer},
    registration::{RdId, Registration},
    unavailable,
};
use crate::{
    model::{CredentialSlot, PeerCertificate, random},
    service::auth::{self, AuthError, AuthenticatedDevice, CredentialTag, PresharedKey},
    telemetry::metrics::DisconnectReason,
};

/// A key is given no sooner than this after it was asked for: longer than the registry is asked, so that this says
/// nothing.
const KEY_AFTER: Duration = Duration::from_millis(10);

/// What the edge does to an association.
pub enum Secured {
    /// Gives its handshake this key, or one that nobody has.
    Key(AssociationId, Option<Zeroizing<Vec<u8>>>),
    /// Ends it.
    Close(AssociationId),
}

/// What a peer has shown in its handshake.
#[derive(Debug)]
pub enum Shown {
    /// The key that was given for this identity.
    Key(Box<[u8]>),
    /// The key of this certificate, DER.
    Certificate(Box<[u8]>),
}

/// An association.
#[derive(Debug)]
pub(super) struct Association {
    /// What names its device.
    pub(super) name: Box<str>,
    proof: Proof,
    /// Its device's registration, from the first request on.
    pub(super) registration: Option<RdId>,
}

/// What it was shown by.
#[derive(Clone, Debug)]
enum Proof {
    Secret(CredentialTag),
    Certificate(Arc<PeerCertificate>),
}

/// A handshake that was given a key.
#[derive(Debug)]
pub(super) struct Offered {
    name: Box<str>,
    slot: CredentialSlot,
    tag: CredentialTag,
}

impl CoapServer {
    /// A handshake wants the key of this identity; [`Secured::Key`] follows.
    pub fn want_key(
        &mut self,
        now: Instant,
        association: AssociationId,
        identity: &[u8],
        from: SocketAddr,
    ) {
        let node = Arc::clone(&self.node);
        // Names are text; what is none names nobody.
        let name: Box<str> = std::str::from_utf8(identity).unwrap_or_default().into();
        self.spawn(async move {
            let claim = Claim::read("", Some(&name), None);
            let admits = node
                .authenticator
                .throttle()
                .admits_login(&claim, from.ip(), now);
            let key = node.authenticator.preshared_key(&name).await;
            let key = key.map(|key| key.filter(|_| admits));
            tokio::time::sleep_until((now + KEY_AFTER).into()).await;
            Done::Key(association, name, key)
        });
    }

    /// A handshake is over.
    pub fn on_connected(
        &mut self,
        now: Instant,
        association: AssociationId,
        shown: Shown,
        from: SocketAddr,
    ) {
        match shown {
            Shown::Key(_) => {
                let Some(offered) = self.offered.remove(&association) else {
                    return self.secured.push_back(Secured::Close(association));
                };
                let authenticator = &self.node.authenticator;
                authenticator.note_key(&offered.name, offered.slot, true, now);
                let claim = Claim::read("", Some(&offered.name), None);
                authenticator.throttle().succeeded(&claim, from.ip(), now);
                self.node.metrics.connect_attempts.accepted_coaps.inc();
                self.associate(association, offered.name, Proof::Secret(offered.tag));
            }
            Shown::Certificate(der) => {
                let certificate = Arc::new(PeerCertificate::new(&der, []));
                let node = Arc::clone(&self.node);
                self.spawn(async move {
                    let found = node.authenticator.device_of_certificate(&certificate).await;
                    Done::Certified(association, certificate, found)
                });
            }
        }
    }

    /// A handshake came to nothing; `has_other_key`: because the peer has not the key that it was given.
    pub fn on_handshake_failed(
        &mut self,
        now: Instant,
        association: AssociationId,
        identity: Option<&[u8]>,
        has_other_key: bool,
        from: SocketAddr,
    ) {
        let offered = self.offered.remove(&association);
        if !has_other_key {
            return;
        }
        let authenticator = &self.node.authenticator;
        if let Some(offered) = &offered {
            authenticator.note_key(&offered.name, offered.slot, false, now);
        }
        let name = identity.and_then(|name| std::str::from_utf8(name).ok());
        let claim = Claim::read("", Some(name.unwrap_or_default()), None);
        authenticator.throttle().failed(&claim, from.ip(), now);
        self.node.metrics.connect_attempts.refused_coaps.inc();
        self.node.metrics.auth_failures.unknown_or_wrong.inc();
    }

    /// An association ended.
    pub fn on_association_closed(&mut self, now: Instant, association: AssociationId) {
        self.offered.remove(&association);
        let Some(gone) = self.associations.remove(&association) else {
            return;
        };
        if let Some(id) = gone.registration {
            let reason = if self.is_draining {
                DisconnectReason::ServerShutdown
            } else {
                DisconnectReason::Client
            };
            self.metrics.disconnects(reason).inc();
            self.forget(id);
        }
        self.endpoint.forget(Peer::Association(association));
        self.settle(now);
    }

    /// An association from before a restart.
    pub fn resume(&mut self, association: AssociationId, identity: &[u8], tag: CredentialTag) {
        let name: Box<str> = std::str::from_utf8(identity).unwrap_or_default().into();
        self.associate(association, name, Proof::Secret(tag));
    }

    /// What an association can be resumed with after a restart; `None`: it cannot be.
    pub fn resumable(&self, association: AssociationId) -> Option<CredentialTag> {
        match self.associations.get(&association)?.proof {
            Proof::Secret(tag) => Some(tag),
            Proof::Certificate(_) => None,
        }
    }

    /// The next thing to do to an association.
    pub fn poll_secured(&mut self) -> Option<Secured> {
        self.secured.pop_front()
    }

    pub(super) fn on_key(
        &mut self,
        association: AssociationId,
        name: Box<str>,
        key: Result<Option<PresharedKey>, AuthError>,
    ) {
        let key = match key {
            Ok(key) => key,
            Err(error) => {
                tracing::warn!(%error, "the key of a device could not be looked up");
                return self.secured.push_back(Secured::Close(association));
            }
        };
        let key = key.map(|PresharedKey { key, slot, tag }| {
            self.offered
                .insert(association, Offered { name, slot, tag });
            key
        });
        self.secured.push_back(Secured::Key(association, key));
    }

    pub(super) fn on_certified(
        &mut self,
        association: AssociationId,
        certificate: Arc<PeerCertificate>,
        found: Result<Option<Box<str>>, AuthError>,
    ) {
        let metrics = &self.node.metrics;
        match found {
            Ok(Some(name)) => {
                metrics.connect_attempts.accepted_coaps.inc();
                self.associate(association, name, Proof::Certificate(certificate));
                for asked in self.unsettled.remove(&association).unwrap_or_default() {
                    self.admit_secured(Instant::now(), asked, association);
                }
            }
            Ok(None) => {
                metrics.connect_attempts.refused_coaps.inc();
                metrics.auth_failures.unknown_or_wrong.inc();
                self.close_association(association);
            }
            Err(error) => {
                tracing::warn!(%error, "a device's certificate could not be looked up");
                self.close_association(association);
            }
        }
    }

    /// Serves a request of an association.
    pub(super) fn admit_secured(
        &mut self,
        now: Instant,
        mut asked: Asked,
        association: AssociationId,
    ) {
        asked.is_proven = true;
        let Some(known) = self.associations.get(&association) else {
            // Its certificate is being looked up: its requests are few, one after the other.
            let waiting = self.unsettled.entry(association).or_default();
            if waiting.len() < MAX_UNSETTLED {
                waiting.push(asked);
            }
            return;
        };
        let registered = known
            .registration
            .and_then(|id| Some((id, self.registrations.get_mut(id)?)));
        if let Some((id, registration)) = registered {
            registration.source = asked.source.or(registration.source);
            if registration.awake.is_some() {
                self.note_uplink(now, id);
                return self.serve(now, asked, id);
            }
        }
        let (node, name, proof) = (
            Arc::clone(&self.node),
            known.name.clone(),
            known.proof.clone(),
        );
        let from = asked.source;
        self.spawn(async move {
            let authenticator = &node.authenticator;
            let device = match (proof, from) {
                (Proof::Secret(tag), _) => authenticator.admit_with_key(&name, tag).await,
                (Proof::Certificate(certificate), Some(address)) => {
                    let peer = auth::Peer {
                        address,
                        certificate: Some(certificate),
                    };
                    authenticator.admit_with_certificate(&name, &peer).await
                }
                (Proof::Certificate(_), None) => Ok(None),
            };
            Done::Secured(asked, association, device)
        });
    }

    pub(super) fn on_secured(
        &mut self,
        now: Instant,
        asked: Asked,
        association: AssociationId,
        device: Result<Option<AuthenticatedDevice>, AuthError>,
    ) {
        let device = match device {
            Ok(Some(device)) => device,
            refused => {
                let response = self.refuse(refused.as_ref().err());
                self.answer(now, &asked, response);
                if refused.as_ref().err().is_none_or(AuthError::is_refusal) {
                    // Deleted, frozen, or with other credentials by now.
                    self.close_association(association);
                }
                return;
            }
        };
        let Some(known) = self.associations.get(&association) else {
            return;
        };
        let (registered, name) = (known.registration, known.name.clone());
        let registered = registered.filter(|id| self.registrations.get(*id).is_some());
        let id = match registered {
            Some(id) => id,
            None => match self.enter(&asked, &device, name) {
                Some(id) => id,
                None => return self.answer(now, &asked, unavailable(60)),
            },
        };
        if let Some(known) = self.associations.get_mut(&association) {
            known.registration = Some(id);
        }
        if self.wake_up(now, id, device) {
            self.serve(now, asked, id);
        } else {
            self.answer(now, &asked, unavailable(1));
        }
    }

    /// Serves a request of a device that is awake. Its registration is the association: `/rd` only says so.
    fn serve(&mut self, now: Instant, asked: Asked, id: RdId) {
        let path = asked.message.path().unwrap_or_default();
        match (asked.message.code, &path[..]) {
            (Code::POST, ["rd"]) => {
                let name = asked.message.query("ep");
                let device = self.registrations.get(id).map(|known| &known.device);
                let is_itself = name.is_none_or(|name| {
                    device.is_some_and(|device| {
                        name == device.node_id.as_str() || name == device.device_id.as_str()
                    })
                });
                let response = if is_itself {
                    Response::new(Code::CREATED)
                        .with(OptionNumber::LOCATION_PATH, "rd")
                        .with(OptionNumber::LOCATION_PATH, id.to_string())
                } else {
                    Response::new(Code::FORBIDDEN)
                };
                self.answer(now, &asked, response);
            }
            (Code::POST | Code::DELETE, ["rd", named]) => {
                if RdId::parse(named) != Some(id) {
                    return self.answer(now, &asked, Response::new(Code::NOT_FOUND));
                }
                if asked.message.code == Code::DELETE {
                    return self.leave(now, &asked, id);
                }
                self.answer(now, &asked, Response::new(Code::CHANGED));
            }
            _ => self.dispatch(now, asked, id),
        }
    }

    /// Enters a device that comes by an association; `None`: there are too many.
    fn enter(
        &mut self,
        asked: &Asked,
        device: &AuthenticatedDevice,
        name: Box<str>,
    ) -> Option<RdId> {
        if let Some(former) = self.registrations.of_device(&device.device_id) {
            // It made a new association: the newer one counts.
            self.hang_up(former);
        }
        if self.registrations.is_full() {
            self.node.metrics.connect_attempts.over_limit_coap.inc();
            return None;
        }
        let id = RdId(u64::from_ne_bytes(random().ok()?));
        tracing::debug!(device_id = %device.device_id, "a device is here by CoAP over DTLS");
        let registration = Registration::new(device.clone(), name, asked.peer, asked.source, None);
        self.registrations.insert(id, registration);
        Some(id)
    }

    /// Ends a registration, and the association that it is of.
    pub(super) fn hang_up(&mut self, id: RdId) {
        let peer = self.registrations.get(id).map(|known| known.address);
        self.forget(id);
        if let Some(Peer::Association(association)) = peer {
            self.close_association(association);
        }
    }

    /// Has the edge end an association, after what is on its way to it.
    fn close_association(&mut self, association: AssociationId) {
        self.associations.remove(&association);
        self.unsettled.remove(&association);
        self.secured.push_back(Secured::Close(association));
    }

    fn associate(&mut self, association: AssociationId, name: Box<str>, proof: Proof) {
        let known = Association {
            name,
            proof,
            registration: None,
        };
        self.associations.insert(association, known);
    }
}

/// Requests that wait until it is known whose a certificate is.
const MAX_UNSETTLED: usize = 2;

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(association, _) => f.debug_tuple("Key").field(association).finish(),
            Self::Close(association) => f.debug_tuple("Close").field(association).finish(),
        }
    }
}
