//! The MQTT side of one connection, without I/O: login, subscription, keep-alive.
//!
//! Driven by [`super::Device`]; packets that concern what the device does go to its [`Work`].
//! Invariants: stages only advance; CONNECT is the first packet, SUBSCRIBE the second.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use headgate_protocol::mqtt::{
    Packet, PacketId, ProtocolVersion, PubAck, QoS, ReasonCode, Subscribe, Subscription,
    TopicFilter,
};
use tokio::time::Instant;

use super::error::DeviceError;
use super::link::Handler;
use super::login::Login;
use super::pulse::Pulse;
use super::transfer::Transfer;
use super::work::Work;

/// What a device logs in with.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    /// The fields of CONNECT.
    pub(crate) login: Login,
    /// `{product}/{device}`.
    pub(crate) own: String,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// CONNECT was sent.
    LoggingIn,
    /// SUBSCRIBE was sent.
    Subscribing,
    /// Everything was granted.
    Ready,
}

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Session {
    version: ProtocolVersion,
    own: Arc<str>,
    stage: Stage,
    pulse: Pulse,
    logged_in_at: Option<Instant>,
}

impl Session {
    /// Starts a connection: CONNECT goes to `out`.
    ///
    /// # Errors
    /// [`DeviceError::Encode`].
    pub(crate) fn start(
        version: ProtocolVersion,
        credential: &Credential,
        keep_alive: Duration,
        now: Instant,
        out: &mut BytesMut,
    ) -> Result<Self, DeviceError> {
        let pulse = Pulse::new(keep_alive, now);
        let connect = credential.login.connect(version, pulse.secs());
        Packet::Connect(Box::new(connect)).encode(version, out)?;
        Ok(Self {
            version,
            own: credential.own.as_str().into(),
            stage: Stage::LoggingIn,
            pulse,
            logged_in_at: None,
        })
    }

    /// Where the connection stands.
    pub(crate) const fn stage(&self) -> Stage {
        self.stage
    }

    /// When CONNACK came.
    pub(crate) const fn logged_in_at(&self) -> Option<Instant> {
        self.logged_in_at
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

    fn handle(
        &mut self,
        packet: Packet,
        work: Option<&mut Work>,
        out: &mut BytesMut,
    ) -> Result<(), DeviceError> {
        self.pulse.heard();
        match (self.stage, packet) {
            (Stage::LoggingIn, Packet::ConnAck(ack)) => {
                if ack.reason != ReasonCode::Success {
                    return Err(DeviceError::LoginRefused(ack.reason));
                }
                self.logged_in_at = Some(Instant::now());
                self.stage = Stage::Subscribing;
                self.subscribe(out)
            }
            (Stage::Subscribing, Packet::SubAck(ack)) => {
                if let Some(&refused) = ack.reasons.iter().find(|reason| reason.is_error()) {
                    return Err(DeviceError::SubscribeRefused(refused));
                }
                self.stage = Stage::Ready;
                work.map_or(Ok(()), |work| work.on_ready(Instant::now(), out))
            }
            (Stage::Subscribing | Stage::Ready, Packet::Publish(publish)) => match work {
                Some(work) => work.on_publish(Instant::now(), &publish, out),
                None => publish.packet_id.map_or(Ok(()), |id| self.puback(id, out)),
            },
            (Stage::Ready, Packet::PubAck(ack)) => match work {
                Some(work) => work.on_puback(Instant::now(), &ack, out),
                None => Ok(()),
            },
            (Stage::Ready, Packet::PingResp) => Ok(()),
            (_, Packet::Disconnect(disconnect)) => {
                Err(DeviceError::Disconnected(disconnect.reason))
            }
            (stage, packet) => {
                let text: String = format!("{packet:?}").chars().take(120).collect();
                Err(DeviceError::Unexpected(format!("while {stage:?}: {text}")))
            }
        }
    }

    fn subscribe(&self, out: &mut BytesMut) -> Result<(), DeviceError> {
        let filters = Transfer::filters(&self.own).into_iter().map(|filter| {
            TopicFilter::try_from(filter).map(|filter| Subscription::new(filter, QoS::AtLeastOnce))
        });
        let filters = filters
            .collect::<Result<_, _>>()
            .map_err(|violation| DeviceError::Unexpected(violation.to_string()))?;
        let subscribe = Subscribe {
            packet_id: PacketId::MIN,
            filters,
            properties: None,
        };
        Ok(Packet::Subscribe(Box::new(subscribe)).encode(self.version, out)?)
    }

    fn puback(&self, packet_id: PacketId, out: &mut BytesMut) -> Result<(), DeviceError> {
        let ack = PubAck {
            packet_id,
            reason: ReasonCode::Success,
            properties: None,
        };
        Ok(Packet::PubAck(ack).encode(self.version, out)?)
    }
}

/// A connection's state with what the device does, as a link drives them.
#[derive(Debug)]
pub(crate) struct Driven<'a> {
    /// The connection.
    pub(crate) session: &'a mut Session,
    /// What the device does, if anything.
    pub(crate) work: Option<&'a mut Work>,
}

impl Handler for Driven<'_> {
    fn handle(&mut self, packet: Packet, out: &mut BytesMut) -> Result<bool, DeviceError> {
        let before = self.session.stage;
        self.session.handle(packet, self.work.as_deref_mut(), out)?;
        let event = self.work.as_ref().is_some_and(|work| work.has_event());
        Ok(!event && self.session.stage == before)
    }
}
