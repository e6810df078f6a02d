//! The server: all peers of one socket.
//!
//! Driven by [`Server::handle_datagram`], [`Server::provide_key`], [`Server::send`] and [`Server::handle_timeout`];
//! after each of them [`Server::poll_output`] is called until it gives nothing.
//!
//! Invariants: a peer that has not answered a cookie costs no memory; the number of handshakes, of sessions and the
//! bytes of both are bounded; the address of a session changes with its newest record only; a frozen session is used
//! up by its thaw.

mod export;
mod handshakes;
mod receive;
mod rest;

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::export::ImportError;
use crate::{
    MAX_DATA_BYTES,
    certificate::{Certificate, Fingerprint},
    context::Context,
    error::{CloseReason, DtlsError, HandshakeFailure},
    heap::Heap,
    record::records,
    sessions::{ListId, Sessions, State},
    settings::{Options, Role, Settings},
    suite::Suite,
    wheel::Wheel,
};

/// What a server does, and how much of it.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Peers with certificates are let in by showing this one. `None`: only those with keys.
    pub certificate: Option<Certificate>,
    /// Whether suites with CBC and SHA-1 are spoken. Default: no.
    pub allows_legacy_suites: bool,
    /// How long a flight waits for its answer at first; doubled for each repetition. Default: 10 s, as networks of
    /// sleeping devices have round trips of many seconds.
    pub handshake_timeout: Duration,
    /// How long a handshake may take in all. Default: 60 s.
    pub max_handshake_duration: Duration,
    /// Handshakes at the same time. Default: 4,096; some 14 KiB each.
    pub max_handshakes: usize,
    /// Handshakes that are begun in a second; more are left unanswered, and their peers ask again. Default: 500.
    pub max_handshakes_per_second: u32,
    /// Sessions and handshakes. Default: 100,000; some 100 bytes each, beside what it holds.
    pub max_sessions: usize,
    /// What sessions may take in all: above it the one at rest for longest is frozen, then forgotten. Default: 1 GiB.
    pub max_bytes: usize,
    /// How long a session is at rest before it is frozen. Default: 30 s.
    pub freeze_after: Duration,
    /// How long a session is kept without any record. Default: 7 days.
    pub session_lifetime: Duration,
    /// The largest datagram that is sent, in bytes. Default: 1,232, which fits the least MTU of IPv6.
    pub mtu: u16,
    /// This node's number, the first two bytes of every Connection ID.
    pub node: u16,
    /// This endpoint's number on its node, the third byte.
    pub worker: u8,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            certificate: None,
            allows_legacy_suites: false,
            handshake_timeout: Duration::from_secs(10),
            max_handshake_duration: Duration::from_mins(1),
            max_handshakes: 4_096,
            max_handshakes_per_second: 500,
            max_sessions: 100_000,
            max_bytes: 1024 * 1024 * 1024,
            freeze_after: Duration::from_secs(30),
            session_lifetime: Duration::from_hours(7 * 24),
            mtu: 1_232,
            node: 0,
            worker: 0,
        }
    }
}

/// A handshake, and the session that it becomes. No two of one server's life are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(crate) u64);

impl SessionId {
    /// The session as a number.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The session of a number that [`SessionId::value`] gave.
    pub const fn from_value(value: u64) -> Self {
        Self(value)
    }

    pub(crate) fn slot(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or_default()
    }
}

/// Who a peer has shown to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The holder of the key of this identity.
    Psk(Box<[u8]>),
    /// The holder of the key of this certificate.
    Certificate(Fingerprint),
}

/// What a server has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this datagram.
    Transmit {
        /// To whom.
        peer: SocketAddr,
        /// What.
        datagram: Vec<u8>,
    },
    /// Something happened.
    Event(Event),
}

