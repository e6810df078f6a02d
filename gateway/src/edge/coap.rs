//! CoAP over UDP, plain or within DTLS: one socket and one task for all devices of a listener, no rules.
//!
//! Datagrams go to the server of sessions and what it answers goes out; [`listener`] is what both kinds have in common.

mod listener;
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

use std::{io, net::SocketAddr, time::Instant};

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use self::listener::{Listener, Wire};
use crate::{
    config::CoapConfig,
    session::{CoapServer, Peer},
    shutdown::Shutdown,
    telemetry::metrics::Metrics,
};

/// What the kernel keeps while this task is busy; as much of it as the system allows.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

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

/// Serves devices on a plain socket until the node drains.
pub async fn serve(
    socket: UdpSocket,
    server: CoapServer,
    config: &CoapConfig,
    metrics: Metrics,
    shutdown: Shutdown,
) {
    let own = metrics.coap.plain.clone();
    let mut listener = Listener::new(socket, server, Plain, config, metrics, own);
    listener.run(&shutdown).await;
    listener.server.end();
}

/// Nothing between the socket and the server.
struct Plain;

impl Wire for Plain {
    type Datagram = Bytes;

    fn is_known(&self, server: &CoapServer, from: SocketAddr, _datagram: &[u8]) -> bool {
        server.is_known(from)
    }

    fn handle_datagram(
        &mut self,
        server: &mut CoapServer,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        server.handle_datagram(now, Peer::Address(from), from, datagram);
    }

    fn poll_transmit(
        &mut self,
        server: &mut CoapServer,
        _now: Instant,
    ) -> Option<(SocketAddr, Bytes)> {
        while let Some((peer, datagram)) = server.poll_transmit() {
            if let Peer::Address(peer) = peer {
                return Some((peer, datagram));
            }
        }
        None
    }

    fn timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, _now: Instant) {}
}
