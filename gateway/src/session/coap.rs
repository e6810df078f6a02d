//! Devices by CoAP: one server for all of them, driven by the edge.
//!
//! [`CoapServer`] owns the message layer and what is known of registered devices. The edge hands it datagrams, the time
//! and what [`CoapServer::changed`] waited for, and sends what [`CoapServer::poll_transmit`] gives. What takes its time
//! - the registry, a disk, a rate - runs as futures of this one task; there is none for a device.
//!
//! A device is registered, and awake or asleep. Awake it has a session in the node's table as one by MQTT has, and the
//! services reach it by that; asleep it has none, is sent nothing, and what waits for it stays where it is.
//!
//! Invariants: nothing but a registration is done for whoever does not name one; a source that has not proven that it
//! receives gets at most three times what it sent; every table is bounded by the configuration.
//! Spec: RFC 7252, 7641, 7959, 9175, and the interface of RFC 9176 for registration.

mod body;
mod deliveries;
mod messages;
mod peer;
mod ready;
mod register;
mod registration;
mod requests;
mod secured;
mod uploads;
mod wakefulness;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt,
    future::poll_fn,
    net::SocketAddr,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use headgate_protocol::coap::{
    Counters, EchoKey, Endpoint, Event, ExchangeId, Failure, Limits, Message, OptionNumber, Output,
    Parameters, Response,
};

pub use self::{
    peer::{AssociationId, Peer},
    registration::RdId,
    secured::{Secured, Shown},
};
use self::{
    ready::Ready,
    registration::Registrations,
    secured::{Association, Offered},
};
use super::node::Node;
use crate::{
    config::CoapConfig,
    model::{NoRandomness, PeerCertificate, random},
    service::{
        auth::{AuthError, AuthenticatedDevice, PresharedKey},
        delivery::{LiveDelivery, Refusal, StoreError},
        uplink::Stored,
        upload::LiveUpload,
    },
    telemetry::metrics::CoapListener,
};

/// The options that are acted on here.
const KNOWN: &[OptionNumber] = &[
    OptionNumber::IF_MATCH,
    OptionNumber::URI_HOST,
    OptionNumber::URI_PORT,
    OptionNumber::URI_PATH,
    OptionNumber::URI_QUERY,
    OptionNumber::ACCEPT,
    OptionNumber::BLOCK1,
    OptionNumber::BLOCK2,
];
/// Confirmable messages that wait for one device.
const MAX_WAITING: usize = 4;
/// How often the gauges are set and devices that were told of a delivery are looked after.
const TICK: Duration = Duration::from_secs(1);

/// What the server wants to know again of a message of its own.
#[derive(Clone, Debug)]
enum Tag {
    /// It told the device of this delivery.
    Announced(RdId, Arc<LiveDelivery>),
    /// It was the last part of this message from an application.
    Command(RdId, u32),
    /// It was the last block of the delivery that the device reads.
    LastBlock(RdId),
    /// Nothing depends on it but whether the device can be reached.
    Told(RdId),
}

/// A request that is being worked on.
#[derive(Debug)]
struct Asked {
    exchange: ExchangeId,
    peer: Peer,
    /// Where it came from.
    source: Option<SocketAddr>,
    message: Box<Message>,
    /// Whoever asks receives at that address.
    is_proven: bool,
}

/// What came of work that took its time.
enum Done {
    Answer(Asked, Response),
    Registered(
        Asked,
        Box<str>,
        Result<Option<AuthenticatedDevice>, AuthError>,
    ),
    Admitted(Asked, RdId, Result<Option<AuthenticatedDevice>, AuthError>),
    Begun(Asked, RdId, Result<Arc<LiveDelivery>, Refusal>),
    Read(Asked, RdId, Result<Bytes, StoreError>),
    Mail(Option<Asked>, RdId, Result<Option<Arc<Stored>>, StoreError>),
    Uploaded(Asked, RdId, Option<Arc<LiveUpload>>, Response),
    Key(
        AssociationId,
        Box<str>,
        Result<Option<PresharedKey>, AuthError>,
    ),
    Certified(
        AssociationId,
        Arc<PeerCertificate>,
        Result<Option<Box<str>>, AuthError>,
    ),
    Secured(
        Asked,
        AssociationId,
        Result<Option<AuthenticatedDevice>, AuthError>,
    ),
    Nothing,
}

