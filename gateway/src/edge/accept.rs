//! Accepting device connections: bounded in rate, in number, in handshakes and in time.
//!
//! What is checked here costs a stranger's connection a few microseconds: the bounds of its network
//! and of the node, before a byte is read. Where a load balancer passes connections on, the client's
//! own address is looked at once its header has been read ([`HandshakePermit::admit`]).
//! Invariants: a place is given back when what holds it is dropped; at the node's own limits nothing
//! is accepted and the kernel holds what comes, so nobody is turned away for what others do.

mod rate;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use self::rate::AcceptRate;
use crate::{
    config::{MqttConfig, Network},
    service::auth::DeviceAuthenticator,
    telemetry::metrics::Metrics,
};

/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A network that holds more than half of all places for handshakes has this part of the time.
const HURRY: u32 = 5;

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
    // Small answers must not wait for more to send; Linux hands it on to each connection, which saves a call there.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// The bounds that device listeners share.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Bounds>);

#[derive(Debug)]
struct Bounds {
    open: AtomicUsize,
    max_connections: AtomicUsize,
    handshakes: Arc<Semaphore>,
    max_handshakes: usize,
    max_per_network: AtomicUsize,
    handshake_timeout: Duration,
    rate: AcceptRate,
    /// Handshakes under way, by network; one that has none does not stand here, so there are never
    /// more than handshakes.
    networks: Mutex<HashMap<IpAddr, usize>>,
    authenticator: DeviceAuthenticator,
    metrics: Metrics,
}

/// A connection that there is a place for.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub tcp: TcpStream,
    /// Who connected: the client, or the load balancer that will say who the client is.
    pub address: SocketAddr,
    /// Whether it is a load balancer.
    pub is_proxy: bool,
    /// Its place among the connections.
    pub connection: ConnectionPermit,
    /// Its place among the handshakes.
    pub handshake: HandshakePermit,
}

/// A place among the open connections; given back when dropped.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<Bounds>);

