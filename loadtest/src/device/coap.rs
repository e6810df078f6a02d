//! Devices by CoAP: they register, watch what waits for them, and take or send block by block.
//!
//! One task and one socket a device, as by MQTT. What it is about outlives its registration; a lost registration is made
//! anew by the same rules as a lost connection.  Spec: RFC 7252, 7641, 7959, 9175.

pub(crate) mod air;
mod channel;
mod dialogue;
mod line;
mod ping;
mod sending;
mod taking;

use std::sync::Arc;
use std::time::Duration;

use headgate_dtls::Credential;
use headgate_protocol::coap::{Code, Szx};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use self::air::{Air, Weather};
use self::channel::Channel;
use self::dialogue::Dialogue;
use self::line::Line;
use self::sending::Sending;
use self::taking::{Step, Taking};
use super::error::DeviceError;
use super::identity::{Fate, Identity, secret};
use super::work::Job;
use super::{Device, End};
use crate::cli::CoapArgs;
use crate::rng::Rng;
use crate::stats::Timing;
use crate::swarm::Swarm;

/// What all devices by CoAP have in common.
#[derive(Debug, Clone)]
pub(crate) struct CoapPlan {
    /// They speak DTLS, with a pre-shared key.
    pub(crate) is_secure: bool,
    /// What the network does to their datagrams.
    pub(crate) weather: Weather,
    /// Bytes a block.
    pub(crate) block: Szx,
    /// How long they sleep; `None`: never.
    pub(crate) sleep: Option<Duration>,
    /// How long they are awake.
    pub(crate) awake: Duration,
    /// After this they look by themselves.
    pub(crate) poll: Duration,
    /// `ACK_TIMEOUT`.
    pub(crate) ack_timeout: Duration,
}

/// What one device is about.
pub(super) enum Errand {
    /// It stays.
    Stay,
    /// It takes a delivery.
    Take(Taking),
    /// It sends a file.
    Send(Sending),
}

impl CoapPlan {
    /// What the command line says.
    pub(crate) fn new(args: &CoapArgs, is_secure: bool) -> Self {
        Self {
            is_secure,
            weather: Weather {
                loss: args.loss,
                duplicate: args.duplicate,
                reorder: args.reorder,
                rebind: args.rebind,
                delay: Duration::ZERO,
            },
            block: args.block,
            sleep: Some(args.sleep).filter(|sleep| !sleep.is_zero()),
            awake: args.awake,
            poll: args.poll,
            ack_timeout: args.ack_timeout,
        }
    }
}

impl Errand {
    /// What has not begun.
    pub(super) fn new(job: Option<&Job>, plan: &CoapPlan, identity: &Identity, fate: Fate) -> Self {
        match job {
            None => Self::Stay,
            Some(Job::Take(take)) => Self::Take(Taking::new(Arc::clone(take), plan.block, fate)),
            Some(Job::Send(send)) => {
                let send = Arc::clone(send);
                Self::Send(Sending::new(send, plan.block, identity, fate.drop_at))
            }
        }
    }

    /// Does what is left of it on this line.
    async fn run(&mut self, line: &mut Line) -> Result<Step, DeviceError> {
        match self {
            Self::Stay => stay(line).await,
            Self::Take(taking) => taking.run(line).await,
            Self::Send(sending) => sending.run(line).await,
        }
    }

    /// When it began.
    pub(super) const fn announced_at(&self) -> Option<Instant> {
        match self {
            Self::Stay => None,
            Self::Take(taking) => taking.announced_at,
            Self::Send(sending) => sending.announced_at,
        }
    }
}

impl Device {
    /// One registration from its first datagram to its end.
    pub(super) async fn registration(
        &mut self,
        plan: Arc<CoapPlan>,
        start: Option<Instant>,
    ) -> End {
        let swarm = Arc::clone(&self.swarm);
        let permit = tokio::select! {
            biased;
            () = swarm.stop.cancelled() => return End::Stopped,
            permit = swarm.connecting.acquire() => permit,
        };
        let start = start.unwrap_or_else(Instant::now);
        let deadline = Instant::now() + swarm.connect_timeout;
        let opened = Box::pin(self.open(plan, start));
        let opened = tokio::select! {
            biased;
            () = swarm.stop.cancelled() => return End::Stopped,
            opened = timeout_at(deadline, opened) => opened,
        };
        drop(permit);
        let line = match opened {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return End::Lost(error),
            Err(_elapsed) => {
                return End::Lost(DeviceError::ConnectTimeout("handshake and registration"));
            }
        };
        let Some(mut line) = line else {
            // The handshake was all.
            self.note_up(start);
            swarm.stop.cancelled().await;
            swarm.stats.connected.sub(1);
            return End::Stopped;
        };
        self.note_up(start);
        let end = tokio::select! {
            biased;
            () = swarm.stop.cancelled() => End::Stopped,
            end = Box::pin(self.run_errand(&mut line)) => end,
        };
        if matches!(end, End::Stopped) {
            line.leave();
        }
        line.count();
        swarm.stats.connected.sub(1);
        end
    }

