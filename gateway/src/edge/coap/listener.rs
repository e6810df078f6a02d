//! What both listeners are: a socket, the server of sessions, and whatever lies between them.
//!
//! One task serves all devices. It takes datagrams, a batch at a time, hands them through the [`Wire`] to the server, and
//! sends what comes back. Strangers are counted by network before anything of theirs is looked at.
//! Invariants: what cannot be answered is dropped; whatever floods, the time, the server's own work and the end of the
//! node get their turn.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, time::sleep};

use super::networks::Networks;
use crate::{
    config::CoapConfig,
    session::CoapServer,
    shutdown::Shutdown,
    telemetry::metrics::{CoapListener, Metrics},
};

/// Datagrams that are taken before other things are looked after.
const DATAGRAMS_PER_TURN: usize = 64;
/// Larger than anything that is taken: what is cut off is no message of ours.
const DATAGRAM_BYTES: usize = 4_096;
/// How long devices are told to come again, and what is under way has to end, when the node drains. A device that asks
/// later repeats its request, which the next process answers.
const DRAIN_TIME: Duration = Duration::from_millis(500);
/// When nothing is to be done.
const FAR: Duration = Duration::from_hours(1);

/// What lies between the socket and the server of sessions: nothing, or DTLS.
pub(super) trait Wire {
    /// What is sent.
    type Datagram: AsRef<[u8]>;

    /// Whether a datagram comes from someone who is here already.
    fn is_known(&self, server: &CoapServer, from: SocketAddr, datagram: &[u8]) -> bool;

    /// Takes a datagram.
    fn handle_datagram(
        &mut self,
        server: &mut CoapServer,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    );

    /// Does what is to be done until there is something to send; `None`: there is nothing more to do.
    fn poll_transmit(
        &mut self,
        server: &mut CoapServer,
        now: Instant,
    ) -> Option<(SocketAddr, Self::Datagram)>;

    /// When [`Wire::handle_timeout`] wants to be called.
    fn timeout(&self) -> Option<Instant>;

    /// Takes note of the time.
    fn handle_timeout(&mut self, now: Instant);
}

/// A socket that is served.
pub(super) struct Listener<W> {
    socket: UdpSocket,
    pub(super) server: CoapServer,
    pub(super) wire: W,
    networks: Networks,
    metrics: Metrics,
    /// This listener's part of them.
    own: CoapListener,
    datagram: Box<[u8]>,
}

impl<W: Wire> Listener<W> {
    pub(super) fn new(
        socket: UdpSocket,
        server: CoapServer,
        wire: W,
        config: &CoapConfig,
        metrics: Metrics,
        own: CoapListener,
    ) -> Self {
        Self {
            socket,
            server,
            wire,
            networks: Networks::new(config.stranger_rate, config.max_networks, Instant::now()),
            metrics,
            own,
            datagram: vec![0; DATAGRAM_BYTES].into_boxed_slice(),
        }
    }

    /// Serves devices until the node drains; those that ask then are told to come again.
    pub(super) async fn run(&mut self, shutdown: &Shutdown) {
        self.serve_until(shutdown.draining()).await;
        self.server.drain();
        if !self.server.is_idle() {
            self.serve_until(sleep(DRAIN_TIME)).await;
        }
    }

    /// Sends everything that waits.
    pub(super) async fn flush(&mut self) {
        let now = Instant::now();
        while let Some((peer, datagram)) = self.wire.poll_transmit(&mut self.server, now) {
            let datagram = datagram.as_ref();
            self.own.sent_bytes.inc_by(datagram.len() as u64);
            let sent = match self.socket.try_send_to(datagram, peer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.send_to(datagram, peer).await
                }
                sent => sent,
            };
            if let Err(error) = sent {
                // As good as lost on the way.
                tracing::debug!(%error, "a datagram could not be sent");
            }
        }
    }

    async fn serve_until(&mut self, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        // Most turns leave it as it is: setting it costs more than looking.
        let mut alarm = pin!(sleep(FAR));
        loop {
            self.flush().await;
            let due = self.due().into();
            if alarm.deadline() != due {
                alarm.as_mut().reset(due);
            }
            // In no order: neither a flood of datagrams nor one of work may keep the others from their turn.
            tokio::select! {
                () = &mut end => return,
                received = self.socket.recv_from(&mut self.datagram) => self.receive(received),
                change = self.server.changed() => self.server.act(Instant::now(), change),
                () = &mut alarm => self.handle_timeout(Instant::now()),
            }
        }
    }

    fn due(&self) -> Instant {
        let due = [self.server.timeout(), self.wire.timeout()];
        let due = due.into_iter().flatten().min();
        due.unwrap_or_else(|| Instant::now() + FAR)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.server.handle_timeout(now);
        self.wire.handle_timeout(now);
        let networks = i64::try_from(self.networks.len()).unwrap_or(i64::MAX);
        self.own.networks.set(networks);
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
                Err(error) => tracing::debug!(%error, "a socket of CoAP reported an error"),
            }
            received = self.socket.try_recv_from(&mut self.datagram);
        }
    }

    fn take(&mut self, now: Instant, bytes: usize, from: SocketAddr) {
        if !is_unicast(from) {
            return;
        }
        let datagram = self.datagram.get(..bytes).unwrap_or_default();
        let is_known = self.wire.is_known(&self.server, from, datagram);
        if !is_known && !self.networks.admit(from.ip(), now) {
            return self.metrics.coap.limited.inc();
        }
        self.own.received_bytes.inc_by(bytes as u64);
        self.wire
            .handle_datagram(&mut self.server, now, from, datagram);
    }
}

/// Whether an answer can go to this address. Multicast and broadcast are no way to reach a gateway.
fn is_unicast(peer: SocketAddr) -> bool {
    let is_one = match peer.ip().to_canonical() {
        IpAddr::V4(address) => {
            !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified()
        }
        IpAddr::V6(address) => !address.is_multicast() && !address.is_unspecified(),
    };
    is_one && peer.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_answered_are_told_apart() {
        for (address, is_one) in [
            ("192.0.2.1:5683", true),
            ("[2001:db8::1]:1", true),
            ("224.0.1.187:5683", false),
            ("255.255.255.255:5683", false),
            ("0.0.0.0:5683", false),
            ("[ff02::fd]:5683", false),
            ("[::ffff:224.0.1.187]:5683", false),
            ("192.0.2.1:0", false),
        ] {
            assert_eq!(is_unicast(address.parse().unwrap()), is_one, "{address}");
        }
    }
}
