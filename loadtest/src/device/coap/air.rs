//! A device's datagrams on their way: some are lost, doubled or overtaken, and the source port changes.
//!
//! Owns the device's socket. What happens to a datagram is drawn from the run's seed, for each device by itself, so that
//! a run can be repeated. A socket at rest owns no buffer: datagrams are read on the stack.
//! Invariants: nothing is made up or changed; what is late comes before anything is due after it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use crate::rng::Rng;
use crate::swarm::Swarm;
use crate::target::source_address;

/// What the network does to datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Share that is lost.
    pub(crate) loss: f64,
    /// Share that arrives twice.
    pub(crate) duplicate: f64,
    /// Share that is late.
    pub(crate) reorder: f64,
    /// Datagrams from one source port; 0: all.
    pub(crate) rebind: u32,
    /// How much later a device's datagrams leave.
    pub(crate) delay: Duration,
}

/// Which way a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To the gateway.
    Up,
    /// To the device.
    Down,
}

/// The network between one device and the gateway.
pub(super) struct Air {
    swarm: Arc<Swarm>,
    weather: Weather,
    source: Option<IpAddr>,
    socket: UdpSocket,
    rng: Rng,
    /// Datagrams from this port.
    sent: u32,
    /// On their way, by when they arrive.
    late: BTreeMap<(Instant, u64), (Way, Bytes)>,
    serial: u64,
}

impl Air {
    /// Opens the socket of device `index`; `attempt` makes its luck another one each time.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(swarm: Arc<Swarm>, index: u32, attempt: u32) -> io::Result<Self> {
        let weather = swarm.coap.as_ref().map(|plan| plan.weather);
        let address = swarm.dial.address;
        let source = source_address(address, index, swarm.salt);
        let stream = AIR_STREAM + (u64::from(index) << 16) + u64::from(attempt);
        Ok(Self {
            weather: weather.unwrap_or_default(),
            socket: bind(source, address)?,
            source,
            rng: Rng::new(swarm.seed, stream),
            sent: 0,
            late: BTreeMap::new(),
            serial: 0,
            swarm,
        })
    }

    /// Sends a datagram, if it is to arrive.
    ///
    /// # Errors
    /// There is no other port to send from.
    pub(super) fn send(&mut self, datagram: &Bytes) -> io::Result<()> {
        let counts = &self.swarm.stats.datagrams;
        counts.sent.add(1);
        for _ in 0..self.copies() {
            let delay = self.delay() + self.weather.delay;
            if delay.is_zero() {
                self.emit(datagram)?;
            } else {
                self.hold(Way::Up, datagram.clone(), delay);
            }
        }
        Ok(())
    }

    /// The next datagram for the device; `None` when `until` has come.
    ///
    /// # Errors
    /// As [`Air::send`].
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn receive(&mut self, until: Instant) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(datagram) = self.arrive(Instant::now())? {
                return Ok(Some(datagram));
            }
            let late = self.late.first_key_value().map(|((at, _), _)| *at);
            let wake = late.map_or(until, |at| at.min(until));
            tokio::select! {
                biased;
                ready = self.socket.readable() => ready?,
                () = sleep_until(wake) => {
                    if wake >= until {
                        return Ok(None);
                    }
                    continue;
                }
            }
            if let Some(datagram) = self.take() {
                return Ok(Some(datagram));
            }
        }
    }

    /// Drops what came while the device slept.
    pub(super) fn deafen(&mut self) {
        self.late.retain(|_, (way, _)| *way == Way::Up);
        let mut buffer = [0; 1];
        while !matches!(self.socket.try_recv(&mut buffer), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        {
            self.swarm.stats.datagrams.slept_through.add(1);
        }
    }

    /// Sends what is due; the first of those for the device.
    fn arrive(&mut self, now: Instant) -> io::Result<Option<Bytes>> {
        while let Some(entry) = self.late.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                (Way::Up, datagram) => self.emit(&datagram)?,
                (Way::Down, datagram) => return Ok(Some(datagram)),
            }
        }
        Ok(None)
    }

    /// Reads the socket; `None` where nothing of it arrives, or not yet.
    fn take(&mut self) -> Option<Bytes> {
        let mut buffer = [0; DATAGRAM_BYTES];
        // An ICMP error is about a datagram of ours that did not arrive: as good as lost.
        let len = self.socket.try_recv(&mut buffer).ok()?;
        let datagram = Bytes::copy_from_slice(buffer.get(..len)?);
        let mut first = None;
        for _ in 0..self.copies() {
            let delay = self.delay();
            if delay.is_zero() && first.is_none() {
                first = Some(datagram.clone());
            } else {
                self.hold(Way::Down, datagram.clone(), delay);
            }
        }
        first
    }

    /// How often a datagram arrives.
    fn copies(&mut self) -> u32 {
        let counts = &self.swarm.stats.datagrams;
        if self.rng.chance(self.weather.loss) {
            counts.lost.add(1);
            return 0;
        }
        if self.rng.chance(self.weather.duplicate) {
            counts.duplicated.add(1);
            return 2;
        }
        1
    }

    /// How late a datagram is.
    fn delay(&mut self) -> Duration {
        if !self.rng.chance(self.weather.reorder) {
            return Duration::ZERO;
        }
        self.swarm.stats.datagrams.reordered.add(1);
        Duration::from_millis(1 + self.rng.below(MAX_LATE_MILLIS))
    }

    fn hold(&mut self, way: Way, datagram: Bytes, delay: Duration) {
        self.serial += 1;
        let at = (Instant::now() + delay, self.serial);
        self.late.insert(at, (way, datagram));
        if self.late.len() > MAX_LATE {
            self.late.pop_last();
        }
    }

    fn emit(&mut self, datagram: &[u8]) -> io::Result<()> {
        if self.weather.rebind > 0 && self.sent >= self.weather.rebind {
            self.socket = bind(self.source, self.swarm.dial.address)?;
            self.sent = 0;
            self.swarm.stats.datagrams.rebinds.add(1);
        }
        self.sent += 1;
        // Not the runtime's own: to that, a socket just made cannot be written to. What the system does not take now, or
        // an ICMP error about an earlier datagram: as good as lost.
        let _lost = SockRef::from(&self.socket).send(datagram);
        Ok(())
    }
}

/// A socket that hears the gateway alone.
fn bind(source: Option<IpAddr>, gateway: SocketAddr) -> io::Result<UdpSocket> {
    let any = match gateway {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = std::net::UdpSocket::bind((source.unwrap_or(any), 0))?;
    socket.connect(gateway)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// More than any datagram of a gateway.
const DATAGRAM_BYTES: usize = 2_048;
/// The latest that a datagram is overtaken.
const MAX_LATE_MILLIS: u64 = 200;
/// Datagrams of one device that are on their way.
const MAX_LATE: usize = 64;
/// Keeps this luck apart from the other uses of the seed.
const AIR_STREAM: u64 = 1 << 48;