type Work = std::pin::Pin<Box<dyn Future<Output = Done> + Send>>;

/// What [`CoapServer::changed`] waited for.
pub struct Change(Changed);

enum Changed {
    Done(Done),
    Ready(Vec<RdId>),
}

/// When something is to be done for a device.
#[derive(Clone, Copy, Debug)]
enum Timer {
    Expire(RdId),
    Sleep(RdId),
    /// Tells it what waits.
    Tell(RdId),
    Tick,
}

/// The devices of one listener.
pub struct CoapServer {
    node: Arc<Node>,
    config: CoapConfig,
    /// What is counted of its listener.
    metrics: CoapListener,
    endpoint: Endpoint<Peer, Tag>,
    registrations: Registrations,
    work: FuturesUnordered<Work>,
    ready: Arc<Ready>,
    timers: BTreeMap<(Instant, u64), Timer>,
    timers_set: u64,
    /// Devices that were told of a delivery and have not acknowledged that.
    announcing: BTreeSet<RdId>,
    echo: EchoKey,
    /// The clock of Echo begins here.
    started: Instant,
    commands: u32,
    counted: Counters,
    outgoing: VecDeque<(Peer, Bytes)>,
    /// Where the datagram that is being taken came from.
    source: Option<SocketAddr>,
    /// Who is at the other end of each association.
    associations: HashMap<AssociationId, Association>,
    /// Handshakes that were given a key.
    offered: HashMap<AssociationId, Offered>,
    /// Requests of associations whose certificate is being looked up.
    unsettled: HashMap<AssociationId, Vec<Asked>>,
    secured: VecDeque<Secured>,
    /// Whoever asks is told to come again.
    is_draining: bool,
}

