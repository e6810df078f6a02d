//! One connection of a device or a listener: login, subscription, keep-alive, without I/O.
//!
//! Invariants: CONNECT is the first packet; nothing is published before everything was granted.

use std::num::NonZeroU16;
use std::time::Duration;

use bytes::BytesMut;
use headgate_protocol::mqtt::{
    Packet, PacketId, ProtocolVersion, QoS, ReasonCode, Subscribe, Subscription, TopicFilter,
};
use tokio::time::{Instant, timeout_at};

use super::Traffic;
use crate::device::error::DeviceError;
use crate::device::identity::Identity;
use crate::device::link::{Handler, Link};
use crate::device::login::Login;
use crate::device::pulse::Pulse;
use crate::stats::Timing;
use crate::target::source_address;

/// What a connection stands for.
#[derive(Debug)]
pub(crate) struct Conn {
    version: ProtocolVersion,
    stage: Stage,
    /// What is subscribed to, and how.
    filter: Option<(TopicFilter, QoS)>,
    pulse: Pulse,
    /// How many messages the server lets be unacknowledged.
    receive_maximum: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    LoggingIn,
    Subscribing,
    Ready,
}

impl Conn {
    /// Sends CONNECT.
    ///
    /// # Errors
    /// [`DeviceError::Encode`].
    pub(crate) fn start(
        version: ProtocolVersion,
        login: &Login,
        keep_alive: Duration,
        filter: Option<(TopicFilter, QoS)>,
        out: &mut BytesMut,
    ) -> Result<Self, DeviceError> {
        let pulse = Pulse::new(keep_alive, Instant::now());
        Packet::Connect(Box::new(login.connect(version, pulse.secs()))).encode(version, out)?;
        Ok(Self {
            version,
            stage: Stage::LoggingIn,
            filter,
            pulse,
            receive_maximum: u16::MAX,
        })
    }

    /// The version that is spoken.
    pub(crate) const fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// Everything was granted.
    pub(crate) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// How many messages the server lets be unacknowledged.
    pub(crate) const fn receive_maximum(&self) -> u16 {
        self.receive_maximum
    }

    /// When [`Self::on_timer`] has something to do.
    pub(crate) const fn deadline(&self) -> Instant {
        self.pulse.next()
    }

    /// Sends PINGREQ when it is time.
    ///
    /// # Errors
    /// [`DeviceError::Silent`] when the last one was not answered, [`DeviceError::Encode`].
    pub(crate) fn on_timer(&mut self, now: Instant, out: &mut BytesMut) -> Result<(), DeviceError> {
        self.pulse.beat(now, self.version, out)
    }

    /// Takes what is the connection's own; gives back what is not.
    ///
    /// # Errors
    /// Refusals, [`DeviceError::Disconnected`], [`DeviceError::Unexpected`].
    pub(crate) fn take(
        &mut self,
        packet: Packet,
        out: &mut BytesMut,
    ) -> Result<Option<Packet>, DeviceError> {
        self.pulse.heard();
        match (self.stage, packet) {
            (Stage::LoggingIn, Packet::ConnAck(ack)) => {
                if ack.reason != ReasonCode::Success {
                    return Err(DeviceError::LoginRefused(ack.reason));
                }
                let properties = ack.properties.as_deref();
                let receive = properties.and_then(|properties| properties.receive_maximum);
                self.receive_maximum = receive.map_or(u16::MAX, NonZeroU16::get);
                self.stage = match self.filter.take() {
                    // What was subscribed to is so still, and messages may follow at once.
                    Some(_) if ack.session_present => Stage::Ready,
                    Some((filter, qos)) => {
                        let subscribe = Subscribe {
                            packet_id: PacketId::MIN,
                            filters: std::iter::once(Subscription::new(filter, qos)).collect(),
                            properties: None,
                        };
                        Packet::Subscribe(Box::new(subscribe)).encode(self.version, out)?;
                        Stage::Subscribing
                    }
                    None => Stage::Ready,
                };
                Ok(None)
            }
            (Stage::Subscribing, Packet::SubAck(ack)) => {
                if let Some(&refused) = ack.reasons.iter().find(|reason| reason.is_error()) {
                    return Err(DeviceError::SubscribeRefused(refused));
                }
                self.stage = Stage::Ready;
                Ok(None)
            }
            (_, Packet::PingResp) => Ok(None),
            (_, Packet::Disconnect(disconnect)) => {
                Err(DeviceError::Disconnected(disconnect.reason))
            }
            (Stage::Subscribing | Stage::Ready, other) => Ok(Some(other)),
            (Stage::LoggingIn, other) => Err(DeviceError::Unexpected(format!(
                "{:?} before CONNACK",
                other.packet_type()
            ))),
        }
    }
}

/// A connection that is being opened: nobody else takes packets yet.
struct Opening<'a>(&'a mut Conn);

impl Handler for Opening<'_> {
    fn handle(&mut self, packet: Packet, out: &mut BytesMut) -> Result<bool, DeviceError> {
        let before = self.0.stage;
        self.0.take(packet, out)?;
        Ok(self.0.stage == before)
    }
}

/// Opens a connection up to what its owner asked for; times count from `start` where they are taken.
///
/// # Errors
/// [`DeviceError`] of what went wrong.
///
/// # Cancel safety
/// The connection is lost.
pub(crate) async fn open(
    traffic: &Traffic,
    identity: Option<&Identity>,
    login: &Login,
    filter: Option<(TopicFilter, QoS)>,
    start: Option<Instant>,
) -> Result<(Link, Conn), DeviceError> {
    let swarm = &traffic.swarm;
    let deadline = Instant::now() + swarm.connect_timeout;
    let index = identity.map_or(0, |identity| identity.index);
    let source = source_address(swarm.dial.address, index, swarm.salt);
    let connector = identity.map_or(Ok(None), |identity| swarm.connector(identity))?;
    let opened = swarm.dial.open_as(connector.as_ref(), source, None);
    let socket = timeout_at(deadline, opened).await;
    let socket = socket.map_err(|_| DeviceError::ConnectTimeout("tcp and tls"))??;
    let note = |timing| {
        if let Some(start) = start {
            swarm.stats.record(timing, start.elapsed());
        }
    };
    note(Timing::Tls);
    let mut link = Link::new(socket, swarm.version);
    let mut conn = None;
    link.send(|out| {
        conn = Some(Conn::start(
            swarm.version,
            login,
            swarm.keep_alive,
            filter,
            out,
        )?);
        Ok(())
    })
    .await?;
    let Some(mut conn) = conn else {
        return Err(DeviceError::Unexpected("no connection".into()));
    };
    while !conn.is_ready() {
        let was = conn.stage;
        let mut opening = Opening(&mut conn);
        let turn = timeout_at(deadline, link.turn(&mut opening)).await;
        turn.map_err(|_| DeviceError::ConnectTimeout("login and subscribe"))??;
        if was == Stage::LoggingIn && conn.stage != was {
            note(Timing::Login);
        }
    }
    note(Timing::Ready);
    Ok((link, conn))
}
