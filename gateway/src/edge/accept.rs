//! Accepting device connections: bounded in number, in handshakes and in time.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{service::auth::DeviceAuthenticator, telemetry::metrics::Metrics};

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener with a backlog of the operator's choice.
///
/// # Errors
/// The address is taken, or may not be used.
pub fn bind(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// The bounds that device listeners share.
#[derive(Debug, Clone)]
pub struct Gate {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    authenticator: DeviceAuthenticator,
    metrics: Metrics,
}

/// A place among the open connections; given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit(
    #[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit,
);

/// A place among the handshakes under way; given back when dropped.
#[derive(Debug)]
pub struct HandshakePermit {
    _permit: OwnedSemaphorePermit,
    metrics: Metrics,
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.metrics.handshakes_in_flight.dec();
    }
}

impl Gate {
    /// A gate for so many connections, and so many handshakes at a time.
    ///
    /// `authenticator` knows which networks have to wait.
    pub fn new(
        max_connections: usize,
        max_handshakes: usize,
        authenticator: DeviceAuthenticator,
        metrics: Metrics,
    ) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(max_connections)),
            handshakes: Arc::new(Semaphore::new(max_handshakes)),
            authenticator,
            metrics,
        }
    }

    /// The next connection that there is a place for.
    ///
    /// While as many handshakes as may be are under way nothing is accepted: the kernel's backlog
    /// holds what comes, which costs this process nothing. One connection more than may be is
    /// closed at once, and so is one from a network that has to wait.
    ///
    /// # Cancel safety
    /// Safe: nothing that was accepted is lost.
    pub async fn accept(
        &self,
        listener: &TcpListener,
    ) -> (TcpStream, SocketAddr, ConnectionPermit, HandshakePermit) {
        loop {
            // The semaphores are never closed.
            let Ok(handshake) = Arc::clone(&self.handshakes).acquire_owned().await else {
                std::future::pending::<()>().await;
                continue;
            };
            let (tcp, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept; raise the limit of open files if this goes on");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if !self.may_connect(address) {
                self.metrics.connect_attempts.throttled.inc();
                continue;
            }
            let Ok(connection) = Arc::clone(&self.connections).try_acquire_owned() else {
                self.metrics.connect_attempts.over_limit.inc();
                continue;
            };
            // Small answers must not wait for more to send; a socket that refuses still works.
            let _unchanged = tcp.set_nodelay(true);
            self.metrics.handshakes_in_flight.inc();
            let handshake = HandshakePermit {
                _permit: handshake,
                metrics: self.metrics.clone(),
            };
            return (tcp, address, ConnectionPermit(connection), handshake);
        }
    }

    fn may_connect(&self, address: SocketAddr) -> bool {
        let throttle = self.authenticator.throttle();
        throttle.admits_connection(address.ip(), Instant::now())
    }
}