/// What happened to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its handshake waits for [`Server::provide_key`].
    KeyWanted {
        /// Which handshake.
        session: SessionId,
        /// What the peer says it is.
        identity: Box<[u8]>,
        /// Where it is.
        peer: SocketAddr,
    },
    /// Its handshake is over.
    Connected {
        /// Its session from now on.
        session: SessionId,
        /// Who it is.
        identity: Identity,
        /// Its certificate, DER, where it has shown one.
        certificate: Option<Box<[u8]>>,
        /// The suite that was agreed on.
        suite: Suite,
        /// Whether the session outlives a change of address.
        has_cid: bool,
        /// Where it is.
        peer: SocketAddr,
    },
    /// Its handshake came to nothing.
    Failed {
        /// Which handshake.
        session: SessionId,
        /// What the peer said it is.
        identity: Option<Box<[u8]>>,
        /// Why.
        failure: HandshakeFailure,
        /// Where it is.
        peer: SocketAddr,
    },
    /// It sent this.
    Data {
        /// In this session.
        session: SessionId,
        /// What.
        data: Vec<u8>,
        /// From where: not always where its session is, see [`Server::address`].
        peer: SocketAddr,
    },
    /// Its session ended.
    Closed {
        /// Which session.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Cookies that were sent.
    pub cookies: u64,
    /// Handshakes that were begun.
    pub handshakes: u64,
    /// Peers with good cookies that were left unanswered, because of how many there are.
    pub limited: u64,
    /// Records that belong to no session, or are none.
    pub unknown: u64,
    /// Records that are not authentic, or came before.
    pub rejected: u64,
    /// Sessions whose address changed.
    pub moved: u64,
    /// Sessions that were frozen.
    pub frozen: u64,
    /// Sessions that were thawed.
    pub thawed: u64,
    /// Sessions that were forgotten to make room.
    pub evicted: u64,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depths {
    /// Handshakes under way.
    pub handshakes: usize,
    /// Sessions in memory as the library has them.
    pub live: usize,
    /// Frozen sessions.
    pub frozen: usize,
    /// What all of them take, in bytes, about.
    pub bytes: usize,
}

/// One endpoint for all peers.
pub struct Server {
    settings: Arc<Settings>,
    config: ServerConfig,
    start: Instant,
    /// Answers strangers; the first good cookie makes a peer's of it.
    spare: Option<Spare>,
    handshakes: HashMap<SocketAddr, u32>,
    wheel: Wheel<SessionId>,
    allowance: Allowance,
    sessions: Sessions,
    heap: Heap,
    counters: Counters,
    output: VecDeque<Output>,
}

/// The context for strangers, and the end of the Connection ID that it offers.
struct Spare {
    context: Context,
    cid_tail: u16,
}

/// How many handshakes may be begun: a token bucket that holds a second's worth.
struct Allowance {
    tokens: f64,
    at: Instant,
}

impl Server {
    /// A server without peers.
    ///
    /// # Errors
    /// [`DtlsError::Certificate`] for a certificate that is none; [`DtlsError::Library`].
    pub fn new(config: ServerConfig, now: Instant) -> Result<Self, DtlsError> {
        let mut suites = Suite::PSK.to_vec();
        if config.allows_legacy_suites {
            suites.push(Suite::PSK_CBC_SHA);
        }
        if config.certificate.is_some() {
            suites.extend(Suite::ECDHE_ECDSA);
        }
        let settings = Settings::new(&Options {
            role: Role::Server,
            suites,
            certificate: config.certificate.as_ref(),
            psk: None,
            handshake_timeout: (config.handshake_timeout, config.max_handshake_duration),
            now,
        })?;
        Ok(Self {
            settings: Arc::new(settings),
            start: now,
            spare: None,
            handshakes: HashMap::new(),
            wheel: Wheel::new(now),
            allowance: Allowance {
                tokens: f64::from(config.max_handshakes_per_second),
                at: now,
            },
            // One more, for whoever comes before somebody goes.
            sessions: Sessions::new(config.max_sessions.saturating_add(1)),
            heap: Heap::new(now),
            counters: Counters::default(),
            output: VecDeque::new(),
            config,
        })
    }

    /// Says this node's number ([`ServerConfig::node`]) where that is known later; before the first datagram.
    pub fn set_node(&mut self, number: u16) {
        self.config.node = number;
    }

    /// Encrypts a message to a peer; a frozen session is thawed for it.
    ///
    /// # Errors
    /// [`DtlsError::NotConnected`]: there is no such session; [`DtlsError::TooLarge`]; [`DtlsError::Library`].
    pub fn send(&mut self, now: Instant, session: SessionId, data: &[u8]) -> Result<(), DtlsError> {
        if data.len() > MAX_DATA_BYTES {
            return Err(DtlsError::TooLarge);
        }
        let index = self.sessions.find(session).ok_or(DtlsError::NotConnected)?;
        if !self.wake(now, index) {
            return Err(DtlsError::NotConnected);
        }
        let slot = self.sessions.slot(index);
        let State::Live(live) = &mut slot.state else {
            return Err(DtlsError::NotConnected);
        };
        let sent = live.context.send(now, data);
        let (peer, datagrams) = (slot.address, live.context.take_output());
        self.transmit(peer, datagrams);
        sent
    }

    /// Ends a session or a handshake; the peer of a session is told. Nothing is said of it any more.
    pub fn close(&mut self, now: Instant, session: SessionId) {
        let Some(index) = self.sessions.find(session) else {
            return;
        };
        if matches!(self.sessions.slot(index).state, State::Handshake(_)) {
            return self.drop_handshake(index);
        }
        if self.wake(now, index) {
            self.say_goodbye(now, index);
        }
        self.forget(index);
    }

    /// Where the peer of a session is.
    pub fn address(&self, session: SessionId) -> Option<SocketAddr> {
        let index = self.sessions.find(session)?;
        self.sessions.get(index).map(|slot| slot.address)
    }

    /// Whether a datagram seems to be of someone who has shown to be there: by its address, or its Connection ID.
    pub fn is_known(&self, from: SocketAddr, datagram: &[u8]) -> bool {
        let cid = records(datagram).next().and_then(|record| record.cid);
        self.handshakes.contains_key(&from)
            || self.sessions.at_address(from).is_some()
            || cid.is_some_and(|cid| self.find_cid(cid).is_some())
    }

    /// The next thing to do; `None` when there is none until the next call.
    pub fn poll_output(&mut self) -> Option<Output> {
        let next = self.output.pop_front();
        if next.is_none() && self.output.capacity() > 1_024 {
            self.output = VecDeque::new();
        }
        next
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How much there is.
    pub fn depths(&self) -> Depths {
        Depths {
            handshakes: self.handshakes.len(),
            live: self.sessions.live(),
            frozen: self.sessions.len(ListId::Frozen),
            bytes: self.bytes(),
        }
    }

    fn transmit(&mut self, peer: SocketAddr, datagrams: Vec<Vec<u8>>) {
        let transmits = datagrams
            .into_iter()
            .map(|datagram| Output::Transmit { peer, datagram });
        self.output.extend(transmits);
    }

    fn tell(&mut self, event: Event) {
        self.output.push_back(Output::Event(event));
    }

    /// Seconds since the start.
    fn secs(&self, now: Instant) -> u32 {
        let secs = now.saturating_duration_since(self.start).as_secs();
        u32::try_from(secs).unwrap_or(u32::MAX)
    }
}

/// What cookies are made for.
fn transport_id(peer: SocketAddr) -> [u8; 18] {
    let ip = match peer.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut id = [0; 18];
    id[..16].copy_from_slice(&ip.octets());
    id[16..].copy_from_slice(&peer.port().to_be_bytes());
    id
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("depths", &self.depths())
            .finish_non_exhaustive()
    }
}
