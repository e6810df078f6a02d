//! CoAP over DTLS: what lies between the socket and the server of sessions.
//!
//! Datagrams go through DTLS both ways, its questions for keys go to the server, and so does who has shown one.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use headgate_dtls::{
    Certificate, DtlsError, Event, HandshakeFailure, Identity, Output, Server, ServerConfig,
    SessionId,
};
use tokio::net::UdpSocket;

use super::{
    listener::{Listener, Wire},
    store::SessionStore,
};
use crate::{
    config::{CoapConfig, CoapsConfig},
    session::{AssociationId, CoapServer, Peer, Secured, Shown},
    shutdown::Shutdown,
    telemetry::metrics::Metrics,
};

/// How often the gauges are set.
const TICK: Duration = Duration::from_secs(1);

/// Why there can be no DTLS.
#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    /// The certificate or its key cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// DTLS refuses what it is given.
    #[error("coaps: {0}")]
    Dtls(#[from] DtlsError),
}

/// The listener's own half: DTLS without peers.
#[derive(Debug)]
pub struct Secure {
    dtls: Server,
}

impl Secure {
    /// DTLS as the configuration says.
    ///
    /// # Errors
    /// [`SecureError`].
    pub fn open(config: &CoapsConfig, now: Instant) -> Result<Self, SecureError> {
        let read = |path: &std::path::Path| {
            std::fs::read(path).map_err(|source| SecureError::Read {
                path: path.to_owned(),
                source,
            })
        };
        let certificate = match (&config.certificate, &config.key) {
            (Some(chain), Some(key)) => {
                let (chain, key) = (read(chain)?, zeroize::Zeroizing::new(read(key)?));
                Some(Certificate::from_pem(&chain, &key))
            }
            _ => None,
        };
        let settings = ServerConfig {
            certificate,
            allows_legacy_suites: config.legacy_suites,
            handshake_timeout: config.handshake_timeout,
            max_handshake_duration: config.max_handshake_duration,
            max_handshakes: config.max_handshakes,
            max_handshakes_per_second: config.max_handshakes_per_second,
            max_sessions: config.max_sessions,
            max_bytes: config.max_session_bytes,
            freeze_after: config.freeze_after,
            session_lifetime: config.session_lifetime,
            mtu: config.mtu,
            ..ServerConfig::default()
        };
        let dtls = Server::new(settings, now)?;
        Ok(Self { dtls })
    }

    /// As the node with this number: the first two bytes of every Connection ID, 0 for a gateway alone.
    #[must_use]
    pub fn of_node(mut self, number: u16) -> Self {
        self.dtls.set_node(number);
        self
    }

    /// Serves devices until the node drains.
    pub async fn serve(
        self,
        socket: UdpSocket,
        server: CoapServer,
        config: &CoapConfig,
        store: SessionStore,
        metrics: Metrics,
        shutdown: Shutdown,
    ) {
        let now = Instant::now();
        let wire = Dtls {
            dtls: self.dtls,
            metrics: metrics.clone(),
            counted: [0; EVENTS],
            ticked_at: now,
        };
        let own = metrics.coap.secure.clone();
        let mut listener = Listener::new(socket, server, wire, config, metrics, own);
        listener.wire.resume(&mut listener.server, now, &store);
        listener.run(&shutdown).await;
        listener.wire.keep(&listener.server, Instant::now(), &store);
        // Those whose sessions could not be kept are told that these end.
        listener.flush().await;
        listener.wire.metrics.coap.dtls.set(0, 0, 0, 0);
        listener.server.end();
    }
}

/// DTLS between the socket and the server.
struct Dtls {
    dtls: Server,
    metrics: Metrics,
    /// What was counted of DTLS.
    counted: [u64; EVENTS],
    ticked_at: Instant,
}

impl Wire for Dtls {
    type Datagram = Vec<u8>;

    fn is_known(&self, _server: &CoapServer, from: SocketAddr, datagram: &[u8]) -> bool {
        self.dtls.is_known(from, datagram)
    }

    fn handle_datagram(
        &mut self,
        _server: &mut CoapServer,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        self.dtls.handle_datagram(now, from, datagram);
    }

    fn poll_transmit(
        &mut self,
        server: &mut CoapServer,
        now: Instant,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        loop {
            match self.dtls.poll_output() {
                Some(Output::Transmit { peer, datagram }) => return Some((peer, datagram)),
                Some(Output::Event(event)) => self.on_event(server, now, event),
                None if self.obey(server, now) => {}
                None => return None,
            }
        }
    }

    fn timeout(&self) -> Option<Instant> {
        let tick = self.ticked_at + TICK;
        Some(self.dtls.timeout().map_or(tick, |due| due.min(tick)))
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.dtls.handle_timeout(now);
        if now.saturating_duration_since(self.ticked_at) >= TICK {
            self.ticked_at = now;
            self.count();
        }
    }
}