    /// Handshake and registration; `None` where only the former was wanted.
    async fn open(
        &mut self,
        plan: Arc<CoapPlan>,
        start: Instant,
    ) -> Result<Option<Line>, DeviceError> {
        let index = self.identity.index;
        self.registrations += 1;
        let swarm = Arc::clone(&self.swarm);
        let air = Air::open(Arc::clone(&swarm), index, self.registrations);
        let air = air.map_err(DeviceError::Connect)?;
        let stream = DIALOGUE_STREAM + (u64::from(index) << 16) + u64::from(self.registrations);
        let seed = Rng::new(swarm.seed ^ u64::from(swarm.salt), stream).next_u64();
        let channel = if plan.is_secure {
            let channel = Channel::secure(air, &self.credential()?).await?;
            if !self.ever_ready {
                swarm.stats.record(Timing::Tls, start.elapsed());
            }
            channel
        } else {
            Channel::Plain(air)
        };
        if swarm.handshake_only {
            return Ok(None);
        }
        let dialogue = Dialogue::new(channel, plan.ack_timeout, seed);
        let line = Line::register(swarm, plan, dialogue, &self.identity);
        line.await.map(Some)
    }

    /// The key that the gateway has too: the secret is its hexadecimal digits.
    fn credential(&self) -> Result<Credential, DeviceError> {
        let secret = secret(self.swarm.seed, &self.identity.device_id);
        let key = hex::decode(secret);
        let key = key.map_err(|error| DeviceError::Unexpected(error.to_string()))?;
        Ok(Credential::Psk {
            identity: self.identity.device_id.clone().into_bytes(),
            key: Zeroizing::new(key),
        })
    }

    fn note_up(&mut self, start: Instant) {
        let stats = &self.swarm.stats;
        self.failures = 0;
        if !std::mem::replace(&mut self.ever_ready, true) {
            stats.ever_connected.add(1);
            stats.record(Timing::Ready, start.elapsed());
            self.swarm.note_ready();
        }
        stats.connected.add(1);
        self.up = true;
    }

    /// Does what the device is about, and stays.
    async fn run_errand(&mut self, line: &mut Line) -> End {
        if !self.ended {
            match self.errand.run(line).await {
                Ok(Step::Drop) => return End::Dropped,
                Ok(Step::Done) => self.on_work_ended(Ok(())),
                Err(error) if error.is_transient() => return End::Lost(error),
                Err(error) => self.on_work_ended(Err(error)),
            }
        }
        match line.stay().await {
            Ok(()) => End::Stopped,
            Err(error) => End::Lost(error),
        }
    }
}

/// Stays, and asks once when it is told to.
async fn stay(line: &mut Line) -> Result<Step, DeviceError> {
    let ask = line.swarm.ask.clone();
    tokio::select! {
        biased;
        () = ask.cancelled() => {}
        stayed = line.stay() => return stayed.map(|()| Step::Done),
    }
    let told = line.look().await?;
    if told.code != Code::CONTENT {
        return Err(DeviceError::Unexpected(line::text_of(&told)));
    }
    line.swarm.stats.answered.add(1);
    line.stay().await.map(|()| Step::Done)
}

/// Whether a gateway answers at all.
///
/// # Errors
/// [`DeviceError`].
pub(crate) async fn ping(swarm: &Arc<Swarm>, until: Instant) -> Result<bool, DeviceError> {
    let mut air = Air::open(Arc::clone(swarm), 0, 0).map_err(DeviceError::Connect)?;
    let is_secure = swarm.coap.as_ref().is_some_and(|plan| plan.is_secure);
    ping::ping(&mut air, is_secure, until).await
}

/// Keeps tokens and message ids apart from the other uses of the seed.
const DIALOGUE_STREAM: u64 = 1 << 49;
