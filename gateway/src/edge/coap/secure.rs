//! CoAP over DTLS: one socket and one task for all devices, no rules.
//!
//! DTLS stands between the socket and the server of sessions: datagrams go through it both ways, its questions for keys
//! go to the server, and so does who has shown one. Strangers are counted by network before anything of theirs is
//! looked at.

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
    DATAGRAM_BYTES, DATAGRAMS_PER_TURN, DRAIN_TIME, FAR, Networks, is_unicast, store::SessionStore,
};
use crate::{
    config::{CoapConfig, CoapsConfig},
    session::{AssociationId, Change, CoapServer, Peer, Secured, Shown},
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
        let mut listener = Listener {
            socket,
            dtls: self.dtls,
            server,
            networks: Networks::new(config.stranger_rate, config.max_networks, now),
            metrics,
            counted: [0; EVENTS],
            ticked_at: now,
            datagram: vec![0; DATAGRAM_BYTES].into_boxed_slice(),
        };
        listener.resume(now, &store);
        loop {
            listener.flush().await;
            match listener.wait(&shutdown).await {
                Wakeup::Drain => break,
                Wakeup::Datagram(received) => listener.receive(received),
                Wakeup::Change(change) => listener.server.act(Instant::now(), change),
                Wakeup::Time => listener.on_time(Instant::now()),
            }
        }
        listener.drain().await;
        listener.end(&store).await;
    }
}

struct Listener {
    socket: UdpSocket,
    dtls: Server,
    server: CoapServer,
    networks: Networks,
    metrics: Metrics,
    /// What was counted of DTLS.
    counted: [u64; EVENTS],
    ticked_at: Instant,
    datagram: Box<[u8]>,
}

/// What woke the loop.
enum Wakeup {
    Drain,
    Datagram(io::Result<(usize, SocketAddr)>),
    Change(Change),
    Time,
}

impl Listener {
    async fn wait(&mut self, shutdown: &Shutdown) -> Wakeup {
        let due = [
            self.server.timeout(),
            self.dtls.timeout(),
            Some(self.ticked_at + TICK),
        ];
        let due = due.into_iter().flatten().min();
        let due = due.unwrap_or_else(|| Instant::now() + FAR);
        // In no order: neither a flood of datagrams nor one of work may keep the others from their turn.
        tokio::select! {
            () = shutdown.draining() => Wakeup::Drain,
            received = self.socket.recv_from(&mut self.datagram) => Wakeup::Datagram(received),
            change = self.server.changed() => Wakeup::Change(change),
            () = tokio::time::sleep_until(due.into()) => Wakeup::Time,
        }
    }

    fn on_time(&mut self, now: Instant) {
        self.server.handle_timeout(now);
        self.dtls.handle_timeout(now);
        if now.saturating_duration_since(self.ticked_at) >= TICK {
            self.ticked_at = now;
            self.count();
        }
    }

