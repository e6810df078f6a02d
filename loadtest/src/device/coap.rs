//! Devices by CoAP: they register, watch what waits for them, and take or send block by block.
//!
//! One task and one socket a device, as by MQTT. What it is about outlives its registration; a lost registration is made
//! anew by the same rules as a lost connection.  Spec: RFC 7252, 7641, 7959, 9175.

pub(crate) mod air;
mod dialogue;
mod line;
mod sending;
mod taking;

use std::sync::Arc;
use std::time::Duration;

use headgate_protocol::coap::Szx;
use tokio::time::{Instant, timeout_at};

use self::air::{Air, Weather};
use self::dialogue::Dialogue;
use self::line::Line;
use self::sending::Sending;
use self::taking::{Step, Taking};
use super::error::DeviceError;
use super::identity::{Fate, Identity};
use super::work::Job;
use super::{Device, End};
use crate::cli::CoapArgs;
use crate::rng::Rng;
use crate::stats::Timing;
use crate::swarm::Swarm;

/// What all devices by CoAP have in common.
#[derive(Debug, Clone)]
pub(crate) struct CoapPlan {
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
    pub(crate) fn new(args: &CoapArgs) -> Self {
        Self {
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
            Self::Stay => line.stay().await.map(|()| Step::Done),
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
        let opened = tokio::select! {
            biased;
            () = swarm.stop.cancelled() => return End::Stopped,
            opened = timeout_at(deadline, Box::pin(self.register(plan))) => opened,
        };
        drop(permit);
        let mut line = match opened {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return End::Lost(error),
            Err(_elapsed) => return End::Lost(DeviceError::ConnectTimeout("registration")),
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

    async fn register(&mut self, plan: Arc<CoapPlan>) -> Result<Line, DeviceError> {
        let index = self.identity.index;
        self.registrations += 1;
        let swarm = Arc::clone(&self.swarm);
        let air = Air::open(Arc::clone(&swarm), index, self.registrations);
        let air = air.map_err(DeviceError::Connect)?;
        let stream = DIALOGUE_STREAM + (u64::from(index) << 16) + u64::from(self.registrations);
        let seed = Rng::new(swarm.seed ^ u64::from(swarm.salt), stream).next_u64();
        let dialogue = Dialogue::new(air, plan.ack_timeout, seed);
        Line::register(swarm, plan, dialogue, &self.identity).await
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

/// Whether a gateway answers at all.
///
/// # Errors
/// [`DeviceError`].
pub(crate) async fn ping(swarm: &Arc<Swarm>, until: Instant) -> Result<bool, DeviceError> {
    let mut air = Air::open(Arc::clone(swarm), 0, 0).map_err(DeviceError::Connect)?;
    dialogue::ping(&mut air, until).await
}

/// Keeps tokens and message ids apart from the other uses of the seed.
const DIALOGUE_STREAM: u64 = 1 << 49;