impl CoapServer {
    /// A server for devices that come in the clear, without any.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn plain(node: Arc<Node>, config: CoapConfig, now: Instant) -> Result<Self, NoRandomness> {
        let metrics = node.metrics.coap.plain.clone();
        Self::new(node, config, metrics, now)
    }

    /// A server for devices that come over DTLS, without any.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn secure(node: Arc<Node>, config: CoapConfig, now: Instant) -> Result<Self, NoRandomness> {
        let metrics = node.metrics.coap.secure.clone();
        Self::new(node, config, metrics, now)
    }

    fn new(
        node: Arc<Node>,
        config: CoapConfig,
        metrics: CoapListener,
        now: Instant,
    ) -> Result<Self, NoRandomness> {
        let parameters = Parameters {
            ack_timeout: config.ack_timeout,
            max_retransmit: config.max_retransmit,
            ..Parameters::default()
        };
        let limits = Limits {
            max_received: config.max_remembered,
            max_reply_bytes: config.max_reply_bytes,
            max_exchanges: config.max_requests,
            max_peers: config.max_registrations,
            max_waiting: MAX_WAITING,
            ..Limits::default()
        };
        let seed = u64::from_ne_bytes(random()?);
        let mut server = Self {
            endpoint: Endpoint::new(parameters, limits, KNOWN, seed),
            registrations: Registrations::new(config.max_registrations),
            work: FuturesUnordered::new(),
            ready: Arc::default(),
            timers: BTreeMap::new(),
            timers_set: 0,
            announcing: BTreeSet::new(),
            echo: EchoKey::new(random()?),
            started: now,
            commands: 0,
            counted: Counters::default(),
            outgoing: VecDeque::new(),
            source: None,
            associations: HashMap::new(),
            offered: HashMap::new(),
            unsettled: HashMap::new(),
            secured: VecDeque::new(),
            is_draining: false,
            node,
            config,
            metrics,
        };
        server.set_timer(now + TICK, Timer::Tick);
        Ok(server)
    }

    /// Takes a datagram that came from this address: in the clear, or in this association.
    pub fn handle_datagram(&mut self, now: Instant, peer: Peer, from: SocketAddr, datagram: &[u8]) {
        self.source = Some(from);
        self.endpoint.handle_datagram(now, peer, datagram);
        self.settle(now);
        self.source = None;
    }

    /// The next datagram to send; `None` when there is none until the next call.
    pub fn poll_transmit(&mut self) -> Option<(Peer, Bytes)> {
        let next = self.outgoing.pop_front();
        if next.is_none() && self.outgoing.capacity() > 1_024 {
            self.outgoing = VecDeque::new();
        }
        next
    }

    /// When [`CoapServer::handle_timeout`] wants to be called.
    pub fn timeout(&self) -> Option<Instant> {
        let own = self.timers.first_key_value().map(|((at, _), _)| *at);
        [own, self.endpoint.timeout()].into_iter().flatten().min()
    }

    /// Takes note of the time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.endpoint.handle_timeout(now);
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Timer::Expire(id) => self.expire(now, id),
                Timer::Sleep(id) => self.may_sleep(now, id),
                Timer::Tell(id) => self.tell_what_waits(now, id),
                Timer::Tick => self.tick(now),
            }
        }
        self.settle(now);
    }

    /// Waits until work is done or a device is signalled, to be acted on with [`CoapServer::act`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn changed(&mut self) -> Change {
        poll_fn(|cx| {
            if let Poll::Ready(Some(done)) = self.work.poll_next_unpin(cx) {
                return Poll::Ready(Change(Changed::Done(done)));
            }
            let ready = self.ready.poll(cx);
            ready.map(|devices| Change(Changed::Ready(devices)))
        })
        .await
    }

    /// Acts on what [`CoapServer::changed`] gave.
    pub fn act(&mut self, now: Instant, change: Change) {
        match change.0 {
            Changed::Done(done) => self.finish(now, done),
            Changed::Ready(devices) => {
                for id in devices {
                    self.handle_signals(now, id);
                }
            }
        }
        self.settle(now);
    }

    /// Whether a device is registered at this address, or has shown that it receives there.
    pub fn is_known(&self, address: SocketAddr) -> bool {
        self.registrations.is_known(address)
    }

    /// From here on whoever asks is told to come again; what is under way goes on.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether nobody is here and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.registrations.len() == 0 && self.associations.is_empty() && self.work.is_empty()
    }

    /// Ends: every device that is awake leaves the node, and its deliveries keep where they are.
    pub fn end(mut self) {
        for id in self.registrations.ids() {
            self.leave_node(id);
        }
        self.metrics.registrations.set(0);
    }

    /// Does what the message layer says, until it says nothing more.
    fn settle(&mut self, now: Instant) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit { peer, datagram } => self.outgoing.push_back((peer, datagram)),
                Output::Event(Event::Request {
                    exchange,
                    peer,
                    message,
                }) => {
                    let asked = Asked {
                        exchange,
                        peer,
                        source: self.source,
                        message,
                        is_proven: peer.is_proven(),
                    };
                    self.handle_request(now, asked);
                }
                Output::Event(Event::Acknowledged(tag)) => self.on_acknowledged(now, tag),
                Output::Event(Event::Failed { tag, failure }) => self.on_failed(&tag, failure),
                // The gateway asks devices nothing.
                Output::Event(Event::Response { .. }) => {}
            }
        }
    }

    fn finish(&mut self, now: Instant, done: Done) {
        match done {
            Done::Answer(asked, response) => self.answer(now, &asked, response),
            Done::Registered(asked, name, device) => self.on_registered(now, &asked, name, device),
            Done::Admitted(asked, id, device) => self.on_admitted(now, asked, id, device),
            Done::Begun(asked, id, delivery) => self.on_begun(now, asked, id, delivery),
            Done::Read(asked, id, bytes) => self.on_read(now, &asked, id, bytes),
            Done::Mail(asked, id, found) => self.on_mail(now, asked, id, found),
            Done::Uploaded(asked, id, upload, response) => {
                self.on_uploaded(now, &asked, id, upload, response);
            }
            Done::Key(association, name, key) => self.on_key(association, name, key),
            Done::Certified(association, certificate, found) => {
                self.on_certified(association, certificate, found);
            }
            Done::Secured(asked, association, device) => {
                self.on_secured(now, asked, association, device);
            }
            Done::Nothing => {}
        }
    }

    fn on_acknowledged(&mut self, now: Instant, tag: Tag) {
        match tag {
            Tag::Announced(id, delivery) => self.on_announced(id, delivery),
            Tag::Command(id, serial) => self.on_command_acknowledged(now, id, serial),
            Tag::LastBlock(id) => self.on_last_block(id),
            Tag::Told(_) => {}
        }
    }

    fn on_failed(&mut self, tag: &Tag, failure: Failure) {
        let (Tag::Announced(id, _) | Tag::Command(id, _) | Tag::LastBlock(id) | Tag::Told(id)) =
            tag;
        self.announcing.remove(id);
        let Some(registration) = self.registrations.get_mut(*id) else {
            return;
        };
        match (tag, failure) {
            // [RFC 7641 s3.6]: it does not watch any more.
            (Tag::Announced(..), Failure::Reset) => registration.deliveries = None,
            (Tag::Command(..), Failure::Reset) => {
                registration.commands = None;
                registration.command = None;
            }
            (_, Failure::Reset) => {}
            // Out of reach: the relation stays, and the device is sent nothing until it is heard of.
            (_, Failure::Timeout) => self.fall_asleep(*id),
        }
    }

    fn set_timer(&mut self, at: Instant, timer: Timer) {
        self.timers_set += 1;
        self.timers.insert((at, self.timers_set), timer);
    }

    fn spawn(&self, work: impl Future<Output = Done> + Send + 'static) {
        self.work.push(Box::pin(work));
    }

    /// Answers a request, or has whoever may be somebody else prove first that it receives what is sent to it.
    fn answer(&mut self, now: Instant, asked: &Asked, response: Response) {
        let response = self.fit(asked, response);
        self.endpoint.respond(now, asked.exchange, response);
    }

    /// The response, where it may go to this peer.
    fn fit(&self, asked: &Asked, response: Response) -> Response {
        let most = asked.message.encoded_bytes() * MAX_AMPLIFICATION;
        if asked.is_proven || response.encoded_bytes(asked.message.token) <= most {
            return response;
        }
        self.node.metrics.coap.echo.inc();
        self.ask_for_echo(asked.peer)
    }

    fn tick(&mut self, now: Instant) {
        let (metrics, events) = (&self.metrics, &self.node.metrics.coap);
        let (depths, counters) = (self.endpoint.depths(), self.endpoint.counters());
        for (gauge, depth) in [
            (&metrics.requests, depths.exchanges),
            (&metrics.remembered, depths.received),
            (&metrics.reply_bytes, depths.reply_bytes),
            (&metrics.peers, depths.peers),
            (&metrics.registrations, self.registrations.len()),
        ] {
            gauge.set(i64::try_from(depth).unwrap_or(i64::MAX));
        }
        let before = std::mem::replace(&mut self.counted, counters);
        for (counter, before, after) in [
            (&events.malformed, before.malformed, counters.malformed),
            (&events.duplicate, before.duplicates, counters.duplicates),
            (&events.timeout, before.timeouts, counters.timeouts),
            (&events.rejected, before.rejected, counters.rejected),
            (&events.overloaded, before.overloaded, counters.overloaded),
            (
                &metrics.retransmissions,
                before.retransmissions,
                counters.retransmissions,
            ),
        ] {
            counter.inc_by(after - before);
        }
        self.look_after_announced();
        self.set_timer(now + TICK, Timer::Tick);
    }
}

/// The most that a source which may be someone else's gets for what it sent. [RFC 9175 s2.6]
const MAX_AMPLIFICATION: usize = 3;

impl fmt::Debug for CoapServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoapServer")
            .field("registrations", &self.registrations.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change")
    }
}

/// Why a request could not be served, as a response.
fn unavailable(secs: u32) -> Response {
    Response::new(headgate_protocol::coap::Code::SERVICE_UNAVAILABLE)
        .with_uint(OptionNumber::MAX_AGE, secs)
        .repeatable()
}
