//! CoAP over plain UDP: one socket and one task for all devices, no rules.
//!
//! Datagrams go to the server of sessions and what it answers goes out. Strangers are counted by network before anything
//! of theirs is looked at. Multicast and broadcast are no way to reach a gateway: what came so, or claims to come from
//! such an address, is dropped.

mod networks;
#[cfg(feature = "coaps")]
mod secure;
#[cfg(feature = "coaps")]
mod store;

#[cfg(feature = "coaps")]
pub use self::{
    secure::{Secure, SecureError},
    store::SessionStore,
};

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use self::networks::Networks;
use crate::{
    config::CoapConfig,
    session::{Change, CoapServer, Peer},
    shutdown::Shutdown,
    telemetry::metrics::Metrics,
};

/// Datagrams that are taken before other things are looked after.
const DATAGRAMS_PER_TURN: usize = 64;
/// Larger than anything that is taken: what is cut off is no message of ours.
const DATAGRAM_BYTES: usize = 4_096;
/// What the kernel keeps while this task is busy; as much of it as the system allows.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// For what is under way when the node drains; a request that takes longer is repeated by its device.
const DRAIN_TIME: Duration = Duration::from_millis(500);
/// When nothing is to be done.
const FAR: Duration = Duration::from_hours(1);

/// Opens the socket.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    // A smaller buffer drops datagrams earlier, which CoAP is made for.
    let _smaller = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _smaller = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    if address.is_ipv4() {
        // Groups that other programs of this host have joined are none of ours.
        socket.set_multicast_all_v4(false)?;
    } else {
        socket.set_multicast_all_v6(false)?;
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Serves devices until the node drains; those that ask then are told to come again.
pub async fn serve(
    socket: UdpSocket,
    server: CoapServer,
    config: &CoapConfig,
    metrics: Metrics,
    shutdown: Shutdown,
) {
    let mut listener = Listener {
        socket,
        server,
        networks: Networks::new(config.stranger_rate, config.max_networks, Instant::now()),
        metrics,
        datagram: vec![0; DATAGRAM_BYTES].into_boxed_slice(),
    };
    loop {
        listener.flush().await;
        match listener.wait(&shutdown).await {
            Wakeup::Drain => break,
            Wakeup::Datagram(received) => listener.receive(received),
            Wakeup::Change(change) => listener.server.act(Instant::now(), change),
            Wakeup::Time => listener.server.handle_timeout(Instant::now()),
        }
    }
    listener.drain().await;
}

struct Listener {
    socket: UdpSocket,
    server: CoapServer,
    networks: Networks,
    metrics: Metrics,
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
        let due = self
            .server
            .timeout()
            .unwrap_or_else(|| Instant::now() + FAR);
        // In no order: neither a flood of datagrams nor one of work may keep the others from their turn.
        tokio::select! {
            () = shutdown.draining() => Wakeup::Drain,
            received = self.socket.recv_from(&mut self.datagram) => Wakeup::Datagram(received),
            change = self.server.changed() => Wakeup::Change(change),
            () = tokio::time::sleep_until(due.into()) => Wakeup::Time,
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
                Err(error) => tracing::debug!(%error, "the CoAP socket reported an error"),
            }
            received = self.socket.try_recv_from(&mut self.datagram);
        }
        let networks = i64::try_from(self.networks.len()).unwrap_or(i64::MAX);
        self.metrics.coap.networks.set(networks);
    }

    fn take(&mut self, now: Instant, bytes: usize, peer: SocketAddr) {
        if !is_unicast(peer) {
            return;
        }
        if !self.server.is_known(peer) && !self.networks.admit(peer.ip(), now) {
            return self.metrics.coap.limited.inc();
        }
        self.metrics.bytes.in_coap.inc_by(bytes as u64);
        let datagram = self.datagram.get(..bytes).unwrap_or_default();
        self.server
            .handle_datagram(now, Peer::Address(peer), peer, datagram);
    }

    /// Tells those that ask in this moment to come again, lets what is under way end, and ends.
    async fn drain(mut self) {
        self.server.drain();
        let end = Instant::now() + DRAIN_TIME;
        loop {
            self.flush().await;
            tokio::select! {
                received = self.socket.recv_from(&mut self.datagram) => self.receive(received),
                change = self.server.changed() => self.server.act(Instant::now(), change),
                () = tokio::time::sleep_until(end.into()) => break,
            }
        }
        self.server.end();
    }

    /// Sends everything that waits.
    async fn flush(&mut self) {
        while let Some((peer, datagram)) = self.server.poll_transmit() {
            let Peer::Address(peer) = peer else { continue };
            self.metrics.bytes.out_coap.inc_by(datagram.len() as u64);
            let sent = match self.socket.try_send_to(&datagram, peer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.send_to(&datagram, peer).await
                }
                sent => sent,
            };
            if let Err(error) = sent {
                // As good as lost on the way.
                tracing::debug!(%error, "a datagram could not be sent");
            }
        }
    }
}

/// Whether an answer can go to this address.
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