impl Dtls {
    /// Does the next thing that the server says; `false`: it says nothing.
    fn obey(&mut self, server: &mut CoapServer, now: Instant) -> bool {
        if let Some((peer, message)) = server.poll_transmit() {
            if let Peer::Association(association) = peer {
                let session = SessionId::from_value(association.0);
                if let Err(error) = self.dtls.send(now, session, &message) {
                    // As good as lost on the way.
                    tracing::debug!(%error, "a message could not be sent by DTLS");
                }
            }
            return true;
        }
        match server.poll_secured() {
            Some(Secured::Key(association, key)) => {
                let session = SessionId::from_value(association.0);
                let key = key.as_ref().map(|key| &key[..]);
                self.dtls.provide_key(now, session, key);
            }
            Some(Secured::Close(association)) => {
                self.dtls.close(now, SessionId::from_value(association.0));
            }
            None => return false,
        }
        true
    }

    fn on_event(&self, server: &mut CoapServer, now: Instant, event: Event) {
        match event {
            Event::Data {
                session,
                data,
                peer,
            } => {
                let association = Peer::Association(id(session));
                server.handle_datagram(now, association, peer, &data);
            }
            Event::KeyWanted {
                session,
                identity,
                peer,
            } => server.want_key(now, id(session), &identity, peer),
            Event::Connected {
                session,
                identity,
                certificate,
                peer,
                ..
            } => {
                let shown = match identity {
                    Identity::Psk(name) => Shown::Key(name),
                    Identity::Certificate(_) => Shown::Certificate(certificate.unwrap_or_default()),
                };
                server.on_connected(now, id(session), shown, peer);
            }
            Event::Failed {
                session,
                identity,
                failure,
                peer,
            } => self.on_failed(server, now, id(session), identity.as_deref(), failure, peer),
            Event::Closed { session, .. } => server.on_association_closed(now, id(session)),
        }
    }

    fn on_failed(
        &self,
        server: &mut CoapServer,
        now: Instant,
        association: AssociationId,
        identity: Option<&[u8]>,
        failure: HandshakeFailure,
        peer: SocketAddr,
    ) {
        let attempts = &self.metrics.connect_attempts;
        let has_other_key = failure == HandshakeFailure::WrongKey;
        match failure {
            HandshakeFailure::WrongKey => {}
            HandshakeFailure::Timeout | HandshakeFailure::Abandoned => attempts.timeout_coaps.inc(),
            _ => attempts.failed_coaps.inc(),
        }
        server.on_handshake_failed(now, association, identity, has_other_key, peer);
    }

    /// Takes over the sessions of before a clean restart.
    fn resume(&mut self, server: &mut CoapServer, now: Instant, store: &SessionStore) {
        let (mut resumed, mut lost) = (0_u64, 0_u64);
        store.take(|tag, bytes| match self.dtls.import(now, bytes) {
            Ok((session, Identity::Psk(name))) => {
                resumed += 1;
                server.resume(id(session), &name, tag);
            }
            Ok((session, Identity::Certificate(_))) => self.dtls.close(now, session),
            Err(_) => lost += 1,
        });
        if resumed + lost > 0 {
            tracing::info!(resumed, lost, "sessions of DTLS from before the restart");
        }
    }

    /// Ends: sessions that can be are kept for the next start, the peers of others are to be told.
    fn keep(&mut self, server: &CoapServer, now: Instant, store: &SessionStore) {
        let mut kept = store.writer();
        self.dtls.export(now, |session, bytes| {
            if let Some(tag) = server.resumable(id(session)) {
                kept.add(tag, bytes);
            }
        });
        if let Err(error) = kept.write() {
            tracing::warn!(%error, "sessions of DTLS could not be kept: devices make new ones");
        }
    }

    fn count(&mut self) {
        let metrics = &self.metrics.coap.dtls;
        let depths = self.dtls.depths();
        metrics.set(depths.handshakes, depths.live, depths.frozen, depths.bytes);
        let counters = self.dtls.counters();
        let now = [
            counters.cookies,
            counters.handshakes,
            counters.limited,
            counters.unknown,
            counters.rejected,
            counters.moved,
            counters.frozen,
            counters.thawed,
            counters.evicted,
        ];
        let before = std::mem::replace(&mut self.counted, now);
        for ((counter, before), now) in metrics.events.iter().zip(before).zip(now) {
            counter.inc_by(now - before);
        }
    }
}

/// What DTLS counts.
const EVENTS: usize = 9;

fn id(session: SessionId) -> AssociationId {
    AssociationId(session.value())
}