impl ConnectionPermit {
    /// A place, where there is one.
    fn take(bounds: &Arc<Bounds>) -> Option<Self> {
        let max = bounds.max_connections.load(Relaxed);
        let one_more = |open: usize| (open < max).then_some(open + 1);
        let taken = bounds.open.fetch_update(Relaxed, Relaxed, one_more);
        taken.is_ok().then(|| Self(Arc::clone(bounds)))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// A place among the handshakes under way, and in its network's; given back when dropped.
#[derive(Debug)]
pub struct HandshakePermit {
    _permit: OwnedSemaphorePermit,
    bounds: Arc<Bounds>,
    network: Option<IpAddr>,
    is_hurried: bool,
}

impl HandshakePermit {
    /// Whether a client from here may go on; what speaks against it has been counted.
    pub fn admit(&mut self, address: IpAddr) -> bool {
        let bounds = &self.bounds;
        let attempts = &bounds.metrics.connect_attempts;
        let throttle = bounds.authenticator.throttle();
        if !throttle.admits_connection(address, Instant::now()) {
            attempts.throttled.inc();
            return false;
        }
        let network = network(address);
        let mut networks = bounds.networks.lock();
        let under_way = networks.entry(network).or_default();
        if *under_way >= bounds.max_per_network.load(Relaxed) {
            attempts.crowded.inc();
            return false;
        }
        *under_way += 1;
        self.is_hurried = *under_way > bounds.max_handshakes.div_ceil(2);
        self.network = Some(network);
        true
    }

    /// Time for TLS and CONNECT together. A network that holds most of the places gives them back
    /// sooner: it must not keep all others out by doing nothing.
    pub fn timeout(&self) -> Duration {
        if self.is_hurried {
            self.bounds.handshake_timeout / HURRY
        } else {
            self.bounds.handshake_timeout
        }
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.bounds.metrics.handshakes_in_flight.dec();
        let Some(network) = self.network else {
            return;
        };
        let mut networks = self.bounds.networks.lock();
        if let Some(under_way) = networks.get_mut(&network) {
            *under_way -= 1;
            if *under_way == 0 {
                networks.remove(&network);
            }
        }
    }
}

impl Gate {
    /// A gate with the bounds of the configuration; `authenticator` knows which networks have to wait.
    pub fn new(config: &MqttConfig, authenticator: DeviceAuthenticator, metrics: Metrics) -> Self {
        Self(Arc::new(Bounds {
            open: AtomicUsize::new(0),
            max_connections: AtomicUsize::new(config.max_connections),
            handshakes: Arc::new(Semaphore::new(config.max_handshakes)),
            max_handshakes: config.max_handshakes,
            max_per_network: AtomicUsize::new(config.max_handshakes_per_network),
            handshake_timeout: config.handshake_timeout,
            rate: AcceptRate::new(config.max_accept_rate),
            networks: Mutex::default(),
            authenticator,
            metrics,
        }))
    }

    /// Takes over `max_connections`, `max_handshakes_per_network` and `max_accept_rate`. Connections that are open stay,
    /// also where there are more of them than may be now.
    pub fn set_bounds(&self, config: &MqttConfig) {
        let bounds = &self.0;
        bounds
            .max_connections
            .store(config.max_connections, Relaxed);
        let per_network = config.max_handshakes_per_network;
        bounds.max_per_network.store(per_network, Relaxed);
        bounds.rate.set(config.max_accept_rate);
    }

    /// The next connection that there is a place for.
    ///
    /// While as many handshakes as may be are under way, or as many connections came in this moment as
    /// may, nothing is accepted: the kernel's backlog holds what comes, which costs this process
    /// nothing. One connection more than may be is closed at once, and so is one from a network that
    /// has to wait. What `proxies` pass on is looked at later.
    ///
    /// # Cancel safety
    /// Safe: nothing that was accepted is lost.
    pub async fn accept(&self, listener: &TcpListener, proxies: &[Network]) -> Accepted {
        let bounds = &self.0;
        loop {
            // The semaphores are never closed.
            let Ok(permit) = Arc::clone(&bounds.handshakes).acquire_owned().await else {
                std::future::pending::<()>().await;
                continue;
            };
            if bounds.rate.wait().await {
                bounds.metrics.connect_attempts.delayed.inc();
            }
            let (tcp, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept; raise the limit of open files if this goes on");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            bounds.rate.count();
            let is_proxy = proxies.iter().any(|known| known.contains(address.ip()));
            let mut handshake = self.handshake(permit);
            if !is_proxy && !handshake.admit(address.ip()) {
                continue;
            }
            let Some(connection) = ConnectionPermit::take(bounds) else {
                bounds.metrics.connect_attempts.over_limit.inc();
                continue;
            };
            return Accepted {
                tcp,
                address,
                is_proxy,
                connection,
                handshake,
            };
        }
    }

    fn handshake(&self, permit: OwnedSemaphorePermit) -> HandshakePermit {
        self.0.metrics.handshakes_in_flight.inc();
        HandshakePermit {
            _permit: permit,
            bounds: Arc::clone(&self.0),
            network: None,
            is_hurried: false,
        }
    }
}

/// The network of an address: an IPv4 /24 or an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_answers_leave_an_accepted_connection_at_once() {
        let listener = bind("127.0.0.1:0".parse().expect("an address"), 8).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (_client, accepted) =
            tokio::try_join!(TcpStream::connect(address), listener.accept()).expect("a connection");
        assert!(accepted.0.nodelay().expect("an option"));
    }

    #[test]
    fn a_network_is_what_one_customer_gets() {
        for (address, expected) in [
            ("203.0.113.9", "203.0.113.0"),
            ("::ffff:203.0.113.9", "203.0.113.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(network(address).to_string(), expected);
        }
    }
}