    /// Takes a datagram and those that came with it.
    fn receive(&mut self, first: io::Result<(usize, SocketAddr)>) {
        let now = Instant::now();
        let mut received = first;
        for _ in 0..DATAGRAMS_PER_TURN {
            match received {
                Ok((bytes, peer)) => self.take(now, bytes, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error about an earlier datagram of ours: that device is not there.
                Err(error) => tracing::debug!(%error, "the CoAPS socket reported an error"),
            }
            received = self.socket.try_recv_from(&mut self.datagram);
        }
    }

    fn take(&mut self, now: Instant, bytes: usize, from: SocketAddr) {
        if !is_unicast(from) {
            return;
        }
        let datagram = self.datagram.get(..bytes).unwrap_or_default();
        let is_known = self.dtls.is_known(from, datagram);
        if !is_known && !self.networks.admit(from.ip(), now) {
            return self.metrics.coap.limited.inc();
        }
        self.metrics.bytes.in_coap.inc_by(bytes as u64);
        self.dtls.handle_datagram(now, from, datagram);
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Data {
                session,
                data,
                peer,
            } => {
                let association = Peer::Association(id(session));
                self.server.handle_datagram(now, association, peer, &data);
            }
            Event::KeyWanted {
                session,
                identity,
                peer,
            } => self.server.want_key(now, id(session), &identity, peer),
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
                self.server.on_connected(now, id(session), shown, peer);
            }
            Event::Failed {
                session,
                identity,
                failure,
                peer,
            } => self.on_failed(now, id(session), identity.as_deref(), failure, peer),
            Event::Closed { session, .. } => self.server.on_association_closed(now, id(session)),
        }
    }

    fn on_failed(
        &mut self,
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
        self.server
            .on_handshake_failed(now, association, identity, has_other_key, peer);
    }

    /// Does what is to be done, until there is nothing more.
    async fn flush(&mut self) {
        loop {
            let now = Instant::now();
            let mut is_idle = true;
            while let Some((peer, message)) = self.server.poll_transmit() {
                is_idle = false;
                let Peer::Association(association) = peer else {
                    continue;
                };
                let session = SessionId::from_value(association.0);
                if let Err(error) = self.dtls.send(now, session, &message) {
                    // As good as lost on the way.
                    tracing::debug!(%error, "a message could not be sent by DTLS");
                }
            }
            while let Some(secured) = self.server.poll_secured() {
                is_idle = false;
                match secured {
                    Secured::Key(association, key) => {
                        let session = SessionId::from_value(association.0);
                        let key = key.as_ref().map(|key| &key[..]);
                        self.dtls.provide_key(now, session, key);
                    }
                    Secured::Close(association) => {
                        self.dtls.close(now, SessionId::from_value(association.0));
                    }
                }
            }
            while let Some(output) = self.dtls.poll_output() {
                is_idle = false;
                match output {
                    Output::Transmit { peer, datagram } => {
                        transmit(&self.socket, &self.metrics, peer, &datagram).await;
                    }
                    Output::Event(event) => self.on_event(now, event),
                }
            }
            if is_idle {
                return;
            }
        }
    }

    /// Tells those that ask in this moment to come again, and lets what is under way end.
    async fn drain(&mut self) {
        self.server.drain();
        let end = Instant::now() + DRAIN_TIME;
        loop {
            self.flush().await;
            tokio::select! {
                received = self.socket.recv_from(&mut self.datagram) => self.receive(received),
                change = self.server.changed() => self.server.act(Instant::now(), change),
                () = tokio::time::sleep_until(end.into()) => return,
            }
        }
    }

    /// Takes over the sessions of before a clean restart.
    fn resume(&mut self, now: Instant, store: &SessionStore) {
        let (mut resumed, mut lost) = (0_u64, 0_u64);
        store.take(|tag, bytes| match self.dtls.import(now, bytes) {
            Ok((session, Identity::Psk(name))) => {
                resumed += 1;
                self.server.resume(id(session), &name, tag);
            }
            Ok((session, Identity::Certificate(_))) => self.dtls.close(now, session),
            Err(_) => lost += 1,
        });
        if resumed + lost > 0 {
            tracing::info!(resumed, lost, "sessions of DTLS from before the restart");
        }
    }

    /// Ends: sessions that can be are kept for the next start, the peers of others are told.
    async fn end(mut self, store: &SessionStore) {
        let now = Instant::now();
        let mut kept = store.writer();
        let server = &self.server;
        self.dtls.export(now, |session, bytes| {
            if let Some(tag) = server.resumable(id(session)) {
                kept.add(tag, bytes);
            }
        });
        if let Err(error) = kept.write() {
            tracing::warn!(%error, "sessions of DTLS could not be kept: devices make new ones");
        }
        while let Some(output) = self.dtls.poll_output() {
            if let Output::Transmit { peer, datagram } = output {
                transmit(&self.socket, &self.metrics, peer, &datagram).await;
            }
        }
        self.server.end();
        self.metrics.coap.dtls.set(0, 0, 0, 0);
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

async fn transmit(socket: &UdpSocket, metrics: &Metrics, peer: SocketAddr, datagram: &[u8]) {
    metrics.bytes.out_coap.inc_by(datagram.len() as u64);
    let sent = match socket.try_send_to(datagram, peer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            socket.send_to(datagram, peer).await
        }
        sent => sent,
    };
    if let Err(error) = sent {
        // As good as lost on the way.
        tracing::debug!(%error, "a datagram could not be sent");
    }
}

/// What DTLS counts.
const EVENTS: usize = 9;

fn id(session: SessionId) -> AssociationId {
    AssociationId(session.value())
}
